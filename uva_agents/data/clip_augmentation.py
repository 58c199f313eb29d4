"""Augmentation of a window's frames in the training loop: the same for all frames of a window, drawn anew every time.

Frames alone are changed, never coordinates: what an action means in the picture is the network's to find. A crop moves the picture
by a few percent, which is what the released code accepts (its configurations name torchvision's transforms for simulated tasks, and
kornia's for UMI). The operations are theirs, written with torch alone, so that they run wherever the frames are.

What is drawn depends on (seed, step, sample) and nothing else: a run that was killed and goes on repeats it, on any number of
processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ClipAugmentation:
    """What may happen to a clip, in this order. A share of 0 leaves an operation out.

    Args:
        crop: side of the square cut out at random, as a share of the frame's; it is resized back to the frame's size.
        crop_share: of the clips that are cropped.
        brightness, contrast, saturation: factors are drawn from 1 - value to 1 + value.
        hue: turn of the colour circle, drawn from -value to value (1 is a whole turn).
        jitter_share: of the clips whose colours are changed by the four above, in a random order.
        sharpness: factor drawn from 0 (smoothed) to the value; 1 changes nothing.
        sharpness_share: of the clips that get it.
        autocontrast_share: of the clips of which every channel is stretched to the full range, frame by frame.
        grey_share: of the clips that lose their colours.
        blur: side of the Gaussian kernel, odd.
        blur_sigma: range of its standard deviation, pixels.
        blur_share: of the clips that are blurred.

    Raises:
        ValueError: a value is out of its range.
    """

    crop: float = 1.0
    crop_share: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_share: float = 0.0
    sharpness: float = 0.0
    sharpness_share: float = 0.0
    autocontrast_share: float = 0.0
    grey_share: float = 0.0
    blur: int = 5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_share: float = 0.0

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            if (name.endswith("_share") or name == "crop") and not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be between 0 and 1")
        if not (self.crop > 0 and 0 <= self.hue <= 0.5 and self.blur % 2 == 1 and self.blur_sigma[0] > 0):
            raise ValueError("crop and blur_sigma must be above 0, hue at most half a turn, and blur odd")
        if min(self.brightness, self.contrast, self.saturation, self.sharpness) < 0:
            raise ValueError("brightness, contrast, saturation and sharpness must not be negative")

    @property
    def identity(self) -> bool:
        """Whether it changes nothing."""
        return not any(getattr(self, f.name) for f in fields(self) if f.name.endswith("_share"))

    def crop_side(self, side: int) -> int:
        """Pixels of a crop's side, of frames of this side."""
        return max(1, math.floor(side * self.crop))

    def draw(self, count: int, *, seed: int, step: int, first: int = 0) -> ClipDraws:
        """What happens to ``count`` clips, samples ``first``, ``first + 1``, ... of a step over all processes."""
        return ClipDraws.stacked([self._drawn(np.random.default_rng([seed, step, first + i])) for i in range(count)])

    def _drawn(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        # Everything is drawn, used or not: a share that is changed changes nothing else.
        factor = {
            name: rng.uniform(max(0.0, 1 - value), 1 + value)
            for name, value in (
                ("brightness", self.brightness),
                ("contrast", self.contrast),
                ("saturation", self.saturation),
            )
        }
        return {
            "cropped": np.array(rng.random() < self.crop_share),
            "corner": rng.random(2),
            "jittered": np.array(rng.random() < self.jitter_share),
            "order": rng.permutation(4),
            "factors": np.array([*factor.values(), rng.uniform(-self.hue, self.hue)]),
            "sharpened": np.array(rng.random() < self.sharpness_share),
            "sharpness": np.array(rng.uniform(0.0, self.sharpness)),
            "autocontrasted": np.array(rng.random() < self.autocontrast_share),
            "greyed": np.array(rng.random() < self.grey_share),
            "blurred": np.array(rng.random() < self.blur_share),
            "sigma": np.array(rng.uniform(*self.blur_sigma)),
        }

    def apply(self, clips: Tensor, draws: ClipDraws) -> Tensor:
        """The changed clips.

        Args:
            clips: uint8 (B, T, H, W, 3).
            draws: of B clips.

        Returns: float32 (B, T, 3, H, W) in [0, 1], not rounded, on the clips' device.

        Raises:
            ValueError: the draws are of another number of clips.
        """
        if len(draws) != len(clips):
            raise ValueError(f"{len(draws)} draws for {len(clips)} clips")
        images = clips.movedim(-1, -3).float() / 255
        return images if self.identity else torch.stack([self._changed(x, draws, i) for i, x in enumerate(images)])

    def _changed(self, x: Tensor, draws: ClipDraws, i: int) -> Tensor:
        """One clip (T, 3, H, W)."""
        if draws.cropped[i]:
            x = _cropped(x, self.crop_side(x.shape[-2]), self.crop_side(x.shape[-1]), draws.corner[i])
        if draws.jittered[i]:
            steps = (_brightened, _contrasted, _saturated, _hue_shifted)
            for step in draws.order[i].tolist():
                x = steps[step](x, float(draws.factors[i, step]))
        if draws.sharpened[i]:
            x = _sharpened(x, float(draws.sharpness[i]))
        if draws.autocontrasted[i]:
            x = _autocontrasted(x)
        if draws.greyed[i]:
            x = _grey(x).expand_as(x)
        if draws.blurred[i]:
            x = _blurred(x, self.blur, float(draws.sigma[i]))
        return x


@dataclass(frozen=True)
class ClipDraws:
    """What was drawn for B clips, on the CPU: they steer which operations run. See :meth:`ClipAugmentation.draw`.

    Attributes:
        cropped, jittered, sharpened, autocontrasted, greyed, blurred: (B,) bool.
        corner: (B, 2) place of the crop, down and right, in [0, 1) of where it may lie.
        order: (B, 4) order of brightness, contrast, saturation and hue.
        factors: (B, 4) what they get, in the order in which they are named here.
        sharpness, sigma: (B,).
    """

    cropped: Tensor
    corner: Tensor
    jittered: Tensor
    order: Tensor
    factors: Tensor
    sharpened: Tensor
    sharpness: Tensor
    autocontrasted: Tensor
    greyed: Tensor
    blurred: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        return len(self.cropped)

    @classmethod
    def stacked(cls, draws: list[dict[str, np.ndarray]]) -> ClipDraws:
        """Of several clips."""
        return cls(**{f.name: torch.from_numpy(np.stack([one[f.name] for one in draws])) for f in fields(cls)})


# -- operations, on clips (T, 3, H, W) in [0, 1] -----------------------------------------------------------------------


def _cropped(x: Tensor, height: int, width: int, corner: Tensor) -> Tensor:
    size = (x.shape[-2], x.shape[-1])
    top = int(corner[0] * (size[0] - height + 1))
    left = int(corner[1] * (size[1] - width + 1))
    x = x[..., top : top + height, left : left + width]
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def _grey(x: Tensor) -> Tensor:
    return (x * x.new_tensor(_GREY).view(3, 1, 1)).sum(-3, keepdim=True)


def _brightened(x: Tensor, factor: float) -> Tensor:
    return (x * factor).clamp(0, 1)


def _contrasted(x: Tensor, factor: float) -> Tensor:
    """Away from the frame's mean grey."""
    return torch.lerp(_grey(x).mean((-3, -2, -1), keepdim=True).expand_as(x), x, factor).clamp(0, 1)


def _saturated(x: Tensor, factor: float) -> Tensor:
    """Away from every pixel's grey."""
    return torch.lerp(_grey(x).expand_as(x), x, factor).clamp(0, 1)


def _hue_shifted(x: Tensor, turn: float) -> Tensor:
    """Hue by a part of a whole turn, through HSV."""
    value, low = x.amax(-3), x.amin(-3)
    spread = value - low
    safe = torch.where(spread > 0, spread, 1)
    r, g, b = x.unbind(-3)
    hue = torch.where(value == r, (g - b) / safe % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    hue = (hue / 6 + turn) % 1
    # A channel is `value` minus how far the hue is from its third of the circle, as a trapezoid.
    channels = [(offset + hue * 6) % 6 for offset in (5, 3, 1)]
    return torch.stack([value - spread * torch.minimum(c, 4 - c).clamp(0, 1) for c in channels], -3)


def _sharpened(x: Tensor, factor: float) -> Tensor:
    """Away from a 3x3 mean with a heavy centre; the outermost pixels stay."""
    kernel = x.new_tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(x, kernel.expand(3, 1, 3, 3), groups=3)
    return torch.lerp(smooth, x, factor).clamp(0, 1)


def _autocontrasted(x: Tensor) -> Tensor:
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-6), x).clamp(0, 1)


def _blurred(x: Tensor, side: int, sigma: float) -> Tensor:
    """Edges are mirrored."""
    at = torch.arange(side, dtype=x.dtype, device=x.device) - side // 2
    kernel = torch.exp(-0.5 * (at / sigma).square())
    kernel = kernel / kernel.sum()
    x = F.pad(x, [side // 2] * 4, mode="reflect")
    x = F.conv2d(x, kernel.view(1, 1, side, 1).expand(3, 1, side, 1), groups=3)
    return F.conv2d(x, kernel.view(1, 1, 1, side).expand(3, 1, 1, side), groups=3)
