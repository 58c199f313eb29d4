"""Weights on disk: a folder with ``config.json``, ``model.safetensors``, ``vae.safetensors`` and a model card."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.checkpoints.text import TextEncoder
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.model import UVA, VAE, UVAConfig

FORMAT = "uva-agents/1"
SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Bundle:
    """Everything that inference needs, and that all three agents share."""

    model: UVA
    vae: VAE
    normalizer: LinearNormalizer
    spec: InterfaceSpec
    name: str = "uva"
    text: TextEncoder | None = None

    @property
    def device(self) -> torch.device:
        return self.model.frame_mask.device

    def to(self, device: torch.device | str) -> Bundle:
        """Moves the modules in place."""
        self.model.to(device)
        self.vae.to(device)
        if self.text is not None:
            self.text.to(device)
        return self


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


def save_bundle(
    bundle: Bundle,
    folder: str | Path,
    *,
    card: str | None = None,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a bundle as safetensors; the configuration is written last, so a partial folder never loads.

    Args:
        card: text of the model card (``README.md``).
        extra: further entries of ``config.json``.
        dtype: of the tensors on disk.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)  # what is there is about to be replaced: not loadable meanwhile
    _write_tensors(folder / "model.safetensors", bundle.model, dtype)
    _write_tensors(folder / "vae.safetensors", bundle.vae, dtype)
    if bundle.text is not None:
        _write_tensors(folder / "text.safetensors", bundle.text, dtype)
    if card is not None:
        _write_text(folder / "README.md", card)
    config = {
        "format": FORMAT,
        "name": bundle.name,
        "model": bundle.model.config.to_dict(),
        "normalizer": bundle.normalizer.to_dict(),
        "interface": bundle.spec.to_dict(),
        **({} if bundle.text is None else {"text": bundle.text.config}),
        **(extra or {}),
    }
    _write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")
    return folder


def load_bundle(name_or_path: str | Path, *, device: str | torch.device = "auto", heads: int | None = None) -> Bundle:
    """Load a shipped name, a folder or a released ``.ckpt`` file, in evaluation mode and float32.

    Args:
        device: ``"auto"`` takes CUDA when there is one.
        heads: attention heads, for a released file of none of the named sizes.

    Raises:
        FileNotFoundError: unknown name.
        ValueError: damaged or foreign files, by name.
    """
    if is_checkpoint_file(name_or_path):
        from uva_agents.checkpoints.official import load_official

        return load_official(name_or_path, device=device, heads=heads)[0]
    folder = resolve(name_or_path)
    config = read_config(folder)
    model_config = UVAConfig.from_dict(config["model"])
    model, vae = UVA(model_config), VAE(model_config.vae)
    _read_tensors(folder / "model.safetensors", model)
    _read_tensors(folder / "vae.safetensors", vae)
    bundle = Bundle(
        model.eval().requires_grad_(False),
        vae.eval().requires_grad_(False),
        LinearNormalizer.from_dict(config["normalizer"]),
        InterfaceSpec.from_dict(config["interface"]),
        name=str(config.get("name", folder.name)),
        text=_load_text(folder, config),
    )
    return bundle.to(pick_device(device))


def is_checkpoint_file(name_or_path: str | Path) -> bool:
    """Whether it names a torch file rather than a weights folder or a shipped name."""
    return str(name_or_path).endswith((".ckpt", ".pt", ".pth"))


def _load_text(folder: Path, config: Mapping[str, Any]) -> TextEncoder | None:
    if "text" not in config:
        return None
    encoder = TextEncoder(config["text"])
    _read_tensors(folder / "text.safetensors", encoder)
    return encoder.eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``, checked for format."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error}") from error
    if config.get("format") != FORMAT:
        raise ValueError(f"{folder} has format {config.get('format')!r}, this version reads {FORMAT!r}")
    return dict(config)


def pick_device(device: str | torch.device) -> torch.device:
    """``"auto"`` -> CUDA if there is one, else CPU."""
    if str(device) != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


def _read_tensors(path: Path, module: nn.Module) -> None:
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


def _write_tensors(path: Path, module: nn.Module, dtype: torch.dtype) -> None:
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
