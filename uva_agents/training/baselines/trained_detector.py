"""A keypoint detector that another run has trained becomes Diffusion Policy's encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from uva_agents.checkpoints.tensor_files import load_tensors
from uva_agents.data import LinearNormalizer
from uva_agents.errors import InputError
from uva_agents.model import DiffusionPolicyNet


def take_encoder(net: DiffusionPolicyNet, path: Path) -> None:
    """Take the encoder from a convolutional keypoint detector.

    Raises:
        InputError: it is another network.
    """
    tensors = load_tensors(path)
    if not net.config.encoder.positions:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("head.")}
    own = net.encoder.state_dict()
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in own.items()}:
        raise InputError(f"{path} is not a convolutional keypoint detector of the size of this policy's encoder")
    net.encoder.load_state_dict(tensors)


def rescale_positions(
    net: DiffusionPolicyNet,
    limits: tuple[tuple[float, float], tuple[float, float]],
    normalizer: LinearNormalizer,
    key: str,
) -> None:
    """Positions that were normalised by ``limits`` become normalised as ``key`` is, in the encoder's last layer."""
    low, high = (normalizer.normalize(key, torch.tensor(x)) for x in limits)
    scale, middle = (high - low) / 2, (high + low) / 2
    last = net.encoder.head[-1]
    assert isinstance(last, nn.Linear)
    count = len(last.bias) // 2
    with torch.no_grad():
        last.weight.mul_(scale.repeat(count)[:, None])
        last.bias.mul_(scale.repeat(count)).add_(middle.repeat(count))
