"""What goes into the network: frames as tokens, everything a sample conditions on, and what of it the task shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from uva_agents.model.uva.config import Task, UVAConfig


def patchify(latents: Tensor, patch_size: int) -> Tensor:
    """VAE latents (..., C, h, w) -> tokens (..., S, C * p^2), rows first."""
    *lead, c, h, w = latents.shape
    p = patch_size
    x = latents.reshape(*lead, c, h // p, p, w // p, p)
    n = len(lead)
    x = x.permute(*range(n), n + 1, n + 3, n, n + 2, n + 4)
    return x.reshape(*lead, (h // p) * (w // p), c * p * p)


def unpatchify(tokens: Tensor, patch_size: int) -> Tensor:
    """Inverse of :func:`patchify` for square maps."""
    *lead, s, cpp = tokens.shape
    p, g = patch_size, round(s**0.5)
    n = len(lead)
    x = tokens.reshape(*lead, g, g, cpp // p**2, p, p)
    x = x.permute(*range(n), n + 2, n, n + 3, n + 1, n + 4)
    return x.reshape(*lead, cpp // p**2, g * p, g * p)


@dataclass(frozen=True)
class Context:
    """Everything a sample conditions on. ``None`` is missing, and so is a row with NaN: the mask token stands in, where the
    network has one.

    Attributes:
        history: (B, T, S, C) frame tokens of the past, the last one being now.
        future: (B, T, S, C) frame tokens of the future; ignored where masked.
        actions: (B, action_steps, A), normalised.
        proprio: (B, proprio_steps, P), normalised.
        text: (B, text_dim).
        history_actions: (B, history_steps, A), normalised.
        wrist_history, wrist_future: (B, T, S, C).
        history_keypoints, future_keypoints: (B, T, 2 * num_keypoints) points read from the frames, in [-1, 1].
        moved_keypoints: (B, T, 2 * num_keypoints) where ``actions`` take them, if that has been computed already.
    """

    history: Tensor | None = None
    future: Tensor | None = None
    actions: Tensor | None = None
    proprio: Tensor | None = None
    text: Tensor | None = None
    history_actions: Tensor | None = None
    wrist_history: Tensor | None = None
    wrist_future: Tensor | None = None
    history_keypoints: Tensor | None = None
    future_keypoints: Tensor | None = None
    moved_keypoints: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B, the number of samples.

        Raises:
            ValueError: nothing is given that has one row per sample.
        """
        for value in (self.history, self.future, self.proprio, self.actions, self.text):
            if value is not None:
                return len(value)
        raise ValueError("empty Context: give at least history or future frames")

    def to(self, device: torch.device | str) -> Context:
        """On a device."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if v is not None})


@dataclass(frozen=True)
class Visibility:
    """What each sample of a batch shows the network, and what it is asked for. All tensors lead with (B,).

    Attributes:
        future_mask: (B, T, S) float, 1 where a future token is replaced by the mask token.
        history: (B,) bool, history frames (and proprioception, where it can be masked) are given.
        actions: (B,) bool, future actions are given.
        video_loss, action_loss: (B,) bool, what is predicted.
    """

    future_mask: Tensor
    history: Tensor
    actions: Tensor
    video_loss: Tensor
    action_loss: Tensor

    def to(self, device: torch.device | str) -> Visibility:
        """On a device."""
        return Visibility(**{k: v.to(device) for k, v in vars(self).items()})

    @classmethod
    def for_tasks(cls, tasks: list[Task], random_mask: Tensor) -> Visibility:
        """Visibility of per-sample tasks, given a random mask (B, T, S) for those that use one."""
        device = random_mask.device

        def flags(chosen: set[Task]) -> Tensor:
            return torch.tensor([task in chosen for task in tasks], device=device)

        hidden, shown = flags({Task.POLICY}), flags({Task.INVERSE})
        mask = random_mask.float()
        mask = torch.where(hidden[:, None, None], torch.ones_like(mask), mask)
        mask = torch.where(shown[:, None, None], torch.zeros_like(mask), mask)
        return cls(
            future_mask=mask,
            history=~shown,
            actions=flags({Task.FORWARD}),
            video_loss=flags({Task.VIDEO, Task.FORWARD, Task.POLICY_VIDEO}),
            action_loss=flags({Task.POLICY, Task.INVERSE, Task.POLICY_VIDEO}),
        )


@dataclass(frozen=True)
class InputGroup:
    """One of the inputs that are concatenated channel-wise at every position (paper Figure 2).

    Attributes:
        name: of :class:`Context`'s field: frame tokens (B, T, S, channels), or (B, K, channels) for what comes once per step.
        channels: numbers per token or step.
        projection: name of the network's linear layer for it.
        mask: name of the learned token that stands for what is missing; ``None`` where it must be given.
        shown_with: which part of a task's visibility hides it.
        per_step: whether it comes once per control step, and not once per token.
        required: what the error says where it must be given and is not.
    """

    name: str
    channels: int
    projection: str
    mask: str | None
    shown_with: Literal["future", "history", "actions", "always"]
    per_step: bool = False
    required: str = ""


def input_groups(config: UVAConfig) -> tuple[InputGroup, ...]:
    """The inputs of a network, in the order in which the released code concatenates them."""
    c, tokens = config, config.token_dim
    # One token stands for missing frames of the past and of the future.
    groups = [InputGroup("future", tokens, "future_proj", "frame_mask", "future")]
    if c.predict_wrist:
        groups.append(InputGroup("wrist_future", tokens, "wrist_future_proj", "wrist_mask", "future"))
    groups.append(InputGroup("history", tokens, "history_proj", "frame_mask", "history"))
    if c.history_actions:
        groups.append(
            InputGroup("history_actions", c.action_dim, "history_action_proj", "history_action_mask", "always", True)
        )
    groups.append(InputGroup("actions", c.action_dim, "action_proj", "action_mask", "actions", True))
    if c.wrist_image and c.wrist_maskable:
        groups.append(InputGroup("wrist_history", tokens, "wrist_history_proj", "wrist_history_mask", "history"))
    elif c.wrist_image:
        error = "this network sees a wrist camera: give wrist_history"
        groups.append(InputGroup("wrist_history", tokens, "wrist_history_proj", None, "always", required=error))
    if c.proprio_dim and c.proprio_maskable:
        groups.append(InputGroup("proprio", c.proprio_dim, "proprio_proj", "proprio_mask", "history", True))
    elif c.proprio_dim:
        error = "this network needs proprioception: give proprio"
        groups.append(InputGroup("proprio", c.proprio_dim, "proprio_proj", None, "always", True, required=error))
    return tuple(groups)
