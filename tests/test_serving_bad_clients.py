"""The policy server among clients that misbehave, and under all of them at once."""

import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from websockets.exceptions import WebSocketException

from tests.serving import (
    CHUNK,
    RawClient,
    ToyAgent,
    health_s,
    held,
    obs,
    raw_client,
    raw_pack,
    seconds_until_hung_up,
    tcp,
)
from uva_agents.bridges.openpi import Limits, PolicyServer


@pytest.fixture(scope="module")
def server():
    with PolicyServer(ToyAgent(), port=0) as running:
        yield running


# -- bad clients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["text", b"\xc1", b"", raw_pack({"a": np.zeros(3)})[:-2], raw_pack([[[[[[[[[1]]]]]]]]])]
)
def test_a_message_of_another_language_is_answered_with_an_error_and_ends_that_connection_only(server, data):
    with raw_client(server.url) as bad, raw_client(server.url) as good:
        assert bad.ask(data).startswith("WireError: ")
        assert bad.close_code() == 1007
        assert good.ask(obs(0.1))["actions"].shape == (CHUNK, 1)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ([1, 2], "TypeError: a request is a map"),
        ({}, "KeyError: the observation has no 'agent_pos'"),
        ({"agent_pos": np.zeros(3)}, "ValueError: 'agent_pos' must be (1,)"),
        ({"agent_pos": "north"}, "ValueError: 'agent_pos' must be an array"),
        ({"reset": True, "seed": "x"}, "TypeError: 'seed' must be an integer"),
        ({"endpoint": "rm"}, "ValueError: endpoint"),
        ({"uva": 3}, "TypeError: 'uva' must be a map"),
        ({"uva": {"episode": "e" * 65, "start": True}}, "ValueError: 'episode'"),
        ({"uva": {"episode": "e", "start": True, "execute": 0}, **obs(0)}, "ValueError: 'execute'"),
        ({"uva": {"episode": "e", "start": True, "seen": [1]}, **obs(0)}, "TypeError: 'seen'"),
        ({"uva": {"sample": 10**9}, **obs(0)}, "ValueError: between 1 and 256"),
    ],
)
def test_a_wrong_request_is_answered_with_the_reason_and_the_episode_goes_on(server, message, reason):
    with raw_client(server.url) as client:
        client.started(3)
        client.ask(obs(0.4))
        assert client.ask(message).startswith(reason)
        np.testing.assert_allclose(client.ask(obs(0.6))["actions"], held(ToyAgent(), 3, [0.4, 0.6])[1], rtol=1e-6)


def test_an_agent_that_fails_is_reported_and_the_server_goes_on():
    fails = [True]

    def decide():
        if fails.pop() if fails else False:
            raise ZeroDivisionError("the network blew up")

    with PolicyServer(ToyAgent(decide), port=0) as running:
        with raw_client(running.url) as client:
            assert client.ask(obs(0.1)) == "ZeroDivisionError: the network blew up"
            assert client.close_code() == 1011
        with raw_client(running.url) as client:
            assert client.ask(obs(0.1))["actions"].shape == (CHUNK, 1)


def test_a_message_too_large_ends_its_connection_only():
    limits = Limits(message_bytes=10_000)
    with (
        PolicyServer(ToyAgent(), port=0, limits=limits) as running,
        raw_client(running.url) as bad,
        raw_client(running.url) as good,
    ):
        bad.socket.send(raw_pack({"pixels": np.zeros(20_000, np.uint8)}))
        assert bad.close_code() == 1009
        assert good.ask({**obs(0.1), "pixels": np.zeros(9_000, np.uint8)})["actions"].shape == (CHUNK, 1)


IMPATIENT = Limits(open_s=0.5, keepalive_s=0.3, idle_s=2.0, send_s=0.5)


@pytest.fixture(scope="module")
def impatient():
    with PolicyServer(ToyAgent(), port=0, limits=IMPATIENT) as running:
        yield running


def test_a_connection_that_says_nothing_is_hung_up(impatient):
    assert seconds_until_hung_up(tcp(impatient.port)) > 0.2


def test_half_a_handshake_is_hung_up(impatient):
    s = tcp(impatient.port)
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgr")
    assert seconds_until_hung_up(s) > 0.2


def test_a_client_that_has_gone_without_saying_so_is_hung_up(impatient):
    assert seconds_until_hung_up(tcp(impatient.port, upgrade=True)) > 0.2


def test_a_message_that_trickles_in_is_hung_up(impatient):
    s = tcp(impatient.port, upgrade=True)
    s.sendall(b"\x82\xfe\x7f\xff\x00\x00\x00\x00")  # a frame of 32767 bytes is announced
    began = time.monotonic()
    try:
        while time.monotonic() - began < 10:
            s.sendall(b"\x00")
            time.sleep(0.05)
    except ConnectionError:
        pass
    assert 0.2 < time.monotonic() - began < 5


def test_a_client_without_requests_is_hung_up_in_the_end(impatient):
    with raw_client(impatient.url) as client:
        began = time.monotonic()
        assert client.close_code() == 1008
        assert 1.5 < time.monotonic() - began < 5


def test_a_client_that_does_not_take_its_answers_is_hung_up():
    class Talkative(ToyAgent):
        def sample(self, obs, n=1, *, history=None, seed=None):
            return np.zeros((n, 1000, 100))

    with PolicyServer(Talkative(), port=0, limits=IMPATIENT) as running:
        client = RawClient(running.url, max_queue=1)
        client.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.send(raw_pack({"uva": {"sample": 64}, **obs(0.1)}))  # an answer of 50 MB
        deadline = time.monotonic() + 10
        while running._connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running._connections == 0
        with raw_client(running.url) as other:
            assert other.ask(obs(0.1))["actions"].shape == (CHUNK, 1)


def test_a_request_beyond_the_queue_is_told_that_the_server_is_busy():
    go = threading.Event()
    with PolicyServer(ToyAgent(lambda: go.wait(10)), port=0, limits=Limits(waiting=2)) as running:
        clients = [RawClient(running.url) for _ in range(5)]
        for client in clients:
            client.socket.send(raw_pack(obs(0.1)))
            time.sleep(0.1)
        busy = [client.socket.recv(timeout=5) for client in clients[3:]]  # one is worked on, two wait
        assert all(answer.startswith("busy: 2 requests are waiting") for answer in busy)
        go.set()
        assert all(isinstance(client.socket.recv(timeout=5), bytes) for client in clients[:3])
        assert clients[4].ask(obs(0.1))["actions"].shape == (CHUNK, 1)
        for client in clients:
            client.close()


def test_a_request_whose_client_has_left_is_not_worked_on():
    calls, go = [], threading.Event()

    def decide():
        calls.append(1)
        go.wait(10)

    with PolicyServer(ToyAgent(decide), port=0) as running:
        with raw_client(running.url) as stays:
            stays.socket.send(raw_pack(obs(0.1)))
            for _ in range(5):
                with raw_client(running.url) as leaves:
                    leaves.socket.send(raw_pack(obs(0.2)))
                    time.sleep(0.05)
            time.sleep(0.2)
            assert running._worker.unfinished == 1
            go.set()
            stays.socket.recv(timeout=5)
        assert len(calls) == 1


def test_health_is_answered_while_the_agent_computes():
    computing, over = threading.Event(), threading.Event()
    over.set()

    def spin():  # pure Python: keeps the interpreter busy, unlike a matrix product
        computing.set()
        while not over.is_set():
            sum(range(1000))

    with PolicyServer(ToyAgent(spin), port=0) as running:
        computing.clear()  # the server's own first decision
        with raw_client(running.url) as client:
            over.clear()
            client.socket.send(raw_pack(obs(0.1)))
            assert computing.wait(60)
            for _ in range(3):
                health_s(running.port)  # the agent does not stop before this has been answered
            assert not over.is_set()
            over.set()
            client.socket.recv(timeout=60)


# -- all at once --------------------------------------------------------------------------------------------------------


def test_a_thousand_requests_of_eight_clients_among_bad_ones():
    """Every answer belongs to its request, memory stays, health is answered at once."""
    per_client, stop = 125, threading.Event()
    limits = Limits(message_bytes=2**20, open_s=3.0, keepalive_s=10.0, connections=64)
    frame = np.zeros((96, 96, 3), np.uint8)

    def works(number):
        xs = np.random.default_rng(number).uniform(-1, 1, per_client)
        with raw_client(running.url) as client:
            client.started(number)
            found = [client.ask({**obs(x), "pixels": frame}) for x in xs]
        assert not [a for a in found if isinstance(a, str)]
        # What the agent is shown is float32, and so is what is expected.
        wanted = held(ToyAgent(), number, [float(np.float32(x)) for x in xs])
        np.testing.assert_allclose([a["actions"] for a in found], wanted, rtol=1e-5)
        return len(found)

    def misbehaves(number):
        done, rng = 0, np.random.default_rng(number)
        while not stop.is_set():
            kind = done % 6
            try:
                if kind == 0:  # noise
                    with raw_client(running.url) as client:
                        client.socket.send(rng.bytes(5000))
                        client.close_code(5)
                elif kind == 1:  # too large
                    with raw_client(running.url) as client:
                        client.socket.send(bytes(2**21))
                        client.close_code(5)
                elif kind == 2:  # leaves without a word, a request and half a message behind
                    s = tcp(running.port, upgrade=True)
                    s.sendall(b"\x82\xfe\x7f\xff\x00\x00\x00\x00" + bytes(100))
                    s.close()
                elif kind == 3:  # silent, and there until it is hung up
                    seconds_until_hung_up(tcp(running.port))
                elif kind == 4:  # a wrong observation of the largest size, and no interest in the answer
                    with raw_client(running.url) as client:
                        client.socket.send(raw_pack({"agent_pos": np.zeros(120_000)}))
                else:
                    with raw_client(running.url) as client:
                        for _ in range(20):  # does not wait for answers
                            client.socket.send(raw_pack(obs(0.5)))
            except (OSError, WebSocketException):
                pass
            done += 1
            time.sleep(0.01)
        return done

    def watches():
        times = []
        while not stop.is_set():
            times.append(health_s(running.port))
            time.sleep(0.02)
        return times

    process = psutil.Process()
    with (
        PolicyServer(ToyAgent(lambda: time.sleep(0.002)), port=0, limits=limits) as running,
        ThreadPoolExecutor(16) as pool,
    ):
        with raw_client(running.url) as client:  # whatever is allocated once
            client.ask({**obs(0.0), "pixels": frame})
        before = process.memory_info().rss
        bad = [pool.submit(misbehaves, n) for n in range(3)]
        watch = pool.submit(watches)
        good = [pool.submit(works, n) for n in range(8)]
        try:
            answered = sum(job.result(timeout=120) for job in good)
        finally:
            stop.set()
        grown = process.memory_info().rss - before
        times, misdeeds = watch.result(timeout=20), sum(job.result(timeout=20) for job in bad)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{answered} answers, {misdeeds} misdeeds, memory +{grown / 2**20:.1f} MB (peak {peak:.0f} MB), "
          f"health median {1e3 * np.median(times):.1f} ms, longest {1e3 * max(times):.0f} ms of {len(times)}")  # fmt: skip
    assert answered == 1000 and misdeeds > 10
    assert grown < 100 * 2**20
    assert times  # health was answered all along; how quickly is the machine's matter
