"""Networks laid out for inference: every quicker way is taken, and the numbers are those of the plain one."""

import pytest
import torch

from tests.small_nets import context, nano
from uva_agents.model import (
    VAE,
    HeadConfig,
    SamplerConfig,
    Task,
    UVAConfig,
    UVANet,
    optimize_for_inference,
    sample_actions,
)
from uva_agents.model.cpu import winograd
from uva_agents.model.vae import VAEConfig


def test_a_network_laid_out_for_inference_gives_the_same_latent_and_gradients() -> None:
    torch.manual_seed(0)
    model = nano().eval()
    visibility, given = model.visibility(Task.POLICY, 2), context(model)

    def outcome() -> list[torch.Tensor]:
        with torch.no_grad():
            still = model.joint_latent(given, visibility)
        model.zero_grad()
        model.joint_latent(given, visibility).square().sum().backward()
        return [still, *(p.grad for p in model.encoder_blocks.parameters() if p.grad is not None)]

    stock = outcome()
    optimize_for_inference(model)
    for a, b in zip(stock, outcome(), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)


def test_attention_in_plain_operations_equals_the_fused_kernel() -> None:
    from uva_agents.model.layers import Attention

    torch.manual_seed(0)
    attention = Attention(dim=64, heads=4, attention_dropout=0.1, dropout=0.1).eval()
    x = torch.randn(2, 200, 64)  # too many tokens for the short way
    fused = attention(x)
    attention.fused = False
    torch.testing.assert_close(attention(x), fused, rtol=1e-5, atol=1e-6)


def test_network_laid_out_for_inferences_in_threads_do_not_share_their_memory() -> None:
    from concurrent.futures import ThreadPoolExecutor

    torch.manual_seed(0)
    model = nano().eval()
    optimize_for_inference(model)
    visibility = model.visibility(Task.POLICY, 2)
    given = [context(model) for _ in range(4)]

    def latents(which: int) -> list[torch.Tensor]:
        with torch.no_grad():
            return [model.joint_latent(given[which], visibility) for _ in range(10)]

    alone = [latents(which)[0] for which in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(latents, range(4)))
    for one, many in zip(alone, together, strict=True):
        for latent in many:
            torch.testing.assert_close(latent, one, rtol=1e-5, atol=1e-6)


def test_an_optimized_autoencoder_gives_the_same_latents_and_gradients() -> None:
    torch.manual_seed(0)
    vae = VAE(VAEConfig(channels=32, res_blocks=1, channel_mult=(1, 1, 2, 2, 4)))
    image = torch.randn(2, 3, 64, 64)

    def outcome() -> list[torch.Tensor]:
        vae.zero_grad()
        latents = vae.encode(image)
        latents.square().sum().backward()
        return [latents.detach(), vae.decode(latents.detach()), *(p.grad for p in vae.net.encoder.parameters())]

    stock = outcome()
    optimize_for_inference(vae)
    quick = outcome()
    optimize_for_inference(vae, False)
    again = outcome()
    for a, b, c in zip(stock, quick, again, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(c, a, rtol=0, atol=0)


@torch.no_grad()
def test_an_optimized_autoencoder_keeps_its_numbers_without_gradients_and_its_input_as_it_is() -> None:
    torch.manual_seed(0)
    vae = VAE(VAEConfig(channels=32, res_blocks=2, channel_mult=(1, 1, 2, 2, 4)))
    image = torch.randn(3, 3, 128, 128)
    latents = vae.encode(image)
    decoded = vae.decode(latents)
    optimize_for_inference(vae)
    kept, given = image.clone(), latents.clone()
    torch.testing.assert_close(vae.encode(image), latents, rtol=1e-4, atol=1e-4)
    # Two levels of 32 x 32 pixels and more, two blocks of two convolutions each; then three blocks, and what enlarges.
    assert sum(module in winograd._filters for module in vae.net.encoder.modules()) == 3 * 2 * 2
    torch.testing.assert_close(vae.decode(given), decoded, rtol=1e-4, atol=1e-4)
    assert sum(module in winograd._filters for module in vae.net.decoder.modules()) == 3 * 3 * 2 + 3
    assert torch.equal(image, kept)
    assert torch.equal(given, latents)
    single = torch.cat([vae.encode(one) for one in image.split(1)])
    torch.testing.assert_close(single, latents, rtol=1e-4, atol=1e-4)
    optimize_for_inference(vae, False)
    assert torch.equal(vae.encode(image), latents)


def test_an_optimized_autoencoder_can_be_checkpointed() -> None:
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(0)
    vae = VAE(VAEConfig(channels=32, res_blocks=2, channel_mult=(1, 1, 2, 2, 4)))
    optimize_for_inference(vae)
    block, x = vae.net.encoder.down_blocks[0], torch.randn(1, 32, 64, 64, requires_grad=True)
    (plain,) = torch.autograd.grad(block(x).square().sum(), x)
    again = torch.zeros_like(x, requires_grad=True)
    again.data.copy_(x)
    checkpoint(block, again, use_reentrant=True).square().sum().backward()
    torch.testing.assert_close(again.grad, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 16, 100])
@torch.no_grad()
def test_a_denoiser_gives_the_same_whichever_way_round_it_multiplies(rows: int) -> None:
    from uva_agents.model.layers import AdaLNBlock, AdaLNMLP

    torch.manual_seed(0)
    net = AdaLNMLP(in_channels=4, out_channels=8, cond_channels=32, width=512, depth=3)
    x, t, condition = torch.randn(rows, 4), torch.randint(1000, (rows,)), torch.randn(rows, 32)
    usual = net(x, t, condition)
    optimize_for_inference(net)
    torch.testing.assert_close(net(x, t, condition), usual, rtol=1e-5, atol=1e-5)
    block = next(module for module in net.modules() if isinstance(module, AdaLNBlock))
    columns_first = block.mlp[0](torch.randn(rows, 512)).stride() == (1, rows)
    assert columns_first == (rows == 16)


@torch.no_grad()
def test_a_network_laid_out_for_inference_takes_every_quicker_way_and_gives_the_same_actions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from uva_agents.model.layers import AdaLNBlock, Block

    torch.manual_seed(0)
    head = HeadConfig(width=512, depth=1, clip=1.0)
    model = UVANet(UVAConfig(width=64, heads=2, encoder_depth=2, decoder_depth=2, text_dim=8, action_head=head)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05)
    given, noise = context(model, batch=1), torch.randn(1, 16, 2)
    plain = sample_actions(model, given, sampler=SamplerConfig(action_steps=4), noise=noise)
    optimize_for_inference(model)
    monkeypatch.delattr(Block, "forward")  # sums go where they are
    for _ in range(2):
        again = sample_actions(model, given, sampler=SamplerConfig(action_steps=4), noise=noise)
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-4)
    aggregator = model.action_head.aggregate.conv[0]
    assert aggregator in winograd._filters
    layers = [m.mlp[i] for m in model.modules() if isinstance(m, AdaLNBlock) for i in (0, 2)]
    assert all("forward" in vars(layer) for layer in layers)
    optimize_for_inference(model, False)
    assert "forward" not in vars(aggregator)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_network_can_go_from_inference_mode_to_ordinary_calls() -> None:
    from concurrent.futures import ThreadPoolExecutor

    torch.manual_seed(0)
    model = nano().eval()
    optimize_for_inference(model)
    visibility, given = model.visibility(Task.POLICY, 2), context(model)

    def both() -> list[torch.Tensor]:
        with torch.inference_mode():
            first = model.joint_latent(given, visibility).clone()
        with torch.no_grad():
            return [first, model.joint_latent(given, visibility)]

    with ThreadPoolExecutor(1) as pool:  # a new thread has no memory yet, so that the first call makes it
        first, second = pool.submit(both).result()
    torch.testing.assert_close(second, first, rtol=0, atol=0)
