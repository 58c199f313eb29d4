"""Messages of openpi's wire: msgpack, in which an array is a map of its bytes, dtype and shape.

    {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}      C order
    {b"__npgeneric__": True, b"data": value, b"dtype": "<f4"}                      a numpy scalar

Nothing read here is run, and what is made of a message is bounded by the message's size and :class:`Limits`.
"""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn

import numpy as np

from uva_agents.bridges.openpi.limits import Limits

try:
    import msgpack
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bridge needs msgpack: pip install 'uva-agents[serve]'") from error

_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = (
    (name.encode(), name) for name in ("__ndarray__", "__npgeneric__", "data", "dtype", "shape")
)
"""Keys are bytes; some clients that are not written in Python send them as text."""

# No objects, which would be pickled; no structures; nothing whose size depends on the platform.
_DTYPES = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU]\d{1,6})")
_MAX_AXES = 8


class WireError(ValueError):
    """A message that cannot be read or written; says what is wrong with it."""


def pack(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        WireError: it holds something that the wire has no form for.
    """
    try:
        packed: bytes = msgpack.packb(message, default=_packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(str(error)) from error
    return packed


def unpack(data: bytes, limits: Limits | None = None) -> Any:
    """What :func:`pack` was given: None, bool, int, float, str, bytes, list, dict, numpy arrays (writable, native byte order).

    Raises:
        WireError: not msgpack, cut short, nested too deeply, too many parts, or an array that is none.
    """
    limits = limits or Limits()
    if len(data) > limits.message_bytes:
        raise WireError(f"a message of {len(data)} bytes; {limits.message_bytes} at most")
    _check_size(data, limits)
    try:
        message = msgpack.unpackb(data, object_hook=_map, ext_hook=_refuse_extension)
    except WireError:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError, MemoryError) as error:
        raise WireError(f"not a msgpack message: {' '.join(str(error).split()) or type(error).__name__}") from error
    _check_tree(message, limits.depth)
    return message


def _packed(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"the wire has no form for {type(value).__name__}")
    if value.dtype.kind in "VOcMm":
        raise TypeError(f"the wire has no form for arrays of dtype {value.dtype}")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


# Bytes of the length after a code, and of values whose size is in their code.
_TEXT = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS, _MAPS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}
_PLAIN = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}


def _check_size(data: bytes, limits: Limits) -> None:
    """That nothing is announced which is too large, before memory is taken for it: lists inside each other may each announce
    thousands of entries in three bytes, and thousands of tiny maps take many times the memory of their bytes.

    What is no msgpack at all is left to msgpack.
    """
    at, left, levels = 0, limits.items, [1]
    while levels:
        if not levels[-1]:
            levels.pop()
            continue
        if at >= len(data):
            return
        levels[-1] -= 1
        code = data[at]
        at += 1
        if code < 0x80 or code >= 0xE0:
            continue
        if code in _PLAIN:
            at += _PLAIN[code]
        elif 0xA0 <= code <= 0xBF:
            at += code & 31
        elif code in _TEXT:
            at += _TEXT[code] + int.from_bytes(data[at : at + _TEXT[code]])
        elif code in _LISTS or code in _MAPS or code < 0xA0:
            wide = _LISTS.get(code) or _MAPS.get(code) or 0
            n = int.from_bytes(data[at : at + wide]) if wide else code & 15
            at += wide
            entries = 2 * n if code in _MAPS or code < 0x90 else n
            if entries > len(data) - at:
                raise WireError(
                    f"not a msgpack message: {entries} parts are announced, and {len(data) - at} bytes follow"
                )
            left -= n + 1
            if left < 0:
                raise WireError(f"more than {limits.items} parts in one message")
            if len(levels) > limits.depth + 2:  # an array is a map with a list in it
                raise WireError(f"maps and lists inside each other more than {limits.depth} deep")
            levels.append(entries)
        else:
            return  # an extension, or no code at all


def _map(values: dict[Any, Any]) -> Any:
    if any(key in values for key in _ARRAY):
        return _array(values)
    if any(key in values for key in _SCALAR):
        return _scalar(values)
    return values


def _array(values: dict[Any, Any]) -> np.ndarray:
    dtype, data, shape = _dtype(values), _entry(values, _DATA), _entry(values, _SHAPE)
    if not isinstance(data, bytes):
        raise WireError(f"an array's data must be bytes, got {type(data).__name__}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise WireError("an array's shape must be a list of sizes")
    if len(shape) > _MAX_AXES:
        raise WireError(f"an array of {len(shape)} axes; {_MAX_AXES} at most")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"{len(data)} bytes for an array of shape {tuple(shape)} and dtype {dtype}")
    # A copy, because the bytes cannot be written to and torch wants memory that can.
    array: np.ndarray = np.ndarray(shape, dtype, data).astype(dtype.newbyteorder("="))
    return array


def _scalar(values: dict[Any, Any]) -> Any:
    dtype, data = _dtype(values), _entry(values, _DATA)
    kind: Any = {"b": bool, "i": int, "u": int, "f": int | float, "U": str, "S": bytes}[dtype.kind]
    if not isinstance(data, kind) or (isinstance(data, bool) and dtype.kind != "b"):
        raise WireError(f"a scalar of dtype {dtype} cannot be a {type(data).__name__}")
    if isinstance(data, int) and dtype.kind in "iu" and not np.iinfo(dtype).min <= data <= np.iinfo(dtype).max:
        raise WireError(f"a scalar of dtype {dtype} cannot be {data}")
    if isinstance(data, str | bytes) and len(data) > dtype.itemsize // (4 if dtype.kind == "U" else 1):
        raise WireError(f"a scalar of dtype {dtype} cannot be text of {len(data)} letters")
    return np.array(data, dtype).astype(dtype.newbyteorder("="))[()]


def _dtype(values: dict[Any, Any]) -> np.dtype[Any]:
    name = _entry(values, _DTYPE)
    if isinstance(name, bytes):
        name = name.decode("ascii", "replace")
    if not isinstance(name, str) or not _DTYPES.fullmatch(name):
        raise WireError(f"arrays of dtype {name!r:.80} are not accepted: booleans, integers, floats and text are")
    dtype = np.dtype(name)
    if not dtype.itemsize:
        raise WireError("text of no length has no array")
    return dtype


def _entry(values: dict[Any, Any], names: tuple[Any, ...]) -> Any:
    for name in names:
        if name in values:
            return values[name]
    raise WireError(f"an array without its {names[1]!r}")


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise WireError(f"msgpack extension {code} is not part of this wire")


def _check_tree(message: Any, depth: int) -> None:
    todo = [(message, 0)]
    while todo:
        value, level = todo.pop()
        if isinstance(value, dict | list):
            if level == depth:
                raise WireError(f"maps and lists inside each other more than {depth} deep")
            todo += [(part, level + 1) for part in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, msgpack.Timestamp):
            raise WireError("times are not part of this wire")
