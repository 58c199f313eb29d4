"""The rollout engine: futures predicted a chunk of frames at a time, for whole rollouts and for dreams that go frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from uva_agents.agents.guards import InputsOf
from uva_agents.agents.memory import Memory
from uva_agents.agents.weights import FrameCode, Weights
from uva_agents.model import Context, SamplerConfig, Task, VideoSample, sample_video


@dataclass(frozen=True)
class Start:
    """A moment from which futures are imagined, encoded once: takes the place of ``obs`` and ``history``.

    Attributes:
        context: of one sample, without actions.
        pose: (P,) proprioception now, where there is one.
        now: uint8 (H, W, 3).
        memory: of the environment, with the codes of its frames.
        weights: that encoded it.
    """

    context: Context
    pose: np.ndarray | None
    now: np.ndarray
    memory: Memory
    weights: Weights

    @property
    def arrays(self) -> dict[str, np.ndarray | None]:
        """What was observed, for errors."""
        return {"pixels": self.now, "proprioception": self.pose}

    @property
    def computed(self) -> list[tuple[str, Tensor | None]]:
        """By which network each part was computed, for errors."""
        c = self.context
        code = FrameCode(*(x for x in (c.history, c.history_keypoints, c.wrist_history)))  # type: ignore[arg-type]
        return code.computed


@dataclass(frozen=True)
class Imagined:
    """A batch of n futures, their F wanted frames only.

    Attributes:
        tokens: (n, F, S, C).
        frames: uint8 (n, F, H, W, 3); none of them where they were not decoded.
        actions: (n, action_steps, A) normalised, where they were sampled.
        keypoints: (n, F, K, 2) where given actions take the keypoints, in the units of their data, for weights that say so.
    """

    tokens: Tensor
    frames: np.ndarray
    actions: Tensor | None
    keypoints: np.ndarray | None


class RolloutEngine:
    """Predicts chunks of T frames (``action_steps`` control steps), and makes them the history of the next chunk.

    Args:
        weights: of the world model.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(T, S, C) of one future's start noise for one chunk."""
        c = self.weights.config
        return c.n_frames, c.tokens_per_frame, c.token_dim

    def draws_once(self, sampler: SamplerConfig | None) -> bool:
        """Whether start noise is all that a sampler draws, so that each future can be given its own."""
        predicts_wrist = self.weights.config.predict_wrist
        return sampler is None or not (sampler.iterations > 1 or sampler.ancestral or predicts_wrist)

    def chunk(
        self,
        context: Context,
        task: Task,
        *,
        actions: Tensor | None = None,
        sampler: SamplerConfig | None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        frames: Sequence[int] | None = None,
    ) -> VideoSample:
        """One chunk of future frames.

        Args:
            context: history of n samples.
            actions: (n, action_steps, A) normalised, for FORWARD.
            sampler: of the frames; ``None`` gives the rendered prior alone, without the transformer.
            noise: (n, T, S, C) start noise, where the sampler draws once.
            frames: which of the T frames are wanted, ascending; all when absent.
        """
        net, c = self.weights.net, self.weights.config
        wanted = list(range(c.n_frames)) if frames is None else list(frames)
        if actions is not None:
            context = replace(context, actions=actions)
            if net.guide is not None and net.guide.renders:
                context = net.guide.with_moved(context, actions)
        if sampler is None:
            prior = net.render_prior(context, context.actions)
            assert prior is not None
            return VideoSample(prior[:, wanted], moved_keypoints=context.moved_keypoints)
        n, device = context.batch_size, self.weights.device
        if not wanted:
            nothing = torch.zeros(n, 0, c.tokens_per_frame, c.token_dim, device=device, dtype=torch.float32)
            return VideoSample(nothing, moved_keypoints=context.moved_keypoints)
        return sample_video(
            net,
            context,
            task=task,
            sampler=sampler,
            generator=generator,
            # The order in which positions are revealed means nothing where they are revealed together.
            order=None if noise is None else torch.arange(c.tokens_per_frame, device=device).expand(n, -1),
            frames=None if len(wanted) == c.n_frames else wanted,
            noise=noise,
        )

    def as_history(self, tokens: Tensor, images: np.ndarray | None, text: Tensor | None) -> Context:
        """A whole predicted chunk (n, T, S, C) as the history of the next; where the agent then is, nobody has measured.

        Args:
            images: uint8 (n, T, H, W, 3), for weights that detect keypoints in them.
        """
        guide, keypoints = self.weights.net.guide, None
        if guide is not None and images is not None:
            keypoints = guide.detector(self.weights.images(images.reshape(-1, *images.shape[2:])))
            keypoints = keypoints.view(*tokens.shape[:2], -1)
        return Context(history=tokens, history_keypoints=keypoints, text=text)

    def rollout(
        self,
        start: Start,
        n: int,
        task: Task,
        *,
        actions: Tensor | None,
        frames: list[int],
        decode: bool,
        sampler: SamplerConfig | None,
        generator: torch.Generator,
        noise: list[Tensor],
        inputs: InputsOf,
    ) -> Imagined:
        """n futures from one moment, chunk after chunk up to the last wanted frame.

        Args:
            actions: (n, chunks * action_steps, A) normalised.
            frames: which frames are wanted, ascending.
            decode: whether as pictures, too.
            noise: of each chunk; empty where the sampler draws as it goes.
            inputs: of a future, for errors.
        """
        c = self.weights.config
        context = Context(**{key: _repeat(value, n) for key, value in vars(start.context).items()})
        tokens, images_of, keypoints, sampled = [], [], [], None
        chunks = max(frames, default=0) // c.n_frames + 1  # nobody looks at what comes after the last wanted frame
        detects = self.weights.net.guide is not None
        for k in range(chunks):
            own = [i - k * c.n_frames for i in frames if i // c.n_frames == k]
            last = k == chunks - 1
            # What becomes history is needed whole.
            needed = own if last else list(range(c.n_frames))
            sample = self.chunk(
                context,
                task,
                actions=None if actions is None else actions[:, k * c.action_steps : (k + 1) * c.action_steps],
                sampler=sampler,
                generator=generator,
                noise=noise[k] if noise else None,
                frames=needed,
            )
            sampled = sample.actions if needed else sampled
            if sample.moved_keypoints is not None and actions is not None and self.weights.spec.keypoint_keys:
                keypoints.append(self.weights.keypoint_positions(sample.moved_keypoints[:, own], inputs))
            kept = [needed.index(i) for i in own]
            tokens.append(sample.tokens[:, kept])
            shown = decode and bool(own)
            images = None
            if needed and (shown or (detects and not last)):
                images = self.weights.decode(sample.tokens, inputs=inputs)
            if shown and images is not None:
                images_of.append(images[:, kept])
            if not last:
                context = self.as_history(sample.tokens, images, context.text)
        height, width = self.weights.spec.image_shape
        nothing = np.empty((n, 0, height, width, 3), np.uint8)
        return Imagined(
            tokens=torch.cat(tokens, dim=1),
            frames=np.concatenate(images_of, axis=1) if images_of else nothing,
            actions=sampled,
            keypoints=np.concatenate(keypoints, axis=1) if keypoints else None,
        )


def noise_scale(sampler: SamplerConfig) -> float:
    """Of the start noise of frames."""
    return sampler.temperature if sampler.video_temperature is None else sampler.video_temperature


def _repeat(x: Tensor | None, n: int) -> Tensor | None:
    return None if x is None else x.expand(n, *x.shape[1:])
