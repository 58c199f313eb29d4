"""What a network's tensors are before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from uva_agents.model.uva.heads import DiffusionHead

if TYPE_CHECKING:
    from uva_agents.model.uva.net import UVANet


def initialize(net: UVANet, *, standardized: bool) -> None:
    """Linear layers by Xavier's rule, and heads as the zero function.

    Args:
        standardized: actions, proprioception and keypoints enter at the scale of standardised frame tokens. Xavier's rule counts
            the many outputs of these layers and starts them several times smaller than the frames' features.
    """
    net.apply(_xavier)
    if net.guide is not None:
        net.guide.initialize()
    if standardized:
        numbers = [getattr(net, g.projection) for g in net.inputs if g.per_step]
        if net.guide is not None:
            numbers += [net.guide.history_proj, net.guide.future_proj]
        for layer in numbers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    for module in net.modules():
        if isinstance(module, DiffusionHead):
            for block in module.net.res_blocks:
                nn.init.zeros_(cast(nn.Linear, cast(nn.Sequential, block.adaLN_modulation)[-1]).weight)
            final = module.net.final_layer
            nn.init.zeros_(cast(nn.Linear, final.adaLN_modulation[-1]).weight)
            nn.init.zeros_(final.linear.weight)


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
