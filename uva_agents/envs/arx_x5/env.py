"""The gymnasium environment ``uva/ArxX5-v0``."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from uva_agents.envs.arx_x5.actions import ACTIONS, ActionCodec
from uva_agents.envs.arx_x5.arm.interface import ArmState, Camera, Driver
from uva_agents.envs.arx_x5.arm.limits import arm_limits
from uva_agents.envs.arx_x5.control import Observation
from uva_agents.envs.arx_x5.episodes import TwinEpisodes
from uva_agents.envs.arx_x5.fitting import options_for
from uva_agents.envs.arx_x5.observing import OUTSIDE, WRIST, ObservationSettings, camera_keys, observation_space
from uva_agents.envs.arx_x5.options import check_options
from uva_agents.envs.arx_x5.safety import SafetyConfig
from uva_agents.envs.arx_x5.state import allowed_motion
from uva_agents.envs.arx_x5.system.assembly import checked_model
from uva_agents.envs.arx_x5.system.sessions import TwinSession, open_session
from uva_agents.envs.arx_x5.system.system import Latencies, Snapshot
from uva_agents.envs.arx_x5.twin.camera import LARGEST
from uva_agents.envs.checks import (
    MOST,
    checked_choice,
    checked_flag,
    checked_options,
    checked_render_mode,
    checked_seed,
    checked_side,
    checked_size,
)
from uva_agents.errors import InputError
from uva_agents.utils.pacing import Pacer


class ArxX5Env(TwinEpisodes, gym.Env[Observation, np.ndarray]):
    """``uva/ArxX5-v0``: an ARX X5 with a camera on its wrist, or its simulated twin. What is sent to it passes a safety layer.

    Observation: ``pixels`` uint8 (H, W, 3) RGB of the wrist camera; ``agent_pos`` float32 (7,): the tool's position in metres (3),
    its rotation vector in rad (3), both in the arm's base frame, and the opening of the gripper in metres, of the moment when
    ``pixels`` were seen: measurements around it are interpolated. On request pictures of another camera; ``joint_pos``,
    ``joint_vel``, ``joint_torque`` float32 (6,); ``timestamp`` float64 (1,): that moment, in seconds since the reset;
    ``task``, what to do, in words.

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
        image_mask: bool (height, width): black in the wrist camera's pictures where true.
        cameras: ``"wrist"`` (default), ``"outside"`` or both, a sequence or text with commas: the first one's pictures are
            ``pixels``, another one's ``pixels_wrist`` or ``pixels_outside``. Or a mapping, key to camera.
        outside: the same as ``cameras="wrist,outside"``.
        looks: of the twin: ``"plain"``; ``"varied"``, other colours, light and things around in every episode; ``"unseen"``, such
            as never are in ``"varied"``, and ``"unseen-table"``, ``-objects``, ``-distractors``, ``-light``, ``-gripper``, in
            one way only. Where things stand does not depend on it.
        instruction: True adds ``task`` to observations; text says what it is instead of the task's own words.
        joint_state, timestamp: add to the observation, see above.
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
    _carried: ClassVar[tuple[str, ...]] = ("_pacer_record", "_present_task")

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
        cameras: str | Sequence[str] | Mapping[str, str] | None = None,
        outside: bool = False,
        looks: str = "plain",
        instruction: bool | str = False,
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
        self._render_size, self._render_observations, self._render_outside = render_size, render_observations, outside
        self._snapshot: Snapshot | None = None
        self._model = model = checked_model(model, driver)
        views = camera_keys(((WRIST, OUTSIDE) if outside else (WRIST,)) if cameras is None else cameras)
        if outside and OUTSIDE not in views.values():
            raise InputError(f"outside=True and cameras={cameras!r} do not go together: name all in cameras")
        if driver != "sim" and instruction is True:
            raise InputError("instruction=True is what the twin's task asks for: say in words what the arm shall do")
        self._settings = ObservationSettings(
            image_size=self.image_size,
            cameras=views if render_observations else {},
            joint_state=joint_state,
            timestamp=timestamp,
            instruction=bool(instruction),
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
        self.observation_space = self._space = observation_space(self._settings)
        self.action_space = self._codec.space
        self._session = open_session(
            driver,
            model=model,
            task=task,
            realtime=realtime,
            looks=looks,
            views=views,
            given={name: given for name, given in ((WRIST, camera), (OUTSIDE, outside_camera)) if given is not None},
            needed=tuple(self._settings.cameras),
            image_size=self.image_size,
            latencies=latencies,
            safety=config,
            home=home_on_reset,
            success=success,
            log_file=log_file,
            options=driver_options,
        )
        if isinstance(self._session, TwinSession):
            # An arm that was not closed stays as it is; a twin without references is freed.
            weakref.finalize(self, _abandon, self._session).atexit = False
        self._system = self._session.system
        self._instruction = instruction if isinstance(instruction, str) and instruction else None
        self._allowed = allowed_motion(self.control_hz, config)
        self._pacer = Pacer(
            self._system.clock, 1 / self.control_hz, tolerance_s=0.1 / control_hz if late_s is None else late_s
        )

    @staticmethod
    def options_for(interface: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """What it is made with for weights, see :mod:`uva_agents.envs.fitting`."""
        return options_for(interface, given)

    # -- gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: the twin is put back; the arm itself goes home if that is allowed, else it stays.

        Args:
            seed: below 2**32; on the twin, the same seed always gives the same episode. ``None`` draws the next one.
            options: ``home``: as ``home_on_reset``, for this episode only. ``release_stop``: True lets go of the emergency stop,
                which the arm itself requires; on the twin every reset does. ``task`` and ``looks``: of the twin, as in the
                constructor, for this episode only.

        Raises:
            ValueError: an unknown option or a seed out of range.
            DriverError: the arm or a camera does not answer, the stop is pressed, or the way home is not free.
        """
        self._require_open("reset()")
        options = checked_options(options, ("home", "release_stop", "task", "looks"), self._env_id)
        if not callable(options.get("home")):
            checked_flag(options.get("home", False), "home")
        checked_flag(options.get("release_stop", False), "release_stop")
        seed = checked_seed(seed, "ArxX5")
        super().reset(seed=seed)
        self._snapshot = None
        self._session.begin(int(self.np_random.integers(2**31)) if seed is None else seed, options)
        self._system.restart()
        self._pacer.restart()
        self._start_s = self.clock.now()
        return self._observation(self._render_observations), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Send ``action`` through the safety layer, to be reached when the next step is due, and observe then.

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
        return self._session.draw((self._render_size, self._render_size))

    def close(self) -> None:
        """Bring the arm to rest as the safety layer is set to, and let go of it; the environment is of no use afterwards."""
        super().close()

    def _running(self) -> bool:
        return self._snapshot is not None

    def _free(self) -> None:
        self._snapshot = None
        if hasattr(self, "_session"):
            self._session.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _require_copyable(self) -> None:
        if not (isinstance(self._session, TwinSession) and self._session.repeats and self._made_of_values()):
            raise InputError(
                "an ArxX5 environment can be copied or pickled on the twin's simulated clock only (driver='sim', realtime=False, "
                "no camera objects): there is one arm, and real time does not go back. Make the environment where it is used"
            )

    def _made_of_values(self) -> bool:
        kwargs = self._made_with[1]
        return kwargs.get("driver", "sim") == "sim" and not (kwargs.get("camera") or kwargs.get("outside_camera"))


def _abandon(session: TwinSession) -> None:
    session.arm.abandon()
    session.close()
