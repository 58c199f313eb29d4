"""Inference beside the loop: nothing waits for it, and nothing is lost with it but an answer."""

import os
import signal
import time
from functools import partial

import numpy as np
import pytest

from uva_agents.errors import InputError, NotFiniteError
from uva_agents.realtime.chunk_source import AgentChunkSource, ChunkRequest, absolute, lookback
from uva_agents.realtime.worker import ProcessWorker, ThreadWorker


def obs(value=0.0):
    return {"pixels": np.zeros((8, 8, 3), np.uint8), "agent_pos": np.full(7, value, np.float32), "task": "reach"}


def request(number, value=0.0, **more):
    return ChunkRequest(number, obs(value), **more)


def answer_of(worker, timeout_s=60.0):
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if (reply := worker.poll()) is not None:
            return reply
        time.sleep(0.005)
    raise AssertionError("no reply")


def free(worker, timeout_s=120.0):
    until = time.monotonic() + timeout_s
    while worker.busy:
        assert time.monotonic() < until, "never free"
        time.sleep(0.005)


class Echo:
    """Answers with what it saw; fails or hangs on demand, at -5 with NaN, and at -4 waits for a file."""

    def __init__(self, file=None):
        self.file = file

    def __call__(self, request):
        wish = float(request.obs["agent_pos"][0])
        if wish == -1:
            raise ValueError("no such picture")
        if wish == -5:
            raise NotFiniteError("head 'action'")
        if wish == -2:
            time.sleep(600)
        while wish == -4 and not self.file.exists():
            time.sleep(0.005)
        return np.full((4, 7), wish)


def echo():
    return Echo()


def broken():
    raise FileNotFoundError("no weights there")


@pytest.mark.parametrize("kind", [ThreadWorker, ProcessWorker])
def test_asking_and_looking_for_an_answer_never_wait(kind, tmp_path):
    worker = kind(partial(Echo, tmp_path / "answer"))
    try:
        free(worker)
        # It cannot answer before it is told to below: whoever waited for it here would wait for ever.
        worker.submit(request(0, -4.0))
        assert worker.busy and worker.poll() is None
        with pytest.raises(RuntimeError, match="busy"):
            worker.submit(request(1))
        (tmp_path / "answer").touch()
        reply = answer_of(worker)
        assert reply.error is None and reply.request.number == 0 and reply.seconds > 0
        np.testing.assert_array_equal(reply.chunk, np.full((4, 7), -4.0))
        free(worker)
        worker.submit(request(2, -1.0))
        reply = answer_of(worker)
        assert reply.error == "ValueError: no such picture" and not reply.not_finite
        free(worker)
        worker.submit(request(3, 5.0))
        assert answer_of(worker).chunk[0, 0] == 5.0
        for number, wish in ((4, np.nan), (5, -5.0)):
            free(worker)
            worker.submit(request(number, wish))
            reply = answer_of(worker)
            assert reply.not_finite and reply.chunk is None and "NotFiniteError" in reply.error
    finally:
        worker.close()


@pytest.mark.parametrize("kind", [ThreadWorker, ProcessWorker])
def test_an_agent_that_cannot_be_set_up_is_reported(kind):
    worker = kind(broken)
    reply = answer_of(worker)
    assert reply.request is None and "FileNotFoundError: no weights there" in reply.error
    assert worker.busy
    worker.close()


def test_a_killed_process_costs_an_answer_and_is_replaced():
    worker = ProcessWorker(echo)
    try:
        free(worker)
        first = worker.pid
        worker.submit(request(0, -2.0))
        os.kill(first, signal.SIGKILL)
        reply = answer_of(worker)
        assert reply.request.number == 0 and "killed by SIGKILL" in reply.error
        free(worker)
        assert worker.pid not in (None, first)
        worker.submit(request(1, 2.0))
        assert answer_of(worker).chunk[0, 0] == 2.0
    finally:
        worker.close()
    assert worker.pid is None


def test_a_process_that_hangs_is_stopped_after_the_time_limit():
    worker = ProcessWorker(echo, timeout_s=3.0)
    try:
        free(worker)
        worker.submit(request(0, -2.0))
        assert "no answer within 3 s" in answer_of(worker).error
        free(worker)
        worker.submit(request(1, 2.0))
        assert answer_of(worker).chunk[0, 0] == 2.0
    finally:
        worker.close()


class Sampler:
    lookback = 2

    def __init__(self):
        self.calls = []

    def sample(self, obs, n=1, *, history=None, seed=None):
        self.calls.append((history, seed))
        return np.tile(obs["agent_pos"], (n, 16, 1))


class Counter:
    """An agent with a state of its own: each action is the number of observations in its episode."""

    def __init__(self):
        self.begun = 0

    def initial_state(self, batch_size=1, *, seed=None):
        self.begun += 1
        return 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full(7, state + 1.0), state + 1


def test_agents_with_chunks_get_history_and_a_seed_of_the_episode_and_the_job():
    agent = Sampler()
    ask = AgentChunkSource(agent)
    assert ask.lookback == 2
    assert ask(request(0, 1.0, seed=5)).shape == (16, 7)
    ask(request(1, 1.0, history=(obs(0.1), obs(0.2)), seed=5))
    ask(request(0, 1.0, seed=5))
    history, _ = agent.calls[1]
    assert history["agent_pos"].shape == (2, 7) and history["pixels"].shape == (2, 8, 8, 3)
    assert history["task"] == "reach"
    assert agent.calls[0] == agent.calls[2] and agent.calls[0][1] != agent.calls[1][1]


def test_agents_with_predict_keep_their_state_within_an_episode():
    agent = Counter()
    ask = AgentChunkSource(agent)
    assert [float(ask(request(n))[0, 0]) for n in (0, 1, 2, 0, 1)] == [1, 2, 3, 1, 2] and agent.begun == 2
    assert lookback(agent) == 0
    with pytest.raises(TypeError, match="neither sample"):
        AgentChunkSource(object())


def test_actions_relative_to_the_observed_pose_become_absolute():
    from uva_agents.data.conventions import AbsolutePoses, RelativePoses
    from uva_agents.data.transforms import ReferencePoses

    here = np.array([0.3, 0.1, 0.2, 0.3, -0.2, 1.0, 0.05], np.float32)
    wanted = np.array([[0.35, 0.1, 0.2, 0.3, -0.2, 1.1, 0.03], [0.4, 0.0, 0.2, 0.1, -0.2, 1.1, 0.02]])
    relative = RelativePoses().to_network(wanted, ReferencePoses(now=here))
    found = absolute(lambda request: relative)(ChunkRequest(0, {"agent_pos": here}))
    np.testing.assert_allclose(found, AbsolutePoses().to_network(wanted, ReferencePoses()), atol=1e-6)
    with pytest.raises(ValueError, match=r"\(T, 10\)"):
        absolute(lambda request: wanted)(ChunkRequest(0, {"agent_pos": here}))


class Leaves(Echo):
    """An agent that ends its thread, or its process, instead of answering."""

    def __call__(self, request):
        if request.number == 0:
            raise SystemExit(3)
        return super().__call__(request)


def leaves_at_once():
    raise SystemExit("no licence")


@pytest.mark.parametrize("kind", [ThreadWorker, ProcessWorker])
def test_an_agent_that_leaves_has_failed_and_is_asked_again(kind):
    worker = kind(Leaves)
    try:
        free(worker)
        worker.submit(request(0))
        reply = answer_of(worker)
        assert reply.request.number == 0 and reply.chunk is None and reply.error == "SystemExit: 3"
        free(worker)
        worker.submit(request(1, 2.0))
        assert answer_of(worker).chunk[0, 0] == 2.0
    finally:
        worker.close()


def test_a_worker_that_can_do_no_more_says_so_whenever_it_is_asked():
    worker = ThreadWorker(leaves_at_once)
    for _ in range(3):
        reply = answer_of(worker)
        assert reply.request is None and reply.error == "the agent could not be set up: SystemExit: no licence"
    assert worker.busy
    worker.close()
    assert worker.poll() is None

    class Gone(ThreadWorker):
        def _work(self):
            self._free.set()

    worker = Gone(echo)
    reply = answer_of(worker)
    assert reply.request is None and "has ended" in reply.error and worker.busy
    with pytest.raises(RuntimeError, match="busy"):
        worker.submit(request(0))
    worker.close()


ACTION = np.array([0.3, 0.0, 0.2, 0.0, 0.0, 0.0, 0.04])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "gave None"),
        (np.ma.masked_array(ACTION, mask=[True] * 7), "masked array"),
        ([np.ma.masked] * 7, "masked array"),
        (ACTION + 1j, "complex numbers"),
        ([str(number) for number in ACTION], "gave text"),
        (np.array([b"1"] * 7), "gave text"),
        ("go", "gave text"),
        (ACTION > 0, "truth values"),
        ({"action": ACTION}, "dict of object"),
        ([ACTION, ACTION[:3]], "cannot be made one"),
        (np.ones((2, 3, 7)), r"shape \(2, 3, 7\)"),
        (np.ones((2, 7)), r"shape \(2, 7\)"),
        (np.zeros((0,)), r"shape \(0,\)"),
        (1.0, r"shape \(\)"),
    ],
)
def test_what_is_no_action_is_named_and_not_made_one(value, message):
    class Says:
        def predict(self, observation, state=None):
            return value, state

    with pytest.raises(InputError, match=rf"Says\.predict.*{message}"):
        AgentChunkSource(Says())(request(0))


def test_actions_may_be_of_any_kind_of_number_and_container():
    import torch

    class Says:
        def predict(self, observation, state=None):
            return self.value, state

    agent = Says()
    for agent.value in (
        *(ACTION, ACTION.astype(np.float16), ACTION[None], list(ACTION), np.ones(7, np.int8)),
        torch.tensor(ACTION, requires_grad=True),
    ):
        found = AgentChunkSource(agent)(request(0))
        assert found.shape == (1, 7) and found.dtype == np.float64


def test_chunks_that_are_no_numbers_are_refused_from_any_agent():
    class Samples:
        def sample(self, obs, n=1):
            return self.value

    agent = Samples()
    for agent.value, message in (
        (None, "Samples.sample gave None"),
        (np.ones((2, 16, 7)), r"shape \(2, 16, 7\)"),
        (np.ones((1, 0, 7)), r"shape \(0, 7\)"),
        (np.ma.masked_array(np.ones((1, 16, 7)), mask=True), "masked"),
    ):
        with pytest.raises(InputError, match=message):
            AgentChunkSource(agent)(request(0))

    class Plans:
        def plan(self, obs):
            return None

    with pytest.raises(InputError, match=r"Plans.plan gave NoneType"):
        AgentChunkSource(Plans())(request(0))
    worker = ThreadWorker(lambda: lambda request: np.ones((16, 7)) * 1j)
    try:
        free(worker)
        worker.submit(request(0))
        reply = answer_of(worker)
        assert reply.chunk is None and "the agent gave complex numbers" in reply.error
    finally:
        worker.close()


def test_a_process_that_could_not_be_started_is_reported_with_its_cause_and_closed_without_another_error():
    worker = ProcessWorker(lambda: echo())  # a process of its own cannot get it
    reply = answer_of(worker)
    assert reply.request is None and "could not be set up" in reply.error and "pickle" in reply.error.lower()
    assert worker.pid is None
    worker.close()
    worker.close()
    worker = ProcessWorker(partial(os._exit, 5))
    assert answer_of(worker).error == "the agent could not be set up: the process of the agent ended with status 5"
    worker.close()
