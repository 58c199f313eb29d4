"""Damaged frames, from clients to a server and from servers to a client: an error or the right answer, and it goes on."""

import threading
import tracemalloc
from typing import Any

import numpy as np
import psutil
import pytest
from websockets.exceptions import WebSocketException

from tests.damaged_frames import Frame, damaged, requests
from tests.serving import RawClient, raw_client, raw_pack
from tests.tiny import observation
from uva_agents.agents.observations import read_observation
from uva_agents.bridges.openpi import Limits, PolicyServer, WireError, pack, unpack
from uva_agents.bridges.openpi.service import Service
from uva_agents.bridges.openpi.session import ClientSession
from uva_agents.checkpoints import InterfaceSpec
from uva_agents.errors import UVAError

SPEC = InterfaceSpec((96, 96), (0.0, 0.0), (512.0, 512.0), proprio_key="agent_pos")


class Reader:
    """Reads observations as the agents do; its action is made of what it read."""

    action_space = SPEC.action_space

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        frames = read_observation(observation, SPEC, 2)
        if frames.batched:
            return np.zeros((len(frames), 2), np.float32), None
        return self.action(frames.pixels[0], frames.proprio[0]), None

    def sample(self, obs: Any, n: int = 1, *, history: Any = None, seed: Any = None) -> np.ndarray:
        if history is not None:
            read_observation(history, SPEC, 2)
        return np.repeat(self.predict(obs)[0][None, None], n, 0)

    @staticmethod
    def action(pixels: np.ndarray, position: np.ndarray) -> np.ndarray:
        return np.array([pixels.mean(), position.sum()], np.float32)


def judge(frame: Frame, session: ClientSession, limits: Limits) -> str:
    """What became of it. Anything else than an answer or one of the errors that clients are told raises."""
    if isinstance(frame, str):
        return "text"
    try:
        request = unpack(frame, limits)
    except WireError as error:
        return "wire" if str(error) else "nothing said"
    try:
        answer = session.answer(request)
    except (TypeError, KeyError, ValueError, UVAError) as error:
        return "error" if str(error) else "nothing said"
    if isinstance(answer, dict):
        pack(answer)
        if "actions" in answer:
            right(request, answer["actions"])
    return "answer"


def right(request: dict[str, Any], actions: np.ndarray) -> None:
    """The answer is about what was shown, read here without the server's help."""
    names = (("pixels", "observation/image", "image"), ("agent_pos", "observation/state", "state", "observation.state"))
    found = [next((request[n] for n in some if request.get(n) is not None), None) for some in names]
    if isinstance(found[0], np.ndarray) and found[0].shape == (96, 96, 3):
        np.testing.assert_allclose(
            actions.reshape(-1, 2)[0], Reader.action(found[0], np.reshape(found[1], -1)), rtol=1e-5
        )


def run(n: int, seed: int) -> dict[str, int]:
    limits = Limits(message_bytes=2**20)
    service = Service(Reader(), limits=limits)
    session, counts = ClientSession(service), {"text": 0, "wire": 0, "error": 0, "answer": 0, "nothing said": 0}
    for frame in damaged(n, seed):
        counts[judge(frame, session, limits)] += 1
    for request in requests()[:2]:
        assert judge(raw_pack(request), session, limits) == "answer"
    return counts


def test_two_thousand_damaged_requests_are_errors_or_answered_rightly():
    counts = run(2000, seed=0)
    print(counts)
    assert not counts["nothing said"] and counts["wire"] > 500 and counts["error"] > 300 and counts["answer"] > 100


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 21))
def test_forty_thousand_more(seed):
    run(2000, seed)


def test_the_memory_that_damaged_requests_take_is_bounded():
    limits = Limits(message_bytes=2**20)
    frames, session = list(damaged(300, 5)), ClientSession(Service(Reader(), limits=limits))
    tracemalloc.start()
    for frame in frames:
        judge(frame, session, limits)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(held / 2**20, peak / 2**20)
    assert peak < 30 * 2**20 and held < 10 * 2**20


def test_what_episodes_hold_on_to_is_bounded():
    limits = Limits(message_bytes=2**18)
    session = ClientSession(Service(Reader(), limits=limits))
    for i in range(64):
        big = {**observation(1), "unknown": np.zeros(2**17, "u1"), "uva": {"episode": f"e{i}", "start": True}}
        session.answer(unpack(raw_pack(big), limits))
    assert sum(episode.size for episode in session._named.values()) <= 8 * 2**18
    assert len(session._named) > 5
    assert session.answer({**observation(1), "uva": {"episode": "e0", "version": 1}}) == {"uva": {"lost": True}}


def test_a_server_goes_on_among_damaged_frames_without_more_threads_or_memory():
    process = psutil.Process()
    others = set(threading.enumerate())  # other tests', of this process: zarr has an event loop with threads, too
    with PolicyServer(Reader(), port=0, limits=Limits(message_bytes=2**20)) as running, raw_client(running.url) as good:
        wanted = good.ask(observation(1))["actions"]
        before, threads = process.memory_info().rss, threading.active_count()
        bad: RawClient | None = None
        for i, frame in enumerate(damaged(240, 9)):
            bad = bad or RawClient(running.url)
            try:
                answer = bad.ask(frame)
            except WebSocketException:
                assert len(frame) > 2**20 and bad.close_code() == 1009
                bad = None
                continue
            assert isinstance(answer, str | dict)
            if isinstance(answer, str) and answer.startswith("WireError"):
                assert bad.close_code() == 1007
                bad.close()
                bad = None
            if i % 20 == 0:
                np.testing.assert_array_equal(good.ask(observation(1))["actions"], wanted)
        if bad is not None:
            bad.close()
        # The event loop has a few threads to read large messages in.
        assert threading.active_count() <= threads + 12
        assert process.memory_info().rss - before < 100 * 2**20
    assert not [t for t in set(threading.enumerate()) - others if t.name.startswith(("uva-", "asyncio_"))]


def test_a_frame_of_a_hundred_megabytes_is_not_even_read():
    process = psutil.Process()
    with PolicyServer(Reader(), port=0) as running, raw_client(running.url) as good:
        data = bytes(100 * 2**20)
        before = process.memory_info().rss
        with raw_client(running.url) as bad:
            with pytest.raises(WebSocketException):
                bad.ask(data)
            assert bad.close_code() == 1009
        assert process.memory_info().rss - before < 400 * 2**20  # the client's copies of it are in this process, too
        assert good.ask(observation(1))["actions"].shape == (1, 2)
