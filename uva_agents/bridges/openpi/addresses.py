"""Addresses: where a server may listen, what a client was given, and whether a proxy is in between."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import urllib.parse
from dataclasses import dataclass

from uva_agents.errors import InputError, MachineError

try:
    from websockets.exceptions import InvalidURI
    from websockets.uri import parse_uri
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs websockets: pip install 'uva-agents[serve]'") from error
try:
    from websockets.proxy import get_proxy
except ModuleNotFoundError:  # where websockets 15 had it
    from websockets.uri import get_proxy  # type: ignore[attr-defined,no-redef]


class AddressError(InputError, OSError):
    """Where a server was told to listen, nobody can: the address is none of this machine's, or none at all."""


class PortError(MachineError, OSError):
    """The address is right, and the port cannot be had: another program has it, or it is not for every user."""


def check_listening(host: str, port: int) -> None:
    """That a server can listen there, before an agent is loaded for it.

    Args:
        port: 0 for any that is free.

    Raises:
        AddressError: no such port, no such host, or not on this machine.
        PortError: the port is in use, or needs rights.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise AddressError(f"cannot listen on {host}:{port}: ports go from 1 to 65535, and 0 takes a free one")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressError(f"cannot listen on {host}:{port}: no computer is known by the name {host!r}") from error
    for family, kind, protocol, _, address in found:
        try:
            probe = socket.socket(family, kind, protocol)
        except OSError:
            continue  # a name with an address of a family that this machine does not have
        with probe:
            try:
                if os.name == "posix":  # as asyncio does: what has just been closed may be opened again
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == getattr(socket, "AF_INET6", None):
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
                probe.listen(1)  # two programs may have bound it, only one listens
            except OSError as error:
                raise cannot_listen(host, port, error) from error


def cannot_listen(host: str, port: int, error: OSError) -> AddressError | PortError:
    """What went wrong at listening, by name and with what to do."""
    where = f"cannot listen on {host}:{port}"
    if isinstance(error, AddressError | PortError):
        return error
    if error.errno == errno.EADDRINUSE:
        return PortError(f"{where}: another program has this port; choose another with --port, or 0 for a free one")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortError(f"{where}: ports below 1024 are not for every user; choose one above")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return AddressError(f"{where}: this is no address of this computer; 0.0.0.0 listens on all that it has")
    return PortError(f"{where}: {error.strerror or error}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True)
class ServerUrl:
    """The address of a policy server, as a client was given it.

    Attributes:
        url: all of it.
        shown: without a password, for messages.
        host, port: of the server.
    """

    url: str
    shown: str
    host: str
    port: int

    @classmethod
    def read(cls, url: str) -> ServerUrl:
        """The address that a URL names.

        Raises:
            InputError: no such address.
        """
        shown = _without_password(str(url))
        if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
            raise InputError(f"{shown!r} is not the address of a policy server: ws://HOST:PORT, or wss:// with TLS")
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InputError(f"{shown!r} has no port that exists: they go from 1 to 65535") from error
        if port == 0:
            raise InputError(f"{shown!r}: nothing listens on port 0; a server that took a free one says which")
        if not parts.hostname:
            raise InputError(f"{shown!r} names no computer: ws://HOST:PORT, or wss:// with TLS")
        try:
            parse_uri(url)
        except (InvalidURI, ValueError) as error:
            reason = getattr(error, "msg", None) or error
            raise InputError(f"{shown!r} is not the address of a policy server: {reason}") from error
        return cls(url, shown, parts.hostname, port or (443 if parts.scheme == "wss" else 80))


def proxy_for(server: ServerUrl) -> str | None:
    """The proxy that the environment names for this server (``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy``).

    What runs on this machine needs none: a proxy would look for it on its own.
    """
    if is_loopback(server.host) or server.host.endswith(".localhost"):
        return None
    proxy: str | None = get_proxy(parse_uri(server.url))
    return None if proxy is None or _is_here(server.host) else proxy


def proxy_shown(proxy: str) -> str:
    """For messages: without name and password, and with the environment variables that say it."""
    variables = sorted(name for name, value in os.environ.items() if name.lower().endswith("_proxy") and value == proxy)
    return _without_password(proxy) + (f" (from {' and '.join(variables)})" if variables else "")


def _without_password(url: str) -> str:
    return re.sub(r"(?<=//)[^/@]*@", "", url)


def _is_here(host: str) -> bool:
    """Whether a name or an address is this machine's."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # perhaps the proxy knows it
    for family, kind, protocol, _, address in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)  # only addresses of this machine can be
            return True
    return False
