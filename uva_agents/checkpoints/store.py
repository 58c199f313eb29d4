"""UVA weights on disk: ``model.safetensors``, ``vae.safetensors`` and what :mod:`~uva_agents.checkpoints.folder` adds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uva_agents.checkpoints.bundle import Bundle
from uva_agents.checkpoints.described import Description, describe
from uva_agents.checkpoints.folder import is_checkpoint_file, pick_device, resolve, write_folder
from uva_agents.checkpoints.kinds import UVA_WEIGHTS
from uva_agents.checkpoints.official.load import load_official
from uva_agents.checkpoints.text import InstructionTable, TextEncoder, read_table, read_tower
from uva_agents.errors import WeightsError
from uva_agents.model import VAE, UVAConfig, UVANet


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
    modules: dict[str, nn.Module] = {"model": bundle.model, "vae": bundle.vae}
    config = {
        "name": bundle.name,
        "model": bundle.model.config.to_dict(),
        "normalizer": bundle.normalizer.to_dict(),
        "interface": bundle.spec.to_dict(),
    }
    if bundle.text is not None:
        modules["text"] = bundle.text
        config["text"] = bundle.text.config
    return write_folder(folder, UVA_WEIGHTS, modules, {**config, **(extra or {})}, card=card, dtype=dtype)


def load_bundle(name_or_path: str | Path, *, device: str | torch.device = "auto", heads: int | None = None) -> Bundle:
    """Load a shipped name, a folder or a released ``.ckpt`` file, in evaluation mode and float32.

    Args:
        device: ``"auto"`` takes CUDA when there is one.
        heads: attention heads, for a released file of none of the named sizes.

    Raises:
        FileNotFoundError: unknown name.
        WeightsError: damaged or foreign files, by name; weights of another kind, with the class that takes them.
    """
    if is_checkpoint_file(name_or_path):
        return load_official(name_or_path, device=device, heads=heads)[0]
    about = describe(resolve(name_or_path), UVA_WEIGHTS)
    sizes = about.sizes
    assert isinstance(sizes, UVAConfig)
    model = about.filled("model", lambda: UVANet(sizes))
    for name in ("token_std", "wrist_token_std") if sizes.standardize else ():
        if hasattr(model, name) and not bool((getattr(model, name) > 0).all()):
            raise WeightsError(
                f"{about.folder / 'model.safetensors'}: {name!r} must be above 0: latents are divided by it"
            )
    bundle = Bundle(
        model,
        about.filled("vae", lambda: VAE(sizes.vae)),
        about.normalizer,
        about.spec,
        name=about.name,
        text=_load_text(about),
    )
    return bundle.to(pick_device(device))


def _load_text(about: Description) -> TextEncoder | InstructionTable | None:
    if "text" not in about.config:
        return None
    stored, where = about.config["text"], f"{about.where}: text"
    if isinstance(stored, Mapping) and "instructions" in stored:
        return about.filled("text", lambda: read_table(stored, where))
    values = read_tower(stored, where)
    return about.filled("text", lambda: TextEncoder(values))
