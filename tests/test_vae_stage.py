"""What the autoencoder's loss counts."""

from __future__ import annotations

import torch
from torch import Tensor

from uva_agents.model import VAE
from uva_agents.model.vae import Posterior, nano_vae_config
from uva_agents.training.uva.vae_stage import VAEModule


class Blank(VAE):
    """Rebuilds every picture as grey, but for what it is told to add."""

    def __init__(self) -> None:
        super().__init__(nano_vae_config())
        self.added = torch.zeros(1, 3, 8, 8, requires_grad=True)

    def posterior(self, images: Tensor) -> Posterior:
        return Posterior(torch.zeros(len(images), 16, 1, 1), torch.zeros(len(images), 16, 1, 1))

    def decode(self, latents: Tensor) -> Tensor:
        return self.added.expand(len(latents), -1, -1, -1)


def gradient(focus: float) -> Tensor:
    images = torch.full((2, 3, 8, 8), 0.05)
    images[:, :, 3, 4] = 1.0  # a small thing in a large picture
    vae = Blank()
    loss, parts = VAEModule(vae, 0.01, focus)(images)
    torch.testing.assert_close(parts["error"], images[0].square().sum(), msg="what is reported is not weighted")
    loss.backward()
    assert vae.added.grad is not None
    return vae.added.grad[0, 0].abs()


def test_a_pixel_that_is_far_off_counts_more_with_a_focus() -> None:
    plain, focussed = gradient(0.0), gradient(1.0)
    assert plain[3, 4] / plain[0, 0] < 20.5, "squares alone: as many times as it is farther off"
    assert focussed[3, 4] / focussed[0, 0] > 15 * plain[3, 4] / plain[0, 0]
    assert focussed[0, 0] < plain[0, 0], "the others count less, so that the whole does not grow with the weights"
