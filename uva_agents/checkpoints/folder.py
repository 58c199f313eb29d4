"""A folder of weights, of whatever kind: ``config.json``, ``*.safetensors`` and a model card. Names the kinds there are."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uva_agents.errors import InputError, MachineError

FORMAT = "uva-agents/1"
SHIPPED = Path(__file__).parent / "weights"


class Kind(StrEnum):
    """What a folder holds. A ``config.json`` that does not say holds :attr:`UVA`: there was no other kind at first."""

    UVA = "uva"
    DIFFUSION_POLICY = "diffusion-policy"
    TWO_FRAME = "two-frame-inverse"

    @property
    def loaded_with(self) -> str:
        """The public classes that take it."""
        return {
            Kind.UVA: "uva.Policy, uva.WorldModel, uva.InverseModel or uva.UVA",
            Kind.DIFFUSION_POLICY: "uva.DiffusionPolicy",
            Kind.TWO_FRAME: "uva.TwoFrameInverse",
        }[self]


def shipped_names() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(p.name for p in SHIPPED.glob("*") if (p / "config.json").exists())


def resolve(name_or_path: str | Path) -> Path:
    """Folder of a shipped name or of a path.

    Raises:
        FileNotFoundError: neither; names the close matches.
    """
    path = Path(name_or_path)
    if (path / "config.json").exists():
        return path
    if (SHIPPED / str(name_or_path) / "config.json").exists():
        return SHIPPED / str(name_or_path)
    names = shipped_names()
    close = difflib.get_close_matches(str(name_or_path), names, n=3)
    hint = (
        f"did you mean {' or '.join(map(repr, close))}?" if close else f"shipped weights: {', '.join(names) or 'none'}"
    )
    if path.is_dir():
        raise FileNotFoundError(f"{path} has no config.json: it is not a weights folder; {hint}")
    raise FileNotFoundError(f"no weights called {str(name_or_path)!r}, and no such folder; {hint}")


def write_folder(
    folder: str | Path,
    kind: Kind,
    modules: Mapping[str, nn.Module],
    config: Mapping[str, Any],
    *,
    card: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write ``NAME.safetensors`` for every module; the configuration is written last, so a partial folder never loads.

    Args:
        config: entries of ``config.json``; format and kind are added.
        card: text of the model card (``README.md``).
        dtype: of the tensors on disk.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)  # what is there is about to be replaced: not loadable meanwhile
    for name, module in modules.items():
        write_tensors(folder / f"{name}.safetensors", module, dtype)
    if card is not None:
        _write_text(folder / "README.md", card)
    values = {"format": FORMAT, "kind": kind.value, **config}
    _write_text(folder / "config.json", json.dumps(values, indent=1) + "\n")
    return folder


def read_config(folder: Path, kind: Kind | None = None) -> dict[str, Any]:
    """The folder's ``config.json``, checked for format and, where given, for the kind that is wanted.

    Raises:
        ValueError: damaged, of another version, or of another kind (then it names the class to load it with).
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error}") from error
    if config.get("format") != FORMAT:
        raise ValueError(f"{folder} has format {config.get('format')!r}, this version reads {FORMAT!r}")
    found = kind_of(config, folder)
    if kind is not None and found is not kind:
        raise ValueError(f"{folder} holds {found.value} weights, not {kind.value}: load it with {found.loaded_with}")
    return dict(config)


def kind_of(config: Mapping[str, Any], folder: Path) -> Kind:
    """What a configuration describes."""
    value = config.get("kind", Kind.UVA.value)
    if value not in set(Kind):
        raise ValueError(f"{folder} holds {value!r} weights, this version knows {', '.join(Kind)}")
    return Kind(value)


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` -> CUDA if there is one, else CPU.

    Raises:
        InputError: no name of a device.
        MachineError: a device that this machine, or this build of torch, does not have.
    """
    if not isinstance(device, str | torch.device):
        raise InputError(f'device must be a name such as "auto", "cpu" or "cuda:0", got {type(device).__name__}')
    if isinstance(device, str) and device.strip().lower() == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'no device is called {str(device)[:80]!r}: use "auto", "cpu", "cuda" or "cuda:1"') from error
    if wanted.type == "cpu":
        if wanted.index:
            raise InputError(f'there is one CPU device, not {str(device)!r}: use "cpu"')
        return wanted
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not torch.backends.cuda.is_built():
            raise MachineError(
                f'device {str(device)!r}: this torch {torch.__version__} is built without CUDA; use device="cpu", or install '
                "a build with CUDA from pytorch.org"
            )
        if (wanted.index or 0) >= count:
            there = f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
            raise MachineError(
                f'device {str(device)!r}: torch sees {there} here; use device="cpu" or another number, and check nvidia-smi '
                "and CUDA_VISIBLE_DEVICES"
            )
        return wanted
    try:
        # torch knows names of many backends, and which of them are here only by trying.
        torch.empty(1, device=wanted).cpu()
    except Exception as error:  # every backend has errors of its own
        raise MachineError(
            f'device {str(device)!r} does not work with this build of torch or on this machine; use device="cpu"'
        ) from error
    return wanted


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        FileNotFoundError, ValueError: missing, truncated or damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); copy it again") from error


def read_tensors(path: Path, module: nn.Module) -> None:
    """Fill a module from a file, every tensor accounted for, in float32.

    Raises:
        FileNotFoundError, ValueError: see :func:`load_tensors`; missing, unknown or ill-shaped tensors, by name.
    """
    tensors = load_tensors(path)
    wanted = module.state_dict()
    for kind, names in (("missing", wanted.keys() - tensors.keys()), ("unknown", tensors.keys() - wanted.keys())):
        if names:
            name = sorted(names)[0]
            close = difflib.get_close_matches(name, list(tensors if kind == "missing" else wanted), n=3)
            raise ValueError(f"{path}: {len(names)} {kind} tensors, for example {name!r} (closest: {close})")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{path}: {name!r} is {tuple(tensor.shape)}, the configuration says {tuple(wanted[name].shape)}"
            )
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})


def write_tensors(path: Path, module: nn.Module, dtype: torch.dtype) -> None:
    tensors = {k: _stored(v, dtype) for k, v in module.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()


def _write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, path)
