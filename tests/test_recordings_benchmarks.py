"""Fidelity and Table VI: what they measure, on recordings whose answers are known."""

import dataclasses
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tests.scenes import scene
from tests.tiny import tiny_dataset, tiny_two_frame_bundle, tiny_weights
from uva_agents.agents.rollout import Rollout
from uva_agents.benchmarks.paper import fidelity, heldout, table6
from uva_agents.benchmarks.paper.recordings import BLOCK_PUSH, PUSHT, HeldOutRecording, held_out_recordings
from uva_agents.checkpoints import save_net


class Oracle:
    """A world model that knows the recording, but for ``late`` frames; its autoencoder loses nothing."""

    def __init__(self, recording: HeldOutRecording, late: int = 0) -> None:
        self.recording, self.late = recording, late
        config = SimpleNamespace(frame_stride=4, action_steps=16)
        self.weights = SimpleNamespace(
            config=config,
            encode=lambda frames: SimpleNamespace(tokens=frames),
            decode=lambda tokens: tokens,
        )

    def rollout(self, obs, actions, history=None):
        now = 0 if history is None else len(history["pixels"])
        np.testing.assert_array_equal(obs["pixels"], self.recording.pixels[now])
        np.testing.assert_array_equal(actions, self.recording.actions[now : now + len(actions)])
        steps = np.arange(4, len(actions) + 1, 4)
        return Rollout(self.recording.pixels[now + steps - self.late][None], None, steps)


@pytest.fixture(scope="module")
def recording():
    """The red block goes 2 mm a step along x; the green one rests."""
    blocks = [{"red": (0.25 + 0.002 * t, 0.0), "green": (0.5, -0.2)} for t in range(40)]
    squares = {"green": (0.28, 0.2), "red": (0.52, 0.2)}
    pixels = np.stack([scene(b, squares, arm=None) for b in blocks])
    objects = np.array([[b["red"], b["green"]] for b in blocks])
    position = np.zeros((40, 2))
    return HeldOutRecording(pixels, position + np.arange(40)[:, None], position, objects)


def test_true_futures_are_as_good_as_the_autoencoder_and_late_ones_are_off_by_the_motion(recording):
    true = fidelity.measure(Oracle(recording), BLOCK_PUSH, [recording], 6, 32)
    late = fidelity.measure(Oracle(recording, late=4), BLOCK_PUSH, [recording], 6, 32)
    assert true.psnr["imagined"].min() > 60 and true.psnr["copied"][:, -1].max() < 40
    np.testing.assert_array_equal(true.error["imagined"], true.error["autoencoder"])
    table = {row["step"]: row for row in fidelity.summarise(BLOCK_PUSH, late)}
    assert set(table) == set(range(4, 33, 4))
    assert table[32]["copied"]["error_moved"] == pytest.approx(64, abs=8)
    assert table[32]["imagined"]["error_moved"] == pytest.approx(8, abs=6)
    assert table[32]["moved_share"] == 0.5  # one of two blocks
    assert table[16]["imagined"]["psnr"] > table[16]["copied"]["psnr"]
    text = "\n".join(fidelity.lines(BLOCK_PUSH, list(table.values()), 6, 1))
    assert "object error, mm" in text and " 32 " in text


def test_objects_that_are_not_seen_do_not_count_as_seen(recording):
    blank = dataclasses.replace(recording, pixels=np.full_like(recording.pixels, 128))
    found = fidelity.measure(Oracle(blank), BLOCK_PUSH, [blank], 3, 16)
    row = fidelity.summarise(BLOCK_PUSH, found)[-1]
    assert row["imagined"]["seen"] == 0 and row["imagined"]["error"] is None


def test_too_short_recordings_and_odd_lengths_are_named(recording):
    with pytest.raises(ValueError, match="longer than 48"):
        fidelity.measure(Oracle(recording), BLOCK_PUSH, [recording], 3, 48)
    with pytest.raises(ValueError, match="multiple of 16"):
        fidelity.measure(Oracle(recording), BLOCK_PUSH, [recording], 3, 20)


def test_the_ratio_is_of_mean_errors_over_all_actions():
    rng = np.random.default_rng(0)
    recordings = [HeldOutRecording(*(rng.normal(size=(n, 2)) for _ in range(4))) for n in (30, 60, 90)]
    shift = {"inverse": 1.0, "two-frame": 3.0}
    answers = {len(r.pixels): r.actions for r in recordings}
    labellers = {
        name: (lambda video, by=by: answers[len(video)][:-1] + np.array([0.0, by])) for name, by in shift.items()
    }
    table = table6.summarise(PUSHT, table6.measure(labellers, recordings))
    assert table["steps"] == 177
    assert table["rows"]["inverse"]["error"] == pytest.approx(1)
    assert table["rows"]["two-frame"]["over_inverse"] == pytest.approx(3)
    assert table["rows"]["two-frame"]["over_inverse_interval"] == pytest.approx((3, 3))
    assert "keypoints" in "\n".join(table6.lines(PUSHT, table))


def test_the_middle_of_the_tee_is_where_pictures_show_it():
    gym = pytest.importorskip("gymnasium")
    import uva_agents  # noqa: F401

    env = gym.make("uva/PushT-v0", render_mode=None)
    frames, poses = [], []
    for seed in range(6):
        obs, info = env.reset(seed=100_000 + seed)
        frames.append(obs["pixels"])
        poses.append([*info["block_pose"]])
    env.close()
    found, seen = PUSHT.locate(np.stack(frames))
    truth = PUSHT.truth(np.array(poses))
    assert seen.all()
    assert np.linalg.norm(found - truth, axis=-1).max() < 6


def test_both_commands_run_on_weights_and_data_from_disk(tmp_path, capsys):
    data = tiny_dataset(tmp_path / "data.zarr", episodes=4, length=40)
    weights = tiny_weights(tmp_path / "uva")
    two, dense = (save_net(tiny_two_frame_bundle(stride=s), tmp_path / f"two{s}") for s in (4, 1))
    assert len(held_out_recordings(PUSHT, data, 2)) == 2
    common = ["--data", str(data), "--weights", str(weights), "--held-out", "2"]
    assert fidelity.main([*common, "--moments", "3", "--ahead", "32", "--out", str(tmp_path / "f")]) == 0
    pairs = ["--two-frame", str(two), "--pooled", str(two), "--dense", str(dense)]
    assert table6.main([*common, *pairs, "--out", str(tmp_path / "t")]) == 0
    table = json.loads((tmp_path / "t" / "table6.json").read_text())["table"]
    assert table["episodes"] == 2
    assert list(table["rows"]) == ["inverse", "pooled", "two-frame", "constant", "dense"]
    assert len(json.loads((tmp_path / "f" / "fidelity.json").read_text())["table"]) == 8
    assert (tmp_path / "f" / "futures.png").exists()
    assert "InverseModel" in capsys.readouterr().out


def test_held_out_metrics_need_a_recipe_that_says_what_the_data_are(tmp_path, capsys):
    data, weights = tiny_dataset(tmp_path / "data.zarr", episodes=4, length=40), tiny_weights(tmp_path / "uva")
    sizes = ["--held-out", "2", "--actions", "4", "--videos", "4"]
    words = ["--data", str(data), "--weights", str(weights), *sizes, "--out", str(tmp_path / "h")]
    with pytest.raises(ValueError, match=r"no recipe called 'tiny': say with --recipe which of pusht-nano, "):
        heldout.main(words)
    assert heldout.main([*words, "--recipe", "pusht-nano"]) == 0
    saved = json.loads((tmp_path / "h" / "heldout.json").read_text())
    assert saved["metrics"]["policy_error_px"] > 0 and saved["settings"]["recipe"] == "pusht-nano"
    assert (tmp_path / "h" / "futures.png").exists()
    assert "policy_error_px" in capsys.readouterr().out


def test_held_out_metrics_leave_no_thread_that_writes_into_a_folder_that_is_gone(tmp_path):
    data, weights = tiny_dataset(tmp_path / "data.zarr", episodes=4, length=40), tiny_weights(tmp_path / "uva")
    before = set(threading.enumerate())
    sizes = ["--held-out", "2", "--actions", "2", "--videos", "2", "--recipe", "pusht-nano"]
    words = ["--data", str(data), "--weights", str(weights), *sizes, "--out", str(tmp_path / "h")]
    assert heldout.main(words) == 0
    assert set(threading.enumerate()) <= before
