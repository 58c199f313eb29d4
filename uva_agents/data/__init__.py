"""Episodes on disk to training windows.

Importing this loads no reader; naming something loads what it needs: weights act without zarr, hdf5 or video.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uva_agents.data.augment import Variant, apply_variant, standard_variants
    from uva_agents.data.dataset import Batch, EpochOrder, LatentWindows
    from uva_agents.data.episodes import Episodes, held_out_split, released_validation_split
    from uva_agents.data.fields import Field
    from uva_agents.data.formats import FORMATS, Format
    from uva_agents.data.frame_store import FrameStore
    from uva_agents.data.frame_windows import FrameBatch, FrameWindows
    from uva_agents.data.holes import Hole
    from uva_agents.data.inspect import Finding, Inspection, inspect_dataset, inspect_path
    from uva_agents.data.latent_store import LatentStore
    from uva_agents.data.latents import encode_frames
    from uva_agents.data.lazy import LazyFrames
    from uva_agents.data.libero import absolute_actions, relative_actions, site_rotation
    from uva_agents.data.mixture import MixtureOrder, MixtureWindows
    from uva_agents.data.normalizer import LinearNormalizer
    from uva_agents.data.opening import open_dataset, recognise
    from uva_agents.data.readers.dataset import Dataset, MissingExtraError
    from uva_agents.data.replay_buffer import (
        BLOCK_PUSH_FIELDS,
        PUSHT_FIELDS,
        read_replay_buffer,
        write_replay_buffer,
        write_replay_buffer_by_episode,
    )
    from uva_agents.data.sheet import contact_sheet
    from uva_agents.data.umi import RELEASED_UMI_SPEC, UmiBatch, UmiWindows, absolute_poses, black_mirrors
    from uva_agents.data.windows import RELEASED_TRIM, WindowIndex, WindowSpec
    from uva_agents.data.writers.convert import convert_dataset

_LAZY = {
    "Variant": "uva_agents.data.augment",
    "apply_variant": "uva_agents.data.augment",
    "standard_variants": "uva_agents.data.augment",
    "Batch": "uva_agents.data.dataset",
    "EpochOrder": "uva_agents.data.dataset",
    "LatentWindows": "uva_agents.data.dataset",
    "Episodes": "uva_agents.data.episodes",
    "held_out_split": "uva_agents.data.episodes",
    "released_validation_split": "uva_agents.data.episodes",
    "Field": "uva_agents.data.fields",
    "FrameStore": "uva_agents.data.frame_store",
    "FrameBatch": "uva_agents.data.frame_windows",
    "FrameWindows": "uva_agents.data.frame_windows",
    "Hole": "uva_agents.data.holes",
    "Finding": "uva_agents.data.inspect",
    "inspect_path": "uva_agents.data.inspect",
    "Inspection": "uva_agents.data.inspect",
    "contact_sheet": "uva_agents.data.sheet",
    "inspect_dataset": "uva_agents.data.inspect",
    "LatentStore": "uva_agents.data.latent_store",
    "encode_frames": "uva_agents.data.latents",
    "LazyFrames": "uva_agents.data.lazy",
    "absolute_actions": "uva_agents.data.libero",
    "relative_actions": "uva_agents.data.libero",
    "site_rotation": "uva_agents.data.libero",
    "MixtureOrder": "uva_agents.data.mixture",
    "MixtureWindows": "uva_agents.data.mixture",
    "LinearNormalizer": "uva_agents.data.normalizer",
    "Dataset": "uva_agents.data.readers.dataset",
    "FORMATS": "uva_agents.data.formats",
    "Format": "uva_agents.data.formats",
    "MissingExtraError": "uva_agents.data.readers.dataset",
    "open_dataset": "uva_agents.data.opening",
    "recognise": "uva_agents.data.opening",
    "BLOCK_PUSH_FIELDS": "uva_agents.data.replay_buffer",
    "PUSHT_FIELDS": "uva_agents.data.replay_buffer",
    "read_replay_buffer": "uva_agents.data.replay_buffer",
    "write_replay_buffer": "uva_agents.data.replay_buffer",
    "write_replay_buffer_by_episode": "uva_agents.data.replay_buffer",
    "RELEASED_UMI_SPEC": "uva_agents.data.umi",
    "UmiBatch": "uva_agents.data.umi",
    "UmiWindows": "uva_agents.data.umi",
    "absolute_poses": "uva_agents.data.umi",
    "black_mirrors": "uva_agents.data.umi",
    "RELEASED_TRIM": "uva_agents.data.windows",
    "WindowIndex": "uva_agents.data.windows",
    "WindowSpec": "uva_agents.data.windows",
    "convert_dataset": "uva_agents.data.writers.convert",
}

__all__ = [
    "BLOCK_PUSH_FIELDS",
    "FORMATS",
    "PUSHT_FIELDS",
    "RELEASED_TRIM",
    "RELEASED_UMI_SPEC",
    "Batch",
    "Dataset",
    "Episodes",
    "EpochOrder",
    "Field",
    "Finding",
    "Format",
    "FrameBatch",
    "FrameStore",
    "FrameWindows",
    "Hole",
    "Inspection",
    "LatentStore",
    "LatentWindows",
    "LazyFrames",
    "LinearNormalizer",
    "MissingExtraError",
    "MixtureOrder",
    "MixtureWindows",
    "UmiBatch",
    "UmiWindows",
    "Variant",
    "WindowIndex",
    "WindowSpec",
    "absolute_actions",
    "absolute_poses",
    "apply_variant",
    "black_mirrors",
    "contact_sheet",
    "convert_dataset",
    "encode_frames",
    "held_out_split",
    "inspect_dataset",
    "inspect_path",
    "open_dataset",
    "read_replay_buffer",
    "recognise",
    "relative_actions",
    "released_validation_split",
    "site_rotation",
    "standard_variants",
    "write_replay_buffer",
    "write_replay_buffer_by_episode",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value  # the next access does not come here
    return value
