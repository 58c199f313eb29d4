"""Frames through the autoencoder, and the name by which its weights are known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from uva_agents.errors import NotFiniteError
from uva_agents.model.uva.inputs import patchify
from uva_agents.model.vae import VAE
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
    begin: int = 0,
    total: int | None = None,
) -> np.ndarray:
    """uint8 frames (N, H, W, 3) -> float16 tokens (N, S, C) of the posterior means.

    Args:
        image_size: side that frames are resized to first, as by agents.
        begin, total: number of the first frame, and how many there are in all, for messages.

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
            bad = begin + start + int(np.argmin(np.isfinite(tokens).all((1, 2))))
            raise NotFiniteError(
                f"the autoencoder gave NaN or infinity (in float16) for frame {bad} of {total or len(frames)}: its weights are "
                "damaged, train or load them again"
            )
        if out is None:
            out = np.empty((len(frames), *tokens.shape[1:]), dtype=np.float16)
        out[start : start + len(tokens)] = tokens
        if progress is not None:
            progress(min(start + batch_size, len(frames)), len(frames))
    if out is None:
        raise ValueError("no frames to encode")
    return out
