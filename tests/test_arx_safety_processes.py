"""An agent, or the whole program, that is killed: on the real clock, with real processes."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from tests.arx_arm import KINEMATICS, WritingArm
from uva_agents.envs.arx_x5.arm.interface import Waypoint
from uva_agents.envs.arx_x5.arm.limits import X5
from uva_agents.envs.arx_x5.safety import Mode, SafeArm, SafetyConfig

# A busy machine computes a path ten times slower: it leaves the old one so much later.
CONFIG = SafetyConfig(lead_s=0.2, watchdog_s=1.5, damp_after_s=0.5, state_age_s=2.0, first_jump=0.3)
SPAWN = multiprocessing.get_context("spawn")


class RealClock:
    def now(self):
        return time.monotonic()

    def sleep_until(self, time_s):
        time.sleep(max(0.0, time_s - time.monotonic()))


class RealTimeArm(WritingArm):
    """Skips what is past when it looks, as the arm's own controller does, and sends what it gets to ``out``."""

    def __init__(self, out=None):
        super().__init__(RealClock())
        self.out = out

    def send(self, waypoints):
        if self.out is not None:
            rows = [[w.time_s, *w.joint_pos.tolist(), w.gripper_pos] for w in waypoints]
            self.out.write(json.dumps({"now": self.clock.now(), "rows": rows}) + "\n")
            self.out.flush()
        ahead = [w for w in waypoints if w.time_s > self.clock.now() + 1e-3]
        if ahead:
            super().send(ahead)


def reach(k):
    """A target that moves to and fro."""
    joints = np.zeros(6)
    joints[:3] = 0.3 + 0.2 * math.sin(k / 10)
    return joints


def agent(pipe):
    """Sends targets for ever."""
    k = 0
    while True:
        pipe.send(reach(k).tolist())
        k += 1
        time.sleep(0.05)


def program(path):
    """An agent and its arm in one process, for ever."""
    with open(path, "w", encoding="utf-8") as out:
        arm = SafeArm(RealTimeArm(out), kinematics=KINEMATICS, limits=X5, config=CONFIG)
        arm.connect()
        arm.home()
        k = 0
        while True:
            arm.command_joints([Waypoint(arm.clock.now() + 0.3, reach(k), 0.05)])
            k += 1
            time.sleep(0.05)


@pytest.mark.parametrize("after_s", [0.5, 1.2])
def test_an_agent_killed_in_the_middle_of_a_motion_leaves_the_arm_at_rest_then_damped(after_s):
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=agent, args=(theirs,), daemon=True)
    driver = RealTimeArm()
    arm = SafeArm(driver, kinematics=KINEMATICS, limits=X5, config=CONFIG)
    with arm:
        process.start()
        theirs.close()
        assert ours.poll(60)
        arm.home()  # only now: starting a process may take longer than a stiff arm waits
        first, joints = None, None
        while True:
            try:
                while ours.poll(0) or joints is None:  # the newest
                    joints = ours.recv()
            except EOFError:
                break
            last = time.monotonic()
            arm.command_joints([Waypoint(last + 0.3, np.array(joints), 0.05)])
            joints = None
            first = first or last
            if process.is_alive() and last - first > after_s:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
        assert process.exitcode == -signal.SIGKILL and driver.calls.count("send") > 0
        # Whatever the watch does, what was sent ends in time.
        assert driver.knots[-1][0] <= time.monotonic() + CONFIG.watchdog_s
        deadline = time.monotonic() + CONFIG.watchdog_s + CONFIG.damp_after_s + 5.0
        seen = set()
        while arm.mode is not Mode.DAMPED and time.monotonic() < deadline:
            seen.add(arm.mode)
            time.sleep(0.02)
        assert arm.mode is Mode.DAMPED and Mode.HOLDING in seen and driver.damped


def test_when_the_whole_program_is_killed_what_it_sent_ends_at_rest_in_time(tmp_path):
    """The arm's controller goes on with what it has: that must be harmless by itself."""
    path = tmp_path / "sent.jsonl"
    process = SPAWN.Process(target=program, args=(str(path),), daemon=True)
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not path.exists() or path.read_text().count("\n") < 5):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    lines = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert len(lines) >= 5
    moved = 0.0
    for line in lines:
        rows = np.array(line["rows"])
        assert rows[-1, 0] <= line["now"] + CONFIG.watchdog_s + 1e-6
        steps = np.diff(rows[:, 1:7], axis=0) / CONFIG.period_s
        moved = max(moved, float(np.abs(steps).max(initial=0.0)))
        # From its last step the arm may stop at once.
        assert np.abs(steps[-1:]).max(initial=0.0) <= CONFIG.joint_accel * CONFIG.period_s
    assert moved > 0.05
