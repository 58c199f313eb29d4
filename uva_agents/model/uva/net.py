"""The UVA network (paper Figure 2): history, future and actions to a joint video-action latent, and two diffusion heads on it.

Notation: B samples, T = n_frames, S = tokens per frame, C = channels per token, D = width, A = action_dim, K = action_steps.
Frame tokens are (B, T, S, C); :func:`patchify` makes them from VAE latents. The joint latent is (B, T * S, D), frames first.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from uva_agents.model.defaults import in_float32
from uva_agents.model.layers import Block, Blocks
from uva_agents.model.uva.config import Task, UVAConfig
from uva_agents.model.uva.guides import guide_for
from uva_agents.model.uva.heads import ActionHead, DiffusionHead, StateHead
from uva_agents.model.uva.initial import initialize
from uva_agents.model.uva.inputs import Context, InputGroup, Visibility, input_groups, patchify, unpatchify
from uva_agents.model.uva.old_names import first_name, renamed, renamed_tensors


def _embedding(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.02)


class UVANet(nn.Module):
    """One network for every size; see :class:`~uva_agents.model.uva.config.UVAConfig`.

    ``joint_latent`` is the transformer (paper section IV-A), ``video_condition`` with ``video_head`` and ``action_condition`` with
    ``action_head`` the decoupled heads (IV-B). Sampling loops live in :mod:`uva_agents.model.uva.sampling`, training losses in
    :mod:`uva_agents.model.uva.losses`.

    Attributes:
        inputs: the inputs that are concatenated at every position, in their order.
        guide: adds to the embeddings of history and future, and renders what the video head completes; ``None`` in the paper.
    """

    @in_float32
    def __init__(self, config: UVAConfig) -> None:
        super().__init__()
        self.config = c = config
        d, t, s = c.width, c.n_frames, c.tokens_per_frame
        self.inputs = input_groups(c)
        for group in self.inputs:
            setattr(self, group.projection, nn.Linear(group.channels, d))
            if group.mask is not None and not hasattr(self, group.mask):
                setattr(self, group.mask, _embedding(1, d))
        self.mix = nn.Linear(len(self.inputs) * d, d)
        if c.text_dim:
            self.text_proj = nn.Linear(c.text_dim, d)
            self.text_mask = _embedding(1, d)
            self.encoder_text_pos = _embedding(1, c.text_tokens, d)
            self.decoder_text_pos = _embedding(1, c.text_tokens, d)
        if c.standardize:
            for camera in ("", "wrist_") if c.wrist_image else ("",):
                self.register_buffer(f"{camera}token_mean", torch.zeros(s, c.token_dim))
                self.register_buffer(f"{camera}token_std", torch.ones(s, c.token_dim))

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
        if c.predict_actions:
            self.action_head = self._action_head(c.action_dim, extra=2 * t * c.frame_state_dim)
        if c.predict_proprio_dim:
            self.proprio_head = self._action_head(c.predict_proprio_dim)
        self.state_head = StateHead(dim=d, tokens=s, frames=t, out=c.frame_state_dim) if c.frame_state_dim else None
        self.guide = guide_for(c)
        initialize(self, standardized=c.standardize)
        self.register_load_state_dict_pre_hook(renamed_tensors)  # type: ignore[no-untyped-call]

    renamed_tensor, first_tensor_name = staticmethod(renamed), staticmethod(first_name)
    frame_mask: Tensor
    token_mean: Tensor
    token_std: Tensor
    wrist_token_mean: Tensor
    wrist_token_std: Tensor

    def _blocks(self, depth: int) -> Blocks:
        c = self.config
        options: dict[str, Any] = dict(dim=c.width, heads=c.heads, mlp_ratio=c.mlp_ratio)
        options |= dict(attention_dropout=c.attention_dropout, dropout=c.dropout)
        return Blocks([Block(**options) for _ in range(depth)])

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

    def set_gradient_checkpointing(self, on: bool) -> None:
        """In training, compute the blocks' activations again in the backward pass instead of keeping them."""
        self.encoder_blocks.checkpointing = self.decoder_blocks.checkpointing = on

    # -- joint latent ------------------------------------------------------------------------------------------------

    def joint_latent(self, context: Context, visibility: Visibility) -> Tensor:
        """Joint video-action latent Z, (B, T * S, D) (paper section IV-A)."""
        c = self.config
        b = context.batch_size
        x = self._mixed(context, visibility)
        x = (x + self.encoder_time_pos[:, :, None] + self.encoder_space_pos[:, None]).expand(b, -1, -1, -1)
        x = x.flatten(1, 2)
        if c.text_dim:
            x = torch.cat([self._text_tokens(context.text, b) + self.encoder_text_pos, x], dim=1)
        x = self.encoder_norm(self.encoder_blocks(self.input_norm(x)))
        x = self.decoder_embed(x)
        position = (self.decoder_time_pos[:, :, None] + self.decoder_space_pos[:, None]).flatten(1, 2)
        if c.text_dim:
            position = torch.cat([self.decoder_text_pos, position], dim=1)
        x = self.decoder_norm(self.decoder_blocks(x + position))
        if c.text_dim:
            x = x[:, c.text_tokens :]
        return cast(Tensor, x + (self.latent_time_pos[:, :, None] + self.latent_space_pos[:, None]).flatten(1, 2))

    def _mixed(self, context: Context, visibility: Visibility) -> Tensor:
        """One linear map of all inputs, concatenated channel-wise at every position: (B, T, S, D).

        Computed input by input: what is missing is one row and what comes per step is a few, and they are expanded over the
        positions only after their part of the map.
        """
        embedded = {group.name: self._embedded(group, context, visibility) for group in self.inputs}
        if self.guide is not None:
            self.guide.embed(embedded, context, visibility)
        parts = self.mix.weight.split(self.config.width, dim=1)
        x: Tensor | None = None
        for features, weight in zip(embedded.values(), parts, strict=True):
            part = linear(features, weight, self.mix.bias if x is None else None)
            part = self._to_positions(part) if part.dim() == 3 else part
            x = part if x is None else x + part
        assert x is not None
        return x

    def _embedded(self, group: InputGroup, context: Context, visibility: Visibility) -> Tensor:
        """One input, with the mask token for what is missing or hidden.

        (B, T, S, D), or (B, K, D) for what comes once per step, or (1, 1, 1, D) where all of it is missing.
        """
        value: Tensor | None = getattr(context, group.name)
        projection = cast(nn.Linear, getattr(self, group.projection))
        if group.mask is None:
            if value is None:
                raise ValueError(group.required)
            return cast(Tensor, projection(value))
        token = cast(Tensor, getattr(self, group.mask))
        if value is None:
            return token.view(1, 1, 1, -1)
        known = torch.isfinite(value).all(dim=-1, keepdim=True)
        features = projection(torch.where(known, value, 0.0))
        if group.shown_with == "future":
            known = known & (visibility.future_mask == 0)[..., None]
        elif group.shown_with != "always":
            shown = visibility.history if group.shown_with == "history" else visibility.actions
            known = known & shown.view(-1, *[1] * (value.dim() - 1))
        return torch.where(known, features, token.view(*[1] * (value.dim() - 1), -1))

    def _to_positions(self, steps: Tensor) -> Tensor:
        """Per-step features (B, K, D) -> one per position (B, T, S, D), each step covering T * S / K in a row.

        With 16 steps, 4 frames and a 16x16 grid, each of a frame's 4 actions covers 4 rows. Where the grid does not divide
        evenly, positions take the step they fall into.
        """
        c = self.config
        b, k, d = steps.shape
        positions = c.n_frames * c.tokens_per_frame
        if positions % k == 0:
            expanded = steps[:, :, None].expand(-1, -1, positions // k, -1)
        else:
            expanded = steps.index_select(1, torch.arange(positions, device=steps.device) * k // positions)
        return expanded.reshape(b, c.n_frames, c.tokens_per_frame, d)

    def _text_tokens(self, text: Tensor | None, b: int) -> Tensor:
        if text is None:
            tokens = self.text_mask.expand(b, -1)
        else:
            known = torch.isfinite(text).all(dim=-1, keepdim=True)
            tokens = torch.where(known, self.text_proj(torch.where(known, text, 0.0)), self.text_mask)
        return tokens[:, None].expand(-1, self.config.text_tokens, -1)

    # -- heads (paper section IV-B) ----------------------------------------------------------------------------------

    def video_condition(self, z: Tensor, prior: Tensor | None = None) -> Tensor:
        """Condition of the video head (B, T * S, D); a rendered prior, where there is one, is what its samples are added to."""
        return z if prior is None or self.guide is None else self.guide.condition(z, prior)

    def action_condition(self, z: Tensor, state: Tensor | None = None) -> Tensor:
        """Condition of the action head from the joint latent (B, T * S, D), and what the state head made of it."""
        if self.state_head is None:
            return self.action_head.condition(z)
        state = self.state_head(z) if state is None else state
        return self.action_head.condition(z, state.flatten(1))

    def render_prior(self, context: Context, actions: Tensor | None) -> Tensor | None:
        """What the guide draws of the future, (B, T, S, C), where there is one and actions (B, K, A) are known."""
        if self.guide is None or not self.guide.renders or actions is None:
            return None
        return self.guide.render(
            context, actions, (self.token_mean, self.token_std) if self.config.standardize else None
        )

    # -- tokens and tasks --------------------------------------------------------------------------------------------

    def token_statistics(self, *, wrist: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (S, C) of a camera's tokens, for networks that standardise them."""
        return (self.wrist_token_mean, self.wrist_token_std) if wrist else (self.token_mean, self.token_std)

    def to_tokens(self, latents: Tensor, *, wrist: bool = False) -> Tensor:
        """VAE latents (..., C, h, w) -> the tokens (..., S, C) that the network sees, standardised where it does that."""
        tokens = patchify(latents, self.config.patch_size)
        if not self.config.standardize:
            return tokens
        mean, std = self.token_statistics(wrist=wrist)
        return (tokens - mean) / std

    def to_latents(self, tokens: Tensor, *, wrist: bool = False) -> Tensor:
        """Inverse of :meth:`to_tokens`."""
        if self.config.standardize:
            mean, std = self.token_statistics(wrist=wrist)
            tokens = tokens * std + mean
        return unpatchify(tokens, self.config.patch_size)

    def visibility(self, task: Task, batch_size: int, future_mask: Tensor | None = None) -> Visibility:
        """Visibility of one task for a whole batch, as in inference: all future frames masked unless given."""
        c = self.config
        device = self.frame_mask.device
        if future_mask is None:
            future_mask = torch.ones(batch_size, c.n_frames, c.tokens_per_frame, device=device, dtype=torch.float32)
        return Visibility.for_tasks([task] * batch_size, future_mask)
