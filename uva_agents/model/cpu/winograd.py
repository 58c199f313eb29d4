"""3x3 convolutions on a CPU by minimal filtering, F(4x4, 3x3): Winograd's, as Lavin & Gray lay it out (arXiv 1509.09308).

A tile of 4 x 4 outputs costs 36 products per pair of channels where the definition has 144, and some additions before and after.
Numbers are those of the direct convolution up to rounding (about 1e-5 of the largest output in float32).

The image goes through in strips small enough for a core's cache: normalise and activate, cut into overlapping 6 x 6 tiles,
transform, multiply (a matrix product for each of the 36 places of a tile), transform back. Only the output meets the memory.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_agents.model.cpu.scratch import Scratch

_TILE = 4
"""Outputs of a tile along one axis; it reads two more."""

_POINTS = (_TILE + 2) ** 2

# The three transforms of section 4.3 of the paper, along one axis, with the interpolation points 0, 1, -1, 2, -2 and infinity.
_DATA: list[list[float]] = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_FILTER: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT: list[list[float]] = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def _both_axes(transform: list[list[float]]) -> Tensor:
    """For a tile's 36 numbers as one vector."""
    matrix = torch.tensor(transform, dtype=torch.float32, device="cpu")
    return torch.kron(matrix, matrix)


_DATA_2D = _both_axes(_DATA)
_OUTPUT_2D = _both_axes(_OUTPUT)

_FLAT = (_TILE + 2) + 1
"""The place of a tile (second row, second column) that comes out as the same number in all its outputs: where a bias goes."""

_STRIP = 16_384
"""Tiles times channels of a strip: 2.4 MB in each of three buffers, for two cores' caches."""

_TOGETHER = 64
"""Tiles that a strip has at least, where there are as many, if need be of several images: every strip reads all filters."""

_FEWEST_CHANNELS = 32
"""Below, the transforms cost more than the products that they save."""

_FEWEST_TILES = 64
"""Below, reading the transformed filters, four times the size of the filters, takes the time that is won, and their memory."""


@dataclass(frozen=True)
class _Filters:
    """Transformed filters (36, C, K), and what tells whether the weights are still those that they were made of."""

    places: Tensor
    version: int
    sample: Tensor

    def of(self, weight: Tensor) -> bool:
        # Fused optimisers, and whatever goes through ``.data``, leave the version as it was.
        return self.version == _version(weight) and torch.equal(self.sample, _sample(weight))


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def _sample(weight: Tensor) -> Tensor:
    return weight[::7, ::7]


_scratch = Scratch()
_filters: weakref.WeakKeyDictionary[nn.Conv2d, _Filters] = weakref.WeakKeyDictionary()


def handles(conv: nn.Conv2d, x: Tensor, *, images: int = 1) -> bool:
    """Whether :func:`convolve` can take x (B, C, H, W) here and now, and is worth it: a float32 CPU tensor, no gradients wanted.

    Args:
        images: how many always come together. The batch does not count, so that it does not decide which way an image goes.
    """
    if torch.is_grad_enabled() or x.requires_grad or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or conv.weight.dtype != torch.float32 or x.dim() != 4:
        return False
    plain = conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.padding_mode == "zeros"
    plain = plain and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    height, width = x.shape[-2:]
    whole = height % _TILE == 0 and width % _TILE == 0
    enough = images * height * width >= _FEWEST_TILES * _TILE**2 and min(conv.weight.shape[:2]) >= _FEWEST_CHANNELS
    return plain and whole and enough


def install(network: nn.Module, on: bool = True, *, images: int = 1) -> None:
    """Have every convolution of a network go this way where :func:`handles` says so, or (``on=False``) none."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__dict__.pop("forward", None)
            if on and module.kernel_size == (3, 3):
                module.forward = partial(_forward, module, images=images)  # type: ignore[method-assign]


def _forward(conv: nn.Conv2d, x: Tensor, *, images: int) -> Tensor:
    return convolve(conv, x) if handles(conv, x, images=images) else nn.Conv2d.forward(conv, x)


def convolve(
    conv: nn.Conv2d, x: Tensor, *, norm: nn.GroupNorm | None = None, out: Tensor | None = None, add: bool = False
) -> Tensor:
    """``conv(x)``, or ``conv(silu(norm(x)))``.

    Args:
        conv: what :func:`handles` said yes to.
        x: (B, C, H, W), best channels-last.
        norm: normalises and activates the input on its way in.
        out: where the output (B, K, H, W) goes; a fresh channels-last tensor when absent; not x itself.
        add: to what is in ``out``, instead of writing over it.
    """
    batch, _, height, width = x.shape
    filters = _transformed(conv)
    if out is None:
        shape = (batch, filters.shape[-1], height, width)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    together = max(1, _TOGETHER * _TILE**2 // (height * width))
    for images, to in zip(x.split(together), out.split(together), strict=True):
        affine = None if norm is None else _affine(norm, images)
        _images(images.permute(0, 2, 3, 1), affine, filters, conv.bias, to.permute(0, 2, 3, 1), add)
    return out


def _images(
    x: Tensor, affine: tuple[Tensor, Tensor] | None, filters: Tensor, bias: Tensor | None, out: Tensor, add: bool
) -> None:
    """Images (B, H, W, C) into ``out`` (B, H, W, K), strip by strip."""
    batch, height, width, channels = x.shape
    across, outputs = width // _TILE, filters.shape[-1]
    rows = _strip_rows(height // _TILE, batch * across, max(channels, outputs))
    tiles = batch * rows * across
    padded = _scratch.take("padded", batch, rows * _TILE + 2, width + 2, channels)
    padded[:, 0].zero_()
    padded[:, :, :: width + 1].zero_()
    image, row, column = padded.stride()[:3]
    overlapping = padded.as_strided(
        (_TILE + 2, _TILE + 2, batch, rows, across, channels), (row, column, image, _TILE * row, _TILE * column, 1)
    )
    data = _scratch.take("data", _POINTS, tiles * channels)
    places = _scratch.take("places", _POINTS, tiles, channels)
    products = _scratch.take("products", _POINTS, tiles, outputs)
    finished = _scratch.take("finished", _TILE**2, tiles * outputs)
    by_place = finished.view(_TILE, _TILE, batch, rows, across, outputs).permute(2, 3, 0, 4, 1, 5)
    for top in range(0, height, rows * _TILE):
        first, last = max(top - 1, 0), min(top + rows * _TILE + 1, height)
        start, stop = first - top + 1, last - top + 1
        inside = padded[:, start:stop, 1:-1]
        if affine is None:
            inside.copy_(x[:, first:last])
        else:
            torch.addcmul(affine[1], x[:, first:last], affine[0], out=inside)
            F.silu(padded[:, start:stop], inplace=True)  # leaves the zeros around it zero, and is faster on a whole
        padded[:, stop:].zero_()
        data.view(overlapping.shape).copy_(overlapping)
        torch.mm(_DATA_2D, data, out=places.view(_POINTS, -1))
        torch.bmm(places, filters, out=products)
        if bias is not None:
            products[_FLAT] += bias
        torch.mm(_OUTPUT_2D, products.view(_POINTS, -1), out=finished)
        to = out[:, top : top + rows * _TILE].view(batch, rows, _TILE, across, _TILE, outputs)
        _ = to.add_(by_place) if add else to.copy_(by_place)


def _strip_rows(rows: int, across: int, channels: int) -> int:
    """How many of an image's rows of tiles go together, a divisor of them; a row has ``across`` tiles."""
    most = max(_STRIP // channels, _TOGETHER)
    return max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * across <= most))


def _affine(norm: nn.GroupNorm, images: Tensor) -> tuple[Tensor, Tensor]:
    """Group normalisation of images (B, C, H, W) as a factor and an offset (B, 1, 1, C)."""
    # Two passes over the memory, by channel; a normalisation of its own would write it, too.
    moments = [torch.batch_norm_update_stats(image, None, None, 0.0) for image in images.split(1)]
    means, variances = (torch.stack(part).view(len(images), norm.num_groups, -1) for part in zip(*moments, strict=True))
    mean = means.mean(-1, keepdim=True)
    variance = (variances + (means - mean).square()).mean(-1, keepdim=True)
    factor = norm.weight.view_as(means[0]) * torch.rsqrt(variance + norm.eps)
    offset = norm.bias.view_as(means[0]) - mean * factor
    return factor.view(len(images), 1, 1, -1), offset.view(len(images), 1, 1, -1)


def _transformed(conv: nn.Conv2d) -> Tensor:
    """The filters in the 36 places, (36, C, K), made once for every state of the weights and kept as long as the layer is."""
    weight = conv.weight
    found = _filters.get(conv)
    if found is None or not found.of(weight):
        with torch.inference_mode(False), torch.no_grad():
            outputs, channels = weight.shape[:2]
            by_position = weight.permute(2, 3, 1, 0).reshape(9, -1)
            places = torch.mm(_both_axes(_FILTER), by_position).view(_POINTS, channels, outputs)
            found = _filters[conv] = _Filters(places, _version(weight), _sample(weight).clone())
    return found.places
