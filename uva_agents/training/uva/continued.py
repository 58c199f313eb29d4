"""What a run takes from the weights that it goes on from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import nn

from uva_agents.model.uva.guides import guide_for

if TYPE_CHECKING:
    from uva_agents.training.uva.run import UVARun


def comes_with(run: UVARun, part: str) -> bool:
    """Whether the weights that the run goes on from have a keypoint network of the size that is needed.

    Args:
        part: ``detector``, ``dynamics`` or ``renderer``.
    """
    if run.origin is None or run.origin.model.guide is None:
        return False
    config = dataclasses.replace(run.recipe.model, vae=run.origin.vae.config)
    own, theirs = (_shapes(getattr(guide, part, None)) for guide in (guide_for(config), run.origin.model.guide))
    return own is not None and own == theirs


def _shapes(module: nn.Module | None) -> dict[str, torch.Size] | None:
    return None if module is None else {name: value.shape for name, value in module.state_dict().items()}
