"""Released checkpoints (``pusht.ckpt`` and its like) as bundles: every tensor used, or known not to be needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uva_agents.checkpoints.bundle import Bundle
from uva_agents.checkpoints.filling import Progress, filled, finite
from uva_agents.checkpoints.folder import pick_device
from uva_agents.checkpoints.kinds import UVA_WEIGHTS
from uva_agents.checkpoints.limits import SCHEMA, check_normalizer
from uva_agents.checkpoints.official.archive import RATIO, SLACK, read_archive
from uva_agents.checkpoints.official.config import Shapes, network_config, settings
from uva_agents.checkpoints.official.interface import interface
from uva_agents.checkpoints.official.keys import rename, rename_vae
from uva_agents.checkpoints.official.plain import plain, resolved
from uva_agents.checkpoints.schema import shown
from uva_agents.checkpoints.stored import StoredTensor
from uva_agents.checkpoints.text import TextEncoder, read_tower
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.errors import InputError, WeightsError
from uva_agents.model import VAE, UVANet

_MAX_TENSORS, _MAX_NAME = 20_000, 300
Tensors = dict[str, StoredTensor]

# Tensors that a file may have and inference has no use for.
_UNUSED: tuple[tuple[str, str], ...] = (
    (r"^_dummy_variable$", "placeholder"),
    (r"^text_model\.(vision_model|visual_projection)\b", "CLIP's vision tower"),
    (r"^text_model\.logit_scale$", "CLIP's contrastive scale"),
    (r"\.position_ids$", "constant position numbers"),
    (r"^vae_model\.loss\.", "the autoencoder's training loss"),
    (r"^normalizer\.params_dict\.[^.]+\.input_stats\.", "statistics of the training data"),
    (r"^normalizer\.params_dict\..*(image|rgb)[^.]*\.", "image range, which is fixed"),
)


@dataclass
class Report:
    """What became of a file's tensors.

    Attributes:
        weights: which of the file's weights were taken (``ema_model`` where there are any).
        used: names.
        unused: names and why.
        config: the file's configuration, plain.
    """

    weights: str = ""
    used: list[str] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for reason in self.unused.values():
            kinds[reason] = kinds.get(reason, 0) + 1
        lines = [f"{self.weights}: {len(self.used)} tensors used, {len(self.unused)} not needed"]
        return "\n".join(lines + [f"  {n:4d}  {reason}" for reason, n in sorted(kinds.items())])


def load_official(
    path: str | Path,
    *,
    device: str | torch.device = "auto",
    heads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Bundle, Report]:
    """A released checkpoint, without running anything from it.

    Tensors stay in the file until they are copied into the network, so the file is never in memory as a whole.

    Args:
        heads: attention heads, for a network that is none of the named sizes.
        progress: told of every tensor.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: damaged, hostile, or not a UVA checkpoint; or a tensor is missing or unknown (with the closest names).
    """
    if heads is not None and (isinstance(heads, bool) or not isinstance(heads, int) or heads < 1):
        raise InputError(f"heads must be a whole number from 1, got {shown(heads)}")
    path = Path(path)
    payload = read_archive(path)
    if not isinstance(payload, Mapping) or "state_dicts" not in payload:
        raise WeightsError(f"{path} is not a released UVA checkpoint: it has no 'state_dicts', only {_keys(payload)}")
    report = Report(config=_config(payload, path))
    tensors = _weights(payload["state_dicts"], path, report)
    parts: dict[str, Tensors] = {"model": {}, "vae_model": {}, "normalizer": {}, "text_model": {}}
    for key, tensor in tensors.items():
        reason = next((why for pattern, why in _UNUSED if re.search(pattern, key)), None)
        part, _, rest = key.partition(".")
        if reason is not None:
            report.unused[key] = reason
        elif part in parts:
            parts[part][rest] = tensor
        else:
            raise WeightsError(f"{path}: unknown tensor {key!r} (parts of a checkpoint are {sorted(parts)})")
    if not parts["vae_model"]:
        raise WeightsError(f"{path} has no autoencoder (vae_model.*): it is not a whole policy")
    _check_size([t for part in parts.values() for t in part.values()], path)
    recorded = settings(report.config, f"{path}: cfg")
    network, autoencoder = (Shapes(parts[part], f"{part}.", str(path)) for part in ("model", "vae_model"))
    config = network_config(network, autoencoder, recorded, heads=heads)
    SCHEMA.check(config, f"{path}: network")
    if not config.wrist_image:  # UMI files carry this layer although their network has no wrist camera
        for name in [k for k in parts["model"] if k.startswith("proprioception_image_proj_cond.")]:
            report.unused[f"model.{name}"] = "wrist camera that this network does not have"
            del parts["model"][name]
    renamed, renamed_vae = {k: rename(k) for k in parts["model"]}, rename_vae(parts["vae_model"], str(path))
    names = _names(renamed, "model", path)
    own = {renamed[k]: t for k, t in parts["model"].items()}
    where = str(path)
    model = filled(lambda: UVANet(config), own, where=where, names=names, progress=progress)
    names = dict(zip(renamed_vae, (f"vae_model.{k}" for k in parts["vae_model"]), strict=True))
    vae = filled(lambda: VAE(config.vae), renamed_vae, where=where, what="autoencoder", names=names, progress=progress)
    text = _text(parts["text_model"], path, progress) if parts["text_model"] else None
    normalizer, limits = _normalizer(parts["normalizer"], tensors, config.action_dim, config.proprio_dim, path)
    report.used += [f"{part}.{k}" for part in parts for k in parts[part]]
    spec = interface(recorded, config, limits)
    UVA_WEIGHTS.check(config, normalizer, spec, where)
    bundle = Bundle(
        model.eval().requires_grad_(False),
        vae.eval().requires_grad_(False),
        normalizer,
        spec,
        name=path.stem,
        text=text,
    )
    return bundle.to(pick_device(device)), report


def _config(payload: Mapping[str, Any], path: Path) -> dict[str, Any]:
    try:
        config = resolved(plain(payload.get("cfg") or {}))
    except WeightsError as error:
        raise type(error)(f"{path}: {error}") from error
    return config if isinstance(config, dict) else {}


def _keys(found: Any) -> str:
    if not isinstance(found, Mapping):
        return type(found).__name__
    return str(sorted(str(key)[:40] if isinstance(key, str) else repr(type(key).__name__) for key in found)[:10])


def _weights(states: Any, path: Path, report: Report) -> Tensors:
    """The averaged weights, or the plain ones when there are no others; ``module.`` taken out of names."""
    for name in ("ema_model", "model"):
        if isinstance(states, Mapping) and isinstance(states.get(name), Mapping):
            report.weights = name
            return _named(states[name], path)
    raise WeightsError(f"{path} has no 'ema_model' and no 'model' weights, only {_keys(states)}")


def _named(states: Mapping[Any, Any], path: Path) -> Tensors:
    if len(states) > _MAX_TENSORS:
        raise WeightsError(f"{path} has {len(states):,} tensors, a network has at most {_MAX_TENSORS:,}")
    tensors: Tensors = {}
    for key, value in states.items():
        if not isinstance(key, str) or len(key) > _MAX_NAME:
            raise WeightsError(f"{path}: a tensor is called {shown(key)}")
        if not isinstance(value, StoredTensor):
            raise WeightsError(f"{path}: {key!r} is no tensor")
        short = key.replace("module.", "")
        if short in tensors:
            raise WeightsError(f"{path} has {short!r} twice, with and without 'module.'")
        tensors[short] = value
    return tensors


def _names(renamed: Mapping[str, str], part: str, path: Path) -> dict[str, str]:
    """The file's names by ours."""
    names: dict[str, str] = {}
    for theirs, ours in renamed.items():
        if ours in names:
            raise WeightsError(f"{path}: {names[ours]!r} and {f'{part}.{theirs}'!r} are the same tensor")
        names[ours] = f"{part}.{theirs}"
    return names


def _check_size(tensors: list[StoredTensor], path: Path) -> None:
    """That tensors do not share what is in the file so often that a network of them takes many times its size."""
    size = sum(tensor.nbytes for tensor in tensors)
    if size > RATIO * path.stat().st_size + SLACK:
        raise WeightsError(f"{path}: its tensors have {size:,} bytes, many times the size of the file")


def _normalizer(
    own: Tensors, tensors: Tensors, action_dim: int, proprio_dim: int, path: Path
) -> tuple[LinearNormalizer, tuple[Any, Any] | None]:
    """Actions and proprioception as the file scales them (identity where it does not), and the actions' range."""

    def numbers(key: str, wanted: int) -> np.ndarray | None:
        name = f"normalizer.{key}"
        found = tensors.get(name)
        if found is None:
            return None
        if found.shape != (wanted,) or not found.dtype.is_floating_point:
            raise WeightsError(f"{path}: {name!r} is {found}, the network has {wanted} numbers of it")
        return finite(found.load(), name, str(path)).double().numpy().copy()

    scale, offset = {}, {}
    for key, size in (("action", action_dim), ("agent_pos", proprio_dim)):
        scale[key], offset[key] = np.ones(max(size, 1)), np.zeros(max(size, 1))
        if not size:  # the network does not take it, whatever the file says of it
            continue
        factor, shift = (numbers(f"params_dict.{key}.{part}", size) for part in ("scale", "offset"))
        if (factor is None) != (shift is None):
            raise WeightsError(f"{path}: 'normalizer.params_dict.{key}' has a scale or an offset, not both")
        if factor is not None and shift is not None:
            scale[key], offset[key] = factor, shift
    low, high = (numbers(f"params_dict.action.input_stats.{end}", action_dim) for end in ("min", "max"))
    limits = None if low is None or high is None else (low.tolist(), high.tolist())
    return check_normalizer(LinearNormalizer(scale, offset), f"{path}: normalizer"), limits


def _text(tensors: Tensors, path: Path, progress: Progress | None) -> TextEncoder:
    """The text tower of the CLIP model in the file."""
    shapes = Shapes(tensors, "text_model.", str(path))
    vocabulary, width = shapes.of("text_model.embeddings.token_embedding.weight", 2)
    layers = shapes.count(r"text_model\.encoder\.layers\.(\d+)\.")
    sizes = dict(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=shapes.of("text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        projection_dim=shapes.of("text_projection.weight", 2)[0],
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=shapes.of("text_model.embeddings.position_embedding.weight", 2)[0],
        bos_token_id=max(0, vocabulary - 2),  # CLIP's vocabulary ends with the start and the end of a text
        eos_token_id=vocabulary - 1,
    )
    sizes = read_tower(sizes, f"{path}: text_model")
    prefixed = {f"tower.{k}": tensor for k, tensor in tensors.items()}
    names = {f"tower.{k}": f"text_model.{k}" for k in tensors}
    encoder = filled(
        lambda: TextEncoder(sizes), prefixed, where=str(path), what="text encoder", names=names, progress=progress
    )
    return encoder.eval().requires_grad_(False)
