"""UVA weights in memory: networks, normaliser and interface."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.checkpoints.text import InstructionTable, TextEncoder
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.model import VAE, UVANet


@dataclass(frozen=True)
class Bundle:
    """Everything that inference needs, and that all three agents share."""

    model: UVANet
    vae: VAE
    normalizer: LinearNormalizer
    spec: InterfaceSpec
    name: str = "uva"
    text: TextEncoder | InstructionTable | None = None

    @property
    def device(self) -> torch.device:
        """The networks' device."""
        return self.model.frame_mask.device

    def to(self, device: torch.device | str) -> Bundle:
        """Moves the modules in place."""
        self.model.to(device)
        self.vae.to(device)
        if self.text is not None:
            self.text.to(device)
        return self
