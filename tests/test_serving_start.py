"""Before a server has clients: the port is checked before the weights, the agent decides once, and what fails is said first."""

import random
import socket
import threading

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.planner_toys import Point, quadratic
from tests.serving import ToyAgent, obs, raw_client
from tests.tiny import observation, tiny_bundle
from uva_agents.agents.uva import UVA
from uva_agents.bridges.openpi import PolicyServer, RemotePolicy
from uva_agents.bridges.openpi.addresses import AddressError, PortError
from uva_agents.cli import main
from uva_agents.errors import InputError, MachineError, NotFiniteError, WeightsError
from uva_agents.planners import SamplingPlanner

SPACE = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)})


class Seeing(ToyAgent):
    """Says what it is shown, and so can be warmed up."""

    observation_space = SPACE


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- warm ---------------------------------------------------------------------------------------------------------------


def test_nobody_reaches_a_server_before_its_agent_has_decided_once():
    port, gate, entered, ready = free_port(), threading.Event(), threading.Event(), threading.Event()

    def decide():
        entered.set()
        gate.wait(20)

    server = PolicyServer(Seeing(decide), port=port)
    thread = threading.Thread(target=server.serve_forever, args=(ready.set,))
    thread.start()
    assert entered.wait(20)
    assert not ready.is_set() and not listens(port)
    gate.set()
    assert ready.wait(20) and listens(port)
    with raw_client(server.url) as client:
        assert client.metadata["uva"]["warm"] is True
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_server_that_is_stopped_before_it_is_warm_never_listens():
    port, gate, entered = free_port(), threading.Event(), threading.Event()

    def decide():
        entered.set()
        gate.wait(20)

    server = PolicyServer(Seeing(decide), port=port)
    thread = threading.Thread(target=server.serve_forever, args=(lambda: pytest.fail("it was ready"),))
    thread.start()
    assert entered.wait(20)
    server.stop()
    thread.join(20)
    assert not thread.is_alive() and not listens(port)
    gate.set()


@pytest.mark.parametrize("error", [NotFiniteError, WeightsError, ValueError, RuntimeError])
def test_what_cannot_decide_is_not_served(error):
    port = free_port()

    def decide():
        assert not listens(port)
        raise error("the action head of tiny is NaN")

    with pytest.raises(error, match="action head of tiny"), PolicyServer(Seeing(decide), port=port):
        pytest.fail("it was served")
    assert not listens(port)


def test_an_agent_that_returns_nan_is_not_served():
    class Damaged(Seeing):
        def predict(self, *args, **options):
            action, state = super().predict(*args, **options)
            return action * np.nan, state

    with pytest.raises(NotFiniteError, match="NaN"), PolicyServer(Damaged(), port=0):
        pytest.fail("it was served")


def test_the_command_ends_with_the_error_of_the_first_decision(capsys):
    assert main(["serve", "tests.test_serving_start:not_finite", "--port", "0"]) == 3
    out, err = capsys.readouterr()
    assert err == "uva serve: error: the action head of tiny is NaN\n" and " at ws://" not in out


def not_finite():
    def decide():
        raise NotFiniteError("the action head of tiny is NaN")

    return Seeing(decide)


def test_answers_are_those_of_an_agent_that_was_not_warmed_up(monkeypatch):
    policy = UVA(tiny_bundle()).policy()
    policy.reset(seed=5)
    draws = []
    for warm in (True, False):
        if not warm:
            monkeypatch.setattr("uva_agents.bridges.openpi.server.warm_up", lambda service: None)
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        with PolicyServer(policy, port=0) as running, raw_client(running.url) as client:
            assert client.metadata["uva"]["warm"] is warm
            chunks = [client.ask(observation(i))["actions"] for i in range(2)]
        draws.append([*chunks, torch.rand(2).numpy(), np.random.rand(2), random.random()])
    for a, b in zip(*draws, strict=True):
        np.testing.assert_array_equal(a, b)
    assert next(policy._seeds) == 5


def test_a_stream_of_random_numbers_that_an_agent_keeps_for_itself_stays_where_it_was():
    class Careless:
        """Draws from generators of its own, and has no states."""

        observation_space = gym.spaces.Dict({"text": gym.spaces.Text(5)})

        def __init__(self):
            self.streams = np.random.default_rng(1), random.Random(1), torch.Generator().manual_seed(1)
            self.a, self.b, self.c = self.streams
            self.d = np.random.RandomState(1)

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.array([self.a.random(), self.b.random(), torch.rand(1, generator=self.c)[0], self.d.rand()]), None

    with PolicyServer(Careless(), port=0) as running, raw_client(running.url) as client:
        assert client.metadata["uva"]["warm"] is True
        found = client.ask({"text": "a"})["actions"][0]
    np.testing.assert_array_equal(found, Careless().predict(None)[0])
    first = gym.spaces.Text(5, seed=4).sample()
    Careless.observation_space["text"].seed(4)
    with PolicyServer(Careless(), port=0):
        assert Careless.observation_space["text"].sample() == first


def test_a_planner_that_refuses_an_empty_picture_is_served_cold(caplog):
    class Picky(Point):
        observation_space = SPACE

        def rollout(self, *args, **options):
            raise ValueError("no block in the picture")

    planner = SamplingPlanner(dynamics=Picky(), objective=quadratic(), n_samples=4, execute=3, horizon=8)
    with PolicyServer(planner, port=0) as running, raw_client(running.url) as client:
        assert client.metadata["uva"]["warm"] is False
    assert "an empty observation was refused (no block in the picture)" in caplog.text


def test_an_agent_that_does_not_say_what_it_is_shown_is_served_cold():
    with PolicyServer(ToyAgent(), port=0) as running, raw_client(running.url) as client:
        assert client.metadata["uva"]["warm"] is False


def test_not_finite_is_an_error_of_its_request_and_the_connection_goes_on():
    fails = [False, True, False]  # the first is the warm-up

    def decide():
        if fails.pop(0):
            raise NotFiniteError("the action head of tiny computed NaN\nfrom this input")

    with PolicyServer(Seeing(decide), port=0) as running, raw_client(running.url) as client:
        assert client.ask(obs(0.1)) == "NotFiniteError: the action head of tiny computed NaN from this input"
        assert client.ask(obs(0.1))["actions"].shape == (6, 1)
        far = RemotePolicy(running.url, patience_s=5)
        fails[:] = [True, False]
        with pytest.raises(NotFiniteError, match=r"computed NaN from this input \(said ws://"):
            far.act(obs(0.1))
        assert far.act(obs(0.1)).shape == (1,) and far._connection.times == 1
        far.close()


# -- what is served -----------------------------------------------------------------------------------------------------


def test_the_identity_is_a_map_and_says_how_many_actions_are_carried_out():
    policy = UVA(tiny_bundle()).policy()
    for options, execute in (({}, 8), ({"execute": 5}, 5)):
        with PolicyServer(policy, port=0, **options) as running, raw_client(running.url) as client:
            server_info = client.metadata["uva"]
            far = RemotePolicy(running.url, patience_s=5)
            assert far.identity["server"] == {**policy.identity, "execute": execute} == server_info["identity"]
            assert client.metadata["action_horizon"] == 16 and server_info["execute"] == execute
            far.close()


def test_an_identity_with_values_that_the_wire_does_not_have_becomes_text():
    class Odd(ToyAgent):
        identity = {"budget": float("nan"), "path": {1: object}, "execute": 3}  # noqa: RUF012

    with PolicyServer(Odd(), port=0) as first:
        far = RemotePolicy(first.url, patience_s=5)
        far.act(obs(0.1))
        assert far.identity["server"]["budget"] == "NaN"
    with PolicyServer(Odd(), port=first.port):  # NaN is unequal to itself; the agent is the same
        assert far.act(obs(0.1)).shape == (1,)
        far.close()


# -- where it listens ---------------------------------------------------------------------------------------------------


@pytest.fixture
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        yield other.getsockname()[1]


@pytest.mark.parametrize("port", [65536, 99999, -1])
def test_ports_that_do_not_exist_are_refused(port):
    with pytest.raises(AddressError, match=f"cannot listen on 127.0.0.1:{port}: ports go from 1 to 65535") as error:
        PolicyServer(ToyAgent(), port=port).__enter__()
    assert isinstance(error.value, InputError)


def test_a_port_in_use_is_named_with_what_to_do(taken):
    with pytest.raises(PortError, match=f"127.0.0.1:{taken}: another program has this port") as error:
        PolicyServer(ToyAgent(), port=taken).__enter__()
    assert isinstance(error.value, MachineError) and isinstance(error.value, OSError)


def test_ports_that_need_rights_and_names_that_nobody_knows_are_named(monkeypatch):
    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(
            "uva_agents.bridges.openpi.addresses.socket.socket", type("S", (socket.socket,), {"bind": refuse})
        )
        with pytest.raises(PortError, match="ports below 1024"):
            PolicyServer(ToyAgent(), port=80).__enter__()

    def nobody(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(AddressError, match="no computer is known by the name 'gpu-machien'"):
        PolicyServer(ToyAgent(), host="gpu-machien").__enter__()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--port", "70000"], 2, "ports go from 1 to 65535"),
        (["--port", "TAKEN"], 4, "another program has this port"),
        (["--host", "203.0.113.1", "--token", "x"], 2, "no address of this computer"),
        (["--stateless", "--new-episode-after", "3"], 2, "leave the seconds"),
        (["--new-episode-after", "-3"], 2, "positive number of seconds"),
    ],
)
def test_the_command_finds_out_before_it_loads_anything(words, status, message, taken, capsys):
    words = [str(taken) if word == "TAKEN" else word for word in words]
    # What is to be loaded is not there, and that would be the next error.
    assert main(["serve", "no-such-weights", *words]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and "no-such-weights" not in error


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ws://127.0.0.1:70000", "from 1 to 65535"),
        ("ws://127.0.0.1:0", "nothing listens on port 0"),
        ("ws://", "names no computer"),
        ("ws://user@host:1", "ws://host:1"),
        ("http://127.0.0.1:1", "is not the address of a policy server"),
    ],
)
def test_addresses_that_are_none_are_refused_at_once(url, problem):
    with pytest.raises(InputError, match=problem):
        RemotePolicy(url)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], {"stateless": False, "new_episode_after_s": None, "resize": False}),
        (["--stateless", "--resize"], {"stateless": True, "new_episode_after_s": None, "resize": True}),
        (["--new-episode-after", "2.5"], {"stateless": False, "new_episode_after_s": 2.5, "resize": False}),
        (["--letterbox"], {"stateless": False, "new_episode_after_s": None, "resize": "letterbox"}),
    ],
    ids=" ".join,
)
def test_options_of_the_command_reach_the_server(words, wanted, monkeypatch):
    served = {}
    monkeypatch.setattr("uva_agents.bridges.openpi.serve", lambda agent, **options: served.update(options))
    assert main(["serve", "tests.serving:toy_agent", "--port", "0", *words]) == 0
    assert {name: served[name] for name in wanted} == wanted
