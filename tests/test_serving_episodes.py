"""Clients that keep one connection for all their episodes and never say that one begins, as openpi's."""

import threading
import time

import numpy as np
import pytest

from tests.serving import CHUNK, ToyAgent, held, obs, raw_client, raw_pack, raw_unpack
from tests.tiny import observation, tiny_bundle
from uva_agents.agents.uva import UVA
from uva_agents.bridges.openpi import Limits, PolicyServer, RemotePolicy
from uva_agents.errors import InputError


class Clock:
    """Time passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def fresh(seed, x):
    """The first chunk of an episode."""
    return held(ToyAgent(), seed, [x])[0]


@pytest.fixture(scope="module")
def stateless():
    with PolicyServer(ToyAgent(), port=0, stateless=True) as running:
        yield running


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def paused(clock):
    with PolicyServer(ToyAgent(), port=0, new_episode_after_s=5.0, clock=clock) as running:
        yield running


def test_by_default_the_connection_is_the_episode_and_the_metadata_say_so(clock):
    with PolicyServer(ToyAgent(), port=0, clock=clock) as running, raw_client(running.url) as client:
        server_info = client.metadata["uva"]
        assert (server_info["stateless"], server_info["new_episode_after_s"]) == (False, None)
        client.started(4)
        found = []
        for x in (0.1, 0.9, -0.4):
            found.append(client.ask(obs(x))["actions"])
            clock.now += 10_000
        np.testing.assert_allclose(found, held(ToyAgent(), 4, [0.1, 0.9, -0.4]), rtol=1e-6)


def test_without_state_every_request_is_an_episode(stateless):
    with raw_client(stateless.url) as client:
        assert client.metadata["uva"]["stateless"] is True
        client.started(4)
        for i, x in enumerate((0.1, 0.9, -0.4)):
            np.testing.assert_allclose(client.ask(obs(x))["actions"], fresh(4 + i, x), rtol=1e-6)


def test_without_state_no_frame_of_a_policy_with_history_reaches_the_next_request():
    policy = UVA(tiny_bundle()).policy()
    with PolicyServer(policy, port=0, stateless=True) as running, raw_client(running.url) as client:
        client.started(7)
        found = [client.ask(observation(i))["actions"] for i in (3, 5, 3)]
    for i, number in enumerate((3, 5, 3)):
        action, state = policy.predict(observation(number), policy.initial_state(1, seed=[7 + i]))
        np.testing.assert_array_equal(found[i][:8], [action, *state[0].queue])


def test_without_state_clients_do_not_meet(stateless):
    with raw_client(stateless.url) as one, raw_client(stateless.url) as other:
        one.started(1), other.started(20)
        for i in range(3):
            np.testing.assert_allclose(one.ask(obs(0.1 * i))["actions"], fresh(1 + i, 0.1 * i), rtol=1e-6)
            np.testing.assert_allclose(other.ask(obs(-0.3 * i))["actions"], fresh(20 + i, -0.3 * i), rtol=1e-6)


def test_a_wrong_request_takes_no_seed(stateless):
    with raw_client(stateless.url) as client:
        client.started(4)
        client.ask(obs(0.1))
        assert client.ask({"agent_pos": np.zeros(3)}).startswith("ValueError")
        np.testing.assert_allclose(client.ask(obs(0.2))["actions"], fresh(5, 0.2), rtol=1e-6)


class Recurrent:
    """As stable-baselines3's: the state comes out and goes in, and ``episode_start`` says when it is old."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        count = 0 if state is None or episode_start[0] else state
        return np.array([count, float(episode_start[0])]), count + 1


@pytest.mark.parametrize(("stateless", "wanted"), [(False, [[0, 1], [1, 0], [2, 0]]), (True, [[0, 1]] * 3)])
def test_an_agent_without_states_of_its_own_is_told_that_an_episode_begins(stateless, wanted):
    with PolicyServer(Recurrent(), port=0, stateless=stateless) as running, raw_client(running.url) as client:
        found = [client.ask(obs(0.1))["actions"][0].tolist() for _ in range(3)]
    assert found == wanted


def test_a_pause_begins_an_episode(paused, clock):
    with raw_client(paused.url) as client:
        server_info = client.metadata["uva"]
        assert (server_info["stateless"], server_info["new_episode_after_s"]) == (False, 5.0)
        client.started(4)
        first = [client.ask(obs(x))["actions"] for x in (0.1, 0.9)]
        clock.now += 4.9
        first.append(client.ask(obs(-0.4))["actions"])
        np.testing.assert_allclose(first, held(ToyAgent(), 4, [0.1, 0.9, -0.4]), rtol=1e-6)
        clock.now += 5.0
        second = [client.ask(obs(x))["actions"] for x in (0.3, 0.2)]
        np.testing.assert_allclose(second, held(ToyAgent(), 5, [0.3, 0.2]), rtol=1e-6)


def test_a_pause_before_the_first_observation_does_not_undo_a_reset(paused, clock):
    with raw_client(paused.url) as client:
        client.started(9)
        clock.now += 100  # a simulator takes its time
        np.testing.assert_allclose(client.ask(obs(0.3))["actions"], fresh(9, 0.3), rtol=1e-6)


def test_a_pause_counts_even_if_the_first_request_after_it_is_refused(paused, clock):
    with raw_client(paused.url) as client:
        client.started(4)
        client.ask(obs(0.9))
        clock.now += 6
        assert client.ask({"agent_pos": np.zeros(3)}).startswith("ValueError")
        np.testing.assert_allclose(client.ask(obs(0.2))["actions"], fresh(5, 0.2), rtol=1e-6)


@pytest.mark.parametrize("busy", [False, True], ids=["waits", "is told busy"])
def test_waiting_for_other_clients_is_no_pause_and_being_turned_away_ends_none(clock, busy):
    gate, entered = threading.Event(), threading.Event()
    gate.set()

    def decide():
        entered.set()
        gate.wait(20)

    limits = Limits(waiting=0) if busy else None
    server = PolicyServer(ToyAgent(decide), port=0, new_episode_after_s=5.0, clock=clock, limits=limits)
    with server as running, raw_client(running.url) as one, raw_client(running.url) as other:
        one.started(4)
        one.ask(obs(0.9))
        gate.clear(), entered.clear()
        other.socket.send(raw_pack(obs(0.1)))
        assert entered.wait(20)
        if busy:
            clock.now += 6
            assert one.ask(obs(0.2)).startswith("busy")
            gate.set()
            assert isinstance(other.socket.recv(timeout=20), bytes)
            until(lambda: not running._worker.unfinished)
            found, wanted = one.ask(obs(0.2))["actions"], fresh(5, 0.2)
        else:
            one.socket.send(raw_pack(obs(0.2)))
            until(lambda: running._worker.unfinished == 2)
            clock.now += 100
            gate.set()
            found, wanted = raw_unpack(one.socket.recv(timeout=20))["actions"], held(ToyAgent(), 4, [0.9, 0.2])[1]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("options", [{"stateless": True}, {"new_episode_after_s": 1.0}])
def test_episodes_that_have_names_go_on(options, clock):
    near = ToyAgent()
    with PolicyServer(ToyAgent(), port=0, clock=clock, **options) as running:
        far = RemotePolicy(running.url, patience_s=5)
        states = [near.initial_state(1, seed=[3]), far.initial_state(1, seed=3)]
        for t in range(10):
            a, states[0] = near.predict(obs(0.1 * t), states[0])
            b, states[1] = far.predict(obs(0.1 * t), states[1])
            np.testing.assert_array_equal(a, b)
            clock.now += 10
        far.close()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"stateless": True, "new_episode_after_s": 2.0}, "leave the seconds"),
        ({"new_episode_after_s": 0.0}, "positive number of seconds"),
        ({"new_episode_after_s": float("nan")}, "positive number of seconds"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        PolicyServer(ToyAgent(), **options)


def test_a_client_that_never_resets_gets_whole_chunks_without_state(stateless):
    with raw_client(stateless.url) as client:
        chunks = [client.ask({**obs(0.1), "prompt": "go"})["actions"] for _ in range(3)]
    assert {c.shape for c in chunks} == {(CHUNK, 1)}
    assert not np.array_equal(chunks[0], chunks[1])  # as many draws as requests
