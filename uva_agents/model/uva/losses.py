"""The joint training objective (paper section IV-C): masked video loss plus action loss, per-sample tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from uva_agents.model.uva.heads import ActionHead, DiffusionHead
from uva_agents.model.uva.inputs import Context, Visibility
from uva_agents.model.uva.net import UVANet


@dataclass(frozen=True)
class Draws:
    """Fixed timesteps and noise for one head, instead of fresh draws; rows cover the whole batch."""

    t: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Jitter:
    """Noise on what the network sees in training; targets stay clean.

    Args:
        tokens: standard deviation on frame tokens.
        keypoints: standard deviation on the frames' keypoints.
    """

    tokens: float = 0.0
    keypoints: float = 0.0

    def applied(self, context: Context) -> Context:
        """The context with noise on it."""
        noise = {
            "history": self.tokens,
            "future": self.tokens,
            "wrist_history": self.tokens,
            "wrist_future": self.tokens,
        }
        noise |= {"history_keypoints": self.keypoints, "future_keypoints": self.keypoints}
        values: dict[str, Tensor] = {k: getattr(context, k) for k in noise if getattr(context, k) is not None}
        return replace(context, **{k: v + noise[k] * torch.randn_like(v) for k, v in values.items() if noise[k]})


@dataclass(frozen=True)
class Losses:
    """Scalars. ``total`` is what to minimise; absent parts are 0."""

    total: Tensor
    video: Tensor
    action: Tensor
    proprio: Tensor
    frame_state: Tensor

    def scalars(self) -> dict[str, float]:
        """Detached parts by name, for logs."""
        return {
            name: float(getattr(self, name).detach()) for name in ("total", "video", "action", "proprio", "frame_state")
        }


def joint_loss(
    model: UVANet,
    context: Context,
    visibility: Visibility,
    *,
    proprio_target: Tensor | None = None,
    frame_state_target: Tensor | None = None,
    action_weight: float = 1.0,
    frame_state_weight: float = 1.0,
    jitter: Jitter | None = None,
    draws: Mapping[str, Draws] | None = None,
    has_actions: Tensor | None = None,
) -> Losses:
    """Losses of one batch in which every sample has its own task.

    Each part is the mean over the samples that have it, weighted by their share of the batch, so that drawing tasks per
    sample has the expected gradient of drawing one task per batch.

    Args:
        context: ``future`` and ``actions`` are both inputs (where visible) and targets.
        proprio_target: (B, steps, P) future proprioception, for networks that predict it; NaN where unknown.
        frame_state_target: (B, 2, T, frame_state_dim) state of history and future frames; NaN where unknown.
        action_weight, frame_state_weight: of those losses in the total; the released code weighs everything 1.
        jitter: noise on the inputs.
        draws: fixed timesteps and noise by head name ("video", "wrist", "action", "proprio"), to repeat a recorded run.
        has_actions: (B,) bool, false where ``context.actions`` are placeholders: a network that draws frames from actions then
            draws nothing for those, and its video head learns the whole frame; ``None`` when all are real.
    """
    draws = draws or {}
    z = model.joint_latent(context if jitter is None else jitter.applied(context), visibility)
    zero = z.new_zeros(())
    video = action = proprio = frame_state_loss = zero
    rows = visibility.future_mask.flatten(1) * visibility.video_loss[:, None]
    state = None
    if model.state_head is not None:
        state = model.state_head(z)
        if frame_state_target is not None:
            frame_state_loss = _state_loss(state, frame_state_target, visibility)
    if bool(visibility.video_loss.any()):
        if context.future is None:
            raise ValueError("the video loss needs future frames in the context")
        prior = _rendered_prior(model, context, visibility, has_actions)
        condition = model.video_condition(z, prior)
        # The video head learns what the rendered frame misses.
        target = context.future if prior is None else context.future - prior
        share = visibility.video_loss.float().mean()
        video = share * _token_loss(model.video_head, condition, target, rows, draws.get("video"))
        if model.config.predict_wrist:
            if context.wrist_future is None:
                raise ValueError("the wrist video loss needs wrist_future in the context")
            seen = torch.isfinite(context.wrist_future).all(-1).flatten(1)
            video = video + share * _token_loss(
                model.wrist_head, z, context.wrist_future, rows * seen, draws.get("wrist")
            )
    if model.config.predict_actions and bool(visibility.action_loss.any()):
        if context.actions is None:
            raise ValueError("the action loss needs actions in the context")
        chosen = visibility.action_loss
        condition = model.action_condition(z[chosen], None if state is None else state[chosen])
        losses = _sequence_losses(model.action_head, context.actions, condition, chosen, draws.get("action"))
        action = chosen.float().mean() * losses.mean()
    if model.config.predict_proprio_dim and proprio_target is not None:
        known = torch.isfinite(proprio_target).flatten(1).all(1)
        if bool(known.any()):
            condition = model.proprio_head.condition(z[known])
            losses = _sequence_losses(model.proprio_head, proprio_target, condition, known, draws.get("proprio"))
            proprio = known.float().mean() * losses.mean()
    total = video + action_weight * action + proprio + frame_state_weight * frame_state_loss
    return Losses(total, video, action, proprio, frame_state_loss)


@torch.no_grad()
def _rendered_prior(
    model: UVANet, context: Context, visibility: Visibility, has_actions: Tensor | None
) -> Tensor | None:
    """Rendered from the actions that belong to the frames, which sampling draws first where they are not given; zeros where
    nobody knows them.
    """
    if model.guide is None or not model.guide.renders:
        return None
    if context.actions is None or context.history is None or context.history_keypoints is None:
        raise ValueError(
            "this network draws frames from keypoints and actions: give history, history_keypoints and actions"
        )
    chosen = visibility.video_loss if has_actions is None else visibility.video_loss & has_actions
    prior = torch.zeros_like(context.history)
    if bool(chosen.any()):
        shown = Context(
            history=context.history[chosen],
            history_keypoints=context.history_keypoints[chosen],
            proprio=None if context.proprio is None else context.proprio[chosen],
        )
        prior[chosen] = cast(Tensor, model.render_prior(shown, context.actions[chosen]))
    return prior


def _token_loss(head: DiffusionHead, z: Tensor, target: Tensor, rows: Tensor, draws: Draws | None) -> Tensor:
    """Mean loss of the masked tokens, or of a share of them. Only they are computed: the others would be multiplied by zero."""
    index = rows.flatten().nonzero().squeeze(1)
    if not len(index):
        return z.new_zeros(())
    if draws is None and head.config.share < 1:
        kept = max(1, round(head.config.share * len(index)))
        index = index[torch.randperm(len(index), device=index.device)[:kept]]
    t = noise = None
    if draws is not None:
        t, noise = draws.t[index], draws.noise[index]
    flat = target.flatten(0, 2)[index]
    return head.row_losses(flat, z.flatten(0, 1)[index], t=t, noise=noise).mean()


def _sequence_losses(
    head: ActionHead, target: Tensor, condition: Tensor, chosen: Tensor, draws: Draws | None
) -> Tensor:
    t = noise = None
    if draws is not None:
        rows = torch.ones(len(target), 1 if head.chunked else head.steps, dtype=torch.bool, device=target.device)
        index = (rows & chosen[:, None]).flatten()
        t, noise = draws.t[index], draws.noise[index]
    return head.row_losses(target[chosen], condition, t=t, noise=noise)


def _state_loss(state: Tensor, target: Tensor, visibility: Visibility) -> Tensor:
    """Absolute error of the state head where the target is known and the sample was shown what it depends on.

    Absolute, so that the last few pixels of a position still pull as hard as the first.
    """
    known = torch.isfinite(target)
    known[:, 0] &= visibility.history[:, None, None]
    error = (state - torch.where(known, target, state.detach())).abs()
    return error.sum() / known.sum().clamp(min=1)
