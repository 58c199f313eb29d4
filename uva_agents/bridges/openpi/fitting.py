"""Images of other sizes than an agent's, made to fit; never without having been asked to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from PIL import Image

from uva_agents.errors import InputError

Resize = Literal["aspect", "letterbox"]
"""What is done with an image of another size.

- ``"aspect"``: one of the same aspect ratio is resized; others are refused, because stretched pictures are of another world.
- ``"letterbox"``: that, and one of another aspect ratio is shrunk until it fits and put in the middle of black, as
  openpi's ``resize_with_pad`` does.
"""

_MOST_PIXELS = 2**26
"""Of an image that is resized: a frame of the largest message, with room."""


class Fitting:
    """Resizes the images of an observation.

    Args:
        sizes: name of the image -> (H, W) that the agent takes.
        how: see :data:`Resize`; ``None`` leaves images as they are, and the agent refuses those that do not fit.
    """

    def __init__(self, sizes: Mapping[str, tuple[int, int]], how: Resize | None) -> None:
        self.sizes, self.how = dict(sizes), how

    def __call__(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The observation with images of the right size.

        Raises:
            InputError: an image of another size, naming the option that would make it fit.
        """
        wrong = [name for name in self.sizes if _is_image(obs.get(name)) and obs[name].shape[-3:-1] != self.sizes[name]]
        return {**obs, **{name: self._fitted(name, obs[name]) for name in wrong}} if wrong else obs

    def _fitted(self, name: str, images: np.ndarray) -> np.ndarray:
        """(..., H, W, 3) uint8 -> (..., h, w, 3)."""
        (height, width), (h, w) = images.shape[-3:-1], self.sizes[name]
        found, wanted = f"{height}x{width}", f"{h}x{w}"
        if self.how is None:
            raise InputError(
                f"{name} must be {wanted} for these weights, got {found}: resize them, or have the server do it "
                f"(uva serve {'--resize' if same_aspect((height, width), (h, w)) else '--letterbox'})"
            )
        if self.how == "aspect" and not same_aspect((height, width), (h, w)):
            raise InputError(
                f"{name} is {found} and these weights take {wanted}, another aspect ratio: crop them, or have the server "
                "put black bars beside them (uva serve --letterbox)"
            )
        if images.dtype != np.uint8 or not images.size or images.size > 3 * _MOST_PIXELS:
            return images  # what is wrong with these is the agent's to say
        flat = images.reshape(-1, height, width, 3)
        fitted: np.ndarray = np.stack([_letterboxed(image, h, w) for image in flat])
        return fitted.reshape(*images.shape[:-3], h, w, 3)


def same_aspect(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether an image of one size (H, W) fits the other without being stretched by as much as a pixel."""
    (height, width), (h, w) = size, wanted
    return min(size) > 0 and abs(height * w / width - h) < 1 and abs(width * h / height - w) < 1


def _letterboxed(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (h, w, 3), bilinear with antialiasing; black where there was nothing."""
    height, width = image.shape[:2]
    inner = (h, w)
    if not same_aspect((height, width), inner):
        scale = min(h / height, w / width)
        inner = max(1, round(height * scale)), max(1, round(width * scale))
    small = np.asarray(Image.fromarray(image).resize((inner[1], inner[0]), Image.Resampling.BILINEAR))
    if inner == (h, w):
        return small
    out = np.zeros((h, w, 3), np.uint8)
    top, left = (h - inner[0]) // 2, (w - inner[1]) // 2
    out[top : top + inner[0], left : left + inner[1]] = small
    return out


def _is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim in (3, 4) and value.shape[-1] == 3
