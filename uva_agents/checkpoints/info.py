"""A page of text about some weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from uva_agents.checkpoints.described import describe
from uva_agents.checkpoints.folder import is_checkpoint_file, resolve, verifier
from uva_agents.checkpoints.tensor_files import stored_tensors
from uva_agents.errors import DataError, InputError, WeightsError
from uva_agents.utils.files import read_regular_text


def info(name_or_path: str | Path) -> str:
    """Sizes, configuration and model card of a shipped name or a folder, without building the network.

    Raises:
        InputError, FileNotFoundError: no such weights, or a released file, which has no card.
        WeightsError: the folder is damaged.
    """
    if is_checkpoint_file(name_or_path):
        raise InputError(
            f"{name_or_path} is a torch file: `uva convert {name_or_path} FOLDER` makes a weights folder of it"
        )
    folder = resolve(name_or_path)
    about = describe(folder)
    lines = [f"{about.name}  ({folder})", f"  {about.kind.name}: load with {about.kind.loaded_with}"]
    for path in about.files:
        count = sum(math.prod(t.shape) for t in stored_tensors(path).values())
        verify = verifier(about.config, path)
        if verify is not None:
            verify()
        lines.append(f"  {path.stem}: {count / 1e6:.2f} M parameters, {path.stat().st_size / 2**20:.1f} MiB")
    spec = about.spec
    lines.append(f"  images {list(spec.image_shape)}, actions {list(spec.action_low)}..{list(spec.action_high)}")
    sizes: dict[str, Any] = {f.name: getattr(about.sizes, f.name) for f in dataclasses.fields(about.kind.config)}
    lines.append("  network: " + ", ".join(f"{k}={v}" for k, v in sizes.items() if not dataclasses.is_dataclass(v)))
    card = folder / "README.md"
    if card.exists():
        try:
            lines += ["", _printable(read_regular_text(card, limit=1 << 20))]
        except DataError as error:
            raise WeightsError(str(error)) from error
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Without what would command a terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
