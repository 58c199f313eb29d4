"""What network a released file describes: sizes from its tensors, the rest from its configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from uva_agents.checkpoints.schema import Range, Schema, closest
from uva_agents.checkpoints.stored import StoredTensor
from uva_agents.errors import WeightsError
from uva_agents.model import HeadConfig, UVAConfig
from uva_agents.model.uva.config import Aggregator
from uva_agents.model.vae import VAEConfig

HEADS = {"mar_tiny": 6, "mar_small": 6, "mar_base": 12, "mar_large": 16, "mar_huge": 16}
"""Attention heads of the named sizes: the one number that tensor shapes do not tell."""

_AGGREGATORS = {
    "interpolate.weight": "conv_fc",
    "conv_transpose3d.weight": "conv_ori",
    "conv.2.weight": "conv2",
    "fc.2.weight": "fc2",
}


@dataclass(frozen=True)
class Settings:
    """What is read of a released configuration; ``None`` where it does not say."""

    task: str | None = None
    patch_size: int | None = None
    model_size: str | None = None
    num_heads: int | None = None
    encoder_num_heads: int | None = None
    attn_dropout: float | None = None
    proj_dropout: float | None = None
    different_history_freq: bool | None = None
    n_action_steps: int | None = None
    shift_action: bool | None = None
    image_resolution: int | None = None
    images: tuple[tuple[str, int, int], ...] = ()

    @property
    def main_image(self) -> tuple[int, int] | None:
        """(H, W) of the first camera that is not at the wrist."""
        return next(((h, w) for key, h, w in self.images if not _is_wrist(key)), None)

    @property
    def wrist_image(self) -> tuple[int, int] | None:
        """(H, W) of the first camera at the wrist."""
        return next(((h, w) for key, h, w in self.images if _is_wrist(key)), None)


_PLACES = {
    "task": "task.name",
    "patch_size": "model.policy.autoregressive_model_params.patch_size",
    "model_size": "model.policy.autoregressive_model_params.model_size",
    "num_heads": "model.policy.autoregressive_model_params.num_heads",
    "encoder_num_heads": "model.policy.autoregressive_model_params.encoder_num_heads",
    "attn_dropout": "model.policy.autoregressive_model_params.attn_dropout",
    "proj_dropout": "model.policy.autoregressive_model_params.proj_dropout",
    "different_history_freq": "model.policy.different_history_freq",
    "n_action_steps": "model.policy.n_action_steps",
    "shift_action": "model.policy.shift_action",
    "image_resolution": "task.shape_meta.image_resolution",
}
"""Where a released configuration says it. Of its some hundred other entries nothing is read."""
_SCHEMA = Schema(
    {
        Settings: {
            "patch_size": Range(1, 64),
            "num_heads": Range(1, 1024),
            "encoder_num_heads": Range(1, 1024),
            "attn_dropout": Range(0, 1),
            "proj_dropout": Range(0, 1),
            "n_action_steps": Range(1, 4096),
            "image_resolution": Range(1, 8192),
            "images": Range(1, 8192),
        }
    }
)


def settings(config: Mapping[str, Any], where: str) -> Settings:
    """What is read of a file's configuration (plain).

    Raises:
        WeightsError: an entry is of another type or out of its range.
    """
    values = {name: lookup(config, place) for name, place in _PLACES.items()}
    obs = lookup(config, "task.shape_meta.obs")
    images = []
    if obs is not None and not isinstance(obs, Mapping):
        raise WeightsError(f"{where}: task.shape_meta.obs is a {type(obs).__name__}, not an object")
    for key, item in (obs or {}).items():
        if isinstance(item, Mapping) and item.get("type") == "rgb":
            shape = item.get("shape")
            if not isinstance(shape, list) or len(shape) != 3:
                raise WeightsError(
                    f"{where}: task.shape_meta.obs.{str(key)[:50]}.shape is not [channels, height, width]"
                )
            images.append([key, *shape[1:]])
    read = _SCHEMA.read(Settings, {"images": images}, f"{where}: task.shape_meta.obs")
    for name, value in values.items():  # one by one, because messages name the place
        read = _read_one(read, name, value, where)
    return read


def _read_one(read: Settings, name: str, value: Any, where: str) -> Settings:
    try:
        one = _SCHEMA.read(Settings, {name: value}, "")
    except WeightsError as error:
        raise WeightsError(f"{where}: {_PLACES[name]}{str(error).removeprefix(f'.{name}')}") from error
    return replace(read, **{name: getattr(one, name)})


class Shapes:
    """Shapes of a part's tensors, by name.

    Args:
        tensors: of the part, without its prefix.
        prefix: for messages.
        where: file.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor], prefix: str, where: str) -> None:
        self._tensors, self._prefix, self._where = tensors, prefix, where

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def of(self, name: str, dims: int) -> tuple[int, ...]:
        """Shape of a tensor that every such part has.

        Raises:
            WeightsError: it is missing, or has another number of axes, or an empty one.
        """
        if name not in self._tensors:
            close = [f"{self._prefix}{other}" for other in closest(name, self._tensors)]
            raise WeightsError(
                f"{self._where}: no tensor {self._prefix + name!r} in the file (closest: {close}): it is not a whole UVA "
                "checkpoint"
            )
        shape = self._tensors[name].shape
        if len(shape) != dims or min(shape) < 1:
            raise WeightsError(f"{self._where}: {self._prefix + name!r} is {shape}, not {dims} axes of at least 1")
        return shape

    def count(self, pattern: str) -> int:
        """How many layers are numbered where ``pattern`` has its group, from 0 without a gap.

        Raises:
            WeightsError: there is a gap.
        """
        found = {m[1] for name in self._tensors if (m := re.match(pattern, name))}
        wanted = {str(i) for i in range(len(found))}
        if found != wanted:
            stranger = sorted(found - wanted)[0]
            like = pattern.replace("\\", "").replace("(d+)", stranger[:20]).removesuffix(".")
            raise WeightsError(
                f"{self._where}: '{self._prefix}{like}' is there, but the {len(found)} such layers are not numbered from 0 on"
            )
        return len(found)

    def fail(self, message: str) -> WeightsError:
        """The error to raise: ``message`` after the file's name."""
        return WeightsError(f"{self._where}: {message}")


def network_config(tensors: Shapes, vae: Shapes, recorded: Settings, *, heads: int | None = None) -> UVAConfig:
    """Network of a released file.

    Args:
        tensors: of the network.
        vae: of the autoencoder.
        recorded: by the file's configuration.
        heads: attention heads, for a network that is none of the named sizes.

    Raises:
        WeightsError: a tensor that every network has is missing, tensors do not go together, or the number of heads cannot be
            told.
    """
    width, _ = tensors.of("z_proj_cond.weight", 2)
    patch = recorded.patch_size or 1
    positions = tensors.of("spatial_pos_embed", 3)[1]
    grid = math.isqrt(positions)
    if grid**2 != positions:
        raise tensors.fail(f"'model.spatial_pos_embed' has {positions} positions, which is no square")
    frames = tensors.of("temporal_pos_embed", 3)[1]
    proprio = "proprioception_proj_cond.weight" in tensors
    predict_wrist = "z_proj_wrist.weight" in tensors
    history_actions = "history_action_proj_cond.weight" in tensors
    groups = tensors.of("proj_cond_x_layer.weight", 2)[1] // width
    wrist = groups - 3 - history_actions - proprio - predict_wrist
    if wrist not in (0, 1):
        raise tensors.fail(f"cannot tell which {groups} inputs the network mixes (model.proj_cond_x_layer.weight)")
    text = "text_proj_cond.weight" in tensors
    encoder_depth, decoder_depth = (tensors.count(rf"{part}_blocks\.(\d+)\.") for part in ("encoder", "decoder"))
    try:
        return UVAConfig(
            vae=vae_config(vae),
            image_size=16 * grid * patch,
            patch_size=patch,
            width=width,
            encoder_depth=encoder_depth,
            decoder_depth=decoder_depth,
            heads=heads or _heads(recorded, width, encoder_depth + decoder_depth, tensors),
            mlp_ratio=tensors.of("encoder_blocks.0.mlp.fc1.weight", 2)[0] / width,
            attention_dropout=0.1 if recorded.attn_dropout is None else recorded.attn_dropout,
            dropout=0.1 if recorded.proj_dropout is None else recorded.proj_dropout,
            n_frames=frames,
            action_dim=tensors.of("action_proj_cond.weight", 2)[1],
            video_head=_head(tensors, "diffloss"),
            action_head=_head(tensors, "diffactloss", clip=1.0),
            aggregator=_aggregator(tensors),
            text_dim=tensors.of("text_proj_cond.weight", 2)[1] if text else 0,
            text_tokens=tensors.of("text_pos_embed", 3)[1] if text else 64,
            proprio_dim=tensors.of("proprioception_proj_cond.weight", 2)[1] if proprio else 0,
            proprio_steps=frames if recorded.different_history_freq else 16,
            history_actions=history_actions,
            wrist_image=bool(wrist),
            predict_wrist=predict_wrist,
            predict_proprio_dim=_width(tensors, "diffproploss.net.input_proj.weight"),
            predict_actions="diffactloss.net.input_proj.weight" in tensors,
        )
    except WeightsError:
        raise
    except ValueError as error:  # what sizes say together
        raise tensors.fail(str(error)) from error


def vae_config(tensors: Shapes) -> VAEConfig:
    """Autoencoder of a released file.

    Raises:
        WeightsError: a tensor that every autoencoder has is missing, or layers are not numbered from 0 on.
    """
    channels = tensors.of("encoder.conv_in.weight", 4)[0]
    levels = tensors.count(r"encoder\.down\.(\d+)\.")
    widths = [tensors.of(f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)]
    return VAEConfig(
        channels=channels,
        channel_mult=tuple(w // channels for w in widths),
        res_blocks=tensors.count(r"encoder\.down\.0\.block\.(\d+)\."),
        z_channels=tensors.of("post_quant_conv.weight", 4)[0],
    )


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path of nested dicts, or ``None``."""
    node: Any = config
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _is_wrist(key: str) -> bool:
    return "wrist" in key or "eye_in_hand" in key


def _width(tensors: Shapes, key: str) -> int:
    return tensors.of(key, 2)[1] if key in tensors else 0


def _heads(recorded: Settings, width: int, depth: int, tensors: Shapes) -> int:
    for given in (recorded.num_heads, recorded.encoder_num_heads):
        if given:
            return given
    shapes = {
        "mar_tiny": (768, 6),
        "mar_small": (768, 12),
        "mar_base": (768, 24),
        "mar_large": (1024, 32),
        "mar_huge": (1280, 40),
    }
    for name, shape in shapes.items():
        if shape == (width, depth):
            return HEADS[name]
    raise tensors.fail(
        f"cannot tell the number of attention heads of a network {width} wide and {depth} deep (model_size "
        f"{recorded.model_size!r} is {shapes.get(recorded.model_size or '', 'unknown')}): pass heads="
    )


def _head(tensors: Shapes, name: str, clip: float | None = None) -> HeadConfig:
    key = f"{name}.net.input_proj.weight"
    if key not in tensors:
        return HeadConfig(clip=clip)
    depth = tensors.count(rf"{name}\.net\.res_blocks\.(\d+)\.")
    return HeadConfig(width=tensors.of(key, 2)[0], depth=depth, clip=clip)


def _aggregator(tensors: Shapes) -> Aggregator:
    if "diffactloss.net.input_proj.weight" not in tensors:
        return "conv_fc"
    for key, name in _AGGREGATORS.items():
        if f"diffactloss.{key}" in tensors:
            return cast(Aggregator, name)
    raise tensors.fail("its action head has an aggregator that is none of the released ones")
