"""Collecting Block Push demonstrations: what is written, resuming, and workers that die."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from uva_agents.cli import main
from uva_agents.data.collect import block_push as collect
from uva_agents.data.collect.block_push import BlockPushPlan, collect_block_push
from uva_agents.data.replay_buffer import Field, read_replay_buffer, write_replay_buffer, write_replay_buffer_by_episode

FIELDS = {"pixels": Field("img"), "action": Field("action"), "agent_pos": Field("state", columns=slice(0, 2))}


def test_a_buffer_written_by_episode_equals_one_written_at_once(tmp_path):
    rng = np.random.default_rng(0)
    lengths = [3, 200, 128, 1, 90]
    whole: dict[str, np.ndarray] = {
        "img": rng.integers(0, 256, (sum(lengths), 8, 8, 3), dtype=np.uint8),
        "action": rng.normal(size=(sum(lengths), 2)).astype(np.float32),
    }
    ends = np.cumsum(lengths)
    write_replay_buffer(tmp_path / "a.zarr", whole, ends)
    pieces = ({k: v[e - n : e] for k, v in whole.items()} for n, e in zip(lengths, ends, strict=True))
    write_replay_buffer_by_episode(tmp_path / "b.zarr", pieces, meta={"seed": np.arange(5)}, attributes={"env": "x"})
    fields = {"pixels": Field("img"), "action": Field("action")}
    a, b = (read_replay_buffer(tmp_path / name, fields) for name in ("a.zarr", "b.zarr"))
    np.testing.assert_array_equal(a.ends, b.ends)
    for name in fields:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name])
    root = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")
    assert root.attrs["env"] == "x" and root["meta/seed"].shape == (5,)


def test_arrays_of_different_length_and_no_episodes_are_named(tmp_path):
    with pytest.raises(ValueError, match="different lengths"):
        write_replay_buffer_by_episode(tmp_path / "a.zarr", [{"a": np.zeros(3), "b": np.zeros(4)}])
    with pytest.raises(ValueError, match="no episodes"):
        write_replay_buffer_by_episode(tmp_path / "b.zarr", [])


# -- with the simulator ----------------------------------------------------------------------------


@pytest.fixture
def plan():
    pytest.importorskip("pybullet", reason="uva/BlockPush-v0 needs PyBullet: pip install 'uva-agents[block-push]'")
    return BlockPushPlan(episodes=3, seed=40, image_size=16, max_steps=6)


def contents(path):
    root = zarr.open_group(str(path), mode="r")
    names = ("data/img", "data/action", "data/state", "meta/episode_ends", "meta/seed", "meta/success")
    return {name: np.asarray(root[name]) for name in names}


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_rows_are_the_observation_before_the_action_and_the_commanded_target(tmp_path, plan):
    from uva_agents.envs.block_push import BlockPushEnv

    out = tmp_path / "demo.zarr"
    result = collect_block_push(out, plan, workers=2)
    assert (result.episodes, result.written, result.rows, result.failures) == (3, 3, 21, {})
    assert list(tmp_path.iterdir()) == [out]  # no working folder is left
    episodes = read_replay_buffer(out, FIELDS)
    np.testing.assert_array_equal(episodes.ends, [7, 14, 21])
    found = contents(out)
    assert found["data/state"].dtype == found["data/action"].dtype == np.float32
    np.testing.assert_array_equal(found["meta/seed"], [40, 41, 42])
    env = BlockPushEnv(image_size=16)
    observation, info = env.reset(seed=41)
    for row in range(7, 14):
        np.testing.assert_array_equal(episodes.arrays["pixels"][row], observation["pixels"])
        np.testing.assert_allclose(episodes.arrays["agent_pos"][row], observation["agent_pos"], atol=1e-6)
        state = dict(zip(collect.STATE_NAMES, found["data/state"][row], strict=True))
        np.testing.assert_allclose(
            [state["red_block_x"], state["green_block_yaw"], state["target_y"], state["red_square_yaw"]],
            info["state"][[0, 5, 9, 15]],
            atol=1e-6,
        )
        observation, *_, info = env.step(found["data/action"][row])
        np.testing.assert_allclose(info["state"][8:10], found["data/action"][row], atol=1e-6)
    env.close()


def test_what_is_collected_says_its_control_rate(tmp_path, plan):
    from uva_agents.data import open_dataset

    collect_block_push(tmp_path / "out.zarr", dataclasses.replace(plan, episodes=1))
    dataset = open_dataset(tmp_path / "out.zarr")
    assert dataset.control_hz == 10 and len(dataset.ends) == 1


def test_a_worker_that_dies_and_one_that_fails_cost_one_episode_each(tmp_path, plan, monkeypatch):
    record = collect.record_block_push

    def fragile(plan, index, driver):
        if index == 1:
            os._exit(3)
        if index == 2:
            raise OSError("no space")
        return record(plan, index)

    monkeypatch.setattr(collect, "record_block_push", fragile)  # forked workers inherit it
    result = collect_block_push(tmp_path / "demo.zarr", dataclasses.replace(plan, episodes=5), workers=2)
    assert result.failures == {1: "the worker process died (exit code 3)", 2: "OSError: no space"}
    np.testing.assert_array_equal(contents(tmp_path / "demo.zarr")["meta/seed"], [40, 43, 44])


def test_an_interrupted_job_continues_and_gives_the_same(tmp_path, plan):
    collect_block_push(tmp_path / "whole.zarr", plan)

    def stop(done, total):
        raise KeyboardInterrupt

    out = tmp_path / "demo.zarr"
    with pytest.raises(KeyboardInterrupt):
        collect_block_push(out, plan, progress=stop)
    assert not out.exists()
    (tmp_path / "demo.zarr.partial" / ".1.000001.npz").write_bytes(b"half")  # as a killed worker leaves it
    with pytest.raises(ValueError, match="other settings"):
        collect_block_push(out, dataclasses.replace(plan, image_size=20))
    result = collect_block_push(out, plan)
    assert result.resumed >= 1
    assert same(contents(out), contents(tmp_path / "whole.zarr"))


@pytest.mark.slow
def test_the_command_survives_a_kill(tmp_path, plan):
    out = tmp_path / "demo.zarr"
    words = ["data", "collect", "block-push", str(out), "--episodes", "4", "--image-size", "16", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "uva_agents.cli", *words, "--workers", "1"], start_new_session=True
    )
    finished = tmp_path / "demo.zarr.partial" / "000000.npz"
    while not finished.exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert main(words) == 0
    whole = tmp_path / "whole.zarr"
    collect_block_push(whole, BlockPushPlan(episodes=4, image_size=16), workers=2)
    assert same(contents(out), contents(whole))
    assert contents(out)["meta/success"].all()  # the oracle places both blocks


def test_replayed_actions_are_executed_from_the_starts_of_their_seeds(tmp_path, plan, capsys):
    changes = np.tile(np.array([[0.02, 0.01]], np.float32), (9, 1))
    write_replay_buffer(tmp_path / "recorded.zarr", {"action": changes}, np.array([4, 9]))
    out = tmp_path / "demo.zarr"
    words = ["data", "collect", "block-push", str(out), "--quiet", "--image-size", "16"]
    assert main([*words, "--replay", str(tmp_path / "recorded.zarr"), "--workers", "1"]) == 0
    assert "both blocks placed in 0 (0.0%)" in capsys.readouterr().out
    found = contents(out)
    np.testing.assert_array_equal(found["meta/episode_ends"], [4, 9])
    np.testing.assert_array_equal(found["meta/seed"], [0, 1])
    np.testing.assert_allclose(
        found["data/action"][4:], np.array([0.3, -0.4]) + np.cumsum(changes[4:], axis=0), atol=1e-6
    )
    assert main(words) == 2  # OUT exists
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--episodes", "1", "--max-steps", "2", "--only-successful"]) == 2
    assert "none was successful" in capsys.readouterr().err
    assert out.exists()  # what was there is replaced by a result only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "at least one"),
        ({"noise": -0.1}, "not negative"),
        ({"noise": 0.1, "replay": "x.zarr"}, "recorded"),
        ({"seed": -1}, "out of range"),
        ({"max_steps": 0}, "at least one"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        BlockPushPlan(**{"episodes": 1, **change})


def test_recordings_that_cannot_be_replayed_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recording"):
        collect.recorded_ends(tmp_path / "none.zarr")
    write_replay_buffer(tmp_path / "abs.zarr", {"action": np.full((3, 2), 0.4)}, np.array([3]))
    with pytest.raises(ValueError, match="absolute actions"):
        collect.recorded_ends(tmp_path / "abs.zarr")
    write_replay_buffer(tmp_path / "wide.zarr", {"action": np.zeros((3, 7))}, np.array([3]))
    with pytest.raises(ValueError, match=r"must be \(N, 2\)"):
        collect.recorded_ends(tmp_path / "wide.zarr")
