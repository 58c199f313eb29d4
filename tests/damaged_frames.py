"""Requests of openpi's wire, damaged in every way that a network, another language or ill will damages them. Seeded."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

from tests.serving import raw_pack
from tests.tiny import observation

Frame = bytes | str

DTYPES = ["|O", "O", "|V4", "f4,f4", "(9,9)f4", "<c8", "<M8[s]", "<f16", "<U0", "<U3", "|S2", ">f4", "|b1", "", "float",
          "\x00", "<f4\n", None, 3, [["a", "<f4"]], b"|O", b"\xff"]  # fmt: skip
SHAPES = [
    [-1],
    [-2, 3],
    [2.0],
    [True],
    [2**31],
    [2**62, 2**62],
    [0, 2**40],
    [1] * 40,
    [[1]],
    "3",
    None,
    7,
    {},
    [1, 1, 1],
]
SIZES = [
    (),
    (0,),
    (1,),
    (2,),
    (3,),
    (2, 2),
    (96, 96, 3),
    (3, 96, 96),
    (96, 96, 12),
    (1, 3, 96, 96),
    (0, 0, 3),
    (1, 1, 3),
]
NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, float("nan"), float("inf"), True]


def requests() -> list[dict[str, Any]]:
    """Right ones, of each kind."""
    see = observation(1)
    plain = {"observation/image": see["pixels"], "observation/state": see["agent_pos"], "prompt": "push"}
    named = {
        "episode": "e",
        "start": True,
        "seed": 3,
        "execute": 4,
        "seen": [see],
        "version": 0,
        "deterministic": False,
    }
    return [
        see,
        plain,
        {**see, "reset": True, "seed": 7},
        {"reset": True},
        {"endpoint": "reset"},
        {**see, "endpoint": "infer"},
        {**see, "uva": named},
        {**see, "uva": {"episode": "e", "executed": 1, "version": 1, "seen": []}},
        {**see, "uva": {"sample": 2, "seed": 1, "history": {k: np.stack([v, v]) for k, v in see.items()}}},
        {
            "observation.images.top": np.moveaxis(see["pixels"], -1, 0) / np.float32(255),
            "observation.state": see["agent_pos"],
        },
    ]


def damaged(n: int, seed: int, right: list[dict[str, Any]] | None = None) -> Iterator[Frame]:
    """``n`` frames, made of these messages or of requests."""
    rng, right = random.Random(seed), right or requests()
    kinds = [_cut, _flipped, _spliced, _lengths, _deep, _arrays, _junk, _junk, _inside, _inside, _unknown, _others]
    for i in range(n):
        yield kinds[i % len(kinds)](rng, rng.choice(right))


def junk(rng: random.Random, depth: int = 0) -> Any:
    """A value of any kind."""
    kinds = [
        lambda: rng.choice(NUMBERS),
        lambda: None,
        lambda: "".join(chr(rng.choice([65, 0, 0x20AC, 0x1F600, 10])) for _ in range(rng.randrange(12))),
        lambda: rng.randbytes(rng.randrange(20)),
        lambda: np.full(rng.choice(SIZES), rng.choice([0, 0.5, np.nan, np.inf, -3])),
        lambda: np.zeros(rng.choice(SIZES), rng.choice(["u1", "i8", "?", "f2", "U2"])),
        lambda: np.float32(rng.choice([1.5, np.nan])),
        lambda: [junk(rng, depth + 1) for _ in range(rng.randrange(4))] if depth < 3 else [],
        lambda: {f"k{j}": junk(rng, depth + 1) for j in range(rng.randrange(4))} if depth < 3 else {},
        lambda: {j: junk(rng, depth + 1) for j in range(2)} if depth < 3 else {},
        lambda: msgpack.ExtType(rng.randrange(128), b"x"),
        lambda: msgpack.Timestamp(rng.randrange(2**31)),
    ]  # fmt: skip
    return rng.choice(kinds)()


def _cut(rng: random.Random, request: dict[str, Any]) -> Frame:
    data = raw_pack(request)
    return data[: rng.choice([rng.randrange(len(data)), rng.randrange(min(60, len(data))), len(data) - 1])]


def _flipped(rng: random.Random, request: dict[str, Any]) -> Frame:
    data = bytearray(raw_pack(request))
    for _ in range(rng.randrange(1, 9)):
        data[rng.choice([rng.randrange(len(data)), rng.randrange(min(80, len(data)))])] = rng.randrange(256)
    return bytes(data)


def _spliced(rng: random.Random, request: dict[str, Any]) -> Frame:
    data = raw_pack(request)
    at, skip = rng.randrange(min(200, len(data))), rng.randrange(40)
    return rng.choice([data[:at] + rng.randbytes(rng.randrange(40)) + data[at + skip :], data + data, data + b"\xc0"])


def _lengths(rng: random.Random, request: dict[str, Any]) -> Frame:
    """Long strings, arrays, maps and extensions are announced, and do not come."""
    code = rng.choice([0xC6, 0xC9, 0xDB, 0xDD, 0xDF, 0xC5, 0xDC, 0xDE, 0xDA])
    long = code in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)
    head = bytes([code]) + struct.pack(
        ">I" if long else ">H", rng.choice([2**32 - 1, 2**31, 2**28] if long else [65535, 9999])
    )
    data = raw_pack(request)
    at = rng.randrange(min(200, len(data)))
    return rng.choice([head, data[:at] + head + data[at:], head * 2000, head + b"\x80" * 30_000])


def _deep(rng: random.Random, request: dict[str, Any]) -> Frame:
    n = rng.choice([9, 100, 1500, 100_000])
    return rng.choice(
        [b"\x91" * n + b"\xc0", b"\x81\xa1a" * n + b"\xc0", b"\x91" * n, b"\x81\xa6pixels" + b"\x91" * n + b"\xc0"]
    )


def _arrays(rng: random.Random, request: dict[str, Any]) -> Frame:
    """An array that is none, somewhere in the request."""
    entries = {"data": bytes(8), "dtype": "<f4", "shape": [2]}
    wrong = rng.choice(["data", "dtype", "shape", "all"])
    for name, choices in (
        ("dtype", DTYPES),
        ("shape", SHAPES),
        ("data", ["text", bytes(7), b"", None, 3, [1.0, 2.0], bytes(2**16)]),
    ):
        if wrong in (name, "all"):
            entries[name] = rng.choice(choices)
    if rng.random() < 0.2:
        del entries[rng.choice(list(entries))]
    text = rng.random() < 0.3
    mark = rng.choice(["__ndarray__", "__npgeneric__"])
    array = {(k if text else k.encode()): v for k, v in ({mark: True} | entries).items()}
    key = rng.choice([*request, "agent_pos", "pixels"])
    return raw_pack({**request, key: rng.choice([array, [array], {"x": array}])})


def _junk(rng: random.Random, request: dict[str, Any]) -> Frame:
    return raw_pack(
        {
            **request,
            rng.choice([*request, "agent_pos", "pixels", "seed", "reset", "endpoint", "uva", "task"]): junk(rng),
        }
    )


def _inside(rng: random.Random, request: dict[str, Any]) -> Frame:
    """Among what is ours."""
    ours = request.get("uva", {"episode": "e", "start": True, "seen": []})
    names = ["episode", "start", "seed", "execute", "executed", "seen", "version", "deterministic", "sample", "history"]
    changed = {**ours, **{rng.choice(names): junk(rng) for _ in range(rng.randrange(1, 3))}}
    return raw_pack({**request, "uva": changed})


def _unknown(rng: random.Random, request: dict[str, Any]) -> Frame:
    more = {f"unknown{j}": junk(rng) for j in range(rng.randrange(1, 5))}
    return rng.choice([
        raw_pack({**request, **more}),
        raw_pack({**request, "big": np.zeros(rng.choice([2**12, 2**18]), "u1")}),
        raw_pack({k.encode(): v for k, v in request.items()}),
        raw_pack({**request, **{rng.randbytes(3): 1, 5: 2}}),
        raw_pack({k: v for k, v in request.items() if rng.random() < 0.5}),
        raw_pack({f"n{j}": j for j in range(9_000)}),
    ])  # fmt: skip


def _others(rng: random.Random, request: dict[str, Any]) -> Frame:
    frames: list[Frame] = [
        raw_pack(rng.choice([None, 1, "text", b"bytes", [1, 2], [], True, 1.5, np.zeros(3), [request]])),
        raw_pack(msgpack.ExtType(rng.randrange(128), rng.randbytes(5))),
        raw_pack(msgpack.Timestamp(1)),
        rng.randbytes(rng.choice([0, 1, 5, 300])),
        "text", "", "{}", '{"pixels": []}', "\x00",
    ]  # fmt: skip
    return rng.choice(frames)
