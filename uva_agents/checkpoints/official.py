"""Released checkpoints (``pusht.ckpt`` and its like) as bundles: every tensor used, or known not to be needed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.checkpoints.archive import plain, read_archive, resolved
from uva_agents.checkpoints.folder import pick_device
from uva_agents.checkpoints.official_config import interface, network_config
from uva_agents.checkpoints.official_keys import rename, rename_vae
from uva_agents.checkpoints.store import Bundle
from uva_agents.checkpoints.text import TextEncoder
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.model import UVA, VAE

Progress = Callable[[str, int, int], None]
"""Called with (part, tensors done, tensors in all)."""

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
        ValueError: damaged, hostile, or not a UVA checkpoint; or a tensor is missing or unknown (with the closest names).
    """
    path = Path(path)
    payload = read_archive(path)
    if not isinstance(payload, Mapping) or "state_dicts" not in payload:
        found = sorted(map(str, payload)) if isinstance(payload, Mapping) else type(payload).__name__
        raise ValueError(f"{path} is not a released UVA checkpoint: it has no 'state_dicts', only {found}")
    report = Report(config=_config(payload))
    tensors = _weights(payload["state_dicts"], path, report)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "vae_model": {}, "normalizer": {}, "text_model": {}}
    for key, tensor in tensors.items():
        reason = next((why for pattern, why in _UNUSED if re.search(pattern, key)), None)
        part, _, rest = key.partition(".")
        if reason is not None:
            report.unused[key] = reason
        elif part in parts:
            parts[part][rest] = tensor
        else:
            raise ValueError(f"{path}: unknown tensor {key!r} (parts of a checkpoint are {sorted(parts)})")
    if not parts["vae_model"]:
        raise ValueError(f"{path} has no autoencoder (vae_model.*): it is not a whole policy")
    config = network_config(parts["model"], parts["vae_model"], report.config, heads=heads)
    if not config.wrist_image:  # UMI files carry this layer although their network has no wrist camera
        for name in [k for k in parts["model"] if k.startswith("proprioception_image_proj_cond.")]:
            report.unused[f"model.{name}"] = "wrist camera that this network does not have"
            del parts["model"][name]
    model, vae = UVA(config), VAE(config.vae)
    names = {rename(k): f"model.{k}" for k in parts["model"]}
    _fill(model, {rename(k): v for k, v in parts["model"].items()}, names, path, report, "network", progress)
    renamed = rename_vae(parts["vae_model"])
    names = dict(zip(renamed, (f"vae_model.{k}" for k in parts["vae_model"]), strict=True))
    _fill(vae, renamed, names, path, report, "autoencoder", progress)
    text = _text(parts["text_model"], path, report, progress) if parts["text_model"] else None
    normalizer, limits = _normalizer(parts["normalizer"], tensors, config.action_dim, config.proprio_dim)
    report.used += [f"normalizer.{k}" for k in parts["normalizer"]]
    bundle = Bundle(
        model.eval().requires_grad_(False),
        vae.eval().requires_grad_(False),
        normalizer,
        interface(report.config, config, limits),
        name=path.stem,
        text=text,
    )
    return bundle.to(pick_device(device)), report


def _config(payload: Mapping[str, Any]) -> dict[str, Any]:
    config = resolved(plain(payload.get("cfg") or {}))
    return config if isinstance(config, dict) else {}


def _weights(states: Any, path: Path, report: Report) -> dict[str, Tensor]:
    """The averaged weights, or the plain ones when there are no others; ``module.`` taken out of names."""
    for name in ("ema_model", "model"):
        if isinstance(states, Mapping) and isinstance(states.get(name), Mapping):
            report.weights = name
            tensors = {str(k).replace("module.", ""): v for k, v in states[name].items()}
            strange = [k for k, v in tensors.items() if not isinstance(v, Tensor)]
            if strange:
                raise ValueError(f"{path}: {strange[0]!r} is no tensor")
            return tensors
    found = sorted(states) if isinstance(states, Mapping) else type(states).__name__
    raise ValueError(f"{path} has no 'ema_model' and no 'model' weights, only {found}")


def _fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    path: Path,
    report: Report,
    what: str,
    progress: Progress | None,
) -> None:
    """Copy tensors into a module one by one, after checking that every name and shape has its counterpart."""
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise ValueError(f"{path}: {_mismatch(missing, unknown, names, list(tensors), list(own), what)}")
    for i, (name, tensor) in enumerate(tensors.items()):
        if own[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: {names[name]!r} is {tuple(tensor.shape)}, a {what} of this configuration has {tuple(own[name].shape)}"
            )
        own[name].copy_(tensor)
        report.used.append(names[name])
        if progress is not None:
            progress(what, i + 1, len(tensors))


def _mismatch(
    missing: list[str], unknown: list[str], names: Mapping[str, str], given: list[str], own: list[str], what: str
) -> str:
    lines = []
    if unknown:
        close = difflib.get_close_matches(unknown[0], missing or own, n=3, cutoff=0.3)
        lines.append(f"{len(unknown)} unknown tensors, for example {names[unknown[0]]!r} (the {what} here has {close})")
    if missing:
        close = [names[k] for k in difflib.get_close_matches(missing[0], unknown or given, n=3, cutoff=0.3)]
        lines.append(f"{len(missing)} missing tensors, for example our {missing[0]!r} (closest in the file: {close})")
    return "; ".join(lines)


def _normalizer(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], action_dim: int, proprio_dim: int
) -> tuple[LinearNormalizer, tuple[Any, Any] | None]:
    """Actions and proprioception as the file scales them (identity where it does not), and the actions' range."""
    scale = {"action": np.ones(action_dim), "agent_pos": np.ones(max(proprio_dim, 1))}
    offset = {key: np.zeros_like(value) for key, value in scale.items()}
    for key in ("action", "agent_pos"):
        found = own.get(f"params_dict.{key}.scale"), own.get(f"params_dict.{key}.offset")
        if found[0] is not None and found[1] is not None and found[0].shape == scale[key].shape:
            scale[key], offset[key] = found[0].double().numpy().copy(), found[1].double().numpy().copy()
    stats = [tensors.get(f"normalizer.params_dict.action.input_stats.{end}") for end in ("min", "max")]
    limits = None if stats[0] is None or stats[1] is None else (stats[0].tolist(), stats[1].tolist())
    return LinearNormalizer(scale, offset), limits


def _text(tensors: Mapping[str, Tensor], path: Path, report: Report, progress: Progress | None) -> TextEncoder:
    """The text tower of the CLIP model in the file."""
    embedding = tensors.get("text_model.embeddings.token_embedding.weight")
    projection = tensors.get("text_projection.weight")
    if embedding is None or projection is None:
        raise ValueError(f"{path}: the text encoder (text_model.*) has no token embedding or projection")
    layers = 1 + max(int(m[1]) for k in tensors if (m := re.match(r"text_model\.encoder\.layers\.(\d+)\.", k)))
    width = embedding.shape[1]
    encoder = TextEncoder(
        dict(
            vocab_size=embedding.shape[0],
            hidden_size=width,
            intermediate_size=tensors["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
            projection_dim=projection.shape[0],
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 64),
            max_position_embeddings=tensors["text_model.embeddings.position_embedding.weight"].shape[0],
            bos_token_id=embedding.shape[0] - 2,  # CLIP's vocabulary ends with the start and the end of a text
            eos_token_id=embedding.shape[0] - 1,
        )
    )
    names = {k: f"text_model.{k}" for k in tensors}
    _fill(encoder.tower, tensors, names, path, report, "text encoder", progress)
    return encoder.eval().requires_grad_(False)
