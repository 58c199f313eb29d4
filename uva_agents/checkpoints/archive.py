"""Read torch archives that were pickled with arbitrary classes, without running anything from them.

A ``.ckpt`` of a research repository is a pickle, and unpickling runs whatever the file asks for. Here the only things that are
built are tensors and plain containers. Classes of configuration libraries become inert records; any other name in the
file is refused before it is looked up.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch


class UnsafeCheckpointError(ValueError):
    """The file asks for something that a checkpoint has no business to ask for."""


class Record:
    """Stands for an object of a class that is not loaded: keeps what the file says about it.

    Attributes:
        args: arguments it would have been built with.
        state: what would have been set on it.
    """

    kind = "?"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.kind}>"


# Names with these beginnings become records: the file may mention them, nothing of theirs is imported or called.
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
)
_BUILTINS: dict[str, Any] = {
    t.__name__: t
    for t in (dict, list, tuple, set, frozenset, int, float, complex, str, bytes, bytearray, bool, slice, range)
}


class _Unpickler(pickle.Unpickler):
    """Looks names up in a closed list; everything else is an error before anything is imported."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if full == "collections.OrderedDict":
            return collections.OrderedDict
        if full == "collections.defaultdict":
            return lambda *_: {}  # without its factory, which could be anything
        if full == "_codecs.encode":
            return lambda text, _="latin1": text.encode("latin1")  # how old pickles write bytes
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return getattr(torch._utils, name)
        if full == "torch._utils._rebuild_parameter":
            return lambda data, *_: data
        if full == "torch.Size":
            return torch.Size
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ("torch", "torch.storage") and name.endswith("Storage") and "." not in name:
            return getattr(torch, name, None) or getattr(torch.storage, name)
        if full.startswith(_RECORDED) or full == "torch.device":
            return type("Record", (Record,), {"kind": full})
        raise UnsafeCheckpointError(
            f"the file asks for {full!r}, which a checkpoint does not need: it was not loaded, and nothing in it was run"
        )


_PICKLE = SimpleNamespace(
    __name__="uva_agents.checkpoints.archive",
    Unpickler=_Unpickler,
    UnpicklingError=pickle.UnpicklingError,
    load=lambda file, **options: _Unpickler(file, **options).load(),
)
"""What ``torch.load`` is given in place of the pickle module."""


def read_archive(path: str | Path) -> Any:
    """The object in a torch archive, tensors mapped from the file and not read before they are used.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or no torch archive.
        UnsafeCheckpointError: it asks for something outside the closed list.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    mapped = zipfile.is_zipfile(path)
    if mapped:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in names):
            raise UnsafeCheckpointError(f"{path} is a TorchScript program, not a checkpoint: it was not loaded")
        if not any(name.rsplit("/", 1)[-1] == "data.pkl" for name in names):
            raise ValueError(f"{path} is a zip archive, but not one that torch.save wrote")
    else:
        _refuse_truncated(path)
    try:
        return torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False, mmap=mapped or None)
    except UnsafeCheckpointError:
        raise
    except Exception as error:  # torch and pickle raise a dozen unrelated types for damaged files
        raise ValueError(f"{path} is damaged or truncated ({type(error).__name__}: {error}); copy it again") from error


def _refuse_truncated(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"PK":
        raise ValueError(f"{path} is truncated: the end of its archive is missing; copy it again")
    if head[:1] != b"\x80":
        raise ValueError(f"{path} is no torch checkpoint: it begins with {head!r}")


def plain(value: Any) -> Any:
    """Configuration records to dicts, lists and scalars; anything that is no configuration becomes its description."""
    if isinstance(value, Record):
        state = value.state
        if isinstance(state, tuple) and len(state) == 2:  # (dict, slots)
            state = {**(state[0] or {}), **(state[1] or {})}
        if isinstance(state, Mapping):
            for key in ("_content", "_val"):
                if key in state:
                    return plain(state[key])
        if value.kind.startswith("argparse.") and isinstance(state, Mapping):
            return plain(state)
        if value.kind.startswith("pathlib."):
            return "/".join(str(part) for part in value.args)
        return repr(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _key(key: Any) -> Any:
    return plain(key) if isinstance(key, Record) else key


def resolved(config: Any) -> Any:
    """A plain configuration with its references (``${a.b}``, ``${.c}``) replaced by what they name.

    Calls such as ``${eval:...}`` stay text: nothing is evaluated. So does a reference to nowhere, or to itself.
    """

    def visit(node: Any, where: tuple[Any, ...], open_: frozenset[str]) -> Any:
        if isinstance(node, dict):
            return {k: visit(v, (*where, k), open_) for k, v in node.items()}
        if isinstance(node, list):
            return [visit(v, (*where, i), open_) for i, v in enumerate(node)]
        if not (isinstance(node, str) and node.startswith("${") and node.endswith("}") and ":" not in node):
            return node
        target = node[2:-1]
        if node in open_ or "${" in target:
            return node
        dots = len(target) - len(target.lstrip("."))
        # One leading dot is the node's own mapping, each more goes one level up.
        base = where[: len(where) - dots] if dots else ()
        path = [*base, *(p for p in target.lstrip(".").split(".") if p)]
        found = config
        for part in path:
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and str(part).isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                return node
        return visit(found, tuple(path), open_ | {node})

    return visit(config, (), frozenset())
