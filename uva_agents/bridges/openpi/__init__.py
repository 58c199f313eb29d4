"""openpi's websocket wire: agents served to any of its clients, and any of its servers as an agent.

:func:`serve` and :class:`PolicyServer` put an agent on a port; :class:`RemotePolicy` is an agent whose decisions are made by
a server, one of these or openpi's own. The extra ``serve`` (websockets, msgpack) is needed; docs/serving.md tells the rest.
"""

from uva_agents.bridges.openpi.keys import OPENPI_NAMES, WIRE_NAMES, KeyMap
from uva_agents.bridges.openpi.limits import Limits
from uva_agents.bridges.openpi.remote import RemotePolicy
from uva_agents.bridges.openpi.server import PolicyServer, serve
from uva_agents.bridges.openpi.wire import WireError, pack, unpack

__all__ = [
    "OPENPI_NAMES",
    "WIRE_NAMES",
    "KeyMap",
    "Limits",
    "PolicyServer",
    "RemotePolicy",
    "WireError",
    "pack",
    "serve",
    "unpack",
]
