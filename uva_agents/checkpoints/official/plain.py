"""Configurations of other libraries as plain JSON values, with a bound on what shared parts and references may spell out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uva_agents.checkpoints.official.pickles import Record, UnsafeCheckpointError

_MAX_WORK = 4_000_000
"""Characters, a node counting for 16. The released configurations have some ten thousand."""
_MAX_DEPTH = 64


class _Work:
    """What has been spelled out so far."""

    def __init__(self) -> None:
        self._left = _MAX_WORK

    def node(self, value: Any, depth: int) -> None:
        """One more.

        Raises:
            UnsafeCheckpointError: too many, too long, or too deep.
        """
        self._left -= 16 + (len(value) if isinstance(value, str) else 0)
        if self._left < 0:
            raise UnsafeCheckpointError(
                "its configuration spells out to millions of entries: it shares or refers to parts over and over"
            )
        if depth > _MAX_DEPTH:
            raise UnsafeCheckpointError(f"its configuration is nested deeper than {_MAX_DEPTH} levels")


def plain(value: Any) -> Any:
    """Configuration records to dicts, lists and scalars; anything that is no configuration becomes its description.

    Raises:
        UnsafeCheckpointError: it spells out to more than an honest one.
    """
    work = _Work()

    def visit(node: Any, depth: int) -> Any:
        work.node(node, depth)
        if isinstance(node, Record):
            return from_record(node, depth)
        if isinstance(node, Mapping):
            return {key(k, depth): visit(item, depth + 1) for k, item in node.items()}
        if isinstance(node, list | tuple):
            return [visit(item, depth + 1) for item in node]
        if node is None or isinstance(node, str | bool | int | float):
            return node
        return f"<{type(node).__name__}>"

    def key(node: Any, depth: int) -> str:
        work.node(node, depth)
        return node if isinstance(node, str) else str(visit(node, depth + 1))

    def from_record(record: Record, depth: int) -> Any:
        state = record.state
        if isinstance(state, tuple) and len(state) == 2:  # (dict, slots)
            state = {k: v for part in state if isinstance(part, Mapping) for k, v in part.items()}
        if isinstance(state, Mapping):
            for name in ("_content", "_val"):
                if name in state:
                    return visit(state[name], depth + 1)
        if record.kind.startswith("argparse.") and isinstance(state, Mapping):
            return visit(state, depth + 1)
        if record.kind.startswith("pathlib."):
            return "/".join(str(visit(part, depth + 1)) for part in record.args)
        return repr(record)

    return visit(value, 0)


def resolved(config: Any) -> Any:
    """A plain configuration with its references (``${a.b}``, ``${.c}``) replaced by what they name.

    Calls such as ``${eval:...}`` stay text: nothing is evaluated. So does a reference to nowhere, or to itself.

    Raises:
        UnsafeCheckpointError: references spell out to more than an honest configuration.
    """
    work = _Work()

    def visit(node: Any, where: tuple[Any, ...], open_: frozenset[str], depth: int) -> Any:
        work.node(node, depth)
        if isinstance(node, dict):
            return {k: visit(v, (*where, k), open_, depth + 1) for k, v in node.items()}
        if isinstance(node, list):
            return [visit(v, (*where, i), open_, depth + 1) for i, v in enumerate(node)]
        if not (isinstance(node, str) and node.startswith("${") and node.endswith("}") and ":" not in node):
            return node
        target = node[2:-1]
        if node in open_ or "${" in target or len(target) > 1000:
            return node
        dots = len(target) - len(target.lstrip("."))
        # One leading dot is the node's own mapping, each more goes one level up.
        base = where[: len(where) - dots] if dots else ()
        path = [*base, *(p for p in target.lstrip(".").split(".") if p)]
        found = config
        for part in path:
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and str(part).isdecimal() and len(str(part)) < 9 and int(part) < len(found):
                found = found[int(part)]
            else:
                return node
        return visit(found, tuple(path), open_ | {node}, depth + 1)

    return visit(config, (), frozenset(), 0)
