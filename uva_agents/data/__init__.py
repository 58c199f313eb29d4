"""Episodes on disk to training windows."""

from uva_agents.data.augment import Variant, apply_variant, standard_variants
from uva_agents.data.dataset import Batch, EpochOrder, LatentWindows
from uva_agents.data.episodes import Episodes, held_out_split, released_validation_split
from uva_agents.data.frame_windows import FrameBatch, FrameWindows
from uva_agents.data.latents import LatentCache, encode_frames
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.replay_buffer import (
    BLOCK_PUSH_FIELDS,
    PUSHT_FIELDS,
    Field,
    read_replay_buffer,
    write_replay_buffer,
    write_replay_buffer_by_episode,
)
from uva_agents.data.windows import RELEASED_TRIM, WindowIndex, WindowSpec

__all__ = [
    "BLOCK_PUSH_FIELDS",
    "PUSHT_FIELDS",
    "RELEASED_TRIM",
    "Batch",
    "Episodes",
    "EpochOrder",
    "Field",
    "FrameBatch",
    "FrameWindows",
    "LatentCache",
    "LatentWindows",
    "LinearNormalizer",
    "Variant",
    "WindowIndex",
    "WindowSpec",
    "apply_variant",
    "encode_frames",
    "held_out_split",
    "read_replay_buffer",
    "released_validation_split",
    "standard_variants",
    "write_replay_buffer",
    "write_replay_buffer_by_episode",
]
