"""Episodes on disk to training windows."""

from uva_agents.data.augment import Variant, apply_variant, standard_variants
from uva_agents.data.dataset import Batch, EpochOrder, LatentWindows
from uva_agents.data.episodes import Episodes, held_out_split, released_validation_split
from uva_agents.data.fields import Field
from uva_agents.data.frame_windows import FrameBatch, FrameWindows
from uva_agents.data.holes import Hole
from uva_agents.data.inspect import Finding, Inspection, inspect_dataset, inspect_path
from uva_agents.data.latents import LatentCache, encode_frames
from uva_agents.data.lazy import LazyFrames
from uva_agents.data.libero import absolute_actions, relative_actions, site_rotation
from uva_agents.data.mixture import MixtureOrder, MixtureWindows
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.readers import FORMATS, Dataset, Format, MissingExtraError, open_dataset, recognise
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
from uva_agents.data.writers import convert_dataset

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
    "FrameWindows",
    "Hole",
    "Inspection",
    "LatentCache",
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
