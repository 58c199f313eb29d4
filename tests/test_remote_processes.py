"""RemotePolicy in other processes, behind proxies and at its end: it travels, and leaves nothing behind."""

import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.serving import ToyAgent, acted, obs
from uva_agents.bridges.openpi import PolicyServer, RemotePolicy
from uva_agents.bridges.openpi.connection import RemotePolicyError
from uva_agents.errors import InputError, MachineError

VARIABLES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "socks_proxy"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def server():
    with PolicyServer(ToyAgent(), port=0, token="s3cret") as running:
        yield running


@pytest.fixture
def far(server):
    policy = RemotePolicy(server.url, token="s3cret", patience_s=5, execute=2, extra={"prompt": "push"})
    yield policy
    policy.close()


def wanted(seed=3, n=6):
    near, state = ToyAgent(), ToyAgent().initial_state(1, seed=[seed])
    near.execute = 2
    actions = []
    for t in range(n):
        action, state = near.predict(obs(0.1 * t), state)
        actions.append(action)
    return np.stack(actions)


# -- copies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda far: pickle.loads(pickle.dumps(far))])
def test_copies_have_address_and_options_and_connect_when_they_are_asked(far, copied, recwarn):
    acted(far)
    other = copied(far)
    assert (other.url, other.execute, other.action_space) == (far.url, 2, far.action_space)
    assert other.metadata["policy"] == "ToyAgent" and other.identity == far.identity
    np.testing.assert_array_equal(acted(other), wanted())
    np.testing.assert_array_equal(acted(far, 5), wanted(5))
    assert not [w for w in recwarn if "itertools" in str(w.message)]
    other.close()


def test_an_episode_goes_on_in_a_copy_from_what_has_been_seen(far):
    far.reset(seed=3)
    for t in range(4):
        far.act(obs(0.1 * t))
    other = pickle.loads(pickle.dumps(far))
    own_action, others = far.act(obs(0.4)), other.act(obs(0.4))
    assert own_action.shape == others.shape == (1,)
    assert other._state[0].decisions == far._state[0].decisions == 3
    other.close()


def test_seeds_that_nobody_gave_go_on_where_they_were(far):
    far.reset(seed=11)
    far.initial_state(2)
    other = pickle.loads(pickle.dumps(far))
    assert other.initial_state(1)[0].seed == far.initial_state(1)[0].seed == 13


def test_the_token_travels_and_is_never_shown(far):
    other = pickle.loads(pickle.dumps(far))
    for text in (repr(far), repr(other), repr(far._connection), str(far.identity), str(far.metadata)):
        assert "s3cret" not in text
    assert repr(far) == f"RemotePolicy({far.url!r}, execute=2)"
    with PolicyServer(ToyAgent(), port=0) as running:
        hidden = RemotePolicy(running.url.replace("ws://", "ws://user:pa55@"), patience_s=5)
        assert "pa55" not in repr(hidden) + hidden.url + hidden.name + str(hidden.identity)
        assert pickle.loads(pickle.dumps(hidden)).act(obs(0.1)).shape == (1,)
        hidden.close()
    with pytest.raises(InputError, match="give one of them"):
        RemotePolicy(far.url.replace("ws://", "ws://user:pa55@"), token="s3cret")


def test_certificates_stay_in_their_process(far):
    far._connection._tls = ssl.create_default_context()
    with pytest.raises(TypeError, match="with tls= has no form in which another process could take it"):
        pickle.dumps(far)
    assert copy.deepcopy(far)._connection._tls is far._connection._tls
    far._connection._tls = None


def test_a_fresh_process_takes_it(far):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply_async(acted, (far,)).get(timeout=120), wanted())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_makes_a_connection_of_its_own_and_leaves_its_parents_alone(far):
    far.reset(seed=3)
    before = [far.act(obs(0.1 * t)) for t in range(3)]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writing, "wb") as out:
                out.write(acted(far, 5).tobytes())
            far.close()
        finally:
            os._exit(0)
    os.close(writing)
    killer = threading.Timer(60, os.kill, (child, 9))
    killer.start()
    with os.fdopen(reading, "rb") as end:
        found = np.frombuffer(end.read(), np.float32)
    os.waitpid(child, 0)
    killer.cancel()
    np.testing.assert_array_equal(found[:, None], wanted(5))
    after = [far.act(obs(0.1 * t)) for t in range(3, 6)]
    np.testing.assert_array_equal([*before, *after], wanted())
    assert far._connection.times == 1


# -- nothing is left ----------------------------------------------------------------------------------------------------


def left() -> tuple[int, int, int]:
    process = psutil.Process()
    gc.collect()
    return threading.active_count(), process.num_fds(), len(process.net_connections())


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "forgotten"])
def test_two_hundred_servers_and_clients_leave_no_thread_file_or_socket(closed):
    def cycle():
        with PolicyServer(ToyAgent(), port=0) as running:
            client = RemotePolicy(running.url, patience_s=5)
            assert client.act(obs(0.1)).shape == (1,)
            if closed:
                client.close()

    cycle()
    before = left()
    for _ in range(200):
        cycle()
    deadline = time.monotonic() + 20
    while left() > before and time.monotonic() < deadline:
        time.sleep(0.05)  # a thread that has been told to end needs a moment
    assert all(now <= then for now, then in zip(left(), before, strict=True)), (before, left())


def test_clients_that_are_forgotten_hang_up_while_their_server_goes_on(server):
    gone = []
    for _ in range(5):
        client = RemotePolicy(server.url, token="s3cret", patience_s=5)
        gone.append(client._connection._socket)
        del client
    gc.collect()
    deadline = time.monotonic() + 20
    while server._connections and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not server._connections
    for connection in gone:
        connection.recv_events_thread.join(20)
        assert not connection.recv_events_thread.is_alive()


def test_a_server_that_fails_at_its_start_leaves_nothing():
    agent = ToyAgent(lambda: 1 / 0)
    agent.observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-1, 1, (1,), np.float32)})
    with contextlib.suppress(ZeroDivisionError), PolicyServer(agent, port=0):
        pass
    before = left()
    for _ in range(10):
        with pytest.raises(ZeroDivisionError), PolicyServer(agent, port=0):
            pass
    assert all(now <= then for now, then in zip(left(), before, strict=True))


def test_nothing_is_printed_when_a_process_ends_with_both_open():
    code = (
        "from tests.serving import ToyAgent, obs\n"
        "from uva_agents.bridges.openpi import PolicyServer, RemotePolicy\n"
        "server = PolicyServer(ToyAgent(), port=0).__enter__()\n"
        "far = RemotePolicy(server.url)\n"
        "print(far.act(obs(0.1)).shape)\n"
    )
    words = [sys.executable, "-W", "default", "-W", "error::ResourceWarning", "-c", code]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1,)\n", "")


# -- proxies ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def proxy(answer, to=None):
    """A proxy that says ``answer`` to every request, and then is a wire to the port ``to``."""
    asked, stop = [], threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)

    def pump(a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def run():
        while not stop.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            asked.append(client.recv(65536).decode())
            client.sendall(answer)
            if to is None:
                client.close()
                continue
            behind = socket.create_connection(("127.0.0.1", to))
            for pair in ((client, behind), (behind, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://me:pa55@127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        stop.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "ws_proxy"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "own name"])
def test_a_server_on_this_machine_is_reached_without_the_proxy(monkeypatch, variable, host):
    own = socket.gethostname()
    if host == "own name":
        try:
            socket.getaddrinfo(own, None)
        except OSError:
            pytest.skip("this machine does not know its own name")
        host = own
    monkeypatch.setenv(variable, "http://127.0.0.1:9")  # where nothing listens
    with PolicyServer(ToyAgent(), host="0.0.0.0", port=0) as running:
        client = RemotePolicy(f"ws://{host}:{running.port}", patience_s=5)
        assert client.act(obs(0.1)).shape == (1,)
        client.close()


def test_a_server_elsewhere_is_reached_through_it(monkeypatch, server):
    with proxy(b"HTTP/1.1 200 OK\r\n\r\n", to=server.port) as (url, asked):
        monkeypatch.setenv("http_proxy", url)
        client = RemotePolicy("ws://gpu-machine.invalid:8000", token="s3cret", patience_s=5)
        np.testing.assert_array_equal(acted(client, n=1), wanted(n=1))
        assert asked[0].startswith("CONNECT gpu-machine.invalid:8000 ") and len(asked) == 1
        client.close()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"", b"SSH-2.0\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"],
    ids=["forbidden", "bad gateway", "hung up", "no proxy", "the wrong server"],
)  # fmt: skip
def test_what_goes_wrong_behind_a_proxy_names_it(monkeypatch, answer):
    with proxy(answer) as (url, _):
        monkeypatch.setenv("http_proxy", url)
        with pytest.raises(RemotePolicyError) as error:
            RemotePolicy("ws://gpu-machine.invalid:8000", patience_s=0)
    text = str(error.value)
    assert url.replace("me:pa55@", "") in text and "(from http_proxy)" in text and "pa55" not in text
    assert "no_proxy=gpu-machine.invalid" in text


def test_a_proxy_that_is_not_there_is_named_and_not_the_server(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        RemotePolicyError, match=r"through the proxy http://127\.0\.0\.1:9 \(from https_proxy\)"
    ) as error:
        RemotePolicy("ws://gpu-machine.invalid:8000", patience_s=0)
    assert "nothing listens at" not in str(error.value)
    monkeypatch.setenv("no_proxy", "gpu-machine.invalid")
    with pytest.raises(RemotePolicyError, match=r"'gpu-machine\.invalid'") as error:
        RemotePolicy("ws://gpu-machine.invalid:8000", patience_s=0)
    assert "proxy" not in str(error.value)


def test_proxies_that_cannot_be_used_are_named(monkeypatch):
    monkeypatch.setenv("http_proxy", "ftp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"the proxy ftp://127\.0\.0\.1:9 \(from http_proxy\) cannot be used"):
        RemotePolicy("ws://gpu-machine.invalid:8000", patience_s=20)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.setitem(sys.modules, "python_socks.sync", None)
    with pytest.raises((MachineError, RemotePolicyError), match=r"through the proxy socks5://127\.0\.0\.1:9"):
        RemotePolicy("ws://gpu-machine.invalid:8000", patience_s=0)


def test_a_name_that_nobody_knows_is_said_at_once(monkeypatch):
    def nobody(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr(time, "sleep", lambda s: pytest.fail("it waited for a name"))
    with pytest.raises(RemotePolicyError, match="no computer is known by the name 'gpu-machien'"):
        RemotePolicy("ws://gpu-machien:8000", patience_s=1000)
