"""Held-out metrics of every task, in units a person can judge: pixels or millimetres for positions, decibels for frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from uva_agents.data import Batch, LatentWindows, LinearNormalizer
from uva_agents.model import VAE, Context, SamplerConfig, Task, UVANet, frame_sampler, sample_actions, sample_video
from uva_agents.training.report import Reporter
from uva_agents.training.uva.recipes import World
from uva_agents.utils.images import resize_images, to_frames, to_images
from uva_agents.utils.pictures import enlarge, write_text


@dataclass(frozen=True)
class Validator:
    """Runs the network on evenly spaced held-out windows with a fixed random stream.

    Args:
        windows: of the held-out episodes, unaugmented.
        vae: decodes frames.
        normalizer: back to action units.
        frames: true uint8 frames (N, H, W, 3) of the same rows as ``windows``' latents.
        n_actions, n_videos: windows for the two kinds of metric.
        video_only: skip actions (for the video stage).
        world: units of what is reported; without, errors are a percentage of each number's range.
        frame_state_keys: what the auxiliary state consists of.
        tasks: instruction of each episode of the dataset, where action errors are told by them too: ``TASK/metric``.
        others: name -> validator of a further dataset, whose metrics are ``NAME/metric``.
    """

    windows: LatentWindows
    vae: VAE
    normalizer: LinearNormalizer
    frames: np.ndarray
    world: World | None
    n_actions: int = 384
    n_videos: int = 64
    video_only: bool = False
    frame_state_keys: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    others: Mapping[str, Validator] = field(default_factory=dict)

    @torch.no_grad()
    def run(self, model: UVANet, reporter: Reporter | None = None, step: int = 0) -> dict[str, float]:
        """All metrics; pictures go to the reporter."""
        device = next(model.parameters()).device
        generator = torch.Generator(device=device).manual_seed(0)
        metrics = {} if self.video_only else self._actions(model, generator, device)
        metrics.update(self._videos(model, generator, device, reporter, step))
        for name, other in self.others.items():
            chosen = replace(other, video_only=other.video_only or self.video_only)
            metrics.update({f"{name}/{key}": value for key, value in chosen.run(model).items()})
        return metrics

    def _spaced(self, n: int) -> np.ndarray:
        return np.linspace(0, len(self.windows) - 1, min(n, len(self.windows))).astype(np.int64)

    def _actions(self, model: UVANet, generator: torch.Generator, device: torch.device) -> dict[str, float]:
        windows = self._spaced(self.n_actions)
        batch = self.windows.batch(windows).to(device)
        sampler = SamplerConfig()
        metrics = {}
        for name, task in (("policy", Task.POLICY), ("inverse", Task.INVERSE)):
            context = context_for(batch, task)
            # What a policy does is one sample; what was done is estimated by the mean, as InverseModel does it.
            n = 8 if task is Task.INVERSE else 1
            chunk = sample_actions(model, context, task=task, sampler=sampler, generator=generator, n=n)
            error, unit = self._action_error(chunk.view(-1, n, *chunk.shape[1:]).mean(1), batch.actions)
            metrics[f"{name}_error_{unit}"] = float(error.mean())
            metrics.update(self._by_task(windows, error.mean(-1), f"{name}_error_{unit}"))
            if task is Task.POLICY:
                metrics[f"policy_error8_{unit}"] = float(error[:, :8].mean())
        if batch.frame_state is not None:
            metrics.update(self._state_errors(model, batch))
        return metrics

    def _by_task(self, windows: np.ndarray, error: Tensor, name: str) -> dict[str, float]:
        """Means of an error (B,) over the windows of each task, if there are several."""
        if self.tasks is None or len(set(self.tasks)) < 2:
            return {}
        tasks = np.array([task_name(self.tasks[episode]) for episode in self.windows.index.episode[windows]])
        values = error.cpu().numpy()
        return {f"{task}/{name}": float(values[tasks == task].mean()) for task in sorted(set(tasks)) if task}

    def _action_error(self, chunk: Tensor, truth: Tensor) -> tuple[Tensor, str]:
        """Of normalised actions (B, K, A): (B, K) distances in the world's unit, or mean shares of the range in percent."""
        if self.world is None:
            return (chunk - truth).abs().mean(-1) * 50.0, "percent"  # normalised numbers reach from -1 to 1
        positions = [self.normalizer.unnormalize("action", actions) for actions in (chunk, truth)]
        return (positions[0] - positions[1]).norm(dim=-1) * self.world.unit_scale, self.world.unit

    def _state_errors(self, model: UVANet, batch: Batch) -> dict[str, float]:
        """Position error of the state read from the current frame, with and without proprioception."""
        assert batch.frame_state is not None and model.state_head is not None
        if self.world is None:
            return {}
        scale = np.concatenate([self.normalizer.scale[key] for key in self.frame_state_keys]).astype(np.float32)
        unit = torch.from_numpy(self.world.unit_scale / scale).view(-1, 2)
        out = {}
        for name, proprio in (("frame_state", batch.proprio), ("frame_state_blind", None)):
            context = replace(context_for(batch, Task.POLICY), proprio=proprio)
            z = model.joint_latent(context, model.visibility(Task.POLICY, len(batch.history)))
            error = model.state_head(z)[:, 0, -1] - batch.frame_state[:, 0, -1]
            out[f"{name}_{self.world.unit}"] = float((error.cpu().view(len(error), -1, 2) * unit).norm(dim=-1).mean())
        return out

    def _videos(
        self, model: UVANet, generator: torch.Generator, device: torch.device, reporter: Reporter | None, step: int
    ) -> dict[str, float]:
        chosen = self._spaced(self.n_videos)
        batch = self.windows.batch(chosen).to(device)
        truth = self._pixels(chosen, self.windows.spec.future, device)
        now = self._pixels(chosen, np.zeros(1, np.int64), device)[:, 0]
        metrics = {"copy_psnr_db": pooled_psnr(now, truth[:, -1])}
        strips = {"real": truth}
        jobs = [("forward", Task.FORWARD, 1), ("video", Task.VIDEO, 1), ("video8", Task.VIDEO, 8)]
        for name, task, iterations in jobs[1:2] if self.video_only else jobs:
            sample = sample_video(
                model,
                context_for(batch, task),
                task=task,
                sampler=frame_sampler(model.config, iterations=iterations),
                generator=generator,
            )
            images = self._decode(model, sample.tokens)
            metrics[f"{name}_psnr_db"] = pooled_psnr(images[:, -1], truth[:, -1])
            strips[_TITLES[name]] = images
        if reporter is not None:
            reporter.picture("futures", contact_strips(now, strips), step)
        return metrics

    def _pixels(self, chosen: np.ndarray, offsets: np.ndarray, device: torch.device) -> Tensor:
        rows = self.windows.index.steps(chosen, offsets)
        return to_images(self.frames[rows], device)

    def _decode(self, model: UVANet, tokens: Tensor) -> Tensor:
        latents = model.to_latents(tokens)
        images: Tensor = self.vae.decode(latents.flatten(0, 1)).clamp(-1, 1)
        images = resize_images(images, (self.frames.shape[1], self.frames.shape[2]))
        return images.view(*latents.shape[:2], *images.shape[1:])


def task_name(instruction: str) -> str:
    """An instruction as part of a metric's name."""
    return " ".join(instruction.replace("/", " ").split())[:60]


def context_for(batch: Batch, task: Task) -> Context:
    """What inference may see for a task: the future only for INVERSE, actions only for FORWARD."""
    return Context(
        history=None if task is Task.INVERSE else batch.history,
        future=batch.future if task is Task.INVERSE else None,
        actions=batch.actions if task is Task.FORWARD else None,
        proprio=batch.proprio,  # networks that can do without hide these two from INVERSE themselves
        wrist_history=batch.wrist_history,
        text=batch.text,
        history_keypoints=None if task is Task.INVERSE else batch.history_keypoints,
        future_keypoints=batch.future_keypoints if task is Task.INVERSE else None,
    )


def pooled_psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of the mean squared error over all images (N, 3, H, W), dB.

    Pooled, because a window in which nothing moves has an infinite ratio for "copy the last frame", which no mean survives.
    """
    return float(10 * torch.log10(4.0 / (a - b).square().mean().clamp(min=1e-10)))


_TITLES = {"forward": "given actions", "video": "no actions given", "video8": "the same in 8 iterations"}


def contact_strips(now: Tensor, strips: Mapping[str, Tensor], rows: int = 4) -> np.ndarray:
    """Per sample: the current frame, then each strip's frames under one another, with its name; uint8 (H, W, 3).

    Args:
        now: (B, 3, h, w) in [-1, 1].
        strips: name -> (B, T, 3, h, w).
        rows: samples that are shown, evenly spaced.
    """
    times = max(1, 192 // now.shape[-1])
    lines: list[np.ndarray] = []
    text = []
    for i in np.linspace(0, len(now) - 1, min(rows, len(now))).astype(int):
        for name, strip in strips.items():
            several = to_frames(torch.cat([now[i : i + 1], strip[i]]))
            edge = ((2, 2), (2, 2), (0, 0))
            frames = [np.pad(enlarge(frame, times), edge, constant_values=210) for frame in several]
            text.append((8, len(lines) * frames[0].shape[0] + frames[0].shape[0] // 2 - 8, name))
            lines.append(np.concatenate(frames, axis=1))
    margin = np.full((len(lines) * lines[0].shape[0], 200, 3), 255, np.uint8)
    return write_text(np.concatenate([margin, np.concatenate(lines, axis=0)], axis=1), text)
