"""Building blocks: pre-norm transformer block and the adaLN MLP of the diffusion heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Attention(nn.Module):
    """Multi-head self-attention with one fused query/key/value projection; (B, N, D) -> (B, N, D)."""

    def __init__(self, *, dim: int, heads: int, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)
        self.fused = True

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return cast(Tensor, self.proj_drop(self.proj(self.attend(x))))

    def attend(self, x: Tensor) -> Tensor:
        """What the output projection gets, (B, N, D)."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        # Dropout only while training: a fused kernel applies whatever probability it is handed.
        p = self.attention_dropout if self.training else 0.0
        if p == 0.0 and (not self.fused or (n <= _SHORT and x.device.type == "cpu")):
            y = _plain_attention(q, k, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p)
        return y.transpose(1, 2).reshape(b, n, d)


_SHORT = 64
"""Up to this many tokens, three plain operations beat the fused CPU kernel, whose blocks they do not fill."""


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, heads, N, head_dim) each."""
    shape = q.shape
    q, k, v = (x.reshape(-1, *shape[2:]) for x in (q, k, v))
    weights = torch.bmm(q * shape[-1] ** -0.5, k.transpose(1, 2)).softmax(-1)
    return torch.bmm(weights, v).view(shape)


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, *, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return cast(Tensor, self.drop(self.fc2(self.drop(F.gelu(self.fc1(x))))))


class Block(nn.Module):
    """Pre-norm transformer block; (B, N, D) -> (B, N, D)."""

    def __init__(self, *, dim: int, heads: int, mlp_ratio: float, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim=dim, heads=heads, attention_dropout=attention_dropout, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim=dim, hidden=int(dim * mlp_ratio), dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class Blocks(nn.ModuleList):
    """Transformer blocks one after the other; (B, N, D) -> (B, N, D).

    Attributes:
        checkpointing: in training, compute activations again in the backward pass instead of keeping them.
    """

    checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        again = self.checkpointing and self.training
        for block in self:
            x = cast(Tensor, checkpoint(block, x, use_reentrant=False)) if again else block(x)
        return x


class TimestepEmbedder(nn.Module):
    """Sinusoidal embedding (cosines first) and a two-layer MLP; (N,) -> (N, width)."""

    def __init__(self, *, width: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def sinusoid(self, t: Tensor) -> Tensor:
        """(N,) -> (N, frequencies)."""
        half = self.frequencies // 2
        rates = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        angles = t.float()[:, None] * rates[None]
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        """Times (N,) in [0, 1000) -> (N, width)."""
        weight = cast(nn.Linear, self.mlp[0]).weight
        return cast(Tensor, self.mlp(self.sinusoid(t).to(weight.dtype)))


class AdaLNBlock(nn.Module):
    """Residual MLP whose normalisation is shifted, scaled and gated; (N, W), modulation (N, 3W) -> (N, W)."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(N, W), modulation (N, 3W), as shift, scale and gate -> (N, W)."""
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return cast(Tensor, x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift))


class FinalLayer(nn.Module):
    """Modulated normalisation and the output projection; (N, W), modulation (N, 2W) -> (N, out_channels)."""

    def __init__(self, *, width: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(N, W), modulation (N, 2W), as shift and scale -> (N, out_channels)."""
        shift, scale = modulation.chunk(2, dim=-1)
        return cast(Tensor, self.linear(self.norm_final(x) * (1 + scale) + shift))


class AdaLNMLP(nn.Module):
    """The denoising network of a head: noisy vector, time and condition in; prediction out.

    Shapes: x (N, in_channels), t (N,) in [0, 1000), condition (N, cond_channels) -> (N, out_channels).
    """

    def __init__(self, *, in_channels: int, out_channels: int, cond_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.time_embed = TimestepEmbedder(width=width)
        self.cond_embed = nn.Linear(cond_channels, width)
        self.input_proj = nn.Linear(in_channels, width)
        self.res_blocks = nn.ModuleList([AdaLNBlock(width=width) for _ in range(depth)])
        self.final_layer = FinalLayer(width=width, out_channels=out_channels)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(N, in_channels), times (N,), conditions (N, cond_channels) -> prediction (N, out_channels)."""
        return self.denoise(x, self._modulations(self.time_embed(t) + self.cond_embed(condition)))

    def denoise(self, x: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        """:meth:`forward` with what depends on time and condition already computed."""
        x = self.input_proj(x)
        for block, modulation in zip(self.res_blocks, modulations[:-1], strict=True):
            x = block(x, modulation)
        return cast(Tensor, self.final_layer(x, modulations[-1]))

    def modulations(self, timesteps: Tensor, condition: Tensor) -> list[list[Tensor]]:
        """What each of a sampler's steps (K,) will need for the condition (N, C), for :meth:`denoise`.

        They do not depend on the sample, so they are computed together: most of a head's weights are then read once instead of
        once per step, which for a few rows is most of the time.
        """
        y = self.time_embed(timesteps)[:, None] + self.cond_embed(condition)[None]
        parts = [part.unbind(0) for part in self._modulations(y)]
        return [list(step) for step in zip(*parts, strict=True)]

    def _modulations(self, y: Tensor) -> list[Tensor]:
        """Of every block and the final layer, from the embedded time and condition (..., W)."""
        y = F.silu(y)
        modules = [*self.res_blocks, self.final_layer]
        return [cast(nn.Sequential, module.adaLN_modulation)[1](y) for module in modules]
