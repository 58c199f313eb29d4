"""Episodes to disk while the arm moves: the loop hands rows over and goes on, a thread writes them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data.writers.lerobot_append import EpisodeDraft, LeRobotAppender
from uva_agents.data.writers.lerobot_names import arx_names
from uva_agents.realtime.replay import write_settings
from uva_agents.realtime.robot_interface import Observed, as_float

_LOG = logging.getLogger(__name__)
_MAX_BYTES = 512 * 2**20
"""Rows that wait for the disk; more means that it cannot keep up."""


class EpisodeRecorder:
    """Records episodes into a LeRobot v3 dataset: pictures as video, numbers as parquet.

    A row is a step of the loop: what was seen, ``action``, what was really sent (while nothing was, the one before goes on), and
    ``wanted_action``, what the agent chose; ``time_s``, when the row's observation was true, in seconds since the first row's.

    Args:
        folder: of the dataset, new or with episodes of the same kind.
        control_hz: of the loop.
        settings: what a replay has to know of the environment; goes to ``meta/recording.json``.
        say: takes messages for the operator.

    Raises:
        ValueError, MissingExtraError: see :class:`~uva_agents.data.writers.lerobot_append.LeRobotAppender`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        control_hz: float,
        settings: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        names = arx_names(settings)
        robot = "arx_x5" if names else None
        self._appender = LeRobotAppender(folder, control_hz=control_hz, names=names, robot_type=robot)
        self._settings = settings
        self._say = say or _LOG.warning
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._draft: EpisodeDraft | None = None
        self._failed: str | None = None
        self.complete = True
        """Whether all that was to be kept has been."""
        self._lock, self._waiting = threading.Lock(), 0
        self._first_s: float | None = None
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    @property
    def folder(self) -> Path:
        """Of the dataset."""
        return self._appender.folder

    def __len__(self) -> int:
        """Episodes in the dataset."""
        return len(self._appender)

    def begin(self) -> None:
        """A new episode; one that was not ended is dropped."""
        self._first_s, self._last, self._failed = None, None, None
        self._queue.put(("begin", None))

    def add(self, observed: Observed, action: np.ndarray | None, desired: np.ndarray | None) -> None:
        """A step; see :class:`~uva_agents.realtime.loop.StepRecorder`."""
        if self._failed is not None:
            return
        if desired is not None:
            sent = desired if action is None else action
            self._last = np.asarray(sent, np.float32), np.asarray(desired, np.float32)
        if self._last is None:
            return  # nothing has been sent yet
        self._first_s = observed.time_s if self._first_s is None else self._first_s
        row = {name: value for name, value in observed.obs.items() if not isinstance(value, str)}
        row = {name: value if name.startswith("pixels") else as_float(value) for name, value in row.items()}
        row |= {name: as_float(value) for name, value in observed.extra.items()}
        row |= {"action": self._last[0], "wanted_action": self._last[1]}
        row["time_s"] = as_float(observed.time_s - self._first_s)
        size = sum(value.nbytes for value in row.values())
        with self._lock:
            self._waiting += size
            too_much = self._waiting > _MAX_BYTES
        if too_much:
            self._fail("the disk does not keep up with the recording")
            return
        self._queue.put(("row", row))

    def end(self, *, keep: bool, task: str = "") -> None:
        """The episode is over; returns at once."""
        self._queue.put(("keep" if keep and self._failed is None else "drop", task))

    def wait(self, timeout_s: float = 120.0) -> bool:
        """Until all that was ended is on disk; false if that takes longer."""
        self._idle.clear()
        self._queue.put(("tell", None))
        return self._idle.wait(timeout_s)

    def close(self) -> None:
        """Finish what was ended; an episode that was not is dropped."""
        if self._thread.is_alive():
            self._queue.put(("close", None))
            self._thread.join(timeout=120.0)

    def _fail(self, problem: str) -> None:
        self._failed, self.complete = problem, False
        self._say(f"{problem}: this episode is not recorded")

    def _write(self) -> None:
        while True:
            what, value = self._queue.get()
            if what == "tell":
                self._idle.set()
                continue
            try:
                self._handle(what, value)
            except Exception as error:
                _LOG.exception("recording failed")
                self._fail(f"recording failed ({type(error).__name__}: {error})")
                if self._draft is not None:
                    self._draft.drop()
                    self._draft = None
            if what == "close":
                return

    def _handle(self, what: str, value: Any) -> None:
        draft = self._draft
        if what == "row":
            with self._lock:
                self._waiting -= sum(part.nbytes for part in value.values())
            if draft is not None and self._failed is None:
                draft.add(value)
        elif what == "begin":
            if draft is not None:
                draft.drop()
            self._draft = self._appender.begin()
        elif draft is not None:
            self._draft = None
            if what != "keep":
                draft.drop()
                return
            number = draft.keep(value)
            if number is not None and self._settings is not None:
                write_settings(self.folder, self._settings)
                self._settings = None
            if number is not None:
                _LOG.info("episode %d: %d steps in %s", number, len(draft), self.folder)
