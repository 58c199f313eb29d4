"""Episodes one after another: the operator, the recording, the way back to the start."""

from __future__ import annotations

import time
from typing import Protocol

from uva_agents.realtime.controls import Command, Controls
from uva_agents.realtime.loop import Loop
from uva_agents.realtime.recorder import EpisodeRecorder
from uva_agents.realtime.telemetry import EpisodeSummary
from uva_agents.realtime.view import summary


class Audience(Protocol):
    """Shows messages to the operator; :class:`~uva_agents.realtime.view.View` is one."""

    def say(self, text: str) -> None:
        """A message."""
        ...

    def phase(self, text: str) -> None:
        """What is going on."""
        ...


class Reset(Protocol):
    """Brings the arm to the start of an episode."""

    def __call__(self, seed: int, *, home: bool = False, release_stop: bool = False) -> None:
        """Begin the episode ``seed``; ``home`` sends the arm home first, ``release_stop`` lets go of a pressed emergency stop."""
        ...


class OperatorSession:
    """Runs episodes.

    Args:
        loop: runs one.
        reset: brings the arm to the start of one.
        audience: shows messages.
        recorder: keeps them.
        interactive: an operator at the keyboard starts each episode; otherwise they begin at once.
        task: recorded with them.
    """

    def __init__(
        self,
        loop: Loop,
        reset: Reset,
        audience: Audience,
        *,
        recorder: EpisodeRecorder | None = None,
        interactive: bool = False,
        task: str = "",
    ) -> None:
        self._loop, self._reset, self._audience = loop, reset, audience
        self._recorder, self._interactive, self._task = recorder, interactive, task
        self.episodes: list[EpisodeSummary] = []

    @property
    def controls(self) -> Controls:
        """The loop's."""
        return self._loop.controls

    def run(self, episodes: int, *, seed: int = 0) -> list[EpisodeSummary]:
        """Up to ``episodes`` of them; the operator may end it earlier.

        A dropped one is repeated if there is an operator at the keyboard. Without one, an emergency stop or an error of the
        agent ends it all.
        """
        done = 0
        while done < episodes:
            self.controls.clear()
            if self._interactive and not self._wait_for_start(done, episodes):
                break
            self._audience.phase("going to the start")
            self._reset(seed + done, release_stop=self.controls.emergency.is_set())
            self.controls.emergency.clear()
            self.controls.clear()
            episode = self._one(seed + done, done, episodes)
            self.episodes.append(episode)
            done += 0 if episode.end == "dropped" and self._interactive else 1
            if episode.end == "quit" or (episode.end in ("emergency", "error") and not self._interactive):
                break
        return self.episodes

    def _one(self, seed: int, number: int, episodes: int) -> EpisodeSummary:
        audience, recorder = self._audience, self._recorder
        audience.phase(f"episode {number + 1} of {episodes}")
        if recorder is not None:
            recorder.begin()
        keep = False
        try:
            episode = self._loop.run(seed, recorder)
            keep = episode.end not in ("dropped", "emergency")
        finally:
            if recorder is not None:
                recorder.end(keep=keep, task=self._task)
        audience.say(f"episode {number + 1}: {summary(episode)}{'' if keep or recorder is None else '; not kept'}")
        return episode

    def _wait_for_start(self, number: int, episodes: int) -> bool:
        """Whether the operator wants another one."""
        stopped = self.controls.emergency.is_set()
        what = "EMERGENCY STOP: c or h lets go of it" if stopped else f"c starts episode {number + 1} of {episodes}"
        self._audience.phase(f"waiting: {what}")
        while True:
            command = self.controls.take()
            if command is Command.START:
                return True
            if command is Command.QUIT:
                return False
            if command is Command.HOME:
                self._audience.phase("going home")
                self._reset(number, home=True, release_stop=self.controls.emergency.is_set())
                self.controls.emergency.clear()
                return self._wait_for_start(number, episodes)
            if command is Command.EMERGENCY and not stopped:
                return self._wait_for_start(number, episodes)
            time.sleep(0.02)
