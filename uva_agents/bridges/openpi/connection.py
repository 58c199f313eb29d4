"""A client's end of openpi's wire: asks, waits, connects again."""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from uva_agents.bridges.openpi.limits import Limits
from uva_agents.bridges.openpi.wire import WireError, pack, unpack

try:
    from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
    from websockets.frames import CloseCode
    from websockets.sync.client import ClientConnection, connect
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs websockets: pip install 'uva-agents[serve]'") from error

log = logging.getLogger("uva_agents.remote")

_ANSWERS = Limits(message_bytes=256 * 2**20, items=1_000_000, depth=16)
"""Of a server that was chosen: only against accidents."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class RemotePolicyError(ConnectionError):
    """The server cannot be reached, refuses, or failed; the message says which."""


class Connection:
    """One connection to a policy server, made again when it is lost.

    Args:
        url: ``ws://host:port`` or ``wss://host:port``.
        token: given as openpi's clients do.
        timeout_s: for one answer.
        patience_s: for a server that is not there, is lost, or is busy; 0 tries once.
        tls: for ``wss``, where the system's authorities do not know the server's certificate.

    Raises:
        ValueError: a URL that is none; a wrong token.
        RemotePolicyError: no server within ``patience_s``, or one that speaks another language.
    """

    def __init__(
        self, url: str, *, token: str | None, timeout_s: float, patience_s: float, tls: ssl.SSLContext | None
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"{url!r} is not the address of a policy server: ws://HOST:PORT, or wss:// with TLS")
        if timeout_s <= 0 or patience_s < 0:
            raise ValueError(f"timeout_s must be positive and patience_s not negative, got {timeout_s}, {patience_s}")
        self.url, self._token, self._tls = url, token, tls
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._lock = threading.RLock()
        self._socket: ClientConnection | None = None
        self._open = contextlib.ExitStack()
        self.metadata: dict[str, Any] = {}
        self.times = 0
        """Connections made so far: what a server knew of a connection is gone with it."""
        self._retried(self._connected)

    def ask(self, message: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The server's answer.

        Args:
            message: makes the request; again after a lost connection, of which the server remembers nothing.

        Raises:
            TypeError, KeyError, ValueError: the server's words on what is wrong with the request.
            RemotePolicyError: it is gone or busy for too long, or its agent failed.
            TimeoutError: no answer within ``timeout_s``.
        """
        with self._lock:
            answer: dict[str, Any] = self._retried(lambda: self._asked(message))
            return answer

    def close(self) -> None:
        """Hang up; the next request connects again."""
        with self._lock:
            self._socket = None
            with contextlib.suppress(OSError, WebSocketException):
                self._open.close()

    def _asked(self, message: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        socket = self._connected()
        data = pack(message())
        most = (self.metadata.get("uva") or {}).get("message_bytes")
        if isinstance(most, int) and len(data) > most:
            raise ValueError(f"a request of {len(data)} bytes, and {self.url} takes {most}: send smaller images")
        try:
            socket.send(data)
            answer = socket.recv(timeout=self._timeout_s)
        except TimeoutError as error:
            self.close()  # else the late answer would be taken for the next one's
            raise _NoAnswer(f"{self.url} did not answer within {self._timeout_s:g} s") from error
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == CloseCode.MESSAGE_TOO_BIG:
                self.close()
                raise ValueError(f"{self.url} takes no request of {len(data)} bytes: send smaller images") from error
            raise
        if isinstance(answer, str):
            raise self._refusal(answer)
        try:
            read = unpack(answer, _ANSWERS)
        except WireError as error:
            self.close()
            raise RemotePolicyError(f"{self.url} answered with something else than openpi's wire: {error}") from error
        if not isinstance(read, dict):
            raise RemotePolicyError(f"{self.url} answered with a {type(read).__name__} instead of a map")
        return read

    def _connected(self) -> ClientConnection:
        if self._socket is not None:
            return self._socket
        self.close()
        headers = {} if self._token is None else {"Authorization": f"Api-Key {self._token}"}
        stack = contextlib.ExitStack()
        try:
            opened = connect(
                self.url,
                ssl=self._tls,
                additional_headers=headers,
                compression=None,
                open_timeout=self._timeout_s,
                close_timeout=1.0,
                # Servers whose loop waits for inference do not answer to signs of life; requests have their own time.
                ping_interval=None,
                max_size=_ANSWERS.message_bytes,
            )
            socket = stack.enter_context(opened)
            first = socket.recv(timeout=self._timeout_s)
            metadata = unpack(first, _ANSWERS) if isinstance(first, bytes) else first
        except (WireError, InvalidURI) as error:
            stack.close()
            raise ValueError(f"{self.url} does not speak openpi's wire: {error}") from error
        except InvalidStatus as error:
            raise self._turned_away(error) from error
        except BaseException:
            stack.close()
            raise
        if not isinstance(metadata, dict):
            stack.close()
            raise RemotePolicyError(f"{self.url} does not speak openpi's wire: its first frame is {metadata!r:.80}")
        self._check_same(metadata)
        self._socket, self._open, self.metadata = socket, stack, metadata
        self.times += 1
        return socket

    def _check_same(self, metadata: dict[str, Any]) -> None:
        old, new = (m.get("uva") or {} for m in (self.metadata, metadata))
        if self.times and old.get("identity") != new.get("identity"):
            raise ValueError(f"{self.url} serves another agent than when this one was made: make a new RemotePolicy")

    def _turned_away(self, error: InvalidStatus) -> Exception:
        status = error.response.status_code
        text = " ".join((error.response.body or b"").decode(errors="replace").split())
        if status in (401, 403):
            given = (
                "the token is wrong"
                if self._token is not None
                else "it asks for a token (token=; for commands, in UVA_TOKEN)"
            )
            return ValueError(f"{self.url} refuses: {given} (HTTP {status}: {text})")
        if status == 503:
            return _Busy(text)
        return RemotePolicyError(f"{self.url} is no policy server: it answers HTTP {status} {text:.200}")

    def _refusal(self, text: str) -> Exception:
        """What a text frame says. Ours begin with the error's name; openpi's are a traceback, whose last line it is."""
        if text.startswith("busy: "):
            return _Busy(text)
        lines = [line for line in text.strip().splitlines() if line.strip()]
        name, _, rest = (lines[-1] if lines else "").partition(": ")
        if self.metadata.get("uva"):
            kinds: dict[str, type[Exception]] = {"TypeError": TypeError, "KeyError": KeyError, "ValueError": ValueError}
            if name in kinds:
                return kinds[name](f"{rest} (said {self.url})")
        self.close()
        error = RemotePolicyError(f"the agent at {self.url} failed: {lines[-1] if lines else 'no reason given'}")
        if len(lines) > 1:
            error.add_note(text)
        return error

    def _retried(self, attempt: Callable[[], Any]) -> Any:
        """What ``attempt`` returns, tried again after pauses that double while the server is busy or away."""
        deadline, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except (RemotePolicyError, _NoAnswer):
                raise  # both are OSErrors
            except (OSError, EOFError, WebSocketException, _Busy) as problem:
                if not isinstance(problem, _Busy):
                    self.close()
                wait_s = pause_s * random.uniform(0.5, 1.0)
                if time.monotonic() + wait_s > deadline:
                    raise RemotePolicyError(self._away(problem)) from problem
                log.warning("%s; trying again", self._away(problem))
                time.sleep(wait_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _away(self, problem: Exception) -> str:
        if isinstance(problem, _Busy):
            return f"{self.url} is busy ({problem})"
        if isinstance(problem, ConnectionRefusedError):
            return f"nothing listens at {self.url} (connection refused): is the server running, and is this its port?"
        return f"{self.url} cannot be reached ({type(problem).__name__}: {' '.join(str(problem).split())})"


class _Busy(Exception):
    """The server is there, and asks to come back later."""


class _NoAnswer(TimeoutError):
    """To a request; a connection that is not made in time is tried again."""
