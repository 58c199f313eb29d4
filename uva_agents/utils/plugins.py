"""What other installed packages add to this one: dataset formats, kinds of weights, protocols, through entry points.

A package declares it in its ``pyproject.toml``::

    [project.entry-points."uva_agents.protocols"]
    kitchen = "my_package.protocols:KITCHEN"

Looking them up reads the metadata of every installed distribution: ask only when a name is not this package's own, or when names
are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, distributions
from typing import Any

from uva_agents.errors import MachineError


def plugins(group: str, *, own: Collection[str] = (), expected: type | None = None) -> Mapping[str, Callable[[], Any]]:
    """The entry points of ``group``: name -> function without arguments that imports and returns the object.

    Nothing is imported here, so that a broken package does harm to its own names only. The function raises
    :class:`~uva_agents.errors.MachineError`, which names distribution and entry point, where the object cannot be imported, is not
    an ``expected`` one, or its name is taken: by this package, or by another distribution.

    Args:
        group: such as ``"uva_agents.protocols"``.
        own: the names that this package defines itself; no other package can replace them.
        expected: the type that each object must be an instance of.
    """
    found: dict[str, list[tuple[str, EntryPoint]]] = {}
    for distribution, entry in _entry_points(group):
        found.setdefault(entry.name, []).append((distribution, entry))
    return {name: _loader(group, claims, name in own, expected) for name, claims in sorted(found.items())}


def _entry_points(group: str) -> Iterator[tuple[str, EntryPoint]]:
    seen = set()
    for distribution in distributions():
        try:
            entries = [entry for entry in distribution.entry_points if entry.group == group]
            name = distribution.metadata["Name"] if entries else ""
        except Exception:  # a damaged file of some package that may have nothing to do with this one
            continue
        if not entries or name in seen:  # the first on the path is the one that Python imports
            continue
        seen.add(name)
        yield from ((name, entry) for entry in entries)


def _loader(group: str, claims: list[tuple[str, EntryPoint]], is_own: bool, expected: type | None) -> Callable[[], Any]:
    distribution, entry = claims[0]
    where = f"the entry point {entry.name!r} = {entry.value!r} ({group}) of the package {distribution!r}"

    def load() -> Any:
        if is_own:
            raise MachineError(f"{where} takes a name that uva-agents itself defines; it must be renamed there")
        if len(claims) > 1:
            others = " and ".join(repr(other) for other, _ in claims[1:])
            raise MachineError(f"{where} has the same name as one of {others}; uninstall one of them")
        try:
            loaded = entry.load()
        except Exception as error:
            raise MachineError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        if expected is not None and not isinstance(loaded, expected):
            raise MachineError(f"{where} is a {type(loaded).__name__}, expected a {expected.__name__}")
        return loaded

    return load
