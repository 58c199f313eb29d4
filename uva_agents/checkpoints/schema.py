"""Values from a file as a dataclass: every field's type from its annotation, its range from a table. Nothing is guessed."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from uva_agents.errors import WeightsError

T = TypeVar("T")
_LONGEST = 4096
"""Of texts and lists that have no range of their own."""


@dataclass(frozen=True)
class Range:
    """What a number may be.

    Args:
        low, high: inclusive.
        above: ``low`` itself is excluded.
        items: of a list, how many there may be.
    """

    low: float
    high: float
    above: bool = False
    items: int = _LONGEST

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"above {self.low:g} and up to {self.high:g}" if self.above else f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Schema:
    """What is known of dataclasses beyond their annotations.

    Args:
        ranges: of every number of every class, by field.
        tags: of classes that stand beside others in a field: what its entry ``kind`` says.
        families: of base classes, what ``kind`` says and the subclass that is meant; looked at when something is read.
    """

    ranges: Mapping[type, Mapping[str, Range]]
    tags: Mapping[type, str] = field(default_factory=dict)
    families: Mapping[type, Mapping[str, type]] = field(default_factory=dict)

    def read(self, cls: type[T], values: Any, where: str) -> T:
        """An instance of ``cls``. Fields that are not there get their defaults.

        Args:
            values: as JSON gives them.
            where: file and field, for messages.

        Raises:
            WeightsError: a field is unknown, missing, of another type or out of its range, or fields contradict each other.
        """
        if not isinstance(values, Mapping):
            raise WeightsError(f"{where} is {shown(values)}, not an object with fields")
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in values:
            if name not in fields:
                raise WeightsError(f"{where} has an unknown field {shown(name)}{did_you_mean(name, fields)}")
        for name, f in fields.items():
            optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
            if name not in values and not optional:
                raise WeightsError(f"{where} has no field {name!r}")
        hints = _hints(cast(Hashable, cls))
        ranges = self.ranges.get(cls, {})
        read = {name: self._value(hints[name], v, f"{where}.{name}", ranges.get(name)) for name, v in values.items()}
        try:
            return cls(**read)
        except (ValueError, ArithmeticError) as error:  # what fields say together
            raise WeightsError(f"{where}: {error}") from error

    def check(self, value: T, where: str) -> T:
        """``value``, if it would be read from its own fields.

        Raises:
            WeightsError: see :meth:`read`.
        """
        return self.read(type(value), self._fields(value), where)

    def _fields(self, value: Any) -> Any:
        if not dataclasses.is_dataclass(value):
            return [self._fields(one) for one in value] if isinstance(value, tuple) else value
        tags = dict(self.tags)
        for family in self.families.values():
            tags |= {cls: kind for kind, cls in family.items()}
        tag = {"kind": tags[type(value)]} if type(value) in tags else {}
        return tag | {f.name: self._fields(getattr(value, f.name)) for f in dataclasses.fields(value)}

    def _value(self, hint: Any, value: Any, where: str, limits: Range | None) -> Any:
        origin, args = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            if value is None and type(None) in args:
                return None
            kinds = [kind for kind in args if kind is not type(None)]
            if len(kinds) == 1:
                return self._value(kinds[0], value, where, limits)
            return self._tagged({self.tags[kind]: kind for kind in kinds}, value, where)
        if hint in self.families:
            return self._tagged(self.families[hint], value, where)
        if dataclasses.is_dataclass(hint):
            return self.read(hint, value, where)  # type: ignore[arg-type]
        if origin is tuple:
            return self._items(args, value, where, limits)
        if origin is Literal:
            if value not in args or not isinstance(value, str):
                raise WeightsError(f"{where} is {shown(value)}, not one of {', '.join(map(repr, args))}")
            return value
        if hint in (int, float):
            return _number(hint, value, where, limits)
        if not isinstance(value, hint) or (hint is str and len(value) > _LONGEST):
            raise WeightsError(f"{where} is {shown(value)}, not {_KINDS[hint]}")
        return value

    def _items(self, args: tuple[Any, ...], value: Any, where: str, limits: Range | None) -> tuple[Any, ...]:
        if args[-1] is Ellipsis:
            most = _LONGEST if limits is None else limits.items
            if not isinstance(value, list | tuple) or len(value) > most:
                raise WeightsError(f"{where} is {shown(value)}, not a list of at most {most}")
            kinds: Any = args[:1] * len(value)
        else:
            if not isinstance(value, list | tuple) or len(value) != len(args):
                raise WeightsError(f"{where} is {shown(value)}, not a list of {len(args)}")
            kinds = args
        return tuple(
            self._value(kind, v, f"{where}[{i}]", limits) for i, (kind, v) in enumerate(zip(kinds, value, strict=True))
        )

    def _tagged(self, tags: Mapping[str, Any], value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise WeightsError(f"{where} is {shown(value)}, not an object with fields")
        tag = value.get("kind")
        if not isinstance(tag, str) or tag not in tags:
            raise WeightsError(f"{where}.kind is {shown(tag)}, not one of {', '.join(map(repr, tags))}")
        return self.read(tags[tag], {k: v for k, v in value.items() if k != "kind"}, where)


_KINDS = {str: f"a text of at most {_LONGEST} characters", bool: "true or false"}


def _number(kind: type, value: Any, where: str, limits: Range | None) -> Any:
    allowed = int if kind is int else int | float
    what = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or not isinstance(value, allowed) or (limits is not None and value not in limits):
        raise WeightsError(f"{where} is {shown(value)}, not {what}{'' if limits is None else f' {limits}'}")
    return value if kind is int else float(value)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def shown(value: Any) -> str:
    """A value of a file in a message: short, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a huge number"
    if isinstance(value, str | int | float | bool | type(None)):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
    names: dict[Any, str] = {dict: "an object", list: "a list"}
    kind = names.get(type(value), f"a {type(value).__name__}")
    return f"{kind} of {len(value)}" if hasattr(value, "__len__") else kind


def closest(name: Any, names: Any, n: int = 3, cutoff: float = 0.6) -> list[str]:
    """Close matches, in bounded time: of the names' beginnings, and of the first few thousand."""
    known = [str(other)[:200] for other, _ in zip(names, range(5000), strict=False)]
    return difflib.get_close_matches(str(name)[:200], known, n=n, cutoff=cutoff)


def did_you_mean(name: Any, names: Any) -> str:
    """The part of a message that names close matches, or says what there is."""
    close = closest(name, names)
    if close:
        return f": did you mean {' or '.join(map(repr, close))}?"
    return f": known are {', '.join(sorted(map(str, names))[:40])}"
