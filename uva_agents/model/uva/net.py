"""The UVA network: history, future and actions to a joint video-action latent, and two diffusion heads on it.

Notation: B samples, T = n_frames, S = tokens per frame, C = channels per token, D = width, A = action_dim.
Frame tokens are (B, T, S, C); :func:`patchify` makes them from VAE latents. The joint latent is (B, T * S, D), frames first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from uva_agents.model.cpu import winograd
from uva_agents.model.defaults import in_float32
from uva_agents.model.keypoints.detector import ConvPointReader, PointDynamics, PointReader, PointWriter
from uva_agents.model.keypoints.recurrent_dynamics import StepDynamics
from uva_agents.model.layers import Attention, Block, Mlp, RowsLinear
from uva_agents.model.uva.config import Task, UVAConfig
from uva_agents.model.uva.heads import ActionHead, ConvFCAggregator, DiffusionHead
from uva_agents.model.uva.inputs import Context, patchify, unpatchify
from uva_agents.model.uva.masking import Visibility


def _embedding(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.02)


_LONG = 256
"""Up to this many tokens, the residual stream stays in a core's cache and passes over it cost nothing."""


class UVA(nn.Module):
    """One network for every size; see :class:`~uva_agents.model.uva.config.UVAConfig`.

    ``joint_latent`` is the transformer (paper section IV-A), ``condition`` / ``video_head`` / ``action_head`` the decoupled
    heads (IV-B). Sampling loops live in :mod:`uva_agents.model.uva.sampling`, training losses in
    :mod:`uva_agents.model.uva.losses`.
    """

    @in_float32
    def __init__(self, config: UVAConfig) -> None:
        super().__init__()
        self.config = c = config
        d, t, s = c.width, c.n_frames, c.tokens_per_frame
        self.gradient_checkpointing = False
        self.sums_in_place = False

        self.history_proj = nn.Linear(c.token_dim, d)
        self.future_proj = nn.Linear(c.token_dim, d)
        self.action_proj = nn.Linear(c.action_dim, d)
        # One token stands for everything missing: masked future frames and absent history.
        self.frame_mask = _embedding(1, d)
        self.action_mask = _embedding(1, d)
        groups = 3
        if c.wrist_image:
            self.wrist_history_proj = nn.Linear(c.token_dim, d)
            groups += 1
        if c.predict_wrist:
            self.wrist_future_proj = nn.Linear(c.token_dim, d)
            self.wrist_mask = _embedding(1, d)
            groups += 1
        if c.history_actions:
            self.history_action_proj = nn.Linear(c.action_dim, d)
            self.history_action_mask = _embedding(1, d)
            groups += 1
        if c.proprio_dim:
            self.proprio_proj = nn.Linear(c.proprio_dim, d)
            if c.proprio_maskable:
                self.proprio_mask = _embedding(1, d)
            groups += 1
        self.mix = nn.Linear(groups * d, d)
        if c.text_dim:
            self.text_proj = nn.Linear(c.text_dim, d)
            self.text_mask = _embedding(1, d)
            self.encoder_text_pos = _embedding(1, c.text_tokens, d)
            self.decoder_text_pos = _embedding(1, c.text_tokens, d)

        if c.standardize:
            self.register_buffer("token_mean", torch.zeros(s, c.token_dim))
            self.register_buffer("token_std", torch.ones(s, c.token_dim))
        if c.frame_points:
            self.point_reader: PointReader | ConvPointReader = (
                ConvPointReader(points=c.frame_points)
                if c.point_reader == "conv"
                else PointReader(image_size=c.image_size, points=c.frame_points)
            )
            self.history_point_proj = nn.Linear(2 * c.frame_points, d)
            self.future_point_proj = nn.Linear(2 * c.frame_points, d)

        self.encoder_time_pos, self.encoder_space_pos = _embedding(1, t, d), _embedding(1, s, d)
        self.decoder_time_pos, self.decoder_space_pos = _embedding(1, t, d), _embedding(1, s, d)
        self.latent_time_pos, self.latent_space_pos = _embedding(1, t, d), _embedding(1, s, d)
        self.input_norm = nn.LayerNorm(d, eps=1e-6)
        self.encoder_blocks = self._blocks(c.encoder_depth)
        self.encoder_norm = nn.LayerNorm(d, eps=1e-6)
        self.decoder_embed = nn.Linear(d, d)
        self.decoder_blocks = self._blocks(c.decoder_depth)
        self.decoder_norm = nn.LayerNorm(d, eps=1e-6)

        self.video_head = DiffusionHead(channels=c.token_dim, cond_channels=d, config=c.video_head)
        if c.predict_wrist:
            self.wrist_head = DiffusionHead(channels=c.token_dim, cond_channels=d, config=c.video_head)
        if c.readout_dim:
            self.readout_squeeze = nn.Linear(d, 48)
            self.readout = nn.Sequential(nn.Linear(48 * s, 256), nn.GELU(), nn.Linear(256, 2 * c.readout_dim))
        if c.frame_sketch:
            dynamics = StepDynamics if c.point_dynamics == "steps" else PointDynamics
            self.point_dynamics: StepDynamics | PointDynamics = dynamics(
                points=c.frame_points, frames=t, steps=c.action_steps, action_dim=c.action_dim
            )
            self.point_writer = PointWriter(points=c.frame_points, grid=c.grid, channels=c.token_dim, axes=c.point_axes)
            self.sketch_proj = nn.Linear(c.token_dim, d)
        if c.predict_actions:
            self.action_head = self._action_head(c.action_dim, extra=2 * t * c.readout_dim)
        if c.predict_proprio_dim:
            self.proprio_head = self._action_head(c.predict_proprio_dim)
        self.apply(_init_linear)
        if c.frame_sketch and isinstance(self.point_dynamics, StepDynamics):
            self.point_dynamics.initialize()
        if c.standardize:
            self._unit_gain()
        self._zero_outputs()

    token_mean: Tensor
    token_std: Tensor

    def _blocks(self, depth: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(
            [
                Block(
                    dim=c.width,
                    heads=c.heads,
                    mlp_ratio=c.mlp_ratio,
                    attention_dropout=c.attention_dropout,
                    dropout=c.dropout,
                )
                for _ in range(depth)
            ]
        )

    def _action_head(self, channels: int, extra: int = 0) -> ActionHead:
        c = self.config
        return ActionHead(
            dim=c.width,
            grid=c.grid,
            frames=c.n_frames,
            steps=c.action_steps,
            channels=channels,
            aggregator=c.aggregator,
            config=c.action_head,
            extra=extra,
            dropout=c.aggregator_dropout,
        )

    def _unit_gain(self) -> None:
        """Actions, proprioception and points enter at the scale of standardised frame tokens.

        Xavier's rule counts the many outputs of these layers and starts them several times smaller than the frames' features.
        """
        names = ("action_proj", "history_action_proj", "proprio_proj", "history_point_proj", "future_point_proj")
        for name in names:
            layer = getattr(self, name, None)
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def _zero_outputs(self) -> None:
        """Heads begin as the zero function: adaLN modulation and output layers start at zero."""
        for module in self.modules():
            if isinstance(module, DiffusionHead):
                for block in module.net.res_blocks:
                    nn.init.zeros_(cast(nn.Linear, cast(nn.Sequential, block.adaLN_modulation)[-1]).weight)
                final = module.net.final_layer
                nn.init.zeros_(cast(nn.Linear, final.adaLN_modulation[-1]).weight)
                nn.init.zeros_(final.linear.weight)

    # -- joint latent ------------------------------------------------------------------------------------------------

    def streamline(self, on: bool = True) -> None:
        """Lay the network out for inference, or (``on=False``) have it go about everything in plain operations.

        Attention in one kernel; and without gradients on a CPU, activations and sums in memory that is kept, the released
        aggregator's convolution with fewer products (:mod:`~uva_agents.model.cpu.winograd`), a denoiser's products turned round.
        Off, it is as the released code where its attention dropout is off. The numbers are the same up to rounding.
        """
        self.sums_in_place = on
        for module in self.modules():
            if isinstance(module, Mlp):
                module.in_place = on
            elif isinstance(module, Attention):
                module.fused = on
            elif isinstance(module, RowsLinear):
                module.turned = on
            elif isinstance(module, ConvFCAggregator):
                winograd.install(module, on, images=module.frames)

    def joint_latent(self, context: Context, visibility: Visibility) -> Tensor:
        """Joint video-action latent Z, (B, T * S, D)."""
        c = self.config
        b = context.batch_size
        x = self._mixed(self._groups(context, visibility, b))
        x = (x + self.encoder_time_pos[:, :, None] + self.encoder_space_pos[:, None]).expand(b, -1, -1, -1)
        x = x.flatten(1, 2)
        if c.text_dim:
            x = torch.cat([self._text_tokens(context.text, b) + self.encoder_text_pos, x], dim=1)
        x = self.encoder_norm(self._run(self.encoder_blocks, self.input_norm(x)))
        x = self.decoder_embed(x)
        position = (self.decoder_time_pos[:, :, None] + self.decoder_space_pos[:, None]).flatten(1, 2)
        if c.text_dim:
            position = torch.cat([self.decoder_text_pos, position], dim=1)
        x = self.decoder_norm(self._run(self.decoder_blocks, x + position))
        if c.text_dim:
            x = x[:, c.text_tokens :]
        return cast(Tensor, x + (self.latent_time_pos[:, :, None] + self.latent_space_pos[:, None]).flatten(1, 2))

    def _run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """x (B, N, D) through the blocks; it may be written over."""
        traced = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
        in_place = (
            self.sums_in_place and not (traced or self.training) and x.device.type == "cpu" and x.shape[1] > _LONG
        )
        for block in blocks:
            if in_place:
                x = cast(Block, block).add_(x)
            elif self.gradient_checkpointing and self.training:
                x = cast(Tensor, checkpoint(block, x, use_reentrant=False))
            else:
                x = block(x)
        return x

    def _mixed(self, groups: list[Tensor]) -> Tensor:
        """One linear map of the concatenated groups, (B, T, S, D).

        Computed group by group: what is missing is one row and what comes per step is a few, and they are spread over the
        positions only after their part of the map.
        """
        parts = self.mix.weight.split(self.config.width, dim=1)
        x: Tensor | None = None
        for group, weight in zip(groups, parts, strict=True):
            part = linear(group, weight, self.mix.bias if x is None else None)
            part = self._spread(part) if part.dim() == 3 else part
            x = part if x is None else x + part
        assert x is not None
        return x

    def _groups(self, context: Context, visibility: Visibility, b: int) -> list[Tensor]:
        """The channel groups of every position in the released order.

        (B, T, S, D), or (B, K, D) for what comes once per step, or (1, 1, 1, D) where all of it is missing.
        """
        c = self.config
        missing = self.frame_mask.view(1, 1, 1, -1)
        hidden = visibility.future_mask[..., None]
        future = self._future(context.future, self.future_proj, missing, hidden)
        if c.frame_points and context.future_points is not None:
            # Only of frames that are shown whole: a masked frame must not leak where things are in it.
            whole = (hidden.sum(2, keepdim=True) == 0).float()
            future = future + whole * self.future_point_proj(context.future_points)[:, :, None]
        if c.frame_sketch and context.actions is not None and context.history_points is not None:
            # Where the actions are given, what they do to the points is given too.
            moved = self.point_dynamics(context.history_points, context.actions)
            future = future + visibility.actions[:, None, None, None] * self.future_point_proj(moved)[:, :, None]
        groups = [future]
        if c.predict_wrist:
            wrist_missing = self.wrist_mask.view(1, 1, 1, -1)
            groups.append(self._future(context.wrist_future, self.wrist_future_proj, wrist_missing, hidden))
        keep = visibility.history[:, None, None, None]
        history = _select(context.history, self.history_proj, missing, keep)
        if c.frame_points and context.history_points is not None:
            history = history + keep.float() * self.history_point_proj(context.history_points)[:, :, None]
        groups.append(history)
        if c.history_actions:
            groups.append(self._history_actions(context.history_actions))
        groups.append(self._per_step(context.actions, self.action_proj, self.action_mask, visibility.actions))
        if c.wrist_image:
            if context.wrist_history is None:
                raise ValueError("this network sees a wrist camera: give wrist_history")
            groups.append(self.wrist_history_proj(context.wrist_history))
        if c.proprio_dim:
            groups.append(self._proprio(context.proprio, visibility))
        return groups

    def _future(self, tokens: Tensor | None, proj: nn.Module, missing: Tensor, hidden: Tensor) -> Tensor:
        if tokens is None:
            return missing
        return cast(Tensor, proj(tokens) * (1 - hidden) + missing * hidden)

    def _per_step(self, steps: Tensor | None, proj: nn.Module, missing: Tensor, keep: Tensor) -> Tensor:
        """(B, K, A) where ``keep`` (B,) or (B, K, 1), the mask token elsewhere."""
        if steps is None:
            return missing.view(1, 1, 1, -1)
        return _select(steps, proj, missing.view(1, 1, -1), keep if keep.dim() == 3 else keep[:, None, None])

    def _history_actions(self, actions: Tensor | None) -> Tensor:
        if actions is None:
            return self.history_action_mask.view(1, 1, 1, -1)
        known = torch.isfinite(actions).all(dim=-1, keepdim=True)
        actions = torch.where(known, actions, 0.0)
        return self._per_step(actions, self.history_action_proj, self.history_action_mask, known)

    def _proprio(self, proprio: Tensor | None, visibility: Visibility) -> Tensor:
        if not self.config.proprio_maskable:
            if proprio is None:
                raise ValueError("this network needs proprioception: give proprio")
            return cast(Tensor, self.proprio_proj(proprio))
        keep = visibility.history[:, None, None]
        if proprio is not None:
            known = torch.isfinite(proprio).all(dim=-1, keepdim=True)
            keep, proprio = keep & known, torch.where(known, proprio, 0.0)
        return self._per_step(proprio, self.proprio_proj, self.proprio_mask, keep)

    def _spread(self, steps: Tensor) -> Tensor:
        """Per-step features (B, K, D) -> one per position (B, T, S, D), each step covering T * S / K in a row.

        With 16 steps, 4 frames and a 16x16 grid, each of a frame's 4 actions covers 4 rows. Where the grid does not divide
        evenly, positions take the step they fall into.
        """
        c = self.config
        b, k, d = steps.shape
        positions = c.n_frames * c.tokens_per_frame
        if positions % k == 0:
            spread = steps[:, :, None].expand(-1, -1, positions // k, -1)
        else:
            spread = steps.index_select(1, torch.arange(positions, device=steps.device) * k // positions)
        return spread.reshape(b, c.n_frames, c.tokens_per_frame, d)

    def _text_tokens(self, text: Tensor | None, b: int) -> Tensor:
        tokens = self.text_mask.expand(b, -1) if text is None else self.text_proj(text)
        return tokens[:, None].expand(-1, self.config.text_tokens, -1)

    # -- heads -------------------------------------------------------------------------------------------------------

    def to_tokens(self, latents: Tensor) -> Tensor:
        """VAE latents (..., C, h, w) -> the tokens (..., S, C) that the network sees, standardised where it does that."""
        tokens = patchify(latents, self.config.patch_size)
        return (tokens - self.token_mean) / self.token_std if self.config.standardize else tokens

    def to_latents(self, tokens: Tensor) -> Tensor:
        """Inverse of :meth:`to_tokens`."""
        if self.config.standardize:
            tokens = tokens * self.token_std + self.token_mean
        return unpatchify(tokens, self.config.patch_size)

    def read_out(self, z: Tensor) -> Tensor:
        """State of history and future frames read from the joint latent: (B, 2, T, readout_dim)."""
        c = self.config
        frames = self.readout_squeeze(z).view(len(z), c.n_frames, -1)
        state: Tensor = self.readout(torch.nn.functional.gelu(frames))
        return state.view(len(z), c.n_frames, 2, c.readout_dim).transpose(1, 2)

    def sketch(self, context: Context, actions: Tensor) -> Tensor:
        """The current frame with its points where the actions take them: tokens (B, T, S, C).

        Args:
            context: with the history and its points.
            actions: (B, action_steps, A), normalised.
        """
        if context.history is None or context.history_points is None:
            raise ValueError("this network draws frames from the current one: give history and history_points")
        c = self.config
        seen = self._located(context.history_points, context.proprio)
        moved = self.moved_points(context, actions)
        points = seen[:, -1:].expand(-1, c.n_frames, -1)
        now = context.history[:, -1:].expand(-1, c.n_frames, -1, -1)
        if not c.standardize:
            return cast(Tensor, self.point_writer(now, points, moved))
        drawn = self.point_writer(now * self.token_std + self.token_mean, points, moved)
        return cast(Tensor, (drawn - self.token_mean) / self.token_std)

    def moved_points(self, context: Context, actions: Tensor) -> Tensor:
        """Where the actions take the points of a sketch: (B, T, 2K).

        Args:
            context: with the history's points.
            actions: (B, action_steps, A), normalised.
        """
        if context.history_points is None:
            raise ValueError("this network moves the points of its history: give history_points")
        moved: Tensor = self.point_dynamics(self._located(context.history_points, context.proprio), actions)
        return moved

    def _located(self, points: Tensor, proprio: Tensor | None) -> Tensor:
        """History points (B, T, 2K), with those that proprioception measures from there where it is known."""
        size = 2 * self.config.proprio_points
        if not size or proprio is None:
            return points
        measured = proprio[..., :size]
        known = torch.where(torch.isfinite(measured), measured, points[..., :size])
        return torch.cat([known, points[..., size:]], dim=-1)

    def video_condition(self, z: Tensor, sketch: Tensor | None = None) -> Tensor:
        """Condition of the video head (B, T * S, D); a sketch, where there is one, is what its samples are added to."""
        return z if sketch is None else z + self.sketch_proj(sketch).flatten(1, 2)

    def action_condition(self, z: Tensor, readout: Tensor | None = None) -> Tensor:
        """Condition of the action head from the joint latent (B, T * S, D)."""
        if not self.config.readout_dim:
            return self.action_head.condition(z)
        readout = self.read_out(z) if readout is None else readout
        return self.action_head.condition(z, readout.flatten(1))

    def visibility(self, task: Task, batch_size: int, future_mask: Tensor | None = None) -> Visibility:
        """Visibility of one task for a whole batch, as in inference: all future frames masked unless given."""
        c = self.config
        device = self.frame_mask.device
        if future_mask is None:
            future_mask = torch.ones(batch_size, c.n_frames, c.tokens_per_frame, device=device, dtype=torch.float32)
        return Visibility.for_tasks([task] * batch_size, future_mask)


def _select(tokens: Tensor | None, proj: Callable[[Tensor], Tensor], missing: Tensor, keep: Tensor) -> Tensor:
    """Projected tokens where ``keep``, the mask token elsewhere."""
    return missing if tokens is None else torch.where(keep, proj(tokens), missing)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
