"""What numbers in a weights folder or released file may be, and what they must say together.

Sizes are generous, not infinite: a network's skeleton is made before its tensors are compared with the file's, and that must take
a moment whatever the file says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from uva_agents.checkpoints.schema import Range, Schema, shown
from uva_agents.checkpoints.spec import TRANSFORM_FIELDS, InterfaceSpec, current_fields
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.transforms import TRANSFORMS, Transform, load_named
from uva_agents.errors import WeightsError
from uva_agents.model import (
    DiffusionPolicyConfig,
    EncoderConfig,
    TransformerConfig,
    TwoFrameConfig,
    UNetConfig,
    UVAConfig,
)
from uva_agents.model.uva.config import HeadConfig
from uva_agents.model.vae import VAEConfig

_SIDE = Range(1, 4096)
_WIDTH = Range(1, 16_384)
_DEPTH = Range(0, 256)
_NUMBERS, _ANY_NUMBER = Range(1, 4096), Range(0, 4096)
_SHARE = Range(0, 1)
_ANY = Range(-math.inf, math.inf)

_RANGES: Mapping[type, Mapping[str, Range]] = {
    VAEConfig: {
        "channels": Range(1, 4096),
        "channel_mult": Range(0, 64, above=True, items=16),
        "res_blocks": Range(1, 64),
        "z_channels": Range(1, 4096),
        "scale": Range(0, 1e6, above=True),
    },
    HeadConfig: {
        "width": _WIDTH,
        "depth": _DEPTH,
        "clip": Range(0, 1e6, above=True),
        "draws": Range(1, 1e6),
        "share": Range(0, 1, above=True),
    },
    UVAConfig: {
        "image_size": Range(1, 2048),
        "patch_size": Range(1, 64),
        "width": _WIDTH,
        "encoder_depth": _DEPTH,
        "decoder_depth": _DEPTH,
        "heads": Range(1, 1024),
        "mlp_ratio": Range(0, 64, above=True),
        "attention_dropout": _SHARE,
        "dropout": _SHARE,
        "aggregator_dropout": _SHARE,
        "n_frames": Range(1, 256),
        "history_steps": _NUMBERS,
        "action_steps": _NUMBERS,
        "action_dim": _NUMBERS,
        "text_dim": Range(0, 65_536),
        "text_tokens": _NUMBERS,
        "proprio_dim": _ANY_NUMBER,
        "proprio_steps": _NUMBERS,
        "predict_proprio_dim": _ANY_NUMBER,
        "frame_state_dim": _ANY_NUMBER,
        "num_keypoints": Range(0, 1024),
        "proprio_keypoints": Range(0, 1024),
    },
    EncoderConfig: {
        "image_size": _SIDE,
        "crop": _SIDE,
        "frames": Range(1, 64),
        "widths": Range(1, 16_384, items=16),
        "blocks": Range(0, 64, items=16),
        "stem": Range(1, 64),
        "keypoints": _ANY_NUMBER,
        "features": Range(1, 65_536),
        "positions": Range(0, 128),
    },
    UNetConfig: {
        "stages": Range(1, 16_384, items=12),
        "kernel": Range(1, 101),
        "groups": Range(1, 4096),
        "step_dim": Range(4, 65_536),
    },
    TransformerConfig: {
        "width": _WIDTH,
        "depth": _DEPTH,
        "heads": Range(1, 1024),
        "dropout": _SHARE,
        "embedding_dropout": _SHARE,
    },
    DiffusionPolicyConfig: {
        "action_dim": _NUMBERS,
        "proprio_dim": _ANY_NUMBER,
        "obs_steps": Range(1, 64),
        "horizon": _NUMBERS,
        "first_action": Range(-64, 0),
        "action_steps": _NUMBERS,
        "train_steps": Range(1, 100_000),
        "relations": Range(0, 65_536),
        "modes": Range(0, 1024),
        "max_step": Range(0, 1e9, above=True),
    },
    TwoFrameConfig: {"width": _WIDTH, "action_dim": _NUMBERS, "stride": Range(1, 1024)},
    InterfaceSpec: {
        "image_shape": Range(1, 8192),
        "wrist_shape": Range(1, 8192),
        "action_low": _ANY,
        "action_high": _ANY,
        "control_hz": Range(1e-3, 10_000),
        "execute": _NUMBERS,
        "action_offset": Range(0, 16),
    },
}
SCHEMA = Schema(_RANGES, {UNetConfig: "unet", TransformerConfig: "transformer"}, {Transform: TRANSFORMS})

_SCALES = Range(1e-12, 1e12)
"""Of a normaliser, whatever the sign: beyond, single precision has nothing left of the numbers."""


def read_interface(values: Any, where: str) -> InterfaceSpec:
    """An interface as it is stored today or was by earlier versions.

    Raises:
        WeightsError: a field is unknown, missing, of another type or out of its range.
        MachineError: the installed package that has a convention of it is broken.
    """
    try:
        values = current_fields(values)
    except ValueError as error:
        raise WeightsError(f"{where}.{error}") from error
    for name in TRANSFORM_FIELDS if isinstance(values, Mapping) else ():
        load_named(values.get(name))
    return SCHEMA.read(InterfaceSpec, values, where)


def read_normalizer(values: Any, where: str) -> LinearNormalizer:
    """A normaliser, each key of which has as many finite scales, none of them zero, as finite offsets.

    Raises:
        WeightsError: otherwise.
    """
    if not isinstance(values, Mapping) or not values:
        raise WeightsError(f"{where} is {shown(values)}, not an object with a scale and an offset for every key")
    scale, offset = {}, {}
    for key, entry in values.items():
        if not isinstance(entry, Mapping) or set(entry) != {"scale", "offset"}:
            raise WeightsError(f"{where}.{key} is {shown(entry)}, not an object with 'scale' and 'offset'")
        scale[key], offset[key] = (_finite(entry[part], f"{where}.{key}.{part}") for part in ("scale", "offset"))
    return check_normalizer(LinearNormalizer(scale, offset), where)


def _finite(values: Any, where: str) -> np.ndarray:
    if not isinstance(values, list) or not 0 < len(values) <= 4096:
        raise WeightsError(f"{where} is {shown(values)}, not a list of at most 4096 numbers")
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e30:
            raise WeightsError(f"{where}[{i}] is {shown(value)}, not a finite number")
    return np.asarray(values, np.float64)


def check_normalizer(normalizer: LinearNormalizer, where: str) -> LinearNormalizer:
    """The normaliser, if every number in it is one that can be divided by.

    Raises:
        WeightsError: otherwise.
    """
    for key, scale in normalizer.scale.items():
        offset = normalizer.offset[key]
        if scale.shape != offset.shape:
            raise WeightsError(f"{where}.{key} has {scale.size} scales and {offset.size} offsets")
        for i, (factor, shift) in enumerate(zip(scale.flat, offset.flat, strict=True)):
            if abs(factor) not in _SCALES:
                raise WeightsError(f"{where}.{key}.scale[{i}] is {factor}, its size must be {_SCALES}")
            if not math.isfinite(shift):
                raise WeightsError(f"{where}.{key}.offset[{i}] is {shift}, not a finite number")
    return normalizer


def check_sizes(network: Any, normalizer: LinearNormalizer, spec: InterfaceSpec, where: str) -> None:
    """That interface and normaliser are of the sizes of a network, of whatever kind.

    Args:
        network: its sizes; see :class:`~uva_agents.checkpoints.kinds.NetworkConfig`.

    Raises:
        WeightsError: otherwise, by field.
    """
    SCHEMA.check(spec, f"{where}: interface")
    try:
        size = spec.action_size(network.action_dim)
    except ValueError as error:
        raise WeightsError(f"{where}: interface.action_transforms is {error}") from error
    for name, bounds in (("action_low", spec.action_low), ("action_high", spec.action_high)):
        if len(bounds) != size:
            raise WeightsError(f"{where}: interface.{name} has {len(bounds)} numbers, these actions have {size}")
    for i, (low, high) in enumerate(zip(spec.action_low, spec.action_high, strict=True)):
        with np.errstate(over="ignore"):
            distinct = np.float32(low) < np.float32(high)
        if not distinct:  # clipped to a point, every action would be the same
            how = "above" if low > high else "not below"
            raise WeightsError(f"{where}: interface.action_low[{i}] is {low}, {how} action_high[{i}], which is {high}")
    chunk = getattr(network, "action_steps", None)
    if chunk is not None and spec.execute > chunk:
        raise WeightsError(
            f"{where}: interface.execute is {spec.execute}, a chunk has {chunk} actions (model.action_steps)"
        )
    proprio = getattr(network, "proprio_dim", 0)
    sizes = {"action": network.action_dim}
    if proprio:
        if spec.proprio_key is None:
            raise WeightsError(f"{where}: interface.proprio_key is missing, the network takes {proprio} numbers")
        sizes[spec.proprio_key] = proprio
    for key, wanted in sizes.items():
        found = normalizer.scale.get(key)
        if found is None or found.shape != (wanted,):
            has = "missing" if found is None else f"of size {found.size}"
            raise WeightsError(f"{where}: normalizer.{key} is {has}, the network has {wanted} numbers of it")


def check_uva(network: UVAConfig, normalizer: LinearNormalizer, spec: InterfaceSpec, where: str) -> None:
    """What holds of UVA's weights beyond :func:`check_sizes`: the wrist camera, and the keypoints.

    Raises:
        WeightsError: otherwise.
    """
    if network.wrist_image and spec.wrist_shape is None:
        raise WeightsError(f"{where}: interface.wrist_shape is missing, the network sees a wrist camera")
    if not spec.keypoint_keys:
        return
    lost = [key for key in spec.keypoint_keys if key not in normalizer.scale]
    if lost:
        raise WeightsError(f"{where}: interface.keypoint_keys has {shown(lost[0])}, which normalizer does not")
    numbers = sum(normalizer.scale[key].size for key in spec.keypoint_keys)
    wanted = network.frame_state_dim or 2 * network.num_keypoints
    if numbers != wanted:
        raise WeightsError(
            f"{where}: the keypoint_keys have {numbers} numbers together, the network has {wanted} (frame_state_dim)"
        )
