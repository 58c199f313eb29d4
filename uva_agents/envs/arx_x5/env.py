"""The gymnasium environment ``uva/ArxX5-v0``."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.envs import states
from uva_agents.envs.arx_x5.actions import ACTIONS, ActionCodec
from uva_agents.envs.arx_x5.arm.interface import ArmState, Camera, Driver, Waypoint
from uva_agents.envs.arx_x5.arm.limits import arm_limits
from uva_agents.envs.arx_x5.drivers.factory import TwinState
from uva_agents.envs.arx_x5.observing import OUTSIDE, WRIST, ObservationSettings, observation, observation_space
from uva_agents.envs.arx_x5.options import check_options
from uva_agents.envs.arx_x5.safety import Intervention, SafetyConfig
from uva_agents.envs.arx_x5.safety.simulated import SafetyState
from uva_agents.envs.arx_x5.system.assembly import checked_model
from uva_agents.envs.arx_x5.system.sessions import TwinStage, open_stage
from uva_agents.envs.arx_x5.system.system import Latencies, Look
from uva_agents.envs.arx_x5.tasks.demonstrator import Demonstrator
from uva_agents.envs.arx_x5.twin.camera import LARGEST
from uva_agents.envs.checks import (
    MOST,
    as_numbers,
    checked_choice,
    checked_flag,
    checked_options,
    checked_render_mode,
    checked_seed,
    checked_side,
    checked_size,
)
from uva_agents.envs.lifecycle import Lifecycle
from uva_agents.errors import InputError
from uva_agents.utils.clocks import Clock
from uva_agents.utils.pacing import Pacer

Observation = dict[str, np.ndarray]
_STANDS = 1e-3
"""rad: an arm that has no farther to go."""


@dataclass(frozen=True, slots=True, eq=False)
class Scheduled:
    """What became of actions that were given to :meth:`ArxX5Env.schedule`.

    Attributes:
        sent: (A,) float32, what was really sent in place of the first one that was not too late; ``None`` if nothing was.
        waypoints: all of it, as it went to the arm.
        interventions: of the safety layer.
        dropped: how many actions came too late and were left out.
        late_s: how much too late the first one was; 0 if it was not.
    """

    sent: np.ndarray | None
    waypoints: tuple[Waypoint, ...]
    interventions: tuple[Intervention, ...]
    dropped: int
    late_s: float


@dataclass(frozen=True, slots=True, eq=False)
class ArxX5State:
    """A moment of an episode on the twin as a value: picklable, valid in every environment with the same settings.

    Attributes:
        twin: arm, objects, sensors, cameras, queue and clock.
        safety: what the safety layer sent, and what it is doing.
        history: the arm's newest measurements.
        look: what was seen last, without pictures.
        due_s: when the next step is due.
        start_s: when the episode began.
        allowed: the control rate and the limits of safety that all this was made with.
        stamp: which environment, task and version it is of, and a checksum.
    """

    twin: TwinState
    safety: SafetyState
    history: tuple[ArmState, ...]
    look: Look
    due_s: float
    start_s: float
    allowed: dict[str, Any]
    stamp: states.Stamp | None = field(default=None, kw_only=True)


class ArxX5Env(Lifecycle, gym.Env[Observation, np.ndarray]):
    """``uva/ArxX5-v0``: an ARX X5 with a camera on its wrist, or its simulated twin. What is sent to it passes a safety layer.

    Observation: ``pixels`` uint8 (H, W, 3) RGB of the wrist camera; ``agent_pos`` float32 (7,): the tool's position in metres (3),
    its rotation vector in rad (3), both in the arm's base frame, and the opening of the gripper in metres, of the moment when
    ``pixels`` were seen: measurements around it are interpolated. On request ``pixels_outside``, ``joint_pos``, ``joint_vel``,
    ``joint_torque`` float32 (6,), ``timestamp`` float64 (1,): that moment, in seconds since the reset.

    Action, ``"absolute"``: float32 (10,): where the tool shall be one step later, position (3), first two rows of the rotation
    matrix (6), opening of the gripper in metres (1). ``"absolute_vector"``: float32 (7,): the same with a rotation vector, what
    policies with UMI's interface return. ``"relative"``: float32 (10,): as ``"absolute"``, seen from the tool's pose in the
    last observation. ``"joints"``: float32 (7,): rad and metres. Values outside the space are not clipped here: the safety layer
    makes of them what is allowed, of NaN too, and says so.

    Reward: 1 on success, else 0. Terminates on success; an emergency stop truncates. ``info``: ``is_success``; ``sent`` (A,), the
    action that was really sent, ``waypoints``, all of it as it went to the arm; ``interventions``, what the safety layer
    did since the last step; ``timing``, how well the steps keep their times; ``observed_s``, the clock's time of the
    observation, and ``latency_s``, how long ago that was; ``stopped``, whether the emergency stop is pressed.

    On the twin the same seed and actions give the same episode, bit for bit. ``docs/arx_x5.md`` is about the arm itself.

    Args:
        render_mode: ``"rgb_array"`` or ``None``; pictures are available in both cases.
        driver: ``"sim"``, the twin; ``"arx5"``, the arm itself; or a driver.
        model: ``"X5"`` or ``"X5_umi"``. Only the twin has a default, ``"X5"``.
        task: of the twin, ``"cup"`` (default) or ``"reach"``.
        action_mode: see above.
        tool_frame: axes of the tool in ``agent_pos`` and actions: ``"umi"``, z out of the gripper, x right, y down; or ``"sdk"``, x
            out of the gripper, y left, z up.
        control_hz: steps per second, 1 to 100.
        realtime: let the twin live by the machine's clock, as the arm does.
        image_size: of the pictures: (height, width), or the side of a square.
        image_mask: bool (height, width): black in ``pixels`` where true.
        outside, joint_state, timestamp: add to the observation, see above.
        render_observations: False leaves pictures out, for fast simulation; :meth:`observe` draws when asked.
        camera, outside_camera: of the arm; the twin has its own.
        latencies: of measurements and actions. The twin knows its own; for the arm, measure them.
        safety: limits. Defaults are small and slow.
        home_on_reset: whether every reset may send the arm home, or who is asked each time. The twin needs no permission.
        success: with an arm, tells whether the task is done.
        late_s: a step that begins later than this is counted as late; a tenth of a period by default.
        log_file: what the safety layer does, as lines of JSON, appended.
        render_size: side in pixels of the pictures of :meth:`render`.
        driver_options: more for :func:`~uva_agents.envs.arx_x5.drivers.factory.make_driver`: ``interface``, ``realism``,
            ``options``.

    Raises:
        ImportError: MuJoCo or the arm's SDK is not installed.
        InputError: an unknown option, one of the wrong type or out of range, or options that do not go together.
        DriverError: no arm answers; the message says what to check.
    """

    # gymnasium declares it without ClassVar.
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]
    _max_episode_steps = 400
    _env_id: ClassVar[str] = "uva/ArxX5-v0"
    _carried: ClassVar[tuple[str, ...]] = ("_account",)

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        *,
        driver: str | Driver = "sim",
        model: str | None = None,
        task: str | None = None,
        action_mode: str = "absolute",
        tool_frame: str = "umi",
        control_hz: float = 20.0,
        realtime: bool = False,
        image_size: int | tuple[int, int] = 224,
        image_mask: np.ndarray | None = None,
        outside: bool = False,
        joint_state: bool = False,
        timestamp: bool = False,
        render_observations: bool = True,
        camera: Camera | None = None,
        outside_camera: Camera | None = None,
        latencies: Latencies | None = None,
        safety: SafetyConfig | None = None,
        home_on_reset: bool | Callable[[], bool] = False,
        success: Callable[[ArmState], bool] | None = None,
        late_s: float | None = None,
        log_file: str | None = None,
        render_size: int = 480,
        **driver_options: Any,
    ) -> None:
        given = locals()
        checked_render_mode(render_mode)
        check_options({name: given[name] for name in given if name not in ("self", "__class__")})
        checked_choice(action_mode, "action_mode", tuple(ACTIONS))
        self.render_mode, self.action_mode = render_mode, action_mode
        self.control_hz = float(control_hz)
        self.metadata = {**type(self).metadata, "render_fps": round(control_hz)}  # type: ignore[misc]
        # The twin draws no larger pictures; those of a camera are brought to the size that is asked for.
        most = LARGEST if driver == "sim" else MOST
        self.image_size = checked_size(image_size, most=most)
        render_size = checked_side(render_size, most=most)
        for name, flag in (("outside", outside), ("joint_state", joint_state), ("timestamp", timestamp)):
            checked_flag(flag, name)
        checked_flag(render_observations, "render_observations")
        checked_flag(realtime, "realtime")
        if not callable(home_on_reset):
            checked_flag(home_on_reset, "home_on_reset")
        self._render_size, self._render_observations, self._render_outside = render_size, render_observations, outside
        self._look: Look | None = None
        self._model = model = checked_model(model, driver)
        keys = (WRIST, OUTSIDE) if outside else (WRIST,)
        self._settings = ObservationSettings(
            image_size=self.image_size,
            cameras=keys if render_observations else (),
            joint_state=joint_state,
            timestamp=timestamp,
            mask=image_mask,
        )
        config, limits = safety or SafetyConfig(), arm_limits(model)
        self._codec = ActionCodec(
            action_mode,
            tool_frame=tool_frame,
            low=config.box_min,
            high=config.box_max,
            joint_low=limits.joint_pos_min,
            joint_high=limits.joint_pos_max,
            gripper_width=limits.gripper_width,
        )
        self.observation_space = self._space = observation_space(self._settings)  # type: ignore[assignment]
        self.action_space = self._codec.space
        self._stage = open_stage(
            driver,
            model=model,
            task=task,
            realtime=realtime,
            cameras={key: given for key, given in ((WRIST, camera), (OUTSIDE, outside_camera)) if key in keys},
            needed=self._settings.cameras,
            image_size=self.image_size,
            latencies=latencies,
            safety=config,
            home=home_on_reset,
            success=success,
            log_file=log_file,
            options=driver_options,
        )
        if isinstance(self._stage, TwinStage):
            # Who forgets to close an arm finds it as it was; a twin that nobody has any more is nobody's.
            weakref.finalize(self, _forgotten, self._stage).atexit = False
        self._rig = self._stage.rig
        self.task, self.task_description = self._stage.task, self._stage.task_description
        self._allowed = _allowed(self.control_hz, config)
        self._pacer = Pacer(
            self._rig.clock, 1 / self.control_hz, tolerance_s=0.1 / control_hz if late_s is None else late_s
        )

    # -- gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: the twin is put back; the arm itself goes home if that is allowed, else it stays.

        Args:
            seed: below 2**32; on the twin, the same seed always gives the same episode. ``None`` draws the next one.
            options: ``home``: as ``home_on_reset``, for this episode only. ``release_stop``: True lets go of the emergency stop,
                which the arm itself needs to be told; on the twin every reset does.

        Raises:
            ValueError: an unknown option or a seed out of range.
            DriverError: the arm or a camera does not answer, the stop is pressed, or the way home is not free.
        """
        self._require_open("reset()")
        options = checked_options(options, ("home", "release_stop"), self._env_id)
        if not callable(options.get("home")):
            checked_flag(options.get("home", False), "home")
        checked_flag(options.get("release_stop", False), "release_stop")
        seed = checked_seed(seed, "ArxX5")
        super().reset(seed=seed)
        self._look = None
        self._stage.begin(int(self.np_random.integers(2**31)) if seed is None else seed, options)
        self._rig.restart()
        self._pacer.restart()
        self._start_s = self.clock.now()
        return self._observation(self._render_observations), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Send ``action`` through the safety layer, to be reached when the next step is due, and look then.

        Raises:
            ValueError: ``action`` has the wrong shape, or its rotation is none.
            RuntimeError: the environment has not been reset.
            DriverError: the arm or a camera does not answer.
        """
        self._require_reset("step()")
        actions = self._checked(action, chunk=False)
        # One action is worth nothing if it is dropped: for an agent that took its time it is for a little later.
        reached_s = max(self._pacer.due_s, self.clock.now() + self.reaction_s)
        scheduled = self._send(actions, np.array([reached_s]))
        self._wait()
        return self._outcome(scheduled)

    def tick(self) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """As :meth:`step`, but nothing is sent: the arm goes on with what was scheduled."""
        self._require_reset("tick()")
        self._wait()
        return self._outcome(None)

    def render(self) -> np.ndarray | None:
        """Picture uint8 (render_size, render_size, 3) of the present moment, from outside where there is such a camera."""
        self._require_reset("render()")
        return self._stage.draw((self._render_size, self._render_size))

    def close(self) -> None:
        """Bring the arm to rest as the safety layer is set to, and let go of it; the environment is of no use afterwards."""
        super().close()

    def _running(self) -> bool:
        return self._look is not None

    def _free(self) -> None:
        self._look = None
        if hasattr(self, "_stage"):
            self._stage.close()

    # -- for loops that keep their own time --------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The arm's: all times here are its. Sleep on it, so that measurements go on where time waits for sleepers."""
        return self._rig

    @property
    def observed_s(self) -> float:
        """The time of the last observation, on :attr:`clock`."""
        return self._seen.time_s

    @property
    def is_success(self) -> bool:
        """Whether the task is done."""
        return bool(self._stage.success(self._seen.newest))

    @property
    def stopped(self) -> bool:
        """Whether the emergency stop is pressed."""
        return bool(self._rig.arm.stop.pressed)

    @property
    def reaction_s(self) -> float:
        """How far ahead of now the first moment lies that an action sent now can still be for."""
        return self._rig.reaction_s

    def schedule(self, actions: Any, start_s: float, dt: float | None = None) -> Scheduled:
        """Be at ``actions`` at ``start_s``, ``start_s`` + ``dt``, ... and stay at the last; replaces what was scheduled.

        Those that come too late are dropped. Neither waits nor looks; relative actions start from the last observation's pose.

        Args:
            actions: (T, A).
            start_s: when to be at the first, on :attr:`clock`.
            dt: between actions; the environment's own period by default.

        Raises:
            ValueError: the wrong shape, or a rotation that is none.
            DriverError: the arm does not answer.
        """
        self._require_reset("schedule()")
        chunk = self._checked(actions, chunk=True)
        return self._send(chunk, start_s + (1 / self.control_hz if dt is None else dt) * np.arange(len(chunk)))

    def hold(self) -> None:
        """Come to rest, stiff; forget what is scheduled."""
        self._require_open("hold()")
        self._rig.arm.hold()

    def refuse(self, reason: str) -> tuple[Intervention, ...]:
        """As :meth:`hold`, because an agent has nothing that could be sent, for example NaN.

        Returns:
            Every intervention since the last step; the last one is this, of kind ``not_finite`` with ``reason``.
        """
        self._require_open("refuse()")
        return self._rig.arm.refuse(reason)

    def stop(self, reason: str = "stop() was called") -> None:
        """Emergency stop, from any thread: the arm brakes, and nothing moves before the next reset."""
        self._rig.arm.stop.press(reason)

    def hold_action(self) -> np.ndarray:
        """The action (A,) that keeps the arm where it is, and the gripper as it was told last: what it grips stays gripped."""
        self._require_reset("hold_action()")
        arm, state = self._rig.arm, self._rig.history.newest()
        joints, gripper = state.joint_pos, state.gripper_pos
        goal = arm.goal
        if goal is not None:
            # Where it was sent, and not where it hangs a little below: an arm that is told to stay there sinks step by step.
            joints, gripper = goal[0] if np.abs(goal[0] - arm.sent_to).max() < _STANDS else joints, goal[1]
        return self._codec.action(self._rig.kinematics.forward(joints), joints, gripper, self._seen.state)

    def get_obs(self) -> Observation:
        """The newest observation, without waiting for the next step."""
        self._require_reset("get_obs()")
        return self._observation(self._render_observations)

    def observe(self) -> Observation:
        """As :meth:`get_obs`, with pictures whatever ``render_observations`` says."""
        self._require_reset("observe()")
        return self._observation(True)

    def demonstration(self) -> Iterator[np.ndarray]:
        """Actions (A,) of a script that knows where everything is, one for each step from now on, until it has no more to do.

        Raises:
            RuntimeError: this is not the twin: only there somebody knows.
        """
        self._require_reset("demonstration()")
        stage = self._stage
        if not isinstance(stage, TwinStage):
            raise RuntimeError(
                "demonstration() needs the twin (driver='sim'): nobody knows where things are before a real arm"
            )
        script = Demonstrator(stage.truth, rate_hz=self.control_hz)
        while not script.done:
            target = script.act()
            yield self._codec.action(target.eef_pose, target.joint_pos, target.gripper_pos, self._seen.state)

    # -- moments of the twin -----------------------------------------------------------------------------------------

    def get_state(self) -> ArxX5State:
        """The present moment of the twin, for :meth:`set_state` of this or any other environment with the same settings.

        Raises:
            RuntimeError: the environment has not been reset, or its clock cannot be put back: only ``driver="sim"`` without
                ``realtime`` can.
        """
        self._require_reset("get_state()")
        stage = self._simulated("get_state()")
        values = (
            stage.driver.get_state(),
            stage.arm.get_state(),
            self._rig.history.states,
            replace(self._seen, frames={}),
            self._pacer.due_s,
            self._start_s,
            self._allowed,
        )
        return ArxX5State(*values, stamp=states.stamp(self._env_id, self._kind, _made_by(), map(_packed, values)))

    def set_state(self, state: ArxX5State) -> None:
        """Go to ``state``; what follows equals what followed there, bit for bit.

        The step limit of ``gymnasium.make`` is a wrapper and keeps its own count; so does ``info["timing"]``.

        Raises:
            InputError: ``state`` is no state, of another task, arm, version, rate or limits, or was
                changed; nothing has happened then.
            RuntimeError: as :meth:`get_state`.
        """
        self._require_open("set_state()")
        states.check(
            state,
            ArxX5State,
            environment=self._env_id,
            made_by=_made_by(),
            tasks=(self._kind,),
            validate=_validate,
            pack=_packed,
        )
        here = self._allowed
        differ = [name for name in here if state.allowed.get(name) != here[name]]
        if differ:
            # What was sent there goes on here, and would break these limits.
            what = "; ".join(f"{name}={state.allowed.get(name)} there and {here[name]} here" for name in differ)
            raise InputError(
                f"this state is of an environment with other limits ({what}): make both with the same control_hz and safety"
            )
        stage = self._simulated("set_state()")
        stage.driver.connect()
        stage.driver.set_state(state.twin)
        stage.arm.set_state(state.safety)
        self._rig.history.states = state.history
        self._look = state.look
        self._pacer.due_s, self._start_s = state.due_s, state.start_s

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _seen(self) -> Look:
        self._require_reset("the last observation")
        assert self._look is not None
        return self._look

    def _checked(self, actions: Any, *, chunk: bool) -> np.ndarray:
        numbers = as_numbers(actions, "ArxX5")
        try:
            return self._codec.checked(numbers, chunk=chunk)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _send(self, actions: np.ndarray, times: np.ndarray) -> Scheduled:
        result = self._rig.send(self._codec.targets(actions, self._seen.state), times)
        sent = None
        if result.sent.waypoints:
            joints, gripper = self._rig.where_sent(result.sent.waypoints, float(times[result.dropped]))
            sent = self._codec.action(self._rig.kinematics.forward(joints), joints, gripper, self._seen.state)
        return Scheduled(sent, result.sent.waypoints, result.sent.interventions, result.dropped, result.late_s)

    def _wait(self) -> None:
        self._rig.sleep_until(self._pacer.due_s)
        self._pacer.arrived()

    def _observation(self, pictures: bool) -> Observation:
        self._look = self._rig.look(cameras=pictures)
        return observation(self._look, self._settings, self._codec, self._space, start_s=self._start_s)

    def _outcome(self, scheduled: Scheduled | None) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        obs, info = self.get_obs(), self._info()
        if scheduled is not None:
            info["interventions"] = (*scheduled.interventions, *info["interventions"])
            info |= {"sent": scheduled.sent, "waypoints": scheduled.waypoints}
        return obs, float(info["is_success"]), info["is_success"], info["stopped"], info

    def _info(self) -> dict[str, Any]:
        look, arm = self._seen, self._rig.arm
        return {
            "is_success": self.is_success,
            "sent": None,
            "waypoints": (),
            "interventions": arm.take_interventions(),
            "stopped": self.stopped,
            "timing": self._pacer.timing(),
            "observed_s": look.time_s,
            "latency_s": self.clock.now() - look.time_s,
        }

    def _simulated(self, what: str) -> TwinStage:
        stage = self._stage
        if not isinstance(stage, TwinStage) or not stage.repeats:
            raise RuntimeError(
                f"{what} needs the twin on its simulated clock (driver='sim'): real time does not go back"
            )
        return stage

    @property
    def _account(self) -> Any:
        """Of the pacer, for copies."""
        return self._pacer.account

    @_account.setter
    def _account(self, account: Any) -> None:
        self._pacer.account = account

    @property
    def _kind(self) -> str:
        return f"{self.task} with {self._model}"

    def _require_copyable(self) -> None:
        if not (isinstance(self._stage, TwinStage) and self._stage.repeats and self._made_of_values()):
            raise InputError(
                "an ArxX5 environment can be copied or pickled on the twin's simulated clock only (driver='sim', realtime=False, "
                "no camera objects): there is one arm, and real time does not go back. Make the environment where it is used"
            )

    def _made_of_values(self) -> bool:
        kwargs = self._made_with[1]
        return kwargs.get("driver", "sim") == "sim" and not (kwargs.get("camera") or kwargs.get("outside_camera"))


def _forgotten(stage: TwinStage) -> None:
    stage.arm.abandon()
    stage.close()


def _made_by() -> str:
    return states.simulator("mujoco")


def _allowed(control_hz: float, config: SafetyConfig) -> dict[str, Any]:
    """What the motion in a state depends on: the rate, and every limit."""
    limits = asdict(config)
    limits |= {name: tuple(map(float, limits[name])) for name in ("box_min", "box_max")}
    return {"control_hz": control_hz} | {f"safety.{name}": value for name, value in limits.items()}


def _validate(state: ArxX5State) -> None:
    states.numbers((state.due_s, state.start_s, state.twin.clock_s), "times", size=3)
    states.numbers(state.twin.controller.plant.physics, "physics", low=-1e10, high=1e10)


def _packed(value: Any) -> Any:
    """The history as one piece: two hundred measurements, one by one, would take as long to sum up as half a step."""
    if not (isinstance(value, tuple) and value and isinstance(value[0], ArmState)):
        return value
    rows = [(s.joint_pos, s.joint_vel, s.joint_torque, s.eef_pose) for s in value]
    numbers = [(s.time_s, s.gripper_pos, s.gripper_vel, s.gripper_torque) for s in value]
    return np.array(rows), np.array(numbers)
