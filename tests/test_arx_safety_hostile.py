"""Whatever an agent sends, whatever fails meanwhile: no limit is left, and when it falls silent the arm comes to rest in time."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.arx_arm import KINEMATICS, WritingArm, safe_arm, violations
from tests.arx_faults import KINDS, METHODS, Fault, FaultyArm, judged
from uva_agents.envs.arx_x5.arm.interface import DriverError, Waypoint
from uva_agents.envs.arx_x5.arm.limits import X5
from uva_agents.envs.arx_x5.safety import InterventionKind, Mode, SafeArm, SafetyConfig

FEW, MANY = 60, 10_000
"""Sequences in each of the tests that always run, and in the one that takes minutes."""

CONFIGS = (
    SafetyConfig(damp_after_s=0.4),
    # Nearly as fast as the arm's maker allows, long chunks, and a coarser grid.
    SafetyConfig(
        speed=0.6, turn=1.8, accel=2.5, turn_accel=8.0, joint_speed=3.0, joint_accel=12.0, gripper_speed=0.3,
        watchdog_s=1.5, damp_after_s=0.4, first_jump=0.3, first_turn=1.5, first_joints=1.0,
    ),
    # A small box around home, where there is always a wall near.
    SafetyConfig(
        box_min=(0.2, -0.06, 0.1), box_max=(0.3, 0.06, 0.22), period_s=0.025, lead_s=0.05, watchdog_s=0.8, damp_after_s=0.4
    ),
)  # fmt: skip


class Agent:
    """Something that sends nonsense. Every method is one thing that networks, or people, do.

    Args:
        arm: to annoy.
        seed: of its numbers.
    """

    def __init__(self, arm, seed):
        self.arm, self.rng = arm, np.random.default_rng(seed)
        self.here = arm._executor.where()

    def _send(self, joints, gripper=0.05, *, ahead=0.1):
        joints = np.atleast_2d(joints)
        times = self.arm.clock.now() + ahead * (1 + np.arange(len(joints)))
        self.arm.command_joints([Waypoint(t, q, gripper) for t, q in zip(times, joints, strict=True)])

    def _sleep(self, seconds):
        self.arm.clock.sleep_until(self.arm.clock.now() + seconds)

    def steps(self):
        """A few honest steps."""
        direction = self.rng.normal(size=6) * 0.05
        for _ in range(3):
            self._send(self.arm._executor.where() + direction, float(self.rng.uniform(0, 0.088)))
            self._sleep(0.05)

    def jump(self):
        self._send(self.rng.uniform(X5.joint_pos_min - 1, X5.joint_pos_max + 1))
        self._sleep(float(self.rng.uniform(0, 0.4)))

    def huge(self):
        self._send(self.rng.normal(size=6) * 10.0 ** self.rng.uniform(1, 300), 1e300)
        self._sleep(0.05)

    def not_finite(self):
        joints = np.tile(self.arm._executor.where(), (3, 1))
        joints[self.rng.integers(3), self.rng.integers(6)] = self.rng.choice([math.nan, math.inf, -math.inf])
        self._send(joints)
        self._sleep(0.05)

    def not_finite_pose(self):
        pose = KINEMATICS.forward(self.arm._executor.where())
        pose[self.rng.integers(6)] = self.rng.choice([math.nan, math.inf, -math.inf])
        self.arm.command_poses([self.arm.clock.now() + 0.1], [pose], [0.05])
        self._sleep(0.05)

    def oscillate(self):
        """To and fro at the control rate."""
        here, by = self.arm._executor.where(), self.rng.normal(size=6) * self.rng.uniform(0.02, 1.0)
        for i in range(4):
            self._send(here + (-1) ** i * by, 0.088 * (i % 2), ahead=0.05)
            self._sleep(0.05)

    def drift(self):
        """Slowly out of the workspace, or through the table."""
        pose = KINEMATICS.forward(self.arm._executor.where())
        direction = self.rng.normal(size=3)
        direction *= 0.02 / np.linalg.norm(direction)
        for _ in range(5):
            pose[:3] += direction
            self.arm.command_poses([self.arm.clock.now() + 0.1], [pose], [0.05])
            self._sleep(0.1)

    def dive(self):
        """Straight at the table, as fast as it goes."""
        pose = KINEMATICS.forward(self.arm._executor.where())
        low = pose - [0, 0, 0.4, 0, 0, 0]
        self.arm.command_poses(self.arm.clock.now() + np.array([0.1, 0.3]), [pose, low], [0.05, 0.05])
        self._sleep(float(self.rng.uniform(0.1, 0.5)))

    def pose(self):
        pose = np.concatenate(
            [self.rng.uniform([-0.2, -0.5, -0.2], [0.8, 0.5, 0.7]), self.rng.uniform(-math.pi, math.pi, 3)]
        )
        self.arm.command_poses([self.arm.clock.now() + 0.1], [pose], [0.05])
        self._sleep(0.1)

    def near_pose(self):
        pose = KINEMATICS.forward(self.arm._executor.where())
        poses = pose + np.cumsum(self.rng.normal(size=(4, 6)) * [0.01, 0.01, 0.01, 0.05, 0.05, 0.05], axis=0)
        self.arm.command_poses(self.arm.clock.now() + 0.05 * np.arange(1, 5), poses, np.full(4, 0.02))
        self._sleep(float(self.rng.uniform(0, 0.3)))

    def chunk(self):
        """Sixteen rough actions, of which a few are done before the next command."""
        joints = self.arm._executor.where() + np.cumsum(self.rng.normal(size=(16, 6)) * 0.05, axis=0)
        self._send(joints, float(self.rng.uniform(-0.1, 0.2)), ahead=float(self.rng.choice([0.01, 0.05, 0.125])))
        self._sleep(float(self.rng.uniform(0, 0.6)))

    def shuffled(self):
        now = self.arm.clock.now()
        times = now + self.rng.permutation(np.arange(1, 6) * 0.05)
        self.arm.command_joints([Waypoint(t, self.arm._executor.where(), 0.05) for t in times])
        self._sleep(0.05)

    def past(self):
        now = self.arm.clock.now()
        self.arm.command_joints([Waypoint(now + t, self.rng.normal(size=6), 0.05) for t in (-1.0, -0.5, 0.0)])
        self._sleep(0.02)

    def partly_past(self):
        now, here = self.arm.clock.now(), self.arm._executor.where()
        self.arm.command_joints(
            [Waypoint(now + t, here + 0.1 * self.rng.normal(size=6), 0.05) for t in (-0.1, 0.01, 0.2)]
        )
        self._sleep(0.1)

    def far_future(self):
        self.arm.command_joints([Waypoint(1e12, self.rng.normal(size=6), 0.05)])
        self._sleep(0.05)

    def misshapen(self):
        now = self.arm.clock.now()
        self.arm.command_joints([])
        self.arm.command_joints([Waypoint(now + 0.1, np.zeros(int(self.rng.integers(0, 9))), 0.05)])
        self.arm.command_joints([Waypoint(now + 0.1, np.zeros((2, 3)), "open")])
        self.arm.command_poses(["soon"], [None], [0.0])
        self._sleep(0.01)

    def burst(self):
        """Many commands with no time between them."""
        for _ in range(4):
            self._send(self.arm._executor.where() + self.rng.normal(size=6) * 0.2)
            self._sleep(float(self.rng.choice([0.0, 0.001])))

    def silence(self):
        self._sleep(float(self.rng.uniform(0, 2.0)))

    def stop(self):
        self.arm.stop.press("the test")
        self._sleep(float(self.rng.uniform(0, 0.5)))
        self._send(self.arm._executor.where() + 0.1)
        self.arm.reset_stop()

    def hold(self):
        self.arm.hold()
        self._sleep(float(self.rng.uniform(0, 0.2)))


MOODS = tuple(name for name in vars(Agent) if not name.startswith("_"))


def check(config, moods, seed, lag_s, *, fails):
    """One sequence, then silence, or an exception (``fails``)."""
    driver = WritingArm(lag_s=lag_s)
    arm, _ = safe_arm(driver, config=config)
    agent = Agent(arm, seed)
    for mood in moods:
        if arm.mode is Mode.DAMPED:
            arm.home()
        getattr(agent, mood)()
    silent_s = arm.clock.now()
    assert driver.knots[-1][0] <= silent_s + config.watchdog_s + 1e-9, (
        "the arm moves on when the watchdog's time is over"
    )
    if fails:
        with pytest.raises(ZeroDivisionError), arm:
            raise ZeroDivisionError("a bug in the agent")
        assert driver.damped and arm.mode is Mode.CLOSED
    else:
        arm.clock.sleep_until(silent_s + config.watchdog_s + 0.02)
        assert arm.mode in (Mode.HOLDING, Mode.DAMPED)
        arm.clock.sleep_until(arm.clock.now() + config.damp_after_s + 0.05)
        assert arm.mode is Mode.DAMPED and driver.damped and driver.calls[-1] == "damp"
        arm.close()
    for course in driver.courses():
        assert not (found := violations(course, config)), found


def sequences(many):
    return settings(
        max_examples=many, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )


_MOODS = st.lists(st.sampled_from(MOODS), min_size=1, max_size=6)
# Half of the sequences begin with an arm that moves: one that rests refuses what is far.
CASES = {
    "moods": st.one_of(_MOODS, _MOODS.map(lambda moods: ["steps", *moods])),
    "seed": st.integers(0, 2**32 - 1),
    "lag_s": st.sampled_from([0.0, 0.0, 0.03]),
    "fails": st.sampled_from([False, False, False, True]),
}


@pytest.fixture(autouse=True)
def _quiet():
    """Thousands of interventions are expected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# --- a bad day: every call of the driver may fail, inside every call of the arm ---------------------------------------


class Life:
    """From being connected to being let go, with an agent that sends nonsense, people who interfere, and faults.

    Args:
        config: of the safety layer.
        seed: of the agent.
        lag_s: of the arm.
    """

    def __init__(self, config, seed, lag_s):
        self.config, self.driver = config, FaultyArm(lag_s=lag_s)
        self.arm = SafeArm(self.driver, kinematics=KINEMATICS, limits=X5, config=config, threaded=False)
        self.driver.stop = self.arm.stop
        self.agent = Agent(self.arm, seed)
        self.rng = np.random.default_rng(seed)

    def live(self, acts):
        """``acts``: (name, fault or None, what stands in the way or stalls, whether the arm moves before), one after another."""
        for name, fault, trouble, moving in acts:
            if moving:
                self.driver.arm(None)
                self._act("steps")
            self.driver.arm(fault)
            self._prepare(trouble)
            self._act(name)

    def _prepare(self, trouble):
        now, clock = self.driver.clock.now(), self.driver.clock
        kind, after_s, for_s = trouble
        if kind == "wall":
            self.driver.wall_at, self.driver.free_at = now + after_s, now + after_s + for_s
        elif kind == "stall":
            clock.stall_at, clock.stall_s = now + after_s, for_s

    def _act(self, name):
        try:
            {
                "connect": self.arm.connect, "home": self.arm.home, "damp": self.arm.damp, "release": self.arm.reset_stop,
                "silence": lambda: self.agent._sleep(float(self.rng.uniform(0, 2))), "ready": self._ready,
            }.get(name, getattr(self.agent, name, None))()  # fmt: skip
        except DriverError:
            # The only error there may be, and nothing goes on behind it.
            assert self.arm.mode is not Mode.HOMING
            if name == "home":
                assert self.arm.mode in (Mode.HOLDING, Mode.DAMPED)
        now = self.driver.clock.now()
        assert self.driver.damped or self.driver.knots[-1][0] <= now + self.config.watchdog_s + 1e-9

    def _ready(self):
        """What somebody does who wants the arm to move again."""
        self.arm.connect()
        self.arm.reset_stop()
        if self.arm.mode is Mode.DAMPED:
            self.arm.home()

    def end(self, fault, trouble, how):
        """However it ends: closed, and damped unless nothing can make it so; what was sent ends at rest."""
        self.driver.arm(fault)
        self._prepare(trouble)
        try:
            if how == "exception":
                with pytest.raises(ZeroDivisionError), self.arm:
                    raise ZeroDivisionError("a bug in the agent")
            elif how == "interrupt":
                self._interrupted()
            else:
                self.arm.close()
        except DriverError:
            pass  # the driver refuses to let go, or to be connected
        now = self.driver.clock.now()
        if self.arm.mode is not Mode.CLOSED:
            assert how != "close"  # the fault was inside connect, and nothing had been done yet
            self.driver.arm(None)
            self.arm.close()
        assert self.arm.mode is Mode.CLOSED
        assert self.driver.damped or self.driver.knots[-1][0] <= now + self.config.watchdog_s + 1e-9
        found = judged(self.driver, self.config)
        assert not found, found

    def _interrupted(self):
        """Ctrl-C on the way out."""
        sleeps, left = self.arm.clock.sleep_until, [int(self.rng.integers(0, 6))]

        def sleep(time_s):
            left[0] -= 1
            if left[0] == -1:
                raise KeyboardInterrupt
            sleeps(time_s)

        self.arm.clock.sleep_until = sleep
        try:
            self.arm.close()
        except KeyboardInterrupt:
            pass
        finally:
            self.arm.clock.sleep_until = sleeps


_FAULTS = st.sampled_from((*METHODS, "state", "send", "send", "hold", "hold")).flatmap(
    lambda method: st.builds(
        Fault,
        st.just(method),
        st.sampled_from(KINDS[method]),
        after=st.integers(0, 40) if method == "state" else st.integers(0, 2),
        times=st.sampled_from([1, 1, 2, 5, 1000]),
        seconds=st.sampled_from([0.005, 0.03, 0.06, 0.15, 0.5, 3.0]),
    )
)
_TROUBLES = st.one_of(
    st.just(("", 0.0, 0.0)),
    st.just(("", 0.0, 0.0)),
    st.tuples(st.just("wall"), st.floats(0, 1.5), st.sampled_from([0.05, 0.2, 1.0, 20.0])),
    st.tuples(st.just("stall"), st.floats(0, 1.5), st.sampled_from([0.03, 0.1, 0.5, 5.0])),
)
_ACTS = st.one_of(st.sampled_from(("home", "home", "hold", "stop", "damp", "release", "ready")), st.sampled_from(MOODS))
BAD_DAYS = {
    "acts": st.lists(
        st.tuples(_ACTS, st.one_of(st.none(), _FAULTS, _FAULTS), _TROUBLES, st.booleans()), min_size=1, max_size=4
    ),
    "begin": st.tuples(st.one_of(st.none(), st.none(), st.none(), _FAULTS), _TROUBLES),
    "end": st.tuples(st.one_of(st.none(), _FAULTS), _TROUBLES, st.sampled_from(["close", "exception", "interrupt"])),
    "seed": st.integers(0, 2**32 - 1),
    "lag_s": st.sampled_from([0.0, 0.0, 0.03]),
}


def bad_day(config, acts, begin, end, seed, lag_s):
    life = Life(config, seed, lag_s)
    life.live([("ready", *begin, False), *acts])
    life.end(*end)
    return life.driver.happened


@pytest.mark.slow
@sequences(FEW)
@given(config=st.sampled_from(range(len(CONFIGS))), **CASES)
def test_a_hostile_agent_leaves_no_limit_and_silence_ends_at_rest(config, moods, seed, lag_s, fails):
    check(CONFIGS[config], moods, seed, lag_s, fails=fails)


@pytest.mark.slow
@sequences(FEW)
@given(config=st.sampled_from(range(len(CONFIGS))), **BAD_DAYS)
def test_faults_inside_every_call_leave_no_limit(config, **day):
    bad_day(CONFIGS[config], **day)


@pytest.mark.long
@pytest.mark.parametrize("config", range(len(CONFIGS)))
def test_ten_thousand_hostile_sequences(config):
    """Two of three are bad days."""
    ran, happened, many = 0, 0, MANY // len(CONFIGS) + 1

    @sequences(many // 3 + 1)
    @given(**CASES)
    def run(moods, seed, lag_s, fails):
        nonlocal ran
        check(CONFIGS[config], moods, seed, lag_s, fails=fails)
        ran += 1

    @sequences(many - many // 3)
    @given(**BAD_DAYS)
    def run_faulty(**day):
        nonlocal ran, happened
        happened += bad_day(CONFIGS[config], **day) > 0
        ran += 1

    run()
    run_faulty()
    assert ran >= many and happened > many / 5


@pytest.mark.parametrize("mood", MOODS)
def test_each_kind_of_nonsense_alone(mood):
    for seed in range(2):
        for config in CONFIGS:
            check(config, ["steps", mood, mood], seed, 0.0, fails=False)


def test_an_exception_in_the_agent_ends_at_home_and_damped_without_leaving_a_limit():
    for seed in range(5):
        driver = WritingArm()
        arm, _ = safe_arm(driver)
        agent = Agent(arm, seed)
        agent.steps()
        agent.chunk()
        with pytest.raises(ZeroDivisionError), arm:
            raise ZeroDivisionError("a bug in the agent")
        assert driver.calls[-2:] == ["damp", "close"]
        courses = driver.courses()
        for course in courses:
            assert not violations(course, arm.config)
        assert np.abs(courses[-1][0, 1:7]).max() < 2e-3, "it was not home when it was damped"


def test_the_judge_sees_what_is_wrong():
    """The other tests say something only if this fails for a bad course."""
    config = CONFIGS[0]
    t = 100 + 0.02 * np.arange(50)
    still = np.zeros((50, 8))
    still[:, 0] = t
    still[:, 7] = 0.05
    assert not violations(still, config)

    def broken(column, values):
        course = still.copy()
        course[:, column] = values
        return {name for name, _, _ in violations(course, config)}

    assert {"speed", "turn", "accel", "turn_accel"} <= broken(1, 0.05 * np.arange(50))
    assert "joint_speed" in broken(6, 0.04 * np.arange(50))
    assert "joint_accel" in broken(6, 0.01 * (np.arange(50) % 2))
    assert "joint_min" in broken(2, -0.001 * np.arange(50))
    assert "box_min" in broken(1, 0.03 * np.arange(50)) and "box_max" in broken(3, 0.03 * np.arange(50))
    assert "gripper_min" in broken(7, -0.001) and "gripper_max" in broken(7, 0.1)
    assert "gripper_speed" in broken(7, 0.05 + 0.02 * (np.arange(50) % 2))
    assert "table" in broken(4, -0.03 * np.arange(50))
    assert InterventionKind.TABLE == "table"
