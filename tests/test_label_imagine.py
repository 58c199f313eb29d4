"""``uva label`` and ``uva imagine``: files in, files out, and mistakes named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import observation, tiny_weights
from uva_agents import cli
from uva_agents.agents import UVA, InverseModel
from uva_agents.benchmarks.evaluation.video import VideoFile
from uva_agents.commands.action_files import read_actions
from uva_agents.commands.label import chosen, fit, read_video, resampled
from uva_agents.errors import DataError, InputError, MachineError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "w")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.stack([observation(i)["pixels"] for i in range(23)])


def test_labels_of_an_array_are_those_of_the_inverse_model(weights: Path, frames: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "clip.npz", video=frames)
    out = tmp_path / "out"
    assert cli.main(["label", str(tmp_path / "clip.npz"), "--weights", str(weights), "--out", str(out), "--quiet"]) == 0
    saved = np.load(out / "actions.npz")
    expected = InverseModel.from_pretrained(weights, device="cpu").label(frames)
    np.testing.assert_allclose(saved["actions"], expected, atol=1e-3)
    np.testing.assert_allclose(saved["times_s"], np.arange(22) / 10)
    table = np.genfromtxt(out / "actions.csv", delimiter=",", names=True)
    np.testing.assert_allclose(np.stack([table["action_0"], table["action_1"]], -1), expected, rtol=1e-4)
    assert (out / "trajectory.png").stat().st_size > 1000
    assert sorted(p.name for p in out.iterdir()) == ["actions.csv", "actions.npz", "trajectory.png"]
    np.testing.assert_allclose(read_actions(out / "actions.csv", 2, 16)[0], expected[:16], rtol=1e-4)


def test_a_film_at_another_rate_and_size_is_labelled_at_the_control_rate(
    weights: Path, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = VideoFile(tmp_path / "film.mp4", fps=30)
    for frame in frames:
        for _ in range(3):
            film.add(np.pad(frame.repeat(2, 0).repeat(2, 1), ((0, 0), (32, 32), (0, 0))))  # wider than high
    film.close()
    words = ["label", str(tmp_path / "film.mp4"), "--weights", str(weights), "--quiet", "--out"]
    assert cli.main([*words, str(tmp_path / "middle")]) == 0
    saved = np.load(tmp_path / "middle" / "actions.npz")
    assert saved["actions"].shape == (22, 2) and saved["frames"].tolist() == list(range(0, 66, 3))
    output = capsys.readouterr()
    assert "22 actions at 10 Hz from 69 frames at 30 per second" in output.out and "the middle 192 by 192" in output.err
    assert cli.main([*words, str(tmp_path / "same"), "--crop", "32", "0", "192", "192"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "same" / "actions.npz")["actions"], saved["actions"])
    assert cli.main([*words, str(tmp_path / "other"), "--crop", "0", "0", "192", "192"]) == 0
    assert (np.load(tmp_path / "other" / "actions.npz")["actions"] != saved["actions"]).any(1).all()
    assert cli.main([*words, str(tmp_path / "none"), "--crop", "65", "0", "192", "192"]) == 2


def test_frames_are_chosen_by_time_and_cut_in_the_middle() -> None:
    assert resampled(np.arange(25) / 25, 10.0).tolist() == [0, 2, 5, 8, 10, 12, 15, 18, 20, 22]
    assert resampled(np.arange(3) / 5, 10.0).tolist() == [0, 0, 1, 2, 2]
    uneven = np.array([0, 0.1, 0.2, 0.3, 0.8, 0.82])  # two frames were lost, one came late
    assert resampled(uneven, 10.0).tolist() == [0, 1, 2, 3, 3, 3, 4, 4, 4]
    with pytest.raises(ValueError, match="less than two control steps"):
        resampled(np.arange(3) / 30, 10.0)
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    middle = wide[chosen((20, 60), (10, 10), None)]
    assert middle.shape == (20, 20, 3) and (fit(middle, (10, 10)) == 200).all()
    assert fit(wide, (20, 60)) is wide


def test_what_is_left_out_of_a_film_is_said_unless_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen((424, 780), (96, 96), None) == (slice(0, 424), slice(178, 602))
    assert "of frames 780 wide and 424 high, the middle 424 by 424" in capsys.readouterr().err
    assert chosen((424, 780), (96, 96), (8, 44, 370, 374)) == (slice(46, 416), slice(8, 378))
    assert chosen((97, 96), (96, 96), None) == (slice(0, 96), slice(0, 96))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("crop", [(-1, 0, 5, 5), (0, 0, 0, 5), (56, 0, 5, 5), (0, 16, 5, 5)])
def test_a_crop_that_is_not_inside_the_frames_is_named(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"--crop .* is not inside the frames, which are 60 wide and 20 high"):
        chosen((20, 60), (10, 10), crop)


@pytest.mark.parametrize(
    ("name", "content", "match", "status"),
    [
        ("gone.mp4", None, "no file", 2),
        ("text.mp4", b"not a film", "not a video", 3),
        ("broken.npz", b"PK not an archive", "cannot be read as an array", 3),
        ("flat.npy", np.zeros((4, 4)), "uint8 frames", 3),
        ("short.npy", np.zeros((1, 96, 96, 3), np.uint8), "less than two control steps", 3),
    ],
)
def test_what_is_no_video_is_named(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: Any, match: str, status: int
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    out = tmp_path / "made" / "out"
    assert cli.main(["label", str(path), "--weights", str(weights), "--out", str(out), "--quiet"]) == status
    assert match in capsys.readouterr().err
    assert not out.parent.exists()


@pytest.mark.parametrize(("actions", "steps"), [("policy", 16), ("random", 32), ("file", 16)])
def test_imagination_is_shown_beside_the_truth(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], actions: str, steps: int
) -> None:
    if actions == "file":
        actions = str(tmp_path / "plan.npy")
        np.save(actions, np.random.default_rng(0).uniform(0, 512, (20, 2)))
    words = ["imagine", "--weights", str(weights), "--env", "uva/PushT-v0", "--candidates", "2", "--after", "3"]
    words += ["--actions", actions, "--steps", str(steps), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "PSNR" in printed and f"\n  {steps:19d}   " in printed
    for name in ("imagined.png", "imagined.mp4"):
        assert (tmp_path / "out" / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--steps", "10"], "multiple of 16"),
        (["--steps", "32"], "policy proposes 16"),
        (["--actions", "nowhere.npy"], "no file nowhere.npy"),
        (["--env", "CartPole-v1"], "set_state"),
        (["--candidates", "0"], "at least 1"),
        (["--after", "-4"], "--after -4"),
        (["--seed", "-4"], "--seed -4"),
    ],
)
def test_what_cannot_be_imagined_is_named(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], match: str
) -> None:
    base = ["imagine", "--weights", str(weights), "--env", "uva/PushT-v0", "--after", "0", "--out", str(tmp_path / "o")]
    assert cli.main([*base, *words]) == 2
    assert match in capsys.readouterr().err


def test_more_candidates_than_the_memory_holds_are_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["imagine", "--weights", str(weights), "--env", "uva/PushT-v0", "--after", "0", "--out", str(tmp_path / "o")]
    assert cli.main([*base, "--candidates", "100000000"]) == 4
    err = capsys.readouterr().err
    assert "--candidates 100000000" in err and "take fewer" in err


def test_a_rate_of_frames_that_makes_years_of_a_film_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "film.npy", np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="--fps"):
        resampled(read_video(tmp_path / "film.npy", 1e-9, 10.0)[1], 10.0)


def test_columns_of_actions_are_read_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows: list[list[Any]] = [[10 * t, *(t + i for i in (11, 2, 10, 0, 1, 3, 4, 5, 6, 7, 8, 9))] for t in range(4)]
    names: list[Any] = ["time", *(f"action_{i}" for i in (11, 2, 10, 0, 1, 3, 4, 5, 6, 7, 8, 9))]
    lines = [",".join(map(str, row)) for row in [names, *rows]]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    np.testing.assert_array_equal(read_actions(path, 12, 4)[0], np.arange(12) + np.arange(4)[:, None])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("1,2\n3,4\n", "has no header"),
        ("x,y\n1,2\n", "has columns x, y: call those of actions action_0 to action_1"),
        ("action_0;action_1\n1;2\n", "semicolons"),
        ("1,5;2,5\n", "semicolons"),
        ("action_0,action_2\n1,2\n", "each once"),
        ("action_0,action_0\n1,2\n", "each once"),
        ("action_0,action_1\n1,\n", "'' in row 1, column action_1"),
        ("action_0,action_1\n1,2,3\n", "3 values in row 1"),
        ("action_0,action_1\n1,nan\n", "NaN"),
        ("action_0,action_1\n", "at least 1 actions"),
    ],
)
def test_a_table_that_is_not_plainly_actions_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(reason)):
        read_actions(tmp_path / "a.csv", 2, 1)


def test_an_array_that_is_not_plainly_actions_is_refused_with_the_reason(tmp_path: Path) -> None:
    good = np.arange(8.0).reshape(4, 2)
    np.save(tmp_path / "good.npy", good)
    np.savez(tmp_path / "good.npz", actions=good)
    whole = {name: (tmp_path / name).read_bytes() for name in ("good.npy", "good.npz")}
    assert all(read_actions(tmp_path / name, 2, 4).shape == (1, 4, 2) for name in whole)
    for name, content in whole.items():
        for end in (0, 5, 60, len(content) // 2, len(content) - 1):
            (tmp_path / f"cut{name}").write_bytes(content[:end])
            with pytest.raises(DataError):
                read_actions(tmp_path / f"cut{name}", 2, 4)
    for wrong in (good + 1j, good > 2, good.astype(str), good.astype(object), good[:, :1], np.full((4, 2), np.inf)):
        np.save(tmp_path / "wrong.npy", wrong, allow_pickle=True)
        with pytest.raises(DataError):
            read_actions(tmp_path / "wrong.npy", 2, 4)


def test_more_samples_than_the_memory_holds_are_refused(weights: Path) -> None:
    policy = UVA.from_pretrained(weights, device="cpu").policy()
    with pytest.raises(MachineError, match="n=1000000000"):
        policy.sample(observation(0), n=10**9)
