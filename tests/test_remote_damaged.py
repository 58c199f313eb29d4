"""Servers that send what no server should: a client raises one of its own errors, or acts on what it was told."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve as raw_serve

from tests.damaged_frames import Frame, damaged
from tests.serving import ToyAgent, obs, raw_pack, raw_unpack
from uva_agents.bridges.openpi import RemotePolicy, unpack
from uva_agents.bridges.openpi.connection import RemotePolicyError
from uva_agents.bridges.openpi.service import Service
from uva_agents.errors import InputError, NotFiniteError, UVAError

METADATA = Service(ToyAgent()).metadata()
ANSWER = {
    "actions": np.linspace(-0.5, 0.5, 6, dtype=np.float32)[:, None],
    "uva": {"version": 1, "execute": 3},
    "server_timing": {"infer_ms": 1.0},
}


@contextlib.contextmanager
def server(metadata: Callable[[], Frame], answer: Callable[[], Frame]) -> Iterator[str]:
    """Sends these frames, whatever it is asked."""

    def handler(socket: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            socket.send(metadata())
            for _ in socket:
                socket.send(answer())

    with raw_serve(handler, "127.0.0.1", 0, max_size=None, compression=None) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{running.socket.getsockname()[1]}"
        running.shutdown()
        thread.join(timeout=20)


def asked(url: str, far: RemotePolicy | None = None) -> tuple[Any, RemotePolicy | None]:
    """An action, or the error; whatever is no error of the client's raises."""
    try:
        far = far or RemotePolicy(url, patience_s=0, timeout_s=5)
        far.reset(seed=1)
        return far.act(obs(0.1)), far
    except (RemotePolicyError, UVAError) as error:
        return error, far
    except (TypeError, KeyError) as error:
        if "(said ws://" not in str(error):
            raise
        return error, far


def answers(n: int, seed: int) -> dict[str, int]:
    frames = damaged(n, seed, [ANSWER, {**ANSWER, "uva": {"lost": True}}])
    counts, sent = {"error": 0, "action": 0}, [b""]

    def answer() -> Frame:
        sent[0] = next(frames)
        return sent[0]

    with server(lambda: raw_pack(METADATA), answer) as url:
        far: RemotePolicy | None = None
        while True:
            found, far = asked(url, far)
            if isinstance(found, RuntimeError):
                raise found
            if isinstance(found, np.ndarray):
                # Arrays whose keys are text are not read by openpi's own clients, and so not by the one of these tests.
                read = unpack if b"__npgeneric__" in sent[0] or b"\xab__ndarray__" in sent[0] else raw_unpack
                sent_actions = np.asarray(read(sent[0])["actions"], np.float32)
                np.testing.assert_array_equal(found, np.clip(sent_actions.reshape(-1, 1)[0], -1, 1))
            counts["action" if isinstance(found, np.ndarray) else "error"] += 1
            if sum(counts.values()) >= n * 9 // 10:  # an episode that was lost is asked for twice
                break
        sent[0] = raw_pack(ANSWER)
        frames = iter([sent[0]] * 3)
        np.testing.assert_array_equal(asked(url, far)[0], [-0.5])
        assert far is not None
        far.close()
    return counts


def test_damaged_answers_are_errors_or_acted_on_as_they_are():
    counts = answers(300, 0)
    print(counts)
    assert counts["error"] > 150 and counts["action"] > 10


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 8))
def test_two_thousand_damaged_answers(seed):
    answers(300, seed)


def introductions(n: int, seed: int) -> dict[str, int]:
    frames, counts = damaged(n, seed, [METADATA, {"reset_pose": [0.0]}]), {"error": 0, "action": 0}
    with server(lambda: next(frames), lambda: raw_pack(ANSWER)) as url:
        for _ in range(n):
            found, far = asked(url)
            counts["action" if isinstance(found, np.ndarray) else "error"] += 1
            assert not isinstance(found, np.ndarray) or np.abs(found).max() <= 0.5
            if far is not None:
                assert far.execute is None or far.execute >= 1
                repr(far), far.identity, far.name
                far.close()
    return counts


def test_damaged_introductions_are_errors_or_believed():
    counts = introductions(200, 0)
    print(counts)
    assert counts["error"] > 80 and counts["action"] > 10


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_two_thousand_damaged_introductions(seed):
    introductions(200, seed)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({**ANSWER, "uva": 3}, "an answer of ws://.* is damaged: 'uva' is int"),
        ({**ANSWER, "uva": {"execute": -3}}, "damaged: execute is -3"),
        ({**ANSWER, "uva": {"execute": "x" * 10_000}}, "damaged: execute is 'xxx"),
        ({"uva": {"execute": 3}}, "answered without 'actions'"),
        ({**ANSWER, "actions": [[1.0], [2.0, 3.0]]}, "are no array"),
        ({**ANSWER, "actions": ["left"]}, "must be numbers, got <U4"),
        ({**ANSWER, "actions": np.zeros((2, 3, 1))}, r"must be \(T, A\)"),
        ({**ANSWER, "actions": np.zeros((0, 1))}, r"must be \(T, A\)"),
        ({**ANSWER, "actions": 7}, "got a single number"),
        ([1, 2], "a list instead of a map"),
        (b"\xc1", "something else than openpi's wire"),
        (b"\xdc\xff\xff" * 20_000, "something else than openpi's wire"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(answer, problem):
    frame = answer if isinstance(answer, bytes) else raw_pack(answer)
    with server(lambda: raw_pack(METADATA), lambda: frame) as url:
        far = RemotePolicy(url, patience_s=0)
        with pytest.raises(RemotePolicyError, match=problem) as error:
            far.act(obs(0.1))
        assert len(str(error.value)) < 2500
        far.close()


def test_actions_that_are_not_finite_are_errors_of_that_kind():
    with server(lambda: raw_pack(METADATA), lambda: raw_pack({**ANSWER, "actions": ANSWER["actions"] * np.nan})) as url:
        far = RemotePolicy(url, patience_s=0, postprocess=lambda chunk, o: np.nan_to_num(chunk))
        with pytest.raises(NotFiniteError, match="NaN or infinity") as error:
            far.act(obs(0.1))
        assert isinstance(error.value, RemotePolicyError)
        far.close()
    with server(lambda: raw_pack(METADATA), lambda: raw_pack(ANSWER)) as url:
        far = RemotePolicy(url, patience_s=0, postprocess=lambda chunk, o: chunk / 0)
        with pytest.raises(NotFiniteError, match="postprocess= made NaN"), np.errstate(all="ignore"):
            far.act(obs(0.1))
        far.close()
    with server(lambda: raw_pack(METADATA), lambda: raw_pack({**ANSWER, "actions": np.full((2, 1), 1e300)})) as url:
        far = RemotePolicy(url, patience_s=0)
        with pytest.raises(NotFiniteError, match="NaN or infinity"):
            far.act(obs(0.1))
        far.close()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"execute": 0}, "execute is 0"),
        ({"execute": 2.5}, "execute is 2.5"),
        ({"lookback": -1}, "lookback is -1"),
        ({"lookback": "many"}, "lookback is 'many'"),
        ({"action_low": np.zeros(2)}, "action space"),
        ({"action_low": np.array([np.nan])}, "action space"),
        ({"action_low": np.array([2.0])}, "action space"),
        ({"action_high": None}, "action space"),
        ({"message_bytes": -5}, "message_bytes is -5"),
    ],
)
def test_what_a_server_says_of_itself_is_checked(changes, problem):
    with (
        server(lambda: raw_pack({**METADATA, "uva": {**METADATA["uva"], **changes}}), lambda: raw_pack(ANSWER)) as url,
        pytest.raises(RemotePolicyError, match=f"says of itself is damaged: .*{problem}"),
    ):
        RemotePolicy(url, patience_s=0)


def test_an_identity_as_text_is_that_of_an_older_server():
    old = {**METADATA, "uva": {**METADATA["uva"], "identity": '{"weights": "abc", "execute": 16}'}}
    new = {**METADATA, "uva": {**METADATA["uva"], "identity": {"execute": 16, "weights": "abc"}}}
    frames = iter([old, new, {**new, "uva": {**new["uva"], "identity": {"weights": "xyz"}}}])
    with server(lambda: raw_pack(next(frames)), lambda: raw_pack(ANSWER)) as url:
        far = RemotePolicy(url, patience_s=0)
        assert far.identity["server"] == {"weights": "abc", "execute": 16}
        far.close()
        assert far.act(obs(0.1)).shape == (1,)  # connected again: the same agent
        far.close()
        far.reset(seed=0)
        with pytest.raises(InputError, match="serves another agent"):
            far.act(obs(0.1))
