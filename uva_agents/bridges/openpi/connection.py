"""A client's end of openpi's wire: asks, waits, connects again."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import uva_agents.errors as errors
from uva_agents.bridges.openpi.addresses import ServerUrl, proxy_for, proxy_shown
from uva_agents.bridges.openpi.limits import Limits
from uva_agents.bridges.openpi.server_info import RemotePolicyError, ServerInfo
from uva_agents.bridges.openpi.wire import WireError, pack, unpack
from uva_agents.errors import InputError, MachineError

try:
    from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, WebSocketException
    from websockets.frames import CloseCode
    from websockets.sync.client import ClientConnection, connect
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs websockets: pip install 'uva-agents[serve]'") from error

__all__ = ["Connection", "RemotePolicyError"]

log = logging.getLogger("uva_agents.remote")

_ANSWERS = Limits(message_bytes=256 * 2**20, items=1_000_000, depth=16)
"""Of a server that was chosen: only against accidents."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0

_KINDS: dict[str, type[Exception]] = {
    "TypeError": TypeError,
    "KeyError": KeyError,
    "ValueError": InputError,  # what our servers say of a request that does not fit
    **{name: getattr(errors, name) for name in ("DataError", "WeightsError", "NotFiniteError", "MachineError")},
}
"""Errors of our servers after which the connection goes on, and what they are here."""


class Connection:
    """One connection to a policy server, made again when it is lost, in another process, or in a copy.

    Copies and pickles have address and options, the token among them, and connect when they are first used.

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
        if not timeout_s > 0 or not patience_s >= 0:
            raise InputError(f"timeout_s must be positive and patience_s not negative, got {timeout_s}, {patience_s}")
        self.server, self._token, self._tls = ServerUrl.read(url), token, tls
        if token is not None and self.server.shown != url:
            raise InputError(f"{self.url} was given a name in its address and a token: give one of them")
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self.metadata: dict[str, Any] = {}
        self.server_info = ServerInfo()
        self.times = 0
        """Connections made so far: what a server knew of a connection is gone with it."""
        self._hung_up()
        self._retried(self._connected)

    @property
    def url(self) -> str:
        """For messages: without a password."""
        return self.server.shown

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        if self._tls is not None:
            raise TypeError(
                f"a RemotePolicy with tls= has no form in which another process could take it: make one there, at {self.url}"
            )
        return self._kept()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hung_up()

    def __deepcopy__(self, memo: dict[int, Any]) -> Connection:
        other = object.__new__(type(self))
        other.__setstate__(self._kept())  # within a process, both may use the same certificates
        return other

    def _kept(self) -> dict[str, Any]:
        live = ("_lock", "_socket", "_pid", "_proxy", "_at_end")
        return {name: value for name, value in self.__dict__.items() if name not in live}

    def _hung_up(self) -> None:
        """Without a connection, whatever there was before."""
        self._lock = threading.RLock()
        self._socket: ClientConnection | None = None
        self._at_end: weakref.finalize[Any, Any] | None = None
        self._proxy: str | None = None
        self._pid = os.getpid()

    def ask(self, message: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The server's answer.

        Args:
            message: makes the request; again after a lost connection, of which the server remembers nothing.

        Raises:
            TypeError, KeyError, ValueError: the server's words on what is wrong with the request.
            RemotePolicyError: it is gone or busy for too long, or its agent failed.
            TimeoutError: no answer within ``timeout_s``.
        """
        if self._pid != os.getpid():
            # A forked process: the connection is its parent's, whose answers it would take away, and so is the lock.
            if self._at_end is not None:
                self._at_end.detach()
            self._hung_up()
        with self._lock:
            answer: dict[str, Any] = self._retried(lambda: self._asked(message))
            return answer

    def close(self) -> None:
        """Hang up; the next request connects again."""
        if self._pid != os.getpid():
            return  # what is open is another process's
        with self._lock:
            opened, self._socket = self._socket, None
            if self._at_end is not None:
                self._at_end.detach()
            if opened is not None:
                with contextlib.suppress(OSError, WebSocketException):
                    opened.close()

    def _asked(self, message: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        opened = self._connected()
        data = pack(message())
        most = self.server_info.message_bytes
        if most is not None and len(data) > most:
            raise InputError(f"a request of {len(data)} bytes, and {self.url} takes {most}: send smaller images")
        try:
            opened.send(data)
            answer = opened.recv(timeout=self._timeout_s)
        except TimeoutError as error:
            self.close()  # else the late answer would be taken for the next one's
            raise _NoAnswer(f"{self.url} did not answer within {self._timeout_s:g} s") from error
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == CloseCode.MESSAGE_TOO_BIG:
                self.close()
                raise InputError(f"{self.url} takes no request of {len(data)} bytes: send smaller images") from error
            raise
        if isinstance(answer, str):
            raise self._refusal(answer)
        try:
            read = unpack(answer, _ANSWERS)
        except WireError as error:
            self.close()
            raise RemotePolicyError(f"{self.url} answered with something else than openpi's wire: {error}") from error
        if not isinstance(read, dict):
            self.close()
            raise RemotePolicyError(f"{self.url} answered with a {type(read).__name__} instead of a map")
        return read

    def _connected(self) -> ClientConnection:
        if self._socket is not None:
            return self._socket
        self.close()
        headers = {} if self._token is None else {"Authorization": f"Api-Key {self._token}"}
        self._proxy = proxy_for(self.server)
        try:
            manager = connect(
                self.server.url,
                ssl=self._tls,
                proxy=self._proxy,
                additional_headers=headers,
                compression=None,
                open_timeout=self._timeout_s,
                close_timeout=1.0,
                # Servers whose loop waits for inference do not answer to signs of life; requests have their own time.
                ping_interval=None,
                max_size=_ANSWERS.message_bytes,
            )
            opened = contextlib.ExitStack().enter_context(manager)  # left by close(), or when its owner has gone
        except InvalidProxy as error:
            raise InputError(f"the proxy {proxy_shown(self._proxy or '')} cannot be used: {error.msg}") from error
        except ImportError as error:
            raise MachineError(f"{self.url} cannot be reached{self._by()}: pip install python-socks") from error
        except InvalidStatus as error:
            raise self._turned_away(error) from error
        try:
            first = opened.recv(timeout=self._timeout_s)
            metadata = unpack(first, _ANSWERS) if isinstance(first, bytes) else first
            if not isinstance(metadata, dict):
                raise RemotePolicyError(f"{self.url} does not speak openpi's wire: its first frame is {metadata!r:.80}")
            info = ServerInfo.read(metadata, self.url)
            if self.times and info.identity != self.server_info.identity:
                raise InputError(
                    f"{self.url} serves another agent than when this one was made: make a new RemotePolicy"
                )
        except BaseException as error:
            opened.close()
            if isinstance(error, WireError):
                raise RemotePolicyError(f"{self.url} does not speak openpi's wire: {error}") from error
            raise
        self._socket, self.metadata, self.server_info = opened, metadata, info
        self._at_end = weakref.finalize(self, _cut, opened, os.getpid())
        self.times += 1
        return opened

    def _turned_away(self, error: InvalidStatus) -> Exception:
        status = error.response.status_code
        text = " ".join((error.response.body or b"").decode(errors="replace").split())
        if status in (401, 403):
            given = (
                "the token is wrong"
                if self._token is not None
                else "it asks for a token (token=; for commands, in UVA_TOKEN)"
            )
            return InputError(f"{self.url} refuses: {given} (HTTP {status}: {text})")
        if status == 503:
            return _Busy(text)
        return RemotePolicyError(
            f"{self.url} is no policy server: it answers HTTP {status} {text:.200}{self._by(hint=True)}"
        )

    def _refusal(self, text: str) -> Exception:
        """What a text frame says. Ours begin with the error's name; openpi's are a traceback, whose last line it is."""
        if text.startswith("busy: "):
            return _Busy(text)
        lines = [line for line in text.strip().splitlines() if line.strip()]
        name, _, rest = (lines[-1] if lines else "").partition(": ")
        if self.server_info.ours and name in _KINDS:
            return _KINDS[name](f"{rest} (said {self.url})")
        self.close()
        error = RemotePolicyError(f"the agent at {self.url} failed: {lines[-1][:2000] if lines else 'no reason given'}")
        if len(lines) > 1:
            error.add_note(text[:20_000])
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
                if isinstance(problem, InputError | MachineError):
                    raise
                if not isinstance(problem, _Busy):
                    self.close()
                if isinstance(problem, socket.gaierror) and problem.errno == socket.EAI_NONAME:
                    raise RemotePolicyError(self._away(problem)) from problem  # waiting gives nobody a name
                wait_s = pause_s * random.uniform(0.5, 1.0)
                if time.monotonic() + wait_s > deadline:
                    raise RemotePolicyError(self._away(problem)) from problem
                log.warning("%s; trying again", self._away(problem))
                time.sleep(wait_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _by(self, *, hint: bool = False) -> str:
        """By which proxy, if by any."""
        if self._proxy is None:
            return ""
        way = f" through the proxy {proxy_shown(self._proxy)}"
        return f"{way}; if it is in your own network, set no_proxy={self.server.host}" if hint else way

    def _away(self, problem: Exception) -> str:
        if isinstance(problem, _Busy):
            return f"{self.url} is busy ({problem})"
        if isinstance(problem, socket.gaierror) and self._proxy is None:
            return f"no computer is known by the name {self.server.host!r} ({self.url}): {problem.strerror}"
        if isinstance(problem, ConnectionRefusedError) and self._proxy is None:
            return f"nothing listens at {self.url} (connection refused): is the server running, and is this its port?"
        reason = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        return f"{self.url} cannot be reached{self._by()} ({reason}){self._by(hint=True)[len(self._by()) :]}"


def _cut(opened: ClientConnection, pid: int) -> None:
    """Hang up for an owner that has gone without saying so; at once, because nobody waits.

    The thread that reads then finds the end of the stream, and closes the socket.
    """
    if pid == os.getpid():
        with contextlib.suppress(OSError):
            opened.socket.shutdown(socket.SHUT_RDWR)


class _Busy(Exception):
    """The server is there, and asks to come back later."""


class _NoAnswer(TimeoutError):
    """To a request; a connection that is not made in time is tried again."""
