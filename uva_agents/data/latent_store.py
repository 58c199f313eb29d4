"""VAE latents of a whole dataset, computed once, in shards on disk that are known by the weights, the data and the variant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from uva_agents.data.augment import Variant, varied_frames
from uva_agents.data.episodes import Episodes
from uva_agents.data.latents import Progress, encode_frames, weights_fingerprint
from uva_agents.data.rows import standardized
from uva_agents.data.shard_plan import LARGEST_SHARD, ShardPlan
from uva_agents.data.shards import ShardedArray, Shards
from uva_agents.model.vae import VAE

_SMALLEST = 64 << 20
_TOGETHER = 512
"""Frames that are read together; a multiple of those that are encoded together, so that batches are those of a whole array."""


class LatentStore:
    """Tokens of dataset variants: a folder of shards for each variant.

    What was made with other VAE weights, other data or another patch size has another name and is never picked up. A variant is
    made chunk by chunk; a damaged shard costs that shard.

    Args:
        folder: where they live.
        vae: frozen autoencoder.
        patch_size: token patch, latent pixels.
        image_size: side that frames are resized to; their own when absent.
        largest_shard: bytes.
    """

    def __init__(
        self,
        folder: str | Path,
        vae: VAE,
        *,
        patch_size: int,
        image_size: int | None = None,
        largest_shard: int = LARGEST_SHARD,
    ) -> None:
        self.folder = Path(folder)
        self.vae = vae
        self.patch_size = patch_size
        self.image_size = image_size
        self.largest_shard = largest_shard
        self._weights = f"{weights_fingerprint(vae)}*{vae.config.scale}"

    def path(self, episodes: Episodes, variant: Variant, key: str = "pixels") -> Path:
        """The folder of a variant's tokens."""
        parts = [self._weights, episodes.frames_fingerprint(key), self.patch_size, vars(variant)]
        if self.image_size not in (None, episodes.arrays[key].shape[1]):
            parts.append([self.image_size, "antialiased"])
        return self.folder / hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]

    def is_whole(self, episodes: Episodes, variant: Variant, key: str = "pixels") -> bool:
        """Whether all tokens of a variant are there."""
        shards = Shards.there(self.path(episodes, variant, key))
        return shards is not None and shards.plan.rows == episodes.steps and not shards.missing()

    def is_begun(self, episodes: Episodes, variant: Variant, key: str = "pixels") -> bool:
        """Whether an earlier process has begun to encode a variant."""
        return Shards.there(self.path(episodes, variant, key)) is not None

    def get(
        self, episodes: Episodes, variant: Variant, progress: Progress | None = None, *, key: str = "pixels"
    ) -> ShardedArray:
        """Tokens of a variant, float16 (N, S, C); what is missing of them is encoded.

        Args:
            key: of the camera.

        Raises:
            NotFiniteError: the autoencoder gave NaN or infinity.
            MachineError: the disk is full, or cannot be written.
        """
        shards = self._shards(episodes, variant, key)
        if shards.missing():
            with shards.writing() as missing:
                left = sum(end - begin for begin, end in map(shards.plan.bounds, missing))
                for number in missing:
                    begin, end = shards.plan.bounds(number)
                    done = episodes.steps - left
                    shards.write(number, self._encoded(episodes, variant, key, begin, end, done, progress))
                    left -= end - begin
        return shards.array()

    def get_all(
        self,
        episodes: Episodes,
        variants: Sequence[Variant],
        progress: Progress | None = None,
        *,
        key: str = "pixels",
    ) -> list[ShardedArray]:
        """:meth:`get` for several variants; progress counts over all of them."""
        total = len(variants) * episodes.steps
        made: list[ShardedArray] = []
        for i, variant in enumerate(variants):
            report = None if progress is None else _offset(progress, i * episodes.steps, total)
            made.append(self.get(episodes, variant, report, key=key))
            if progress is not None:
                progress((i + 1) * episodes.steps, total)
        return made

    def _shards(self, episodes: Episodes, variant: Variant, key: str) -> Shards:
        folder = self.path(episodes, variant, key)
        if (there := Shards.there(folder)) is not None and there.plan.rows == episodes.steps:
            return there
        (shape,) = {self._encode(varied_frames(episodes, variant, 0, 1, key=key), 0, 1).shape[1:]}
        return Shards(folder, token_plan(episodes.steps, shape, largest=self.largest_shard))

    def _encoded(
        self,
        episodes: Episodes,
        variant: Variant,
        key: str,
        begin: int,
        end: int,
        done: int,
        progress: Progress | None,
    ) -> Iterator[np.ndarray]:
        for first in range(begin, end, _TOGETHER):
            last = min(first + _TOGETHER, end)
            yield self._encode(varied_frames(episodes, variant, first, last, key=key), first, episodes.steps)
            if progress is not None:
                progress(done + last - begin, episodes.steps)

    def _encode(self, frames: np.ndarray, begin: int, total: int) -> np.ndarray:
        return encode_frames(
            self.vae, frames, patch_size=self.patch_size, image_size=self.image_size, begin=begin, total=total
        )

    def standardized(self, tokens: ShardedArray, mean: np.ndarray, std: np.ndarray) -> ShardedArray:
        """Tokens as the network sees them, in shards of their own: made once, not whenever a window is drawn.

        Args:
            mean, std: float32 (S, C).

        Raises:
            MachineError: the disk is full, or cannot be written.
        """
        key = hashlib.sha256(tokens.shards.digest.encode() + mean.tobytes() + std.tobytes()).hexdigest()[:20]
        shards = Shards(self.folder / f"{key}-standardized", tokens.shards.plan)
        if shards.missing():
            with shards.writing() as missing:
                for number in missing:
                    begin, end = shards.plan.bounds(number)
                    chunks = (tokens[first : min(first + _TOGETHER, end)] for first in range(begin, end, _TOGETHER))
                    shards.write(number, (standardized(rows, mean, std) for rows in chunks))
        return shards.array()


def token_plan(rows: int, shape: tuple[int, ...], *, largest: int = LARGEST_SHARD) -> ShardPlan:
    """How tokens (N, S, C) are cut up: one process writes them, and a batch looks into every shard, so there are few."""
    return ShardPlan.of(rows, shape, "float16", smallest=_SMALLEST, largest=largest)


def _offset(progress: Progress, base: int, total: int) -> Progress:
    return lambda done, _: progress(base + done, total)
