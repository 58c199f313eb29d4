"""Networks laid out for inference on a CPU. The layers stay as they are written; single modules get another ``forward``.

Every replacement looks at its input first and does what the module does by itself wherever gradients are wanted, something is
being compiled, or the input is elsewhere than on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.model.cpu import autoencoder, winograd
from uva_agents.model.cpu.scratch import Scratch
from uva_agents.model.layers import AdaLNBlock, Attention, Block, Blocks, Mlp
from uva_agents.model.uva.heads import ConvFCAggregator
from uva_agents.model.vae import VAE

_LONG = 256
"""Up to this many tokens, the residual stream stays in a core's cache and passes over it cost nothing."""
_ROWS = range(12, 41)
_WEIGHTS = 512 * 512
"""With fewer or more rows, or a matrix that stays in a core's cache, the usual way round is as fast or faster."""

_scratch = Scratch()


def optimize_for_inference(model: nn.Module, on: bool = True) -> None:
    """Lay a network out for inference, or (``on=False``) have it go about everything in plain operations.

    Attention in one kernel; and without gradients on a CPU, activations and sums in memory that is kept, 3x3 convolutions with
    fewer products (:mod:`~uva_agents.model.cpu.winograd`), transposed products in denoisers. Off, attention is as in the released
    code where its dropout is off. The numbers are the same up to rounding.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.fused = on
        elif isinstance(module, ConvFCAggregator):
            winograd.install(module, on, images=module.frames)
        elif isinstance(module, AdaLNBlock):
            for layer in module.mlp:
                if isinstance(layer, nn.Linear):
                    _replace(layer, transposed_linear if on else None)
        elif isinstance(module, Mlp):
            _replace(module, _mlp if on else None)
        elif isinstance(module, Blocks):
            _replace(module, _blocks if on else None)
        elif isinstance(module, VAE) and module.config.kind == "kl-f16":
            autoencoder.install(module, on)


def plain_blocks(model: nn.Module) -> None:
    """Have transformer blocks called one by one again, for what replaces single blocks, as compilation does."""
    for module in model.modules():
        if isinstance(module, Blocks):
            _replace(module, None)


def _replace(module: nn.Module, forward: Callable[..., Tensor] | None) -> None:
    module.__dict__.pop("forward", None)
    if forward is not None:
        module.forward = partial(forward, module)


def _eager(x: Tensor) -> bool:
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling()) and x.device.type == "cpu"


def transposed_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)``, multiplied the other way round where that is faster: weights times rows as columns.

    A denoiser sees one row for every action of a chunk, 16 as released. So few rows through 1024 x 1024 took 0.6 of the time this
    way on two cores of a Sapphire Rapids.
    """
    if not _eager(x) or x.dim() != 2 or layer.bias is None or len(x) not in _ROWS or layer.weight.numel() < _WEIGHTS:
        return nn.Linear.forward(layer, x)
    return torch.addmm(layer.bias[:, None], layer.weight, x.t()).t()


def _hidden(mlp: Mlp, x: Tensor) -> Tensor:
    """The hidden layer (..., hidden), in memory that is valid until the thread's next call."""
    if not _eager(x) or x.dtype != mlp.fc1.weight.dtype:
        return F.gelu(mlp.fc1(x))
    rows = x.reshape(-1, x.shape[-1])
    hidden = _scratch.take("hidden", len(rows), mlp.fc1.out_features, dtype=x.dtype)
    torch.addmm(mlp.fc1.bias, rows, mlp.fc1.weight.t(), out=hidden)
    return cast(Tensor, torch.ops.aten.gelu_(hidden).view(*x.shape[:-1], -1))


def _mlp(mlp: Mlp, x: Tensor) -> Tensor:
    return cast(Tensor, mlp.drop(mlp.fc2(mlp.drop(_hidden(mlp, x)))))


def _blocks(blocks: Blocks, x: Tensor) -> Tensor:
    """Blocks that add to the residual stream in its own memory; x may be written over."""
    if not _eager(x) or blocks.training or torch.is_autocast_enabled("cpu") or x.shape[1] <= _LONG:
        return Blocks.forward(blocks, x)
    for module in blocks:
        block = cast(Block, module)
        _add_linear_(x, block.attn.proj, block.attn.attend(block.norm1(x)))
        _add_linear_(x, block.mlp.fc2, _hidden(block.mlp, block.norm2(x)))
    return x


def _add_linear_(x: Tensor, layer: nn.Linear, y: Tensor) -> None:
    """``x += layer(y)``, x contiguous: the product is added as it is computed, which saves passes over memory."""
    x.add_(layer.bias).view(-1, layer.out_features).addmm_(y.view(-1, layer.in_features), layer.weight.t())
