"""The policy server, seen through a client made from facts about openpi's wire: what it serves, to whom, and its process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from tests.serving import (
    CHUNK,
    RawClient,
    ToyAgent,
    health_s,
    held,
    obs,
    raw_client,
    raw_pack,
)
from tests.tiny import observation, tiny_bundle
from uva_agents.agents.uva import UVA
from uva_agents.bridges.openpi import Limits, PolicyServer, serve


@pytest.fixture(scope="module")
def server():
    with PolicyServer(ToyAgent(), port=0) as running:
        yield running


# -- the wire -----------------------------------------------------------------------------------------------------------


def test_the_first_frame_says_what_is_served(server):
    with raw_client(server.url) as client:
        assert client.metadata["policy"] == "ToyAgent"
        assert client.metadata["action_horizon"] == CHUNK
        assert client.metadata["uva"]["execute"] == 3


def test_a_client_of_openpi_gets_whole_chunks_and_how_long_they_took(server):
    with raw_client(server.url) as client:
        first, second = client.ask(obs(0.5)), client.ask(obs(0.6))
    assert first["actions"].shape == (CHUNK, 1) and first["actions"].dtype == np.float32
    assert first["server_timing"]["infer_ms"] > 0 and "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"]
    assert first["policy_timing"]["infer_ms"] > 0


def test_a_policy_is_served_under_openpis_names():
    policy = UVA(tiny_bundle()).policy()
    see = observation(3)
    with PolicyServer(policy, port=0) as running, raw_client(running.url) as client:
        client.ask({"reset": True, "seed": 7})
        answer = client.ask(
            {"observation/image": see["pixels"], "observation/state": see["agent_pos"], "prompt": "push"}
        )
    assert answer["actions"].shape == (16, 2)
    action, state = policy.predict(see, policy.initial_state(1, seed=7))
    np.testing.assert_array_equal(answer["actions"][:8], [action, *state[0].queue])


def test_what_the_policy_sees_between_requests_is_the_older_observation(server):
    xs = [0.1, 0.5, -0.3, 0.9]
    with raw_client(server.url) as client:
        client.started(4)
        found = [client.ask(obs(x))["actions"] for x in xs]
    np.testing.assert_allclose(found, held(ToyAgent(), 4, xs), rtol=1e-6)


def test_how_many_actions_clients_carry_out_can_be_said():
    with PolicyServer(ToyAgent(), port=0, execute=5) as running, raw_client(running.url) as client:
        assert client.metadata["uva"]["execute"] == 5
        client.started(4)
        found = [client.ask(obs(x))["actions"] for x in (0.1, 0.7)]
    np.testing.assert_allclose(found, held(ToyAgent(), 4, [0.1, 0.7], execute=5), rtol=1e-6)


def test_connections_are_episodes_of_their_own(server):
    xs, ys = [0.1, 0.2, 0.3], [-0.5, 0.8, -0.9]
    with raw_client(server.url) as one, raw_client(server.url) as other:
        one.started(1), other.started(2)
        pairs = [(one.ask(obs(x))["actions"], other.ask(obs(y))["actions"]) for x, y in zip(xs, ys, strict=True)]
    np.testing.assert_allclose([a for a, _ in pairs], held(ToyAgent(), 1, xs), rtol=1e-6)
    np.testing.assert_allclose([b for _, b in pairs], held(ToyAgent(), 2, ys), rtol=1e-6)


def test_a_reset_begins_an_episode_alone_or_with_its_first_observation(server):
    with raw_client(server.url) as client:
        client.ask(obs(0.9))
        client.started(5)
        np.testing.assert_allclose(client.ask(obs(0.2))["actions"], held(ToyAgent(), 5, [0.2])[0], rtol=1e-6)
        again = client.ask({"reset": True, "seed": 5, **obs(0.2)})
        np.testing.assert_allclose(again["actions"], held(ToyAgent(), 5, [0.2])[0], rtol=1e-6)
        assert client.ask({"endpoint": "reset"}) == "reset successful"  # as RoboArena's clients do
        assert client.ask({"endpoint": "infer", **obs(0.2)})["actions"].shape == (CHUNK, 1)


# -- who comes in -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    with PolicyServer(ToyAgent(), port=0, token="s3cret") as running:
        yield running


@pytest.mark.parametrize("kind", ["Api-Key", "Bearer", "bearer"])
def test_the_right_token_opens(guarded, kind):
    with raw_client(guarded.url, "s3cret", kind) as client:
        assert client.ask(obs(0.1))["actions"].shape == (CHUNK, 1)


@pytest.mark.parametrize(
    "token", [None, "", "s3cre", "s3cret2", "S3CRET", "é"], ids=["none", "empty", "shorter", "longer", "case", "latin"]
)
def test_any_other_is_refused_at_the_handshake(guarded, token):
    with pytest.raises(InvalidStatus) as refused:
        RawClient(guarded.url, token)
    assert refused.value.response.status_code == 401


def test_the_token_goes_with_its_scheme(guarded):
    with pytest.raises(InvalidStatus):
        RawClient(guarded.url, "s3cret", "Basic")


def test_health_needs_no_token(guarded):
    health_s(guarded.port)


def test_pages_in_browsers_are_refused(server):
    with pytest.raises(InvalidStatus) as refused:
        RawClient(server.url, origin="https://example.com")
    assert refused.value.response.status_code == 403


def test_more_clients_than_allowed_are_told_so():
    with PolicyServer(ToyAgent(), port=0, limits=Limits(connections=2)) as running:
        with raw_client(running.url), raw_client(running.url) as second:
            with pytest.raises(InvalidStatus) as refused:
                RawClient(running.url)
            assert refused.value.response.status_code == 503
            assert b"busy: 2 clients" in refused.value.response.body
            assert second.ask(obs(0.1))["actions"].shape == (CHUNK, 1)
        deadline = time.monotonic() + 5
        while True:  # a place is free as soon as the server has noticed
            try:
                RawClient(running.url).close()
                break
            except InvalidStatus:
                assert time.monotonic() < deadline
                time.sleep(0.02)


@pytest.mark.parametrize(("agent", "problem"), [(object(), "no predict"), (lambda obs: obs, "no predict")])
def test_what_keeps_its_memory_to_itself_is_not_served(agent, problem):
    with pytest.raises(TypeError, match=problem):
        PolicyServer(agent)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"token": " "}, "empty token"), ({"execute": 0}, "execute"), ({"execute": 7}, "chunks have 6")],
)
def test_options_that_make_no_sense_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        PolicyServer(ToyAgent(), **options)


# -- the process --------------------------------------------------------------------------------------------------------


def command(*words, **environment):
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "uva_agents.cli", "serve", *words],
        env=env,
        cwd=Path(__file__).resolve().parents[1],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal_and_answers_what_it_works_on(number):
    process = command("tests.serving:slow_agent", "--port", "0", UVA_TOKEN="word")
    try:
        line = process.stdout.readline()
        url = re.search(r"ws://127.0.0.1:\d+", line).group()
        with raw_client(url, "word") as client:
            client.socket.send(raw_pack(obs(0.1)))
            time.sleep(0.2)
            process.send_signal(number)
            assert isinstance(client.socket.recv(timeout=10), bytes)
            assert client.close_code() == 1001
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0 and "stopped" in out and "Traceback" not in err
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tests.serving:toy_agent", "--host", "0.0.0.0"), "set UVA_TOKEN"),
        (("tests.serving:toy_agent", "--tls-cert", "x.pem"), "go together"),
        (("no-such-weights",), "no-such-weights"),
        (("tests.serving:toy_agent", "--host", "203.0.113.1", "--token", "x"), "cannot listen on 203.0.113.1"),
        (("tests.serving:toy_agent", "--max-clients", "0"), "connections must be positive"),
    ],
)
def test_the_commands_mistakes_are_one_line(words, message, capsys, monkeypatch):
    from uva_agents.cli import main

    monkeypatch.delenv("UVA_TOKEN", raising=False)
    assert main(["serve", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_a_port_that_is_taken_is_an_error(server):
    with pytest.raises(OSError, match=str(server.port)):
        serve(ToyAgent(), port=server.port)


@pytest.mark.parametrize("module", ["websockets", "msgpack"])
def test_without_the_extra_the_package_works_and_says_what_is_missing(module):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import uva_agents, uva_agents.cli\n"
        "sys.exit(uva_agents.cli.main(['serve', 'pusht-nano']) + 10 * uva_agents.cli.main(['eval', 'ws://x:1', 'uva/PushT-v0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 22 and done.stderr.count("pip install 'uva-agents[serve]'") == 2
