"""Pickles read by an interpreter of our own: what comes out are plain containers, whatever a file asks for.

Unpickling as Python does it imports and calls what the file names. Here a name is only ever a :class:`Name`, looked up in a closed
list; a call of one builds a container, a tensor that stays in the file, or an inert :class:`Record`. Nothing of this process can be
reached, and the work is bounded by the number of instructions: no length, memo index or shared key of the file makes more of it.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from uva_agents.errors import WeightsError

MAX_BYTES = 32 << 20
"""Of one pickle. Those of the released files, optimiser and all, have less than one."""
MAX_INSTRUCTIONS = 1_000_000
_MAX_LONG_BITS = 512


class UnsafeCheckpointError(WeightsError):
    """The file asks for something that a checkpoint has no business to ask for."""


@dataclass(frozen=True)
class Name:
    """Something that the file mentions by its name, and that is not looked at."""

    full: str

    def __repr__(self) -> str:
        return f"<{self.full}>"


@dataclass(eq=False)
class Record:
    """Stands for an object of a class that is not loaded: keeps what the file says about it.

    Attributes:
        kind: full name of the class.
        args: arguments it would have been built with.
        state: what would have been set on it.
    """

    kind: str
    args: tuple[Any, ...] = ()
    state: Any = None

    def __repr__(self) -> str:
        return f"<{self.kind}>"


# Names with these beginnings may be mentioned and called: that makes a record.
_RECORDED = (
    "omegaconf.",
    "typing.",
    "pathlib.",
    "argparse.",
    "numpy.",
    "dill._dill._load_type",
    "dill._dill._get_attr",
    "torch.optim.",
    "torch._C.Generator",
    "torch.device",
    "builtins.int",
    "builtins.float",
    "builtins.complex",
    "builtins.str",
    "builtins.bool",
    "builtins.slice",
    "builtins.range",
)
_REBUILT = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_SCALARS = (str, int, float, bool, bytes, type(None), Name, Record)


class Interpreter:
    """Runs pickles of one file.

    Args:
        storage: what a persistent id stands for.
        tensor: (storage, offset, shape, stride) to a tensor.
    """

    def __init__(
        self, storage: Callable[[Any], Any] | None = None, tensor: Callable[[Any, Any, Any, Any], Any] | None = None
    ) -> None:
        self._storage, self._tensor = storage, tensor
        self._left = MAX_INSTRUCTIONS

    def load(self, stream: io.BytesIO) -> Any:
        """The object whose pickle begins where the stream is; the stream is then behind it.

        Raises:
            UnsafeCheckpointError: it asks for something outside the closed list, or for more work than an honest file needs.
            Exception: it is damaged; of any type.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(stream):
            self._left -= 1
            if self._left < 0:
                raise UnsafeCheckpointError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions")
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise EOFError("the pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            if isinstance(argument, int) and argument.bit_length() > _MAX_LONG_BITS:
                raise UnsafeCheckpointError("its pickle has a number of more than 64 bytes")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(stack)
            self._stack = []
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise UnsafeCheckpointError(f"its pickle has an instruction {name}, which a checkpoint does not need")

    # -- instructions that take something off the stack --------------------------------------------------------------

    def _marked(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _short_tuple(self, size: int) -> None:
        items = tuple(self._stack[-size:])
        if len(items) != size:
            raise EOFError("the pickle's stack is empty")
        self._stack[-size:] = [items]

    def _append(self, items: list[Any]) -> None:
        _of(list, self._stack[-1]).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        _of(dict, self._stack[-1]).update(_pairs(items))

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _add_items(self) -> None:
        items = self._marked()
        _of(set, self._stack[-1]).update(map(_key, items))

    def _global(self, module: str, name: str) -> None:
        self._stack.append(_name(module, name))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._global(_of(str, module), _of(str, name))

    def _reduce(self) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._call(function, _of(tuple, args)))

    def _new(self, *, keywords: bool) -> None:
        if keywords:
            self._stack.pop()
        self._reduce()

    def _instance(self, *, named: str | None) -> None:
        items = self._marked()
        function = _name(*named.split(" ", 1)) if named is not None else items.pop(0)
        self._stack.append(self._call(function, tuple(items)))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict | list | set):  # what is set on containers (``_metadata``) is of no use here
            raise UnsafeCheckpointError(f"its pickle sets attributes of a {type(target).__name__}")

    def _persistent(self, identifier: Any) -> None:
        if self._storage is None:
            raise UnsafeCheckpointError("its pickle asks for something outside of it")
        self._stack.append(self._storage(identifier))

    def _call(self, function: Any, args: tuple[Any, ...]) -> Any:
        full = _of(Name, function).full
        if full in _REBUILT:
            if self._tensor is None:
                raise UnsafeCheckpointError("its pickle has a tensor where none belongs")
            return self._tensor(*args[:4])
        if full == "torch._utils._rebuild_parameter":
            return args[0]
        if full == "torch.Size":
            return tuple(_of(tuple | list, args[0]))
        if full == "collections.defaultdict":
            return {}  # without its factory, which could be anything
        if full in ("collections.OrderedDict", "builtins.dict"):
            pairs = _of(list | tuple | dict, args[0]) if args else ()
            return dict(pairs) if isinstance(pairs, dict) else {_key(k): v for k, v in pairs}
        if full in ("builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset"):
            items = list(_of(list | tuple | set | frozenset, args[0])) if args else []
            kind = full.removeprefix("builtins.")
            return items if kind == "list" else tuple(items) if kind == "tuple" else _set(items)
        if full in ("builtins.bytes", "builtins.bytearray"):
            return bytes(_of(bytes, args[0])) if args else b""
        if full == "_codecs.encode":  # how old pickles write bytes
            return _of(str, args[0]).encode("latin1")
        if full.startswith(_RECORDED):
            return Record(full, args)
        raise UnsafeCheckpointError(f"its pickle calls {full!r}, which a checkpoint does not need")


def _name(module: str, name: str) -> Name:
    full = f"{module.replace('__builtin__', 'builtins')}.{name}"
    known = full.startswith(_RECORDED) or full in (
        *(f"builtins.{t}" for t in ("dict", "list", "tuple", "set", "frozenset", "bytes", "bytearray")),
        *("collections.OrderedDict", "collections.defaultdict", "_codecs.encode", "torch.Size", *_REBUILT),
        "torch._utils._rebuild_parameter",
    )
    storage = module in ("torch", "torch.storage") and name.endswith("Storage") and name.isidentifier()
    dtype = module == "torch" and name.isidentifier() and isinstance(getattr(torch, name, None), torch.dtype)
    if not (known or storage or dtype):
        raise UnsafeCheckpointError(
            f"the file asks for {full[:200]!r}, which a checkpoint does not need: it was not loaded, and nothing in it was run"
        )
    return Name(full)


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"the pickle has a {type(value).__name__} where a {getattr(kind, '__name__', kind)} belongs")
    return value


def _key(value: Any) -> Any:
    """A key of a dict or member of a set. Hashing nested shared tuples would take time exponential in their depth."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, tuple) and len(value) <= 8 and all(isinstance(item, _SCALARS) for item in value):
        return value
    raise UnsafeCheckpointError(f"its pickle has a {type(value).__name__} as a key")


def _set(items: list[Any]) -> set[Any]:
    return {_key(item) for item in items}


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("the pickle has a key without a value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_PUSHED = frozenset(
    [
        *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_HANDLERS: dict[str, Callable[[Interpreter, Any], Any]] = {
    "POP": lambda self, _: self._stack.pop() if self._stack else self._marked(),
    "POP_MARK": lambda self, _: self._marked(),
    "DUP": lambda self, _: self._stack.append(self._stack[-1]),
    "TUPLE": lambda self, _: _onto(self, tuple(self._marked())),
    "LIST": lambda self, _: _onto(self, self._marked()),
    "DICT": lambda self, _: _onto(self, _pairs(self._marked())),
    "FROZENSET": lambda self, _: _onto(self, _set(self._marked())),
    "TUPLE1": lambda self, _: self._short_tuple(1),
    "TUPLE2": lambda self, _: self._short_tuple(2),
    "TUPLE3": lambda self, _: self._short_tuple(3),
    "APPEND": lambda self, _: self._append([self._stack.pop()]),
    "APPENDS": lambda self, _: self._append(self._marked()),
    "SETITEM": lambda self, _: self._set_item(),
    "SETITEMS": lambda self, _: self._set_items(self._marked()),
    "ADDITEMS": lambda self, _: self._add_items(),
    "GLOBAL": lambda self, argument: self._global(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda self, _: self._stack_global(),
    "REDUCE": lambda self, _: self._reduce(),
    "NEWOBJ": lambda self, _: self._new(keywords=False),
    "NEWOBJ_EX": lambda self, _: self._new(keywords=True),
    "INST": lambda self, argument: self._instance(named=argument),
    "OBJ": lambda self, _: self._instance(named=None),
    "BUILD": lambda self, _: self._build(),
    "PERSID": lambda self, argument: self._persistent(argument),
    "BINPERSID": lambda self, _: self._persistent(self._stack.pop()),
}


def _onto(interpreter: Interpreter, value: Any) -> None:
    interpreter._stack.append(value)
