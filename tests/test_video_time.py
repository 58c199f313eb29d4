"""Frames of films by time: uneven, missing, late and repeated ones, and files that are no films."""

import os

import numpy as np
import pytest

from tests.films import SIDE, ffmpeg, film, numbers
from uva_agents.commands.label import read_video, resampled
from uva_agents.data import inspect_dataset, open_dataset
from uva_agents.data.ffmpeg import FrameTimes
from uva_agents.data.video import VideoFrames, VideoWriter, decode, probe
from uva_agents.errors import DataError, InputError


def seen(times, fps):
    """The frame that is seen at each step."""
    times = np.asarray(times) - times[0]
    steps = np.arange(int(np.ceil(times[-1] * fps - 1e-6)) + 1) / fps
    return np.array([np.flatnonzero(times <= step + 1e-3)[-1] for step in steps])


@pytest.mark.parametrize(
    ("times", "fps", "wanted"),
    [
        ("if(lt(N,20),N/30,20/30+(N-20)/6)", 30, [k / 30 if k < 20 else 20 / 30 + (k - 20) / 6 for k in range(40)]),
        ("if(lt(N,20),N/6,20/6+(N-20)/30)", 30, [k / 6 if k < 20 else 20 / 6 + (k - 20) / 30 for k in range(40)]),
        ("(N+5*gte(N,13))/10", 10, [(k + 5 * (k >= 13)) / 10 for k in range(40)]),  # five were lost
        ("if(lt(N,20),N/10,2+(N-20)*0.125)", 10, [k / 10 if k < 20 else 2 + (k - 20) * 0.125 for k in range(40)]),
    ],
    ids=["fast, then slow", "slow, then fast", "a hole", "nearly the same"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_uneven_frames_are_read_at_their_times_and_that_is_said(tmp_path, times, fps, wanted, suffix):
    film(tmp_path / f"a{suffix}", times=times)
    dataset = open_dataset(tmp_path)
    found = numbers(dataset.arrays["pixels"])
    assert abs(dataset.control_hz - fps) < 0.5
    assert set(found) == set(range(40)) and (np.diff(found) >= 0).all()
    shown_at = np.asarray(wanted)[found]
    next_at = np.append(wanted, np.inf)[found + 1]
    now, slack = np.arange(len(found)) / dataset.control_hz, 0.26 / fps
    assert (shown_at <= now + slack).all() and (now < next_at + 1e-3).all()
    assert any(f"a{suffix}: its 40 frames are" in note for note in dataset.notes)
    problems = inspect_dataset(dataset, every_frame=True).problems
    assert not [problem for problem in problems if "shorter" not in problem and "one colour" not in problem]
    np.testing.assert_array_equal(numbers(dataset.arrays["pixels"][[0, 30, len(found) - 1]]), found[[0, 30, -1]])


@pytest.mark.parametrize("kind", ["holes", "random", "two rates", "one hole", "long tails"])
def test_at_any_times_every_frame_is_seen_and_none_goes_back(tmp_path, monkeypatch, kind):
    rng = np.random.default_rng(5)
    known = {}
    monkeypatch.setattr("uva_agents.data.video.packet_times", lambda path: FrameTimes(known["times"]))
    monkeypatch.setattr("uva_agents.data.video.first_size", lambda path, beyond_s: (8, 8))
    for _ in range(100):
        count, period = int(rng.integers(2, 300)), 1 / rng.choice([10, 15, 24, 25, 29.97, 30, 50, 59.94, 60])
        gaps = {
            "holes": period * rng.integers(1, 8, count - 1),
            "random": rng.uniform(period, 6 * period, count - 1),
            "two rates": period * np.where(np.arange(count - 1) < count // 2, 1, rng.choice([1.25, 2, 5, 7.3])),
            "one hole": period * np.where(np.arange(count - 1) == count // 3, 40, 1),
            "long tails": period * (1 + rng.exponential(1, count - 1)),
        }[kind]
        tick = rng.choice([1 / 15360, 1 / 1000, 1 / 90000])
        times = np.rint((rng.choice([0, 1.5]) + np.concatenate([[0], np.cumsum(gaps)])) / tick) * tick
        known["times"] = times
        info = probe(tmp_path / "a.mp4")
        rows, since = info.rows(), times - times[0]
        assert set(rows) == set(range(count)) and (np.diff(rows) >= 0).all()
        if not info.even:  # not a quarter of a step too early, and never after the next one
            now = np.arange(len(rows)) / info.fps
            assert ((since[rows] - now) * info.fps <= 0.2501).all()
            assert (now < np.append(since, np.inf)[rows + 1] + 1e-6).all()


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("offset.mp4", ("-c:v", "libx264"), ("-output_ts_offset", "1.5")),
        ("b frames.mp4", ("-c:v", "libx264", "-bf", "3", "-g", "30"), ()),
        ("milliseconds.mkv", ("-c:v", "libx264"), ()),
        ("no times of packets.avi", ("-c:v", "libx264", "-bf", "2"), ("-fps_mode", "cfr", "-enc_time_base", "1/10")),
        ("old.avi", ("-c:v", "mpeg4", "-q", "2"), ("-fps_mode", "cfr", "-enc_time_base", "1/10")),
        ("web.webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8"), ()),
        ("faststart.mov", ("-c:v", "libx264"), ("-movflags", "+faststart")),
        ("fragments.mp4", ("-c:v", "libx264"), ("-movflags", "frag_keyframe+empty_moov")),
        ("a:b'c %d é.mp4", ("-c:v", "libx264"), ()),
    ],
)
def test_containers_offsets_and_reordered_frames(tmp_path, name, codec, options):
    info = probe(film(tmp_path / name, codec=codec, options=options))
    assert (info.fps, info.shape, info.frames, info.even) == (10, (SIDE, SIDE, 3), 40, True)
    assert numbers(VideoFrames(tmp_path / name, info).read(np.arange(40))).tolist() == list(range(40))
    for begin in (1, 17, 39):
        assert numbers(decode(tmp_path / name, info, begin, 1)) == [begin]


def test_jitter_of_a_camera_moves_nothing(tmp_path):
    info = probe(film(tmp_path / "a.mp4", times="(N+0.2*sin(2*N))/10"))
    assert info.even and abs(info.fps - 10) < 0.1 and len(info.rows()) == 40


def test_edit_lists_sound_and_rotation_are_followed(tmp_path):
    film(tmp_path / "whole.mp4", codec=("-c:v", "libx264", "-g", "40"))
    ffmpeg("-ss", "1.25", "-i", str(tmp_path / "whole.mp4"), "-c", "copy", str(tmp_path / "cut.mp4"))
    info = probe(tmp_path / "cut.mp4")
    assert numbers(decode(tmp_path / "cut.mp4", info, 0, info.frames)).tolist() == list(range(40 - info.frames, 40))
    assert info.frames < 40
    sound = ("-f", "lavfi", "-i", "sine=d=3", "-itsoffset", "0.7", "-i", str(tmp_path / "whole.mp4"))
    ffmpeg(*sound, "-c:v", "copy", "-c:a", "aac", str(tmp_path / "sound.mp4"))
    info = probe(tmp_path / "sound.mp4")
    assert numbers(decode(tmp_path / "sound.mp4", info, 5, 3)).tolist() == [5, 6, 7]
    tall = np.zeros((4, 16, 64, 3), np.uint8)
    tall[:, :, :32] = 255
    writer = VideoWriter(tmp_path / "wide.mp4", (16, 64), 10)
    writer.append(tall)
    writer.close()
    ffmpeg("-display_rotation", "90", "-i", str(tmp_path / "wide.mp4"), "-c", "copy", str(tmp_path / "turned.mp4"))
    info = probe(tmp_path / "turned.mp4")
    assert info.shape == (64, 16, 3)
    turned = decode(tmp_path / "turned.mp4", info, 1, 2)
    assert abs(int(turned[0, :24].mean()) - int(turned[0, 40:].mean())) > 200


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ("(N+0.9*eq(N,20))/10+0.0001*N", "too unevenly.*frames 20 and 21"),
        ("if(lt(N,39),N/100,N*100)", "too unevenly"),
    ],
)
def test_times_that_allow_no_rate_are_refused_by_name(tmp_path, times, why):
    film(tmp_path / "a.mp4", times=times)
    with pytest.raises(DataError, match=rf"a\.mp4.*{why}.*-fps_mode cfr"):
        open_dataset(tmp_path)


def test_what_is_no_film_is_named_and_nothing_else_is_opened(tmp_path):
    whole = film(tmp_path / "whole.mp4", options=("-movflags", "+faststart")).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nwhole.mp4\n")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", str(tmp_path / "sound.mp4"))
    for name in ("cut", "empty", "text", "list", "pipe", "zero", "sound", "gone"):
        with pytest.raises(DataError, match=rf"{name}\.mp4 cannot be read as a video"):
            probe(tmp_path / f"{name}.mp4")


def test_damage_inside_a_film_is_an_error_where_the_decoder_sees_it(tmp_path):
    path = film(tmp_path / "a.mp4", codec=("-c:v", "libx264", "-g", "5"))
    content = path.read_bytes()
    info = probe(path)
    good = decode(path, info, 0, 40)
    middle = content.index(b"mdat") + len(content) // 3
    path.write_bytes(content[:middle] + b"\xff" * 40 + content[middle + 40 :])
    with pytest.raises(DataError, match=r"a\.mp4"):
        decode(path, probe(path), 0, 40)
    path.write_bytes(content)
    np.testing.assert_array_equal(decode(path, probe(path), 0, 40), good)


def test_texts_beside_films_are_utf8_and_inside_the_folder(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    film(folder / "a.mp4", 4)
    (folder / "a.txt").write_text("drück\n", encoding="utf-8")
    assert open_dataset(folder).tasks == ("drück",)
    (folder / "a.txt").write_bytes("drück".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8"):
        open_dataset(folder)
    (folder / "a.txt").unlink()
    (tmp_path / "secret").write_text("secret")
    (folder / "a.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=r"a\.txt is a link .* outside"):
        open_dataset(folder)


def test_a_film_of_one_frame_has_one_step_and_is_too_short_to_label(tmp_path):
    film(tmp_path / "a.mp4", 1)
    with pytest.raises(DataError, match=r"a\.mp4 has one frame, and says a rate of 0"):
        open_dataset(tmp_path)
    film(tmp_path / "a.mp4", 1, options=("-fps_mode", "cfr", "-enc_time_base", "1/10"))
    dataset = open_dataset(tmp_path)
    assert (
        dataset.control_hz == 10 and dataset.ends.tolist() == [1] and numbers(dataset.arrays["pixels"]).tolist() == [0]
    )
    with pytest.raises(DataError, match="less than two control steps"):
        resampled(read_video(tmp_path / "a.mp4", None, 10.0)[1], 10.0)


def test_films_at_nearly_one_rate_are_one_dataset(tmp_path):
    film(tmp_path / "a.mp4", 12)
    film(tmp_path / "b.mp4", 12, times="N/9.99")
    assert open_dataset(tmp_path).ends.tolist() == [12, 24]
    film(tmp_path / "c.mp4", 12, times="N/15")
    with pytest.raises(DataError, match=r"different rates \(a\.mp4 10.*c\.mp4 15"):
        open_dataset(tmp_path)


def test_a_film_is_labelled_by_time(tmp_path):
    path = film(tmp_path / "a.mp4", times="if(lt(N,20),N/30,20/30+(N-20)/6)")
    frames, seconds = read_video(path, None, 10.0)
    index = resampled(seconds, 10.0)
    wanted = np.array([k / 30 if k < 20 else 20 / 30 + (k - 20) / 6 for k in range(40)])
    assert len(index) == int(wanted[-1] * 10 + 1e-6) + 1
    assert np.abs(wanted[index] - np.arange(len(index)) / 10).max() <= 1 / 12 + 1e-3
    assert [int(numbers(frames[[i]])[0]) for i in index] == index.tolist()
    assert read_video(path, 20.0, 10.0)[1][-1] == pytest.approx(39 / 20)  # who says a rate is believed
    with pytest.raises(InputError, match="--fps 0"):
        read_video(path, 0.0, 10.0)
    np.save(tmp_path / "a.npy", np.moveaxis(np.asarray(frames[:3]), -1, 1))
    assert read_video(tmp_path / "a.npy", None, 10.0)[0].shape == (3, SIDE, SIDE, 3)


def test_a_film_in_place_of_a_camera_is_played_by_time(tmp_path):
    pytest.importorskip("cv2")
    from tests.test_arx_cameras import Virtual
    from uva_agents.envs.arx_x5.system.cameras import VideoFileCamera

    clock = Virtual()
    began_s = clock.now()
    camera = VideoFileCamera(film(tmp_path / "a.mp4", times="if(lt(N,20),N/30,20/30+(N-20)/6)"), clock=clock, loop=True)
    wanted = np.array([k / 30 if k < 20 else 20 / 30 + (k - 20) / 6 for k in range(40)])
    for step in range(39):
        clock.time_s = began_s + step / 10 + 0.01
        frame = camera.read()
        assert numbers(frame.image[None])[0] == np.flatnonzero(wanted <= step / 10 + 0.01)[-1]
    camera.close()
