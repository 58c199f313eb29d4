"""What the safety layer did to a command, and where that is written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

import numpy as np

from uva_agents.envs.arx_x5.interface import Waypoint

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """Why the safety layer stepped in."""

    NOT_FINITE = "not_finite"  # NaN or infinity, or not numbers at all
    BAD_TIMES = "bad_times"  # times that do not rise
    LATE = "late"  # times that are past
    JOINT_LIMIT = "joint_limit"
    WORKSPACE = "workspace"
    TABLE = "table"
    GRIPPER = "gripper"
    SLOWED = "slowed"  # speed or acceleration
    FIRST_JUMP = "first_jump"
    NO_IK = "no_ik"
    NOT_READY = "not_ready"  # limp, or not connected
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
    kind: Kind
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


class Record:
    """Interventions as log messages, as lines of JSON in a file that is complete after every line, and for who commands the arm.

    Args:
        path: appended to; ``None``: no file.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._new: list[Intervention] = []
        self._last: Kind | None = None
        self._file: IO[str] | None = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def write(self, intervention: Intervention) -> None:
        """One more."""
        self._new.append(intervention)
        # The same thing at every step is said once; the file has them all.
        level = logging.DEBUG if intervention.kind is self._last else logging.WARNING
        self._last = intervention.kind
        log.log(level, "%.3f s: %s: %s", intervention.time_s, intervention.kind, intervention.detail)
        if self._file is not None:
            # Infinities and NaN are not JSON: what was wanted may well be that.
            row = asdict(intervention)
            row["wanted"] = _plain(intervention.wanted)
            row["sent"] = _plain(intervention.sent)
            self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def take(self) -> tuple[Intervention, ...]:
        """Those that have not been taken yet."""
        taken, self._new = tuple(self._new), []
        return taken

    def give_back(self, interventions: Sequence[Intervention]) -> None:
        """Taken by somebody who has no use for them."""
        self._new = [*interventions, *self._new]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _plain(values: tuple[float, ...] | None) -> list[float | str] | None:
    return None if values is None else [v if np.isfinite(v) else str(v) for v in values]
