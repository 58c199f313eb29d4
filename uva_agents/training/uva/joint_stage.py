"""Stages 2 and 3: the network on latents, cached or made in the step. Video only first, then all five tasks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.data import Batch, LatentWindows, MixtureWindows
from uva_agents.model import VAE, Context, Jitter, Task, UVANet, Visibility, draw_mask, draw_tasks, joint_loss
from uva_agents.training.recipe import StageConfig
from uva_agents.training.report import Reporter
from uva_agents.training.uva.joint_training import JointTraining
from uva_agents.training.uva.online import ClipEncoder, Clips
from uva_agents.training.uva.recipes import UVARecipe
from uva_agents.training.uva.validation import Validator


class JointModule(nn.Module):
    """The joint objective as a module, so that DDP sees one forward."""

    def __init__(self, model: UVANet, recipe: UVARecipe, encoder: ClipEncoder | None = None) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.encoder = encoder

    def forward(
        self,
        context: Context,
        visibility: Visibility,
        frame_state: Tensor | None,
        has_actions: Tensor | None = None,
        proprio_target: Tensor | None = None,
        clips: Clips | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss and its parts by name, scalars; arguments as of :func:`~uva_agents.model.uva.losses.joint_loss`.

        ``clips`` are the frames, where the context has no tokens of them yet.
        """
        if clips is not None:
            assert self.encoder is not None
            context = self.encoder.filled(context, clips)
        losses = joint_loss(
            self.model,
            context,
            visibility,
            proprio_target=proprio_target,
            frame_state_target=frame_state,
            action_weight=self.recipe.network.action_weight,
            frame_state_weight=self.recipe.network.frame_state_weight,
            jitter=Jitter(tokens=self.recipe.network.latent_noise, keypoints=self.recipe.keypoint_noise),
            has_actions=has_actions,
        )
        # A head that no sample of this batch used still takes part in the graph: DDP waits for every gradient.
        unused = sum((p.sum() * 0.0 for p in self.model.parameters()), losses.total.new_zeros(()))
        total = losses.total + unused if torch.distributed.is_initialized() else losses.total
        parts = {"video": losses.video, "action": losses.action, "frame_state": losses.frame_state}
        if self.model.config.predict_proprio_dim:
            parts["proprio"] = losses.proprio
        return total, parts


class JointStage:
    """Draws a task and a mask for every sample."""

    def __init__(
        self,
        recipe: UVARecipe,
        config: StageConfig,
        name: str,
        model: UVANet,
        windows: LatentWindows | MixtureWindows,
        task_weights: Mapping[Task, float],
        validator: Validator | None,
        vae: VAE | None = None,
    ) -> None:
        self.name = name
        self.recipe, self.config = recipe, config
        self.windows = windows
        self.task_weights = task_weights
        self.validator = validator
        self.histories = windows.spec.history_choices()
        augmentation = recipe.network.clips
        encoder = None if augmentation is None or vae is None else ClipEncoder(vae, model, augmentation)
        self.module: nn.Module = JointModule(model, recipe, encoder)

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """A batch of B samples, each with a task and a mask drawn for it, or one for all where the recipe says so."""
        recipe, n = self.recipe, self.config.batch_size
        training = recipe.network
        order = self.windows.order(n, seed=recipe.seed, rank=rank, world=world)
        drawn = self._drawn_for_windows(step, rank, world)
        batch = self.windows.batch(*order.at(step), **drawn)
        tasks = draw_tasks(n, self.task_weights, together=training.draw_together)
        tasks = without_unknown_actions(tasks, batch)
        c = recipe.model
        mask = draw_mask(
            n,
            frames=c.n_frames,
            tokens=c.tokens_per_frame,
            minimum=training.mask_minimum,
            std=training.mask_std,
            together=training.draw_together,
        )
        context, frame_state = make_context(batch, training)
        clips = {}
        if training.clips is not None:
            draws = training.clips.draw(n, seed=recipe.seed, step=step, first=rank * n)
            clips = {"clips": Clips.of(batch, draws)}
        return {
            **clips,
            "context": context,
            "visibility": Visibility.for_tasks(tasks, mask),
            "frame_state": frame_state,
            "has_actions": batch.has_actions,
            "proprio_target": batch.proprio_target,
        }

    def _drawn_for_windows(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """What of the windows themselves is drawn: frames of the history, noise on the pose at the start."""
        training, n = self.recipe.network, self.config.batch_size
        drawn: dict[str, Any] = {}
        rng = np.random.default_rng([self.recipe.seed, zlib.crc32(self.name.encode()), step, rank, world])
        if training.varied_history and training.distinct_histories:
            drawn["history"] = self.windows.spec.distinct_histories(n, rng)
        elif training.varied_history:
            drawn["history"] = self.histories[int(torch.randint(len(self.histories), ()))]
        if training.start_noise:
            drawn["start_noise"] = rng.normal(0.0, training.start_noise, (n, 6))
        return drawn

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """The validator's metrics; none without one."""
        assert isinstance(module, JointModule)
        return {} if self.validator is None else self.validator.run(module.model, reporter, step)


def without_unknown_actions(tasks: list[Task], batch: Batch) -> list[Task]:
    """Video for the samples that have no actions: it can teach nothing else."""
    if batch.has_actions is None:
        return tasks
    has = batch.has_actions.tolist()
    return [task if known else Task.VIDEO for task, known in zip(tasks, has, strict=True)]


def make_context(batch: Batch, training: JointTraining) -> tuple[Context, Tensor | None]:
    """A training context (some histories collapsed, some inputs missing) and the target of its auxiliary state."""
    n = len(batch.actions)
    frozen = torch.rand(n) < training.history_dropout

    def collapsed(rows: Any) -> Any:
        """What an episode's first step would be: the last row (of axis 1), repeated."""
        if rows is None or not len(rows):  # frames are encoded later
            return None
        return torch.where(frozen.view(-1, *[1] * (rows.dim() - 1)), rows[:, -1:], rows)

    history, proprio, frame_state = collapsed(batch.history), collapsed(batch.proprio), batch.frame_state
    if proprio is not None:
        proprio = _hidden(proprio, training.proprio_dropout)
    if frame_state is not None:
        known = torch.where(frozen[:, None, None], frame_state[:, 0, -1:], frame_state[:, 0])
        frame_state = torch.stack([known, frame_state[:, 1]], dim=1)
    history_actions = batch.history_actions
    if history_actions is not None:
        hidden = torch.rand(*history_actions.shape[:2], 1) < training.history_action_dropout
        history_actions = history_actions.masked_fill(hidden, float("nan"))
    context = Context(
        history=history,
        future=batch.future if len(batch.future) else None,
        actions=batch.actions,
        proprio=proprio,
        text=None if batch.text is None else _hidden(batch.text, training.text_dropout),
        history_actions=history_actions,
        wrist_history=None
        if batch.wrist_history is None
        else _hidden(collapsed(batch.wrist_history), training.wrist_dropout),
        wrist_future=batch.wrist_future,
        history_keypoints=collapsed(batch.history_keypoints),
        future_keypoints=batch.future_keypoints,
    )
    return context, frame_state


def _hidden(rows: Tensor, share: float) -> Tensor:
    """With this share of the samples unknown; nothing is drawn where it is 0."""
    if not share:
        return rows
    missing = torch.rand(len(rows), *[1] * (rows.dim() - 1)) < share
    return rows.masked_fill(missing, float("nan"))
