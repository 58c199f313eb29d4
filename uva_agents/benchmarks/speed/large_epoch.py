"""Peak memory of one epoch over a dataset that is larger: frames into shards, latents, every frame and every window once."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.data import Episodes, FrameStore, LatentStore, LazyFrames
from uva_agents.data.augment import standard_variants
from uva_agents.data.dataset import EpochOrder, LatentWindows
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.rows import token_statistics
from uva_agents.data.windows import WindowSpec
from uva_agents.model.vae import VAEConfig

MEMORY_GB = 4.0
"""What is aimed at, whatever the data's size."""
_EPISODE = 500


class SyntheticFrames:
    """A source of frames that are made when they are looked at: a recording that takes no disk."""

    def __init__(self, count: int, side: int) -> None:
        self.count, self.side = count, side
        self.identity = f"synthetic:{count}:{side}"
        self._base = np.random.default_rng(0).integers(0, 256, (2 * side, side, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        """See :meth:`~uva_agents.data.lazy.FrameSource.read`."""
        out = np.empty((len(rows), self.side, self.side, 3), np.uint8)
        for frame, row in zip(out, rows.tolist(), strict=True):
            begin = row % self.side
            frame[:] = self._base[begin : begin + self.side]
            frame[0, :8, 0] = np.frombuffer(row.to_bytes(8, "little"), np.uint8)
        return out


class PooledAutoencoder(nn.Module):
    """Means of squares of 16 pixels, in the shape of an autoencoder's latents: what is measured is not its speed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.config = VAEConfig("nano", z_channels=channels, scale=1.0)
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, channels).view(1, -1, 1, 1), requires_grad=False)

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> latents (N, C, H / 16, W / 16)."""
        return F.avg_pool2d(images.mean(1, keepdim=True), 16) * self.weight


@dataclass(frozen=True)
class EpochMeasured:
    """What one epoch took.

    Attributes:
        recorded_gb, frames: size of the dataset as it is recorded, 10^9 bytes.
        opened_s: to open what an earlier run has stored.
        stored_gb, decode_s: frames in shards.
        latents_gb, encode_s: tokens of all variants, as they are and standardised.
        frames_s: every frame once, in random order, as the autoencoder's stage reads them.
        windows_s: every window once.
        peak_gb: of the main process, mapped files included.
        worker_gb: of the largest of the processes that decode.
    """

    recorded_gb: float
    frames: int
    opened_s: float
    stored_gb: float
    decode_s: float
    latents_gb: float
    encode_s: float
    frames_s: float
    windows_s: float
    peak_gb: float
    worker_gb: float


def measure_epoch(
    folder: Path, gigabytes: float, side: int, *, stored_side: int, workers: int, variants: int, batch: int
) -> EpochMeasured:
    """Make the stores in ``folder``, which takes as much disk as they do, and go through all of it once."""
    count = max(_EPISODE, int(gigabytes * 1e9 / (3 * side * side)) // _EPISODE * _EPISODE)
    recorded, took = synthetic_episodes(count, side), _Stopwatch()
    store = FrameStore(folder / "frames", side=stored_side, workers=workers)
    store.get(recorded, opens=partial(synthetic_frames, count, side), moving=("agent_pos",))
    decode_s = took.lap()
    episodes = store.get(recorded, moving=("agent_pos",))
    opened_s = took.lap()
    kinds = standard_variants(variants)
    latents = LatentStore(folder / "latents", PooledAutoencoder(16), patch_size=2)  # type: ignore[arg-type]
    encoded = latents.get_all(episodes, kinds)
    mean, std = token_statistics(encoded)
    tokens = [latents.standardized(rows, mean, np.maximum(std, 0.05)) for rows in encoded]
    encode_s = took.lap()
    pixels = episodes.arrays["pixels"]
    frames = EpochOrder(count, 1, batch)
    for step in range(frames.steps_per_epoch):
        pixels[frames.at(step)[0]]
    frames_s = took.lap()
    normalizer = LinearNormalizer.fit({name: episodes.arrays[name] for name in ("action", "agent_pos")})
    windows = LatentWindows(episodes, tokens, kinds, normalizer, WindowSpec())
    order = EpochOrder(len(windows), windows.variants, batch)
    for step in range(order.steps_per_epoch):
        windows.batch(*order.at(step))
    windows_s = took.lap()
    own, child = peak_gigabytes()
    return EpochMeasured(
        recorded_gb=count * 3 * side * side / 1e9,
        frames=count,
        opened_s=opened_s,
        stored_gb=count * 3 * stored_side**2 / 1e9,
        decode_s=decode_s,
        latents_gb=2 * sum(len(rows) * rows.shards.plan.row_bytes for rows in tokens) / 1e9,
        encode_s=encode_s,
        frames_s=frames_s,
        windows_s=windows_s,
        peak_gb=own,
        worker_gb=child,
    )


def lines(found: EpochMeasured, workers: int) -> list[str]:
    """A table."""
    whole = found.peak_gb + workers * found.worker_gb
    return [
        f"{found.recorded_gb:.1f} GB of frames, {found.frames:,} of them",
        f"decoded into shards  {found.decode_s:8.1f} s   {found.stored_gb:.1f} GB on disk, {workers} processes",
        f"opened again         {found.opened_s:8.2f} s",
        f"encoded              {found.encode_s:8.1f} s   {found.latents_gb:.1f} GB on disk",
        f"every frame once     {found.frames_s:8.1f} s   {found.frames / found.frames_s:,.0f} frames a second",
        f"every window once    {found.windows_s:8.1f} s   {found.frames / found.windows_s:,.0f} windows a second",
        f"peak memory          {found.peak_gb:8.2f} GB  and {found.worker_gb:.2f} GB in each process that decodes, "
        f"{whole:.2f} GB together  (aim: < {MEMORY_GB:g} GB)",
    ]


def numbers(found: EpochMeasured) -> dict[str, float]:
    """For the JSON file."""
    return asdict(found)


def synthetic_frames(count: int, side: int) -> LazyFrames:
    """Frames that are made when they are looked at."""
    return LazyFrames([SyntheticFrames(count, side)], (side, side, 3))


def synthetic_episodes(count: int, side: int) -> Episodes:
    """Episodes of them, and of positions that move."""
    t = np.arange(count)[:, None] / 9
    position = (256 + 200 * np.sin(t + np.array([0.0, 1.0]))).astype(np.float32)
    arrays = {"pixels": synthetic_frames(count, side).as_array(), "action": position, "agent_pos": position}
    return Episodes(arrays, np.arange(_EPISODE, count + 1, _EPISODE), source="synthetic frames")


def peak_gigabytes() -> tuple[float, float]:
    """Largest resident size so far, of this process and of its largest finished child; NaN where the system does not say."""
    try:
        import resource
    except ImportError:
        return float("nan"), float("nan")
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own * 1024 / 1e9, child * 1024 / 1e9


class _Stopwatch:
    def __init__(self) -> None:
        self._at = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last one."""
        began, self._at = self._at, time.perf_counter()
        return self._at - began
