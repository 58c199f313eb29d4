"""VAE latents of a whole dataset, computed once, cached on disk and keyed by the weights and the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from uva_agents.data.augment import Variant, apply_variant
from uva_agents.data.episodes import Episodes
from uva_agents.errors import NotFiniteError
from uva_agents.model.uva.inputs import patchify
from uva_agents.model.vae import VAE
from uva_agents.utils.files import replacing
from uva_agents.utils.images import network_images, to_images

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


def weights_fingerprint(module: torch.nn.Module) -> str:
    """Hash of a module's tensors, which stays what it is where they are renamed: caches and interrupted runs are known by it."""
    first = getattr(type(module), "first_tensor_name", str)
    digest = hashlib.sha256()
    for name, tensor in sorted((first(name), tensor) for name, tensor in module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode_frames(
    vae: VAE,
    frames: np.ndarray,
    *,
    patch_size: int,
    image_size: int | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> np.ndarray:
    """uint8 frames (N, H, W, 3) -> float16 tokens (N, S, C) of the posterior means.

    Args:
        image_size: side that frames are resized to first, as by agents.

    Raises:
        NotFiniteError: the autoencoder gave NaN or infinity; it names the frame.
    """
    device = next(vae.parameters()).device
    out: np.ndarray | None = None
    for start in range(0, len(frames), batch_size):
        chunk = frames[start : start + batch_size]
        images = to_images(chunk, device) if image_size is None else network_images(chunk, image_size, device=device)
        tokens = patchify(vae.encode(images), patch_size).half().cpu().numpy()
        if not np.isfinite(tokens).all():
            bad = start + int(np.argmin(np.isfinite(tokens).all((1, 2))))
            raise NotFiniteError(
                f"the autoencoder gave NaN or infinity (in float16) for frame {bad} of {len(frames)}: its weights are damaged, "
                "train or load them again"
            )
        if out is None:
            out = np.empty((len(frames), *tokens.shape[1:]), dtype=np.float16)
        out[start : start + len(tokens)] = tokens
        if progress is not None:
            progress(min(start + batch_size, len(frames)), len(frames))
    if out is None:
        raise ValueError("no frames to encode")
    return out


class LatentCache:
    """Tokens of dataset variants on disk: one ``.npy`` per variant under ``folder``, written atomically.

    A cache made with other VAE weights, other data or another patch size has another name and is never picked up.

    Args:
        folder: where the files live.
        vae: frozen autoencoder.
        patch_size: token patch, latent pixels.
        world_size: see :func:`~uva_agents.data.augment.apply_variant`.
        image_size: side that frames are resized to; their own when absent.
    """

    def __init__(
        self, folder: str | Path, vae: VAE, *, patch_size: int, world_size: float | None, image_size: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self.vae = vae
        self.patch_size = patch_size
        self.world_size = world_size
        self.image_size = image_size
        self._weights = f"{weights_fingerprint(vae)}*{vae.config.scale}"

    def path(self, episodes: Episodes, variant: Variant) -> Path:
        """Where this variant's tokens are, or will be."""
        parts = [self._weights, episodes.fingerprint, self.patch_size, vars(variant)]
        if self.image_size not in (None, episodes.arrays["pixels"].shape[1]):
            parts.append([self.image_size, "antialiased"])
        key = json.dumps(parts, sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npy"

    def get(self, episodes: Episodes, variant: Variant, progress: Progress | None = None) -> np.ndarray:
        """Tokens of a variant, float16 (N, S, C); encoded on the first call."""
        path = self.path(episodes, variant)
        if path.exists():
            try:
                tokens = np.load(path)
                if len(tokens) == episodes.steps:
                    return np.asarray(tokens)
            except (ValueError, EOFError, OSError):
                pass  # a damaged cache costs a new encoding, nothing else
        moved = apply_variant(episodes, variant, world_size=self.world_size)
        tokens = encode_frames(
            self.vae,
            moved.arrays["pixels"],
            patch_size=self.patch_size,
            image_size=self.image_size,
            progress=progress,
        )
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, tokens)
        return tokens

    def get_all(
        self, episodes: Episodes, variants: Sequence[Variant], progress: Progress | None = None
    ) -> list[np.ndarray]:
        """:meth:`get` for several variants; progress counts over all of them."""
        total = len(variants) * episodes.steps
        done: list[np.ndarray] = []
        for i, variant in enumerate(variants):
            report = None if progress is None else _offset(progress, i * episodes.steps, total)
            done.append(self.get(episodes, variant, report))
            if progress is not None:
                progress((i + 1) * episodes.steps, total)
        return done


def _offset(progress: Progress, base: int, total: int) -> Progress:
    return lambda done, _: progress(base + done, total)
