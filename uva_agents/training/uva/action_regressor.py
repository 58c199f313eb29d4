"""An autoencoder that keeps what decides on actions: a small network reads them off its latents while it is trained.

Reconstruction alone leaves out what is a few pixels large, be it all that a task is about. The released autoencoder is large and
has seen millions of pictures; a small one that is trained on a robot's own recordings has no such luck. The regressor is thrown
away.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.data import Batch, Episodes, LatentWindows, MixtureWindows
from uva_agents.errors import InputError
from uva_agents.training.uva.run import UVARun

_WIDTH = 512


@dataclass(frozen=True)
class FramesOfWindows:
    """The frames that actions are decided on, and those actions.

    Attributes:
        frames: uint8 (K, B, H, W, 3) of now, of each of K cameras.
        known: (B, D) what else is known: proprioception of now, and the instruction's vector.
        actions: (B, T, A), normalised.
        has_actions: bool (B,), false for samples of video without actions.
    """

    frames: np.ndarray
    known: Tensor
    actions: Tensor
    has_actions: Tensor


class ActionFrames:
    """Draws windows of a run's datasets, with the frames as they were recorded instead of their latents.

    Args:
        run: its data.
        held_out: windows of the episodes of the main dataset that are not trained on, instead of all that are.

    Raises:
        InputError: pictures are mirrored, and actions would have to be, too.
    """

    def __init__(self, run: UVARun, *, held_out: bool = False) -> None:
        if run.recipe.augmentation.mirror:
            raise InputError(
                f"recipe {run.recipe.name!r}: autoencoder.action_weight does not go with augmentation.mirror, which moves pictures "
                "and not what is read off them"
            )
        parts = [(run.main, run.checked if held_out else run.train, run.normalizer)]
        if not held_out:
            splits = [train for train, _ in run.more_splits]
            parts += [(p, train, run.normalizer_of(p)) for p, train in zip(run.others, splits, strict=True)]
        windows = []
        for number, (part, chosen, normalizer) in enumerate(parts):
            has_actions, data = part.has_actions, run.recipe.data
            windows.append(
                LatentWindows(
                    part.episodes,
                    [_numbered_rows(part.episodes, number)],
                    run.variants[:1],
                    normalizer,
                    run.window,
                    chosen=chosen,
                    proprio_key=data.proprio_key if has_actions else None,
                    world_size=None,
                    action_dim=run.recipe.model.action_dim,
                    extras=dataclasses.replace(run.extras(number, None), every_step=False, proprio_target=0),
                )
            )
        weights = [part.weight for part, _, _ in parts]
        self.windows: LatentWindows | MixtureWindows = (
            windows[0] if len(windows) == 1 else MixtureWindows(windows, weights)
        )
        cameras = ["pixels", *([run.recipe.data.wrist_key] if run.recipe.data.has_wrist else [])]
        # Video alone may lack the second camera: its own frames stand in, and teach no actions.
        self.cameras = [
            [part.episodes.arrays.get(name, part.episodes.arrays["pixels"]) for name in cameras] for part, _, _ in parts
        ]
        self.known = (run.recipe.model.proprio_dim if run.recipe.data.proprio_key else 0) + run.recipe.model.text_dim

    def draw(self, step: int, count: int, *, seed: int, rank: int = 0, world: int = 1) -> FramesOfWindows:
        """``count`` windows of a step of training, a pure function of the arguments."""
        return self.take(self.windows.order(count, seed=seed, rank=rank, world=world).at(step)[0])

    def take(self, numbers: np.ndarray) -> FramesOfWindows:
        """Windows by number (B,)."""
        batch = self.windows.batch(numbers, np.zeros(len(numbers), np.int64))
        rows = batch.history[:, -1, 0].numpy().astype(np.int64)
        # Kept datasets of several sizes were brought to one before.
        found = [[self.cameras[dataset][k][row] for row, dataset in rows] for k in range(len(self.cameras[0]))]
        known = batch.has_actions if batch.has_actions is not None else torch.ones(len(rows), dtype=torch.bool)
        return FramesOfWindows(np.asarray(found), self._known(batch), batch.actions, known)

    def _known(self, batch: Batch) -> Tensor:
        parts = [batch.actions.new_zeros(len(batch.actions), 0)]
        if batch.proprio is not None:
            parts.append(batch.proprio[:, -1])
        if batch.text is not None:
            parts.append(torch.where(batch.text.isnan(), torch.zeros(()), batch.text))
        found = torch.cat(parts, dim=1)
        missing = self.known - found.shape[1]  # nothing is known of video alone
        return torch.cat([found, found.new_zeros(len(found), missing)], dim=1)


def _numbered_rows(episodes: Episodes, dataset: int) -> np.ndarray:
    """(N, 1, 2) in place of latents: which row of which dataset."""
    rows = np.stack([np.arange(episodes.steps), np.full(episodes.steps, dataset)], axis=1)
    numbered: np.ndarray = rows[:, None].astype(np.float32)
    return numbered


class ActionRegressor(nn.Module):
    """Latents of all cameras, and what else is known, to actions.

    Args:
        latent: numbers in one picture's latents.
        cameras: how many pictures.
        known: numbers of what else is known.
        steps, action_dim: of a window's actions.
    """

    def __init__(self, latent: int, *, cameras: int, known: int, steps: int, action_dim: int) -> None:
        super().__init__()
        self.shape = steps, action_dim
        self.net = nn.Sequential(
            nn.Linear(cameras * latent + known, _WIDTH),
            nn.LayerNorm(_WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, steps * action_dim),
        )

    def forward(self, latents: Tensor, known: Tensor) -> Tensor:
        """(K, B, L) and (B, D) -> (B, T, A)."""
        read: Tensor = self.net(torch.cat([*latents, known], dim=1))
        return read.view(-1, *self.shape)

    def error(self, latents: Tensor, known: Tensor, actions: Tensor, has_actions: Tensor) -> Tensor:
        """Mean squared error, a scalar, of the samples that have actions."""
        weight = has_actions.to(latents.dtype)
        errors: Tensor = (self.forward(latents, known) - actions).square().flatten(1).mean(1)
        return (errors * weight).sum() / weight.sum().clamp(min=1.0)
