"""InverseModel: frames to the actions that happened between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from uva_agents.agents.arguments import seed_of, whole
from uva_agents.agents.encoding import ObservationEncoder
from uva_agents.agents.guards import Inputs
from uva_agents.agents.observations import Instruction, check_pixels, to_floats
from uva_agents.agents.weights import Weights
from uva_agents.errors import InputError
from uva_agents.model import Context, SamplerConfig, Task, sample_actions


class InverseModel:
    """Reads actions off video (paper section VII-C); frames alone are enough, no proprioception.

    Args:
        weights: shared weights.
        steps: denoising steps.
        draws: samples that are averaged. What was done is one thing, not a distribution to sample from: the mean is nearest
            to it. They share the transformer's work.
        seed: of the sampling noise; the same frames give the same actions.
    """

    def __init__(self, weights: Weights, *, steps: int = 16, draws: int = 8, seed: int = 0) -> None:
        self.weights = weights
        self.encoder = ObservationEncoder(weights)
        self.sampler = SamplerConfig(action_steps=whole(steps, "steps"))
        self.draws = whole(draws, "draws")
        self.seed = seed_of(seed)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name, a weights folder or a released ``.ckpt`` file; ``options`` go to the constructor."""
        return cls(Weights.from_pretrained(name_or_path, device=device), **options)

    @torch.no_grad()
    def infer(
        self, frames: Any, *, proprio: Any | None = None, wrist: Any | None = None, task: Instruction = None
    ) -> np.ndarray:
        """The action chunk that led through the frames.

        Args:
            frames: uint8 (F, H, W, 3) or (B, F, H, W, 3) at the model's frame stride (every 4th control step). The last 4
                are used; the first of those is 4 control steps after the first inferred action. 4 more, the history, may
                precede them.
            proprio: (K, P) or (B, K, P) rows up to the first inferred action, as in ``agent_pos``, only for weights that
                cannot do without; the first stands for earlier ones. Relative actions start from the last; without it, from
                the origin.
            wrist: uint8 (K, h, w, 3) or (B, K, h, w, 3) of the wrist camera up to then, for weights that have one.
            task: instruction or its vector, for weights that take one.

        Returns:
            (16, A) or (B, 16, A), environment units.

        Raises:
            ValueError: wrong shape or dtype; fewer frames than the network takes, or so many that they are one per control step;
                something missing that the network needs.
        """
        # From the origin, poses are not in the environment's frame, and its bounds mean nothing.
        return self._inferred(
            frames, proprio, wrist, task, bounded=proprio is not None or self.weights.spec.relative is None
        )

    def _inferred(
        self, frames: Any, proprio: Any | None, wrist: Any | None = None, task: Instruction = None, *, bounded: bool
    ) -> np.ndarray:
        spec, c = self.weights.spec, self.weights.config
        pixels = check_pixels(frames, spec.image_shape, video=True)
        batched = pixels.ndim == 5
        pixels = pixels if batched else pixels[None]
        if pixels.shape[1] < c.n_frames:
            raise InputError(
                f"the inverse model takes {c.n_frames} frames, {c.frame_stride} control steps apart, got {pixels.shape[1]}"
            )
        if pixels.shape[1] > 2 * c.n_frames:
            raise InputError(
                f"infer() takes {c.n_frames} frames, {c.frame_stride} control steps apart, got {pixels.shape[1]}: of a video with "
                f"one frame per control step give every {c.frame_stride}th (video[t + {c.frame_stride} : t + "
                f"{c.action_steps + 1} : {c.frame_stride}]), or the whole of it to label()"
            )
        pixels = pixels[:, -c.n_frames :]
        n = len(pixels)
        code = self.weights.encode(pixels.reshape(-1, *pixels.shape[2:]))
        rows = self._rows(proprio, n, batched)
        text = self.weights.embed_task(task) if c.text_dim else None
        generator = torch.Generator().manual_seed(self.seed)
        # The same noise for every video of a batch: an answer does not depend on its neighbours.
        noise = torch.randn(
            self.draws, c.action_steps, c.action_dim, generator=generator, device="cpu", dtype=torch.float32
        )
        noise = noise.repeat(n, 1, 1)
        chunks = sample_actions(
            self.weights.net,
            Context(
                future=code.tokens.view(*pixels.shape[:2], *code.tokens.shape[1:]),
                future_keypoints=None if code.keypoints is None else code.keypoints.view(*pixels.shape[:2], -1),
                proprio=self._proprio(rows),
                wrist_history=self._wrist(wrist, n, batched),
                text=None if text is None else text.expand(n, -1),
            ),
            task=Task.INVERSE,
            sampler=self.sampler,
            n=self.draws,
            noise=noise.to(self.weights.device),
        )
        chunk = chunks.view(n, self.draws, c.action_steps, c.action_dim).mean(1)
        poses = self._origins(n) if rows is None else rows[:, -1]
        given = [
            Inputs(
                f"video {i} of {n} (counted from 0)",
                {"frames": pixels[i], "proprioception": None if rows is None else rows[i]},
                code[i * c.n_frames : (i + 1) * c.n_frames].computed,
            )
            for i in range(n)
        ]
        actions: np.ndarray = np.stack(
            [
                self.weights.environment_actions(*each[:2], inputs=each[2], bounded=bounded)
                for each in zip(chunk, poses, given, strict=True)
            ]
        )
        return actions if batched else actions[0]

    @torch.no_grad()
    def label(
        self, video: Any, *, batch_size: int = 16, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Actions of a whole video at the control rate, from overlapping windows.

        Windows begin at every 4th frame and at the last possible one; where they overlap, their actions are averaged (poses, whose
        rotations have no plain mean, are taken from the window that has them nearest its middle). A video that is shorter than a
        window is continued by its last frame. Actions that are relative to the tool's pose are put together window after window:
        poses in the frame of the first one.

        Args:
            video: uint8 (N, H, W, 3), one frame per control step, of any length from 2.
            batch_size: windows inferred together.
            progress: called with how many windows are done, and how many there are.

        Returns:
            (N - 1, A), environment units: row t is the action taken at frame t.

        Raises:
            ValueError: wrong shape or dtype, or weights whose inverse task needs more than frames.
        """
        spec, c = self.weights.spec, self.weights.config
        if not c.sees_frames_alone or (spec.needs_pose and spec.relative is None):
            raise InputError(
                "label() works on frames alone, and these weights need more (proprioception or a wrist camera): "
                "call infer() for every window"
            )
        pixels = check_pixels(video, spec.image_shape, video=True)
        if pixels.ndim != 4 or len(pixels) < 2:
            raise InputError(f"label() takes one video (N, H, W, 3) of at least 2 frames, got {pixels.shape}")
        batch_size = whole(batch_size, "batch_size")
        if spec.relative is not None:
            return self._chained(pixels, progress)
        length = max(len(pixels), c.action_steps + 1)
        last = length - 1 - c.action_steps
        starts = np.unique(np.append(np.arange(0, last + 1, c.frame_stride), last))
        ahead = np.arange(1, c.n_frames + 1) * c.frame_stride
        chunks = []
        for begin in range(0, len(starts), batch_size):
            index = starts[begin : begin + batch_size, None] + ahead
            chunks.append(self.infer(pixels[np.minimum(index, len(pixels) - 1)]))
            if progress is not None:
                progress(min(begin + batch_size, len(starts)), len(starts))
        total, weight = np.zeros((length - 1, len(spec.action_low))), np.zeros((length - 1, 1))
        middle = 1 / (1 + np.abs(np.arange(c.action_steps) - (c.action_steps - 1) / 2))[:, None]
        for start, chunk in zip(starts, np.concatenate(chunks), strict=True):
            rows = slice(start, start + c.action_steps)
            if spec.actions_average:
                total[rows] += chunk
                weight[rows] += 1
            else:
                nearer = middle > weight[rows]
                total[rows] = np.where(nearer, chunk * middle, total[rows])
                weight[rows] = np.where(nearer, middle, weight[rows])
        return np.asarray((total / weight)[: len(pixels) - 1], np.float32)

    def _chained(self, pixels: np.ndarray, progress: Callable[[int, int], None] | None) -> np.ndarray:
        """Relative poses one window after the other, each from where the one before has led; the first from the origin."""
        spec, c = self.weights.spec, self.weights.config
        assert spec.relative is not None
        length = max(len(pixels), c.action_steps + 1)
        last = length - 1 - c.action_steps
        starts = np.unique(np.append(np.arange(0, last + 1, c.action_steps), last))
        ahead = np.arange(1, c.n_frames + 1) * c.frame_stride
        actions = np.zeros((length - 1, len(spec.action_low)), np.float32)
        for number, start in enumerate(starts):
            before = spec.relative.pose_after(actions[start - 1]) if start else spec.relative.origin()
            frames = pixels[np.minimum(start + ahead, len(pixels) - 1)]
            actions[start : start + c.action_steps] = self._inferred(frames, np.asarray(before)[None], bounded=False)
            if progress is not None:
                progress(number + 1, len(starts))
        return actions[: len(pixels) - 1]

    def _origins(self, n: int) -> np.ndarray:
        """(n, P) a tool at the origin."""
        relative = self.weights.spec.relative
        origin = None if relative is None else relative.origin()
        return np.tile(np.zeros(7) if origin is None else origin, (n, 1))

    def _rows(self, proprio: Any | None, n: int, batched: bool) -> np.ndarray | None:
        """(B, K, P), checked."""
        spec, c = self.weights.spec, self.weights.config
        if proprio is None:
            if c.proprio_dim and not c.proprio_maskable:
                raise InputError(
                    f"these weights need proprioception: give proprio=, (K, {spec.proprio_size(c.proprio_dim)})"
                )
            return None
        rows = to_floats(proprio, "proprio")
        rows = rows if batched else rows[None]
        if rows.ndim != 3 or len(rows) != n or rows.shape[2] != spec.proprio_size(c.proprio_dim) or not rows.shape[1]:
            size = spec.proprio_size(c.proprio_dim)
            raise InputError(f"proprio must be (K, {size}), or (B, K, {size}) for a batch, got {np.shape(proprio)}")
        if not np.isfinite(rows).all():
            raise InputError("proprio has NaN or infinity")
        return rows

    def _proprio(self, rows: np.ndarray | None) -> torch.Tensor | None:
        c = self.weights.config
        if rows is None or not c.proprio_dim or c.proprio_maskable:
            return None  # maskable proprioception is history, which this task does not see
        index = np.maximum(rows.shape[1] - 1 + self.encoder.proprio_offsets, 0)
        return torch.stack([self.weights.normalize_proprio(row[index], row[0]) for row in rows])

    def _wrist(self, wrist: Any | None, n: int, batched: bool) -> torch.Tensor | None:
        spec, c = self.weights.spec, self.weights.config
        if not c.wrist_image or c.wrist_maskable:
            return None  # as maskable proprioception
        if wrist is None or spec.wrist_shape is None:
            raise InputError("these weights have a wrist camera: give wrist=, uint8 (K, h, w, 3)")
        images = check_pixels(wrist, spec.wrist_shape, video=True, name="wrist")
        images = images if images.ndim == 5 else images[None]
        if len(images) != n:
            raise InputError(f"wrist is for {len(images)} videos, the frames are of {n}")
        images = images[:, np.maximum(images.shape[1] - 1 + self.weights.history_offsets, 0)]
        images = images.reshape(-1, *images.shape[2:])
        tokens = self.weights.encode_wrist(images)
        self.weights.require_finite(tokens, "autoencoder", lambda i: Inputs(f"wrist frame {i} of {len(images)}"))
        return tokens.view(n, c.n_frames, *tokens.shape[1:])
