"""Recording: an episode at a time, whole or not at all, and never in the loop's way."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from tests.ideal_arm import IdealArm, Timed, Virtual, chunk
from uva_agents.data import open_dataset
from uva_agents.realtime import Loop, LoopSettings
from uva_agents.realtime.robot_interface import Observed
from uva_agents.realtime.schedule import ChunkSchedule, ScheduleSettings
from uva_agents.realtime.trajectory import ActionLayout

pytest.importorskip("pyarrow", reason="recording needs pyarrow: pip install 'uva-agents[data]'")
from uva_agents.data.writers.lerobot_append import LeRobotAppender
from uva_agents.realtime.recorder import EpisodeRecorder


def row(t, side=32):
    y, x = np.mgrid[:side, :side] / side
    picture = 127 + 100 * np.sin(3 * (x + y) + 0.2 * t)
    return {
        "pixels": np.repeat(picture[..., None], 3, 2).astype(np.uint8),
        "action": np.array([0.1 * t, 1.0], np.float32),
        "agent_pos": np.array([t, 2.0, 3.0], np.float32),
    }


def append(folder, steps, task="", hz=20):
    draft = LeRobotAppender(folder, control_hz=hz).begin()
    for t in range(steps):
        draft.add(row(t))
    return draft.keep(task)


def test_episodes_are_appended_one_by_one_and_read_back(tmp_path):
    folder = tmp_path / "a"
    assert [append(folder, 20, "push"), append(folder, 33, "fold"), append(folder, 7, "push")] == [0, 1, 2]
    data = open_dataset(folder)
    assert data.format == "lerobot" and data.control_hz == 20 and data.tasks == ("push", "fold", "push")
    assert data.ends.tolist() == [20, 53, 60]
    wanted = [row(t) for n in (20, 33, 7) for t in range(n)]
    for name in ("action", "agent_pos"):
        np.testing.assert_array_equal(data.episodes.arrays[name], [r[name] for r in wanted])
    frames = np.asarray(data.arrays["pixels"]).astype(int)
    assert np.abs(frames - [r["pixels"] for r in wanted]).mean() < 3
    stats = json.loads((folder / "meta/stats.json").read_text())
    np.testing.assert_allclose(stats["action"]["mean"], np.mean([r["action"] for r in wanted], 0), atol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], np.std([r["action"] for r in wanted], 0), atol=1e-5)
    assert stats["action"]["count"] == [60] and np.shape(stats["observation.images.main"]["mean"]) == (3, 1, 1)
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 60, 2)
    assert info["splits"] == {"train": "0:3"}
    assert sorted(child.name for child in folder.iterdir()) == ["data", "meta", "videos"]


def test_a_converted_dataset_can_be_continued(tmp_path):
    from tests import datasets
    from uva_agents.data import convert_dataset

    arrays = datasets.recording()
    source = datasets.zarr_buffer(
        tmp_path / "a.zarr", {"img": arrays["pixels"], "action": arrays["action"]}, attributes={"control_hz": 10}
    )
    convert_dataset(open_dataset(source), tmp_path / "out", "lerobot")
    draft = LeRobotAppender(tmp_path / "out", control_hz=10).begin()
    for t in range(5):
        draft.add({"pixels": arrays["pixels"][t], "action": arrays["action"][t]})
    assert draft.keep() == 2
    data = open_dataset(tmp_path / "out")
    assert data.ends.tolist() == [20, 55, 60]
    np.testing.assert_array_equal(data.arrays["action"][55:], arrays["action"][:5])


def test_what_does_not_fit_is_refused_and_the_dataset_stays_as_it_was(tmp_path):
    folder = tmp_path / "a"
    append(folder, 5)
    with pytest.raises(ValueError, match="20 steps per second, not 8"):
        append(folder, 5, hz=8)
    with pytest.raises(ValueError, match="whole number"):
        append(folder, 5, hz=7.5)
    draft = LeRobotAppender(folder, control_hz=20).begin()
    draft.add({**row(0), "joint_pos": np.zeros(6)})
    with pytest.raises(ValueError, match="joint_pos is absent there"):
        draft.keep()
    draft = LeRobotAppender(folder, control_hz=20).begin()
    draft.add(row(0))
    with pytest.raises(ValueError, match="a step has"):
        draft.add({"action": np.zeros(2)})
    draft.drop()
    assert LeRobotAppender(folder, control_hz=20).begin().keep() is None
    assert open_dataset(folder).ends.tolist() == [5]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds thesis\.tex"):
        LeRobotAppender(tmp_path / "b", control_hz=20)


@pytest.mark.parametrize(
    "step", ["rows.parquet", "file-000.mp4", ".file-000.parquet.partial", ".tasks", ".stats", ".info"]
)
def test_a_process_that_is_killed_while_it_adds_an_episode_loses_that_one_only(tmp_path, step):
    folder = tmp_path / "a"
    append(folder, 5, "one")
    code = f"""
    import os, signal
    from tests.test_realtime_recording import append
    replace = os.replace
    def killed(source, target):
        if {step!r} in str(source) or {step!r} in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    os.replace = killed
    append({str(folder)!r}, 4, "two")
    """
    # A video's second file has another name.
    code = code.replace("'file-000.mp4'", "'.mp4'")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    data = open_dataset(folder)
    assert data.ends.tolist() == [5] and data.tasks == ("one",)
    assert np.asarray(data.arrays["pixels"]).shape == (5, 32, 32, 3)
    assert append(folder, 6, "three") == 1
    data = open_dataset(folder)
    assert data.ends.tolist() == [5, 11] and data.tasks == ("one", "three")
    np.testing.assert_array_equal(data.arrays["agent_pos"][5:, 0], np.arange(6))


def recorded(folder, *, length_s=2.0, episodes=1, **recorder):
    clock = Virtual()
    arm = IdealArm(clock)
    worker = Timed(clock, chunk, lambda request: 0.1)
    schedule = ChunkSchedule(ScheduleSettings(), ActionLayout(((3, "vector"),)))
    loop = Loop(arm, worker, schedule, LoopSettings(length_s=length_s))
    recorder = EpisodeRecorder(folder, control_hz=20)
    for _ in range(episodes):
        recorder.begin()
        loop.run(recorder=recorder)
        recorder.end(keep=True, task="circle")
    recorder.close()
    return arm


def test_a_run_of_the_loop_is_recorded_step_by_step(tmp_path):
    arm = recorded(tmp_path / "a", episodes=2)
    data = open_dataset(tmp_path / "a")
    assert len(data) == 2 and data.control_hz == 20 and set(data.tasks) == {"circle"}
    first = slice(0, int(data.ends[0]))
    # The steps before the first chunk came are not part of it.
    assert 36 <= data.ends[0] <= 40
    arrays = data.episodes.arrays
    np.testing.assert_allclose(np.diff(arrays["time_s"][first, 0]), 0.05, atol=1e-5)
    sent = np.array([actions[0] for *_, actions in arm.commands], np.float32)
    np.testing.assert_allclose(arrays["action"], sent, atol=1e-6)
    np.testing.assert_array_equal(arrays["action"], arrays["wanted_action"])
    # What was seen follows what was sent: a picture's age and the way ahead, two to three steps.
    lag = [
        np.abs(arrays["agent_pos"][first][10 + k :, :3] - arrays["action"][first][10 : len(sent) // 2 - k, :3]).max()
        for k in range(6)
    ]
    assert np.argmin(lag) in (2, 3) and min(lag) < 0.002


def test_recording_never_makes_the_loop_wait(tmp_path, monkeypatch):
    from uva_agents.data.writers import lerobot_append

    # The disk does nothing before it is let go: whoever waited for it here would wait for ever.
    disk = threading.Event()
    append_frame = lerobot_append._DraftVideo.add
    monkeypatch.setattr(
        lerobot_append._DraftVideo, "add", lambda self, frame: (disk.wait(), append_frame(self, frame))[1]
    )
    recorder = EpisodeRecorder(tmp_path / "a", control_hz=20)
    recorder.begin()
    for t in range(100):
        seen = row(t)
        recorder.add(
            Observed({"pixels": seen["pixels"], "agent_pos": seen["agent_pos"]}, 0.05 * t),
            seen["action"],
            seen["action"],
        )
    recorder.end(keep=True)
    assert len(recorder) == 0
    disk.set()
    assert recorder.wait() and len(recorder) == 1
    recorder.close()
    assert len(open_dataset(tmp_path / "a").arrays["action"]) == 100


def test_a_disk_that_fails_costs_the_episode_and_says_so(tmp_path, monkeypatch):
    from uva_agents.data.writers import lerobot_append

    messages = []
    recorder = EpisodeRecorder(tmp_path / "a", control_hz=20, say=messages.append)
    add = lerobot_append._DraftVideo.add
    monkeypatch.setattr(
        lerobot_append._DraftVideo, "add", lambda self, frame: (_ for _ in ()).throw(OSError("disk full"))
    )
    for broken in (True, False):
        if not broken:
            assert recorder.wait()
            monkeypatch.setattr(lerobot_append._DraftVideo, "add", add)
        recorder.begin()
        for t in range(5):
            seen = row(t)
            recorder.add(Observed({"pixels": seen["pixels"]}, 0.05 * t), seen["action"], seen["action"])
        recorder.end(keep=True)
    recorder.close()
    assert len(messages) == 1 and "disk full" in messages[0]
    assert open_dataset(tmp_path / "a").ends.tolist() == [5]


def test_a_dropped_episode_leaves_nothing(tmp_path):
    recorder = EpisodeRecorder(tmp_path / "a", control_hz=20)
    for keep in (True, False, True):
        recorder.begin()
        for t in range(4):
            recorder.add(Observed({"pixels": row(t)["pixels"]}, 0.05 * t), row(t)["action"], row(t)["action"])
        recorder.end(keep=keep)
    recorder.begin()
    recorder.add(Observed({"pixels": row(0)["pixels"]}, 0.0), row(0)["action"], row(0)["action"])
    recorder.close()  # this one was not ended
    assert open_dataset(tmp_path / "a").ends.tolist() == [4, 8]
