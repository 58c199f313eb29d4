"""Pickles and archives that no honest program writes, put together by hand; and ways to damage honest ones."""

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from uva_agents.errors import WeightsError

T = TypeVar("T")


def outcome(load: Callable[[], T]) -> tuple[T | None, str]:
    """What was loaded, or the message of the error that is allowed."""
    try:
        return load(), ""
    except (WeightsError, FileNotFoundError) as error:
        return None, str(error)


def text(value: str) -> bytes:
    """Instructions that leave a text on the stack."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def dict_of(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def laughs(levels: int = 60) -> bytes:
    """A tuple whose parts are shared: 2 ** levels of them when spelled out."""
    return b")q\x00" + b"".join(bytes([0x68, i, 0x86, 0x71, i + 1]) for i in range(levels))


def shared_lists(levels: int = 60) -> bytes:
    """The same of lists: each holds the one before twice."""
    steps = (bytes([0x71, i, 0x30, 0x5D, 0x28, 0x68, i, 0x68, i, 0x65]) for i in range(levels))
    return b"]" + b"".join(steps)


def deep_lists(levels: int) -> bytes:
    return b"]" * levels + b"a" * (levels - 1)


def tensor(numel: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A float tensor in the record ``0``, which has ``numel`` numbers, it says."""
    named = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel)
    sizes = tuple_of(*map(number, shape)) + tuple_of(*map(number, stride))
    rest = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + tuple_of(named) + b"Q" + number(offset) + sizes + rest + b"tR"


def payload(cfg: bytes = b"}", state: bytes = b"}") -> bytes:
    """A released file's pickle."""
    return b"\x80\x02" + dict_of(state_dicts=dict_of(ema_model=state), cfg=cfg) + b"."


def zip_file(path: Path, data: bytes, *, compress: bool = False, records: dict[str, bytes] | None = None) -> Path:
    """A torch archive with ``data`` for its pickle."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in (records or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def legacy_file(path: Path, data: bytes, keys: tuple[str, ...] = (), runs: bytes = b"") -> Path:
    """The same in the older format."""
    system = {"protocol_version": 1001, "little_endian": True}
    head = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system))
    path.write_bytes(head + data + pickle.dumps(list(keys), 2) + runs)
    return path


def rewritten(path: Path, out: Path, *, compress: bool = False, big: bool = False) -> Path:
    """A torch archive, its records compressed, or in the byte order of other machines."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", kind) as target:
        for name in source.namelist():
            content = source.read(name)
            if big and "/data/" in name:  # the small files of the tests have float32 alone
                content = np.frombuffer(content, "<u4").astype(">u4").tobytes()
            if big and name.endswith("/byteorder"):
                content = b"big"
            target.writestr(name, content)
    return out


def damaged(content: bytes, rng: np.random.Generator, *, end: int | None = None) -> bytes:
    """A copy with bytes flipped, cut, overwritten, moved or put in, before ``end``."""
    end = len(content) if end is None else end
    where = int(rng.integers(0, end))
    length = int(min(end - where, 2 ** rng.integers(0, 14)))
    kind = rng.choice(["flip", "flip", "flips", "cut", "zero", "noise", "drop", "double", "swap"])
    out = bytearray(content)
    if kind == "flip":
        out[where] ^= 1 << int(rng.integers(0, 8))
    elif kind == "flips":
        for at in rng.integers(0, end, 8):
            out[at] = int(rng.integers(0, 256))
    elif kind == "cut":
        del out[where:]
    elif kind == "zero":
        out[where : where + length] = bytes(length)
    elif kind == "noise":
        out[where : where + length] = rng.bytes(length)
    elif kind == "drop":
        del out[where : where + length]
    elif kind == "double":
        out[where:where] = out[where : where + length]
    else:
        other = int(rng.integers(0, max(1, end - length)))
        a, b = out[where : where + length], out[other : other + length]
        out[where : where + length], out[other : other + length] = b, a
    return bytes(out)
