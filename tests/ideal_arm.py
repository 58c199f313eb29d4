"""An arm that is at once where it is told to be, on a clock that passes only while somebody sleeps."""

import threading

import numpy as np

from uva_agents.errors import NotFiniteError
from uva_agents.realtime.robot_interface import Observed, SendReport
from uva_agents.realtime.worker import Reply


class Virtual:
    """Stands still unless somebody sleeps, who may sleep too long: ``oversleep`` gives by how much."""

    def __init__(self, oversleep=lambda time_s: 0.0):
        self.time_s, self._oversleep = 0.0, oversleep

    def now(self):
        return self.time_s

    def sleep_until(self, time_s):
        if time_s > self.time_s:
            self.time_s = time_s + self._oversleep(time_s)


class IdealArm:
    """A robot interface whose action is where it is. Three positions, a rotation vector and a gripper.

    Args:
        clock: see above.
        camera_s: how old a picture is.
        reaction_s: see the protocol.
        side: of the pictures.
    """

    start = np.array([0.3, 0.0, 0.2, 0.0, 0.0, 0.0, 0.04])

    def __init__(self, clock, *, camera_s=0.05, reaction_s=0.04, side=32):
        self.clock, self.camera_s, self.reaction_s, self.side = clock, camera_s, reaction_s, side
        self.commands = []  # (now, start_s, dt, actions)
        self.holds, self.stops = [], []
        self._times, self._places = np.zeros(1), self.start[None]
        self._lock = threading.Lock()
        self.fails_at = None

    def now(self):
        return self.clock.now()

    def sleep_until(self, time_s):
        self.clock.sleep_until(time_s)

    def place(self, time_s):
        """(7,) where it is, or will be."""
        with self._lock:
            columns = [np.interp(time_s, self._times, column) for column in self._places.T]
        return np.array(columns)

    def observe(self):
        seen_s = self.now() - self.camera_s
        if self.fails_at is not None and self.now() >= self.fails_at:
            raise RuntimeError("the arm is unplugged")
        place = self.place(seen_s)
        pixels = np.full((self.side, self.side, 3), int(np.clip(place[0] * 255, 0, 255)), np.uint8)
        return Observed({"pixels": pixels, "agent_pos": place.astype(np.float32)}, seen_s)

    def schedule(self, actions, start_s, dt):
        now = self.now()
        self.commands.append((now, start_s, dt, actions))
        here = self.place(now)
        times = start_s + dt * np.arange(len(actions))
        with self._lock:
            kept = self._times < now
            self._times = np.concatenate([self._times[kept][-100:], [now], times])
            self._places = np.concatenate([self._places[kept][-100:], here[None], actions])
        return SendReport(np.asarray(actions[0]))

    def stay(self, obs):
        return np.asarray(obs["agent_pos"], float)

    def hold(self):
        self.holds.append(self.now())

    def refuse(self, reason):
        self.hold()
        return (f"not_finite: {reason}",)

    def stop(self):
        self.stops.append(self.now())


class Timed:
    """A worker on a virtual clock: answers ``seconds(request)`` after it was asked, with ``answer(request)`` or its error."""

    def __init__(self, clock, answer, seconds):
        self.clock, self.answer, self.seconds = clock, answer, seconds
        self.requests, self._pending, self.closed = [], None, False

    @property
    def busy(self):
        return self._pending is not None

    def submit(self, request):
        assert not self.busy
        self.requests.append(request)
        self._pending = (self.clock.now() + self.seconds(request), request)

    def poll(self):
        if self._pending is None or self.clock.now() < self._pending[0] - 1e-9:
            return None
        request, self._pending = self._pending[1], None
        try:
            return Reply(request, np.asarray(self.answer(request), float), None, self.seconds(request))
        except Exception as error:
            return Reply(
                request, None, f"{type(error).__name__}: {error}", not_finite=isinstance(error, NotFiniteError)
            )

    def close(self):
        self.closed = True


def path(time_s):
    """(n, 7): a slow circle, turning, the gripper closing and opening. What the test agents want, as a function of time."""
    t = np.atleast_1d(time_s)
    zero = np.zeros_like(t)
    return np.stack(
        [
            *(0.3 + 0.05 * np.cos(t) - 0.05, 0.05 * np.sin(t), 0.2 + 0.02 * np.sin(2 * t)),
            *(zero, zero, 0.3 * np.sin(t), 0.04 + 0.02 * np.sin(t)),
        ],
        axis=1,
    )


def chunk(request, *, n=16, dt=0.05):
    """What an agent that follows :func:`path` decides."""
    return path(request.observed_s + dt * np.arange(n))
