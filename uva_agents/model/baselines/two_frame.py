"""Two consecutive frames to the action between them: the inverse dynamics that UniPi uses (a ResNet on a pair of frames)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from uva_agents.model.defaults import in_float32
from uva_agents.model.vision.encoder import EncoderConfig, ImageEncoder


@dataclass(frozen=True)
class TwoFrameConfig:
    """Everything that determines the tensors of a :class:`TwoFrameNet`.

    Args:
        encoder: of two frames stacked along the channels.
        width: of the hidden layer behind it.
        action_dim: numbers per action.
        stride: control steps from one frame to the other, and actions between them. 1 sees every frame of a video; 4 those that
            a UVA network sees.
    """

    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(frames=2, full_coordinates=True, features=256))
    width: int = 256
    action_dim: int = 2
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"stride={self.stride}: at least one control step from frame to frame")
        if self.encoder.frames != 2:
            raise ValueError(f"the encoder takes two frames, got {self.encoder.frames}")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TwoFrameConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: unknown or ill-typed fields.
        """
        try:
            return cls(**{**values, "encoder": EncoderConfig(**values["encoder"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"bad TwoFrameConfig ({error}): the file was written by another version") from error


class TwoFrameNet(nn.Module):
    """A residual network on both frames at once, then two linear layers.

    The paper says no more than "a ResNet". UniPi's ends in an average over the image (``EncoderConfig(keypoints=0)``); keypoints
    in whole-image coordinates keep the positions that an absolute action depends on, and are the stronger form of the baseline.
    """

    @in_float32
    def __init__(self, config: TwoFrameConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config.encoder)
        self.head = nn.Sequential(
            nn.Linear(config.encoder.features, config.width),
            nn.ReLU(),
            nn.Linear(config.width, config.stride * config.action_dim),
        )

    def forward(self, frames: Tensor, corner: Tensor | None = None) -> Tensor:
        """Normalised actions (B, stride, A).

        Args:
            frames: uint8 (B, 2, H, W, 3), ``stride`` control steps apart; whole images or crops.
            corner: (B, 2) of the crops, the same for both frames.
        """
        stacked = frames.permute(0, 2, 3, 1, 4).flatten(3)
        actions = self.head(self.encoder(stacked, corner))
        return cast(Tensor, actions.unflatten(1, (self.config.stride, self.config.action_dim)))
