"""What the safety layer did to a command, and where that is written down."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import Waypoint

log = logging.getLogger(__name__)


class InterventionKind(StrEnum):
    """Why the safety layer stepped in."""

    NOT_FINITE = "not_finite"  # NaN or infinity, or not numbers at all, or a pose that only a failure gives
    BAD_TIMES = "bad_times"  # times that do not rise
    LATE = "late"  # times that are past
    JOINT_LIMIT = "joint_limit"
    WORKSPACE = "workspace"
    TABLE = "table"
    GRIPPER = "gripper"
    SLOWED = "slowed"  # speed or acceleration
    FIRST_JUMP = "first_jump"
    NO_IK = "no_ik"
    NOT_READY = "not_ready"  # damped, or not connected
    WATCHDOG = "watchdog"
    WATCHDOG_DAMP = "watchdog_damp"
    STALE_STATE = "stale_state"
    STALE_CAMERA = "stale_camera"
    TRACKING = "tracking"
    OVER_CURRENT = "over_current"
    STOPPED = "stopped"
    DRIVER = "driver"
    HOME_PATH = "home_path"
    EXIT = "exit"
    LOG = "log"  # the file of interventions can no longer be written


@dataclass(frozen=True, slots=True)
class Intervention:
    """One time that the safety layer stepped in.

    Attributes:
        time_s: on the driver's clock.
        kind: why.
        detail: the same in words, with numbers.
        wanted: (7,) joints and gripper that were asked for, or (7,) pose and gripper; ``None`` where nothing was.
        sent: (7,) joints and gripper that go instead; ``None`` where the arm just stays.
    """

    time_s: float
    kind: InterventionKind
    detail: str
    wanted: tuple[float, ...] | None = None
    sent: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a command.

    Attributes:
        waypoints: all that was sent, on the grid, the last one at rest; in a dry run, what would have been. Empty: nothing.
        interventions: what was changed, and why; empty where nothing was.
    """

    waypoints: tuple[Waypoint, ...] = ()
    interventions: tuple[Intervention, ...] = ()


def numbers(values: Sequence[float] | np.ndarray, gripper: float | None = None) -> tuple[float, ...]:
    """Floats of an intervention, with the gripper last."""
    row = tuple(float(v) for v in values)
    return row if gripper is None else (*row, float(gripper))


def number_text(value: float, digits: int = 3) -> str:
    """A number in a message, in at most a few digits."""
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.4g}"


class InterventionLog:
    """Interventions as log messages, as lines of JSON in a file that is complete after every line, and for who commands the arm.

    Nothing here raises, and nothing is written before :meth:`flush`: stopping the arm must not wait for a disk, nor fail with it.

    Args:
        path: appended to; ``None``: no file.
        now_s: on the driver's clock.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, now_s: float = 0.0) -> None:
        self._new: list[Intervention] = []
        self._pending: deque[Intervention] = deque()
        self._flushing = threading.Lock()
        self._last: InterventionKind | None = None
        self._path = path
        self._file: int | None = None
        self.problem: str | None = None
        """Why the file is no longer written, if so."""
        if path is not None:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                # A pipe that is not read must not block.
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
                self._file = os.open(path, flags, 0o666)
            except (OSError, ValueError) as error:
                self._gave_up(error, now_s)

    def write(self, intervention: Intervention) -> None:
        """One more."""
        self._new.append(intervention)
        self._pending.append(intervention)

    def flush(self) -> None:
        """Log and save what was written, once the arm has its orders. Does not wait for another thread that does."""
        if not self._flushing.acquire(blocking=False):
            return
        try:
            while self._pending:
                one = self._pending.popleft()
                # The same thing at every step is number_text once; the file has them all.
                level = logging.DEBUG if one.kind is self._last else logging.WARNING
                self._last = one.kind
                log.log(level, "%.3f s: %s: %s", one.time_s, one.kind, one.detail)
                self._save(one)
        finally:
            self._flushing.release()

    def take(self) -> tuple[Intervention, ...]:
        """Those that have not been taken yet."""
        taken, self._new = tuple(self._new), []
        return taken

    def give_back(self, interventions: Sequence[Intervention]) -> None:
        """Undo :meth:`take`, for a caller that cannot return them."""
        self._new = [*interventions, *self._new]

    def close(self) -> None:
        """Let go of the file."""
        self.flush()
        self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _save(self, intervention: Intervention) -> None:
        if self._file is None:
            return
        # Infinities and NaN are not JSON: a command may well be that.
        row = asdict(intervention)
        row["wanted"], row["sent"] = _plain(intervention.wanted), _plain(intervention.sent)
        line = memoryview((json.dumps(row, allow_nan=False) + "\n").encode())
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except (OSError, ValueError) as error:
            self._gave_up(error, intervention.time_s)
            self._close()

    def _gave_up(self, error: Exception, time_s: float) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        self.problem = f"interventions are not kept, {self._path} cannot be written: {reason}"
        log.warning("%s", self.problem)
        self._new.append(Intervention(time_s, InterventionKind.LOG, self.problem))


def _plain(values: tuple[float, ...] | None) -> list[float | str] | None:
    return None if values is None else [v if np.isfinite(v) else str(v) for v in values]
