"""What keypoints add to the network: where things are in the frames it sees, where given actions take them, and the current
frame redrawn there, to which the video head adds what is missing.

The network takes a guide or none. A guide adds to the embeddings of history and future, and renders a prior of the future frames.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from uva_agents.model.keypoints.detector import ConvDetector, PooledDetector
from uva_agents.model.keypoints.dynamics import ChunkDynamics
from uva_agents.model.keypoints.recurrent_dynamics import RecurrentDynamics
from uva_agents.model.keypoints.renderer import KeypointRenderer
from uva_agents.model.uva.config import UVAConfig
from uva_agents.model.uva.inputs import Context, Visibility


class KeypointGuide(nn.Module):
    """Keypoints of a scene as a guide of the joint network. K keypoints, T frames, S tokens per frame, C channels, D width.

    Args:
        config: of the network; ``num_keypoints`` is K. With ``rendered_prior`` the guide also moves and renders keypoints.
    """

    def __init__(self, config: UVAConfig) -> None:
        super().__init__()
        self.config = c = config
        coordinates = 2 * c.num_keypoints
        self.detector: PooledDetector | ConvDetector = (
            ConvDetector(keypoints=c.num_keypoints)
            if c.keypoint_detector == "conv"
            else PooledDetector(image_size=c.image_size, keypoints=c.num_keypoints)
        )
        self.history_proj = nn.Linear(coordinates, c.width)
        self.future_proj = nn.Linear(coordinates, c.width)
        if c.rendered_prior:
            dynamics = RecurrentDynamics if c.keypoint_dynamics == "steps" else ChunkDynamics
            self.dynamics: RecurrentDynamics | ChunkDynamics = dynamics(
                keypoints=c.num_keypoints, frames=c.n_frames, steps=c.action_steps, action_dim=c.action_dim
            )
            self.renderer = KeypointRenderer(
                keypoints=c.num_keypoints, grid=c.grid, channels=c.token_dim, axes=c.keypoint_axes
            )
            self.prior_proj = nn.Linear(c.token_dim, c.width)

    @property
    def renders(self) -> bool:
        """Whether it draws frames from actions."""
        return self.config.rendered_prior

    def initialize(self) -> None:
        """Begin as the identity where nothing was learned: keypoints go where actions say."""
        if self.renders and isinstance(self.dynamics, RecurrentDynamics):
            self.dynamics.initialize()

    # -- hooks of the network ----------------------------------------------------------------------------------------

    def embed(self, groups: dict[str, Tensor], context: Context, visibility: Visibility) -> None:
        """Add keypoints to the embeddings of ``"future"`` and ``"history"``, each (B, T, S, D), or (1, 1, 1, D) where missing."""
        if context.future_keypoints is not None:
            # Only of frames that are shown whole: a masked frame must not leak where things are in it.
            whole = (visibility.future_mask[..., None].sum(2, keepdim=True) == 0).float()
            groups["future"] = groups["future"] + whole * self.future_proj(context.future_keypoints)[:, :, None]
        if self.renders and context.actions is not None and context.history_keypoints is not None:
            # Where the actions are given, what they do to the keypoints is given too.
            given = visibility.actions[:, None, None, None]
            groups["future"] = groups["future"] + given * self.future_proj(self._moved_input(context))[:, :, None]
        if context.history_keypoints is not None:
            shown = visibility.history[:, None, None, None].float()
            groups["history"] = groups["history"] + shown * self.history_proj(context.history_keypoints)[:, :, None]

    def condition(self, z: Tensor, prior: Tensor) -> Tensor:
        """Condition of the video head, (B, T * S, D), whose samples are added to the rendered prior (B, T, S, C)."""
        return cast(Tensor, z + self.prior_proj(prior).flatten(1, 2))

    # -- moving and rendering ----------------------------------------------------------------------------------------

    def moved(self, context: Context, actions: Tensor) -> Tensor:
        """Where actions (B, action_steps, A), normalised, take the history's keypoints: (B, T, 2K).

        Computed once per chunk: a context :meth:`with_moved` keypoints has them already.
        """
        if context.moved_keypoints is not None and actions is context.actions:
            return context.moved_keypoints
        if context.history_keypoints is None:
            raise ValueError("this network moves the keypoints of its history: give history_keypoints")
        return cast(Tensor, self.dynamics(self._measured(context.history_keypoints, context.proprio), actions))

    def with_moved(self, context: Context, actions: Tensor) -> Context:
        """The context with its actions and where they take the keypoints, so that nobody computes that again."""
        return replace(context, actions=actions, moved_keypoints=self.moved(context, actions))

    def render(self, context: Context, actions: Tensor, scale: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The current frame with its keypoints where the actions take them: tokens (B, T, S, C).

        Args:
            context: with the history and its keypoints.
            actions: (B, action_steps, A), normalised.
            scale: mean and deviation of standardised tokens, each (S, C).
        """
        if context.history is None or context.history_keypoints is None:
            raise ValueError("this network draws frames from the current one: give history and history_keypoints")
        frames = self.config.n_frames
        seen = self._measured(context.history_keypoints, context.proprio)
        moved = self.moved(context, actions)
        keypoints = seen[:, -1:].expand(-1, frames, -1)
        now = context.history[:, -1:].expand(-1, frames, -1, -1)
        if scale is None:
            return cast(Tensor, self.renderer(now, keypoints, moved))
        mean, std = scale
        return cast(Tensor, (self.renderer(now * std + mean, keypoints, moved) - mean) / std)

    def _moved_input(self, context: Context) -> Tensor:
        """Moved keypoints as the transformer is told of them.

        Weights with ``keypoint_input="detected"`` were trained on what dynamics make of detected keypoints alone, though their
        frames are rendered from measured ones; the two differ where proprioception measures a keypoint.
        """
        assert context.history_keypoints is not None and context.actions is not None
        same = self.config.keypoint_input == "measured" or not self.config.proprio_keypoints or context.proprio is None
        if same:
            return self.moved(context, context.actions)
        return cast(Tensor, self.dynamics(context.history_keypoints, context.actions))

    def _measured(self, keypoints: Tensor, proprio: Tensor | None) -> Tensor:
        """History keypoints (B, T, 2K), with those that proprioception measures taken from there where it is known."""
        size = 2 * self.config.proprio_keypoints
        if not size or proprio is None:
            return keypoints
        measured = proprio[..., :size]
        known = torch.where(torch.isfinite(measured), measured, keypoints[..., :size])
        return torch.cat([known, keypoints[..., size:]], dim=-1)
