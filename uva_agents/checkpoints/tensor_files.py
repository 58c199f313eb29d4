"""safetensors files: read tensor by tensor, written whole or not at all, with a checksum that is kept beside them."""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from uva_agents.checkpoints.filling import finite
from uva_agents.checkpoints.schema import shown
from uva_agents.checkpoints.stored import StoredTensor
from uva_agents.errors import MachineError, WeightsError
from uva_agents.utils.files import replacing

_MAX_HEADER = 16 << 20
"""Bytes in which a file names its tensors; the released size takes 0.1 MB."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class _TensorPieces:
    """A file that is read piece by piece: mapped into memory, it would be there twice until the last tensor is copied."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")

    def tensor(self, begin: int, end: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        self._file.seek(begin)
        content = self._file.read(end - begin)
        if len(content) != end - begin or len(content) != math.prod(shape) * dtype.itemsize:
            raise WeightsError(f"{self._path} is damaged or truncated (it ends too early); copy it again")
        if not content:
            return torch.zeros(shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the buffer is read only, and so is what is done with it
            return torch.frombuffer(content, dtype=dtype).reshape(shape)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Tensors of a safetensors file, none of them read yet.

    Raises:
        FileNotFoundError: it is missing.
        WeightsError: truncated, damaged, or no such file.
    """
    _check_regular(path)
    try:
        with path.open("rb") as raw:
            (length,) = struct.unpack("<Q", raw.read(8))
            if length > _MAX_HEADER:
                raise WeightsError(f"{path} is no safetensors file: {length:,} bytes of names")
            file: Any = safe_open(path, framework="pt")  # which checks that names, sizes and places go together
            header = json.loads(raw.read(length))
        tensors, source = {}, _TensorPieces(path)
        for name in file.keys():  # noqa: SIM118 (it is no mapping)
            dtype = header[name]["dtype"]
            if dtype not in _DTYPES:
                raise WeightsError(f"{path}: {shown(name)} has numbers of type {dtype}: weights are F16, BF16 or F32")
            shape = tuple(header[name]["shape"])
            begin, end = (8 + length + offset for offset in header[name]["data_offsets"])
            tensors[name] = StoredTensor(
                shape, _DTYPES[dtype], partial(source.tensor, begin, end, _DTYPES[dtype], shape)
            )
    except WeightsError:
        raise
    except (SafetensorError, struct.error, ValueError, LookupError) as error:
        raise WeightsError(f"{path} is damaged or truncated ({str(error)[:200]}); copy it again") from error
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error})") from error
    return tensors


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, in float32.

    Raises:
        FileNotFoundError, WeightsError: see :func:`stored_tensors`; or a number is not finite.
    """
    return {name: finite(tensor.load(), name, str(path)).clone() for name, tensor in stored_tensors(path).items()}


def _check_regular(path: Path) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise FileNotFoundError(f"{path} is missing") from error
    if not stat.S_ISREG(mode):  # opening a pipe would wait for whoever writes to it
        raise WeightsError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}")


def checksum(path: Path) -> str:
    """Of a file's content. Against accidents: who means harm writes another one."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return f"crc32:{value:08x}"


def write_tensors(path: Path, module: nn.Module, dtype: torch.dtype) -> None:
    """Write a module's tensors, completely or not at all.

    Raises:
        WeightsError: a number is not finite, or is not in ``dtype``.
        MachineError: it cannot be written.
    """
    with replacing(path) as partial_path:
        save_tensors(partial_path, module, dtype)


def save_tensors(path: Path, module: nn.Module, dtype: torch.dtype) -> None:
    """:func:`write_tensors` to a path that is not looked at yet."""
    tensors = {name: _converted(name, tensor, dtype) for name, tensor in module.state_dict().items()}
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise MachineError(f"{path} cannot be written: {error}") from error


def _converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        finite(tensor, name, "these weights are not written")
        converted = tensor.to(dtype)
        if not torch.isfinite(converted).all():
            kind = str(dtype).removeprefix("torch.")
            raise WeightsError(
                f"{name!r} has numbers beyond {kind}, up to {tensor.abs().max():g}: write float32 or bfloat16"
            )
        tensor = converted
    return tensor.contiguous()


Verify = Callable[[], None]
"""Compares a file with its checksum. Raises WeightsError."""
