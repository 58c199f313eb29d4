"""Datasets as people have them: what does not fit is left out by name, and nothing becomes something else on the way."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import datasets
from tests.films import SIDE, ffmpeg, numbered
from uva_agents.cli import main
from uva_agents.data import inspect_path, open_dataset
from uva_agents.data.checksums import check_sums, write_sums
from uva_agents.data.ffmpeg import FrameTimes
from uva_agents.data.readers.dataset import MissingExtraError
from uva_agents.data.video import probe
from uva_agents.errors import DataError

h5py = pytest.importorskip("h5py", reason="hdf5 needs h5py: pip install 'uva-agents[data]'")


@pytest.fixture(scope="module")
def arrays():
    return datasets.recording()


def changed(path, change):
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            change(demo, len(demo["actions"]))
    return path


def test_tasks_of_different_scenes_are_one_folder(tmp_path, arrays):
    for name, width in (("KITCHEN_SCENE3_a_demo", 20), ("LIVING_ROOM_SCENE2_b_demo", 33)):
        path = datasets.robomimic(tmp_path / f"{name}.hdf5", arrays, libero=True)
        changed(path, lambda demo, n, width=width: demo.__setitem__("states", np.ones((n, width))))
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 4 and {"pixels", "action", "agent_pos"} <= set(dataset.arrays)
    assert set(dataset.left_out) == {"states"} and "(20,)" in dataset.left_out["states"]


def replaced(key, value):
    def change(demo, n):
        content = value(n) if callable(value) else demo[key][:value]
        if key in demo:
            del demo[key]
        demo[key] = content

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("src_demo_inds", lambda n: np.zeros(3, int)),
        ("states", lambda n: np.ones((n + 1, 9))),
        ("states", lambda n: np.ones((n, n))),
        ("obs/robot0_eye_in_hand_image", lambda n: np.zeros((n // 2, 32, 32, 3), np.uint8)),
    ],
    ids=["few", "one more", "widths", "a second camera"],
)
def test_an_extra_array_of_demonstrations_that_does_not_fit_is_left_out_by_name(tmp_path, arrays, key, value, capsys):
    path = changed(datasets.robomimic(tmp_path / "a.hdf5", arrays), replaced(key, value))
    dataset = open_dataset(path)
    assert set(dataset.left_out) == {key} and {"pixels", "action", "agent_pos"} <= set(dataset.arrays)
    np.testing.assert_array_equal(np.asarray(dataset.arrays["pixels"]), arrays["pixels"])
    command = ["data", "convert", str(path), str(tmp_path / "out"), "--to", "zarr", "--quiet", "--force"]
    assert main(command) == 1 and main([*command, "--skip", key]) == 0


@pytest.mark.parametrize("key", ["obs/sideview_image", "obs/robot0_eef_pos"])
def test_a_main_camera_or_position_that_does_not_fit_is_an_error(tmp_path, arrays, key):
    path = changed(datasets.robomimic(tmp_path / "a.hdf5", arrays), replaced(key, -1))
    with pytest.raises(DataError, match="unequal lengths"):
        open_dataset(path)


def test_an_extra_array_of_a_buffer_that_does_not_fit_is_left_out_by_name(tmp_path, arrays):
    contents = {"img": arrays["pixels"], "action": arrays["action"], "success": np.ones(2)}
    path = datasets.zarr_buffer(tmp_path / "a.zarr", contents)
    dataset = open_dataset(path)
    assert dataset.left_out.keys() == {"data/success"} and dataset.ends.tolist() == datasets.ENDS.tolist()
    with pytest.raises(DataError, match="unequal lengths"):
        open_dataset(datasets.zarr_buffer(tmp_path / "b.zarr", contents | {"img": arrays["pixels"][:50]}))


def test_a_second_camera_with_a_lost_chunk_can_be_skipped(tmp_path, arrays, capsys):
    contents = {"img": arrays["pixels"], "img2": arrays["pixels"], "action": arrays["action"]}
    path = datasets.zarr_buffer(tmp_path / "a.zarr", contents)
    (path / "data" / "img2" / "1.0.0.0").unlink()
    command = ["data", "convert", str(path), str(tmp_path / "out"), "--to", "zarr", "--quiet", "--force"]
    assert main(command) == 3 and "--episodes" in capsys.readouterr().err
    for name in ("img2", "data/img2", "pixels_img2"):
        assert main([*command, "--skip", name]) == 0
    assert set(open_dataset(tmp_path / "out").arrays) == {"pixels", "action"}


def test_libero_files_without_their_attributes_are_known_by_their_arrays(tmp_path, arrays):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays, libero=True)
    with h5py.File(path, "r+") as file:
        for name in ("bddl_file_name", "problem_info"):
            del file["data"].attrs[name]
    dataset = open_dataset(path)
    assert dataset.arrays["agent_pos"].shape[1] == 9 and "pixels_wrist" in dataset.arrays
    found = inspect_path(path)
    assert found.worst == "warn" and "macros_image_convention" in " ".join(found.problems)
    for said, pixels in {"opencv": arrays["pixels"][:, ::-1], "opengl": arrays["pixels"]}.items():
        with h5py.File(path, "r+") as file:
            file["data"].attrs["macros_image_convention"] = said
        found = inspect_path(path)
        np.testing.assert_array_equal(np.asarray(found.dataset.arrays["pixels"]), pixels)
        assert "macros_image_convention" not in " ".join(found.problems)


def test_a_number_that_is_left_out_of_the_demonstrations_names_is_a_note(tmp_path, arrays):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    with h5py.File(path, "r+") as file:
        file["data"].move("demo_10", "demo_4")
        file["data"].copy("demo_4", "demo_5")
    found = inspect_path(path)
    assert any("there is no demo_3" in f.message and f.level == "note" for f in found.findings)


def test_the_folder_one_is_in_is_a_dataset_like_any_other(tmp_path, arrays, monkeypatch):
    path = datasets.zarr_buffer(tmp_path / "a.zarr", {"img": arrays["pixels"], "action": arrays["action"]})
    monkeypatch.chdir(path)
    assert main(["data", "checksum", "."]) == 0 and (tmp_path / "a.zarr.sha256").exists()
    assert main(["data", "convert", ".", "../b.zarr", "--to", "zarr", "--quiet"]) == 0
    monkeypatch.chdir(tmp_path / "b.zarr")
    assert main(["data", "convert", "../a.zarr", ".", "--to", "zarr", "--quiet", "--force"]) == 0
    assert len(open_dataset(tmp_path / "b.zarr")) == 2 and not list(tmp_path.glob("*.partial"))


def test_checksums_hold_any_name_as_sha256sum_writes_it(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("a\nb", "a\u2028b", "a\\nb", "a\rb", " c "):
        (folder / name).write_text(name, encoding="utf-8")
    write_sums(folder)
    assert check_sums(folder)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--status", "a.sha256"], cwd=tmp_path, check=True)
    (folder / "a\nb").write_text("other", encoding="utf-8")
    with pytest.raises(DataError, match="changed"):
        check_sums(folder)


def test_pictures_packed_as_jpeg_2000_are_read_or_the_extra_is_named(tmp_path, arrays, monkeypatch):
    codecs = pytest.importorskip("imagecodecs.numcodecs", reason="JPEG 2000 needs imagecodecs: uva-agents[data]")
    path = datasets.zarr_buffer(tmp_path / "a.zarr", {"img": arrays["pixels"], "action": arrays["action"]}, chunk=1)
    codec = codecs.Jpeg2k(level=0, reversible=True)
    described = path / "data" / "img" / ".zarray"
    text = json.loads(described.read_text(encoding="utf-8"))
    described.write_text(json.dumps(text | {"compressor": codec.get_config(), "filters": None}), encoding="utf-8")
    for row, picture in enumerate(arrays["pixels"]):
        (path / "data" / "img" / f"{row}.0.0.0").write_bytes(codec.encode(picture[None]))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "imagecodecs.numcodecs", None)
        with pytest.raises(MissingExtraError, match=r"data/img .*uva-agents\[data\]"):
            open_dataset(path)
    np.testing.assert_array_equal(np.asarray(open_dataset(path).arrays["pixels"]), arrays["pixels"])


def test_what_systems_leave_behind_is_no_data(tmp_path, arrays):
    contents = {"img": arrays["pixels"], "action": arrays["action"]}
    (tmp_path / "h").mkdir()
    paths = {
        "hdf5": datasets.robomimic(tmp_path / "h" / "a.hdf5", arrays),
        "zarr": datasets.zarr_buffer(tmp_path / "a.zarr", contents),
        "video": datasets.mp4(tmp_path / "v" / "a.mp4", arrays["pixels"]),
    }
    (tmp_path / "h" / "._a.hdf5").write_bytes(b"x")
    (tmp_path / "a.zarr" / "data" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "v" / "._a.mp4").write_bytes(b"x")
    (tmp_path / "v" / ".ipynb_checkpoints").mkdir()
    shutil.copy(paths["video"], tmp_path / "v" / ".ipynb_checkpoints" / "a-checkpoint.mp4")
    for folder, episodes in ((tmp_path / "h", 2), (tmp_path / "a.zarr", 2), (tmp_path / "v", 1)):
        found = open_dataset(folder)
        assert len(found) == episodes and not found.left_out
    output = tmp_path / "lerobot"
    assert main(["data", "convert", str(tmp_path / "h"), str(output), "--to", "lerobot", "--quiet", "--skip"]) == 0
    for place in ("data", "meta/episodes"):
        (output / place / "chunk-000" / "._file-000.parquet").write_bytes(b"x")
    assert len(open_dataset(output)) == 2


def test_hdf5_files_by_any_case_are_read_and_those_below_are_named(tmp_path, arrays):
    (tmp_path / "more").mkdir()
    for name in ("a.hdf5", "b.HDF5", "more/c.h5"):
        datasets.robomimic(tmp_path / name, arrays)
    found = open_dataset(tmp_path)
    assert len(found) == 4 and any("c.h5" in note for note in found.notes)


def test_films_beside_something_else_are_opened_by_their_format(tmp_path, arrays):
    film = datasets.mp4(tmp_path / "v" / "a.mp4", arrays["pixels"])
    film.with_suffix(".txt").write_text("lift it", encoding="utf-8-sig")
    (tmp_path / "v" / "info.json").write_text("{}", encoding="utf-8")
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(DataError, match=r"info\.json.*--format video") as error:
        open_dataset(tmp_path / "v")
    assert "above" not in str(error.value)
    assert open_dataset(tmp_path / "v", format="video").tasks == ("lift it",)


def test_odd_sides_of_a_camera_are_named_with_a_remedy(tmp_path, arrays, capsys):
    contents = {"img": arrays["pixels"], "side": arrays["pixels"][:, :31], "action": arrays["action"]}
    path = datasets.zarr_buffer(tmp_path / "a.zarr", contents, attributes={"control_hz": 10})
    command = ["data", "convert", str(path), str(tmp_path / "out"), "--to", "lerobot", "--quiet"]
    assert main(command) == 2
    assert "pixels_side are 31 x 32" in (said := capsys.readouterr().err) and "--skip pixels_side" in said
    assert main([*command, "--skip", "pixels_side"]) == 0


@pytest.mark.parametrize("kind", ["to and fro", "slowly", "both, and some lost", "a long gap in milliseconds"])
def test_jitter_and_gaps_do_not_change_the_rate_of_a_camera(monkeypatch, tmp_path, kind):
    rng, rates = np.random.default_rng(3), []
    monkeypatch.setattr("uva_agents.data.video.first_size", lambda path, beyond_s: (8, 8))
    for _ in range(10):
        ticks = np.arange(150)
        off = rng.uniform(-0.4, 0.4, 150) if kind == "to and fro" else 0.4 * np.sin(ticks / rng.uniform(3, 20))
        if kind == "both, and some lost":
            off = off / 2 + rng.uniform(-0.2, 0.2, 150)
            ticks = ticks + np.cumsum(rng.random(150) < 0.04)
        if kind == "a long gap in milliseconds":
            ticks, off = ticks + 90 * (ticks > 60), np.zeros(150)
        times = np.round((ticks + off) / 30, 3)
        monkeypatch.setattr("uva_agents.data.video.packet_times", lambda path, times=times: FrameTimes(times))
        info = probe(tmp_path / "a.mkv")
        rates.append(info.fps)
        assert (np.unique(info.rows()) == np.arange(150)).all() and abs(len(info.rows()) - ticks[-1] - 1) <= 1
    assert np.abs(np.array(rates) / 30 - 1).max() < 0.005


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray16le"), DataError),
        ("a.mov", ("-c:v", "png", "-pix_fmt", "rgba"), DataError),
        ("a.webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-pix_fmt", "yuva420p"), DataError),
        ("a.mp4", ("-c:v", "libx264", "-aspect", "2:1"), "not square (2:1)"),
        (
            "a.mp4",
            ("-c:v", "libx264", "-flags", "+ilme+ildct", "-field_order", "tt", "-vf", "setfield=tff"),
            "interlaced",
        ),
        ("a.mp4", ("-c:v", "libx264", "-map", "0", "-map", "0"), "first of its 2 video streams"),
        ("a.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv420p"), None),
    ],
    ids=["deep grey", "alpha", "alpha beside", "aspect", "interlaced", "streams", "plain"],
)
def test_what_films_have_beyond_their_frames_is_refused_or_said(tmp_path, name, options, said):
    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE}x{SIDE}", "-r", "10", "-i", "-")
    ffmpeg(*given, *options, str(tmp_path / name), given=numbered(6).tobytes())
    if said is DataError:
        with pytest.raises(DataError, match=r"transparent|grey of more than 8 bits"):
            open_dataset(tmp_path)
        return
    notes = open_dataset(tmp_path).notes[1:]
    assert (said in " ".join(notes)) if said else not notes
