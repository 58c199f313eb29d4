"""What the description of a zarr array may say, checked before zarr allocates or runs what it asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr

from uva_agents.data.readers.dataset import MissingExtraError
from uva_agents.data.zarr_store import ChunkRule
from uva_agents.errors import DataError

_COMPRESSORS = ("blosc", "zstd", "lz4", "zlib", "gzip", "bz2", "lzma")
_CHECKS = ("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3")
_FILTERS = ("delta", "fixedscaleoffset", "shuffle", "bitround", "quantize", "astype", "packbits")
_CODECS = frozenset((*_COMPRESSORS, *_CHECKS, *_FILTERS, "bytes", "transpose", "sharding_indexed", "pcodec", "zfpy"))
"""Codecs that only compute. Others, above all ``pickle``, would run what a file says."""


def check_description(described: dict[str, Any], name: str, second: bool) -> None:
    """What decides what is allocated and run, before zarr sees it."""
    shape = described.get("shape")
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape) or len(shape) > 32:
        raise DataError(
            f"{name} cannot be read: its shape is {short(shape)}, whole numbers were expected; copy it again"
        )
    if math.prod(max(n, 1) for n in shape) > 2**62:
        raise DataError(f"{name} cannot be read: its shape is {short(shape)}, more than any disk holds")
    if second:
        chunks = described.get("chunks")
        if (
            not isinstance(chunks, list)
            or len(chunks) != len(shape)
            or any(type(n) is not int or n < min(1, size) for n, size in zip(chunks, shape, strict=False))
        ):
            raise DataError(f"{name} cannot be read: its chunks are {short(chunks)} for a shape of {short(shape)}")
        filters = described.get("filters") or []
        found = [described.get("compressor"), *(filters if isinstance(filters, list) else [filters])]
        codecs = [codec.get("id") if isinstance(codec, dict) else codec for codec in found if codec is not None]
    else:
        codecs = list(_names(described.get("codecs")))
    if any(isinstance(codec, str) and codec.startswith("imagecodecs_") for codec in codecs):
        _register_picture_codecs(name)
    for codec in codecs:
        known = isinstance(codec, str) and (
            codec.removeprefix("numcodecs.") in _CODECS or codec.startswith("imagecodecs_")
        )
        if not known:
            raise DataError(
                f"{name} cannot be read: it is packed with {short(codec)}, which is not among the codecs that are read: "
                f"{', '.join(sorted(_CODECS)[:6])}, ..."
            )


def _register_picture_codecs(name: str) -> None:
    """JPEG 2000 and JPEG XL, unknown to zarr until a package adds them."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is packed with codecs for pictures, which need imagecodecs: "
            "pip install 'uva-agents[data]' (or pip install imagecodecs)"
        ) from error
    register_codecs(verbose=False)


def _names(codecs: Any, depth: int = 0) -> Iterator[Any]:
    """Names of zarr 3's codecs, those inside of shards too."""
    for codec in codecs if isinstance(codecs, list) and depth < 4 else [codecs]:
        if not isinstance(codec, dict):
            yield codec
            continue
        yield codec.get("name")
        inner = codec.get("configuration")
        if isinstance(inner, dict):
            for part in ("codecs", "index_codecs"):
                if part in inner:
                    yield from _names(inner[part], depth + 1)


def chunk_rule(array: zarr.Array, described: dict[str, Any]) -> ChunkRule:
    """What every chunk of ``array`` must be. ``described``: its metadata as in the dataset's JSON, zarr 2's or zarr 3's."""
    size = math.prod(int(n) for n in (array.shards or array.chunks)) * np.dtype(array.dtype).itemsize
    if "node_type" not in described:
        compressor = described.get("compressor") or {}
        name = str(compressor.get("id", ""))
        # A filter may change the type, and with it the size; pictures become files of their own.
        exact, known = not described.get("filters"), name in ("", *_COMPRESSORS)
        return ChunkRule(size, exact, name if known and (name or exact) else "other")
    names = list(_names(described.get("codecs")))
    if "sharding_indexed" in names:
        return ChunkRule(size, False, "other")
    packed = [name for name in names if name not in ("bytes", "transpose")]
    if len(packed) == 1 and packed[0] in _COMPRESSORS:
        return ChunkRule(size, True, packed[0])
    return ChunkRule(size, not packed, "other" if packed else "")


def short(value: object) -> str:
    """A value of a file in a message."""
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."
