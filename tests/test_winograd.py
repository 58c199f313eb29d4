"""Convolutions with fewer products: the numbers of the direct ones, and the direct ones wherever they do not apply."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from uva_agents.model.cpu import winograd


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def assert_rounding_apart(quick: torch.Tensor, expected: torch.Tensor) -> None:
    """Within float32 rounding of what double precision gives, relative to the largest number."""
    assert quick.shape == expected.shape
    assert (quick - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "height", "width"),
    [
        (1, 32, 32, 32, 32),
        (4, 32, 32, 16, 16),
        (2, 64, 32, 32, 64),
        (1, 128, 128, 128, 128),
        (9, 40, 96, 20, 16),
        (3, 48, 64, 60, 80),
    ],
)
@torch.no_grad()
def test_a_convolution_is_the_direct_one_up_to_rounding(
    batch: int, channels: int, outputs: int, height: int, width: int
) -> None:
    conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=batch != 2)
    x = torch.randn(batch, channels, height, width)
    if batch == 1:
        x = x.to(memory_format=torch.channels_last)
    assert winograd.handles(conv, x, images=batch)
    expected = F.conv2d(x.double(), conv.weight.double(), None if conv.bias is None else conv.bias.double(), padding=1)
    assert_rounding_apart(winograd.convolve(conv, x), expected)


@pytest.mark.parametrize("size", [16, 64])
@torch.no_grad()
def test_normalising_on_the_way_in_and_adding_on_the_way_out_are_those_of_separate_layers(size: int) -> None:
    norm, conv = nn.GroupNorm(8, 64, eps=1e-6), nn.Conv2d(64, 32, 3, padding=1)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, sums = 3 + 2 * torch.randn(5, 64, size, size), torch.randn(5, 32, size, size)
    before = x.clone()
    expected = sums.double() + conv.double()(F.silu(norm.double()(x.double())))
    conv.float(), norm.float()
    out = winograd.convolve(conv, x, norm=norm, out=sums, add=True)
    assert out is sums
    assert torch.equal(x, before)
    assert_rounding_apart(out, expected)


@torch.no_grad()
def test_changed_weights_are_seen() -> None:
    conv, x = nn.Conv2d(32, 32, 3, padding=1), torch.randn(1, 32, 32, 32)
    before = winograd.convolve(conv, x)
    conv.weight.mul_(2)
    assert_rounding_apart(winograd.convolve(conv, x), conv(x))
    conv.load_state_dict(nn.Conv2d(32, 32, 3, padding=1).state_dict())
    assert_rounding_apart(winograd.convolve(conv, x), conv(x))
    replaced = conv.weight  # alive beside the new one
    conv.weight = nn.Parameter(torch.randn_like(replaced))
    assert_rounding_apart(winograd.convolve(conv, x), conv(x))
    assert not torch.allclose(winograd.convolve(conv, x), before)


@pytest.mark.parametrize("how", ["fused optimiser", "data", "inference tensors"])
def test_weights_that_change_without_a_new_version_are_seen(how: str) -> None:
    conv, x = nn.Conv2d(32, 32, 3, padding=1), torch.randn(1, 32, 32, 32)
    with torch.inference_mode(how == "inference tensors"):
        weight = torch.randn_like(conv.weight)
    conv.weight = nn.Parameter(weight, requires_grad=how == "fused optimiser")
    with torch.no_grad():
        before = winograd.convolve(conv, x)
    if how == "fused optimiser":
        conv.weight.grad = torch.randn_like(conv.weight)
        torch.optim.AdamW([conv.weight], lr=1e-2, fused=True).step()
    elif how == "data":
        conv.weight.data.mul_(2)
    else:
        with torch.inference_mode():
            conv.weight.mul_(2)
    with torch.no_grad():
        after = winograd.convolve(conv, x)
        assert not torch.equal(after, before)
        assert_rounding_apart(after, conv(x))


def test_autocast_goes_the_direct_way_and_leaves_nothing_behind() -> None:
    conv, x = nn.Conv2d(32, 32, 3, padding=1), torch.randn(1, 32, 32, 32)
    with torch.no_grad():
        expected = conv(x)
        winograd.install(conv)
        with torch.autocast("cpu", torch.bfloat16):
            assert conv(x).dtype == torch.bfloat16
        assert_rounding_apart(conv(x), expected)
        assert torch.equal(conv(x[0, :, :30]), nn.Conv2d.forward(conv, x[0, :, :30]))  # an image without a batch


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv2d(32, 32, 3, padding=1, stride=2), (1, 32, 32, 32)),
        (nn.Conv2d(32, 32, 3), (1, 32, 32, 32)),
        (nn.Conv2d(32, 32, 3, padding=2, dilation=2), (1, 32, 32, 32)),
        (nn.Conv2d(32, 32, 3, padding=1, groups=2), (1, 32, 32, 32)),
        (nn.Conv2d(32, 32, 3, padding="same"), (1, 32, 32, 32)),
        (nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"), (1, 32, 32, 32)),
        (nn.Conv2d(32, 32, 1), (1, 32, 32, 32)),
        (nn.Conv2d(3, 32, 3, padding=1), (1, 3, 32, 32)),
        (nn.Conv2d(32, 32, 3, padding=1), (1, 32, 34, 32)),
        (nn.Conv2d(32, 32, 3, padding=1), (1, 32, 16, 16)),
        (nn.Conv2d(32, 32, 3, padding=1).double(), (1, 32, 32, 32)),
    ],
)
@torch.no_grad()
def test_what_it_does_not_handle_goes_the_direct_way(conv: nn.Conv2d, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=conv.weight.dtype)
    expected = conv(x)
    assert not winograd.handles(conv, x)
    winograd.install(conv)
    assert torch.equal(conv(x), expected)


def test_an_installed_network_still_trains_and_can_be_put_back() -> None:
    network = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1))
    x = torch.randn(1, 32, 32, 32)
    network(x).square().sum().backward()
    expected = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    with torch.no_grad():
        direct = network(x)
    network.zero_grad()
    winograd.install(network)
    network(x).square().sum().backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)
    with torch.no_grad():
        quick = network(x)
        winograd.install(network, False)
        again = network(x)
    assert not torch.equal(quick, direct)
    assert_rounding_apart(quick, direct)
    assert torch.equal(again, direct)


def test_inference_mode_and_no_grad_can_follow_each_other() -> None:
    conv, x = nn.Conv2d(32, 32, 3, padding=1), torch.randn(1, 32, 32, 32)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            first = winograd.convolve(conv, x)
        with torch.no_grad():
            return first, winograd.convolve(conv, x)

    with ThreadPoolExecutor(1) as pool:  # a new thread has no memory yet, so that the first call makes it
        assert torch.equal(*pool.submit(both).result())


def test_threads_do_not_share_memory() -> None:
    convs = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(4)]
    x = torch.randn(1, 32, 64, 64)

    @torch.no_grad()  # counts for one thread
    def repeated(conv: nn.Conv2d, times: int = 20) -> list[torch.Tensor]:
        return [winograd.convolve(conv, x) for _ in range(times)]

    alone = [repeated(conv, times=1)[0] for conv in convs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(repeated, convs))
    for one, many in zip(alone, together, strict=True):
        for again in many:
            assert_rounding_apart(again, one)


@torch.no_grad()
def test_transformed_filters_go_with_their_layer() -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    winograd.convolve(conv, torch.randn(1, 32, 32, 32))
    layer, filters = weakref.ref(conv), weakref.ref(winograd._filters[conv])
    del conv
    gc.collect()
    assert layer() is None
    assert filters() is None
