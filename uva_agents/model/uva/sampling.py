"""Sampling from the network: one pass for actions, one or more reveal iterations for frames (after MAR and MaskGIT)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uva_agents.model.uva.config import Task, UVAConfig
from uva_agents.model.uva.heads import DiffusionHead
from uva_agents.model.uva.inputs import Context
from uva_agents.model.uva.net import UVANet


@dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    Args:
        action_steps, video_steps: denoising steps of the two heads.
        iterations: reveal iterations of a video; 1 samples all tokens at once.
        temperature: noise scale.
        video_temperature: of frames, where it is another one. 0 gives the most likely frames instead of a draw: sharper,
            and nearer to what happens on average.
        ancestral: the released 'exact' sampler (epsilon heads only) instead of a deterministic few-step one.
    """

    action_steps: int = 16
    video_steps: int = 16
    iterations: int = 1
    temperature: float = 1.0
    video_temperature: float | None = None
    ancestral: bool = False


def frame_sampler(config: UVAConfig, *, iterations: int = 1) -> SamplerConfig:
    """How frames are sampled by default: what actions leave open is noise to a network that draws frames from them."""
    return SamplerConfig(iterations=iterations, video_temperature=0.0 if config.rendered_prior else None)


@dataclass(frozen=True)
class VideoSample:
    """What :func:`sample_video` sampled.

    Attributes:
        tokens: (B, T, S, C) future frames, or those of them that were asked for.
        actions: (B, action_steps, A) normalised, where they were asked for.
        wrist_tokens: the same of the wrist camera, from networks that predict them.
        moved_keypoints: (B, T, 2 * num_keypoints) where given actions take the keypoints, from networks that render from those.
    """

    tokens: Tensor
    actions: Tensor | None = None
    wrist_tokens: Tensor | None = None
    moved_keypoints: Tensor | None = None


def sample_actions(
    model: UVANet,
    context: Context,
    *,
    task: Task = Task.POLICY,
    sampler: SamplerConfig | None = None,
    n: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Action chunks for POLICY or INVERSE: (B * n, action_steps, A) normalised, a sample's n chunks side by side.

    The joint latent is computed once per sample, whatever ``n``.
    """
    if task not in (Task.POLICY, Task.INVERSE):
        raise ValueError(f"sample_actions covers POLICY and INVERSE, not {task}: use sample_video")
    sampler = sampler or SamplerConfig()
    z = model.joint_latent(context, model.visibility(task, context.batch_size))
    condition = model.action_condition(z)
    if n > 1:
        rows = 1 if model.action_head.chunked else model.config.action_steps
        condition = condition.view(-1, rows, condition.shape[-1]).repeat_interleave(n, 0).flatten(0, 1)
    return model.action_head.sample(
        condition,
        steps=sampler.action_steps,
        noise=noise,
        generator=generator,
        temperature=sampler.temperature,
        ancestral=sampler.ancestral,
    )


def sample_video(
    model: UVANet,
    context: Context,
    *,
    task: Task,
    sampler: SamplerConfig | None = None,
    generator: torch.Generator | None = None,
    order: Tensor | None = None,
    with_actions: bool | None = None,
    frames: Sequence[int] | None = None,
    noise: Tensor | None = None,
) -> VideoSample:
    """Future frame tokens for VIDEO, FORWARD or POLICY_VIDEO.

    Args:
        context: history (and actions for FORWARD); ``future`` is ignored.
        order: (B, S) the order in which positions are revealed; random when absent, shared by the frames.
        with_actions: also sample actions in the last iteration; by default for POLICY_VIDEO.
        frames: which of the T future frames are wanted (ascending), all when absent. In one iteration the head then samples no
            others; the ones it samples are the same.
        noise: (B, T, S, C) start of the deterministic sampler, drawn from ``generator`` when absent; for one iteration.
    """
    if not task.predicts_video:
        raise ValueError(f"sample_video covers VIDEO, FORWARD and POLICY_VIDEO, not {task}")
    sampler = sampler or SamplerConfig()
    c = model.config
    b, s = context.batch_size, c.tokens_per_frame
    device = model.frame_mask.device
    if task is Task.FORWARD and context.actions is None:
        raise ValueError("forward dynamics needs actions in the context")
    if order is None:
        order = torch.rand(b, s, generator=generator, device=device, dtype=torch.float32).argsort(1)
    rank = order.argsort(1)
    shape = (b, c.n_frames, s, c.token_dim)
    tokens = torch.zeros(shape, device=device, dtype=torch.float32)
    wrist = torch.zeros_like(tokens) if c.predict_wrist else None
    mask = torch.ones(b, s, device=device, dtype=torch.float32)
    wants_actions = (task is Task.POLICY_VIDEO) if with_actions is None else with_actions
    actions: Tensor | None = None
    guide = model.guide if model.guide is not None and model.guide.renders else None
    # A network that renders frames from actions samples them first where they are not given, as part of the video.
    actions_first = guide is not None and task is not Task.FORWARD
    conditioning_actions = context.actions if task is Task.FORWARD else None
    if guide is not None and conditioning_actions is not None and context.history_keypoints is not None:
        context = guide.with_moved(context, conditioning_actions)
    noise_scale = sampler.temperature if sampler.video_temperature is None else sampler.video_temperature
    counts = reveal_counts(min(sampler.iterations, s), s)
    # Later iterations see what earlier ones sampled, so all of it is needed; an exact sampler draws noise as it goes.
    partly = frames is not None and len(counts) == 1 and not sampler.ancestral
    wanted = torch.zeros(c.n_frames, dtype=torch.bool, device=device)
    wanted[list(frames) if partly and frames is not None else slice(None)] = True
    for i, left in enumerate(counts):
        visibility = model.visibility(task, b, mask[:, None].expand(-1, c.n_frames, -1))
        z = model.joint_latent(replace(context, future=tokens, wrist_future=wrist), visibility)
        if (actions_first and i == 0) or (wants_actions and not actions_first and left == 0):
            actions = model.action_head.sample(
                model.action_condition(z),
                steps=sampler.action_steps,
                generator=generator,
                temperature=sampler.temperature,
                ancestral=sampler.ancestral,
            )
        # Positions stay masked from the end of the order, so the first ones are revealed first.
        still_masked = (rank < left).float()
        revealed = (mask - still_masked).bool()[:, None] & wanted[None, :, None]
        if actions_first and i == 0:
            conditioning_actions = actions
        prior = model.render_prior(context, conditioning_actions)

        def sampled(
            head: DiffusionHead, condition: Tensor, start: Tensor | None = None, revealed: Tensor = revealed
        ) -> Tensor:
            if start is None and partly:
                start = torch.randn(shape, generator=generator, device=device, dtype=torch.float32) * noise_scale
            return head.sample(
                condition.view(b, c.n_frames, s, -1)[revealed],
                steps=sampler.video_steps,
                noise=None if start is None else start[revealed],
                generator=generator,
                temperature=noise_scale,
                ancestral=sampler.ancestral,
            )

        missing = sampled(model.video_head, model.video_condition(z, prior), noise)
        tokens = tokens.masked_scatter(revealed[..., None], missing if prior is None else missing + prior[revealed])
        if wrist is not None:
            wrist = wrist.masked_scatter(revealed[..., None], sampled(model.wrist_head, z))
        mask = still_masked
    if frames is not None:
        tokens, wrist = tokens[:, list(frames)], None if wrist is None else wrist[:, list(frames)]
    return VideoSample(tokens, actions if wants_actions else None, wrist, context.moved_keypoints)


def reveal_counts(iterations: int, tokens: int) -> list[int]:
    """Tokens still masked after each of ``iterations`` steps of the cosine schedule; the last entry is 0.

    At least one token stays masked until the last step, and at least one is revealed at each.
    """
    if not iterations >= 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    left, counts = tokens, []
    for i in range(iterations):
        target = math.floor(tokens * math.cos(math.pi / 2 * (i + 1) / iterations))
        left = 0 if i + 1 == iterations else max(1, min(left - 1, target))
        counts.append(left)
    return counts
