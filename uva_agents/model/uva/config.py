"""Frozen configuration of the UVA network, and the five tasks that one set of weights is trained for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from uva_agents.model.schedulers import Prediction
from uva_agents.model.vae import VAEConfig

Aggregator = Literal["conv_fc", "conv_ori", "conv2", "fc2", "flatten"]


class Task(StrEnum):
    """What is given and what is predicted (paper section IV-C). Values are the names in the released code.

    ============== =============== ========= ============ ===============
    task           future frames   history   actions      predicts
    ============== =============== ========= ============ ===============
    VIDEO          partly masked   given     masked       frames
    FORWARD        partly masked   given     given        frames
    POLICY         masked          given     masked       actions
    INVERSE        given           masked    masked       actions
    POLICY_VIDEO   partly masked   given     masked       frames, actions
    ============== =============== ========= ============ ===============
    """

    VIDEO = "video_model"
    FORWARD = "dynamic_model"
    POLICY = "policy_model"
    INVERSE = "inverse_model"
    POLICY_VIDEO = "full_dynamic_model"

    @property
    def predicts_video(self) -> bool:
        """Whether frames are predicted."""
        return self in (Task.VIDEO, Task.FORWARD, Task.POLICY_VIDEO)

    @property
    def predicts_actions(self) -> bool:
        """Whether actions are predicted."""
        return self in (Task.POLICY, Task.INVERSE, Task.POLICY_VIDEO)


@dataclass(frozen=True)
class HeadConfig:
    """A diffusion head: an adaLN MLP that denoises one vector given a condition.

    Args:
        width: hidden width.
        depth: residual blocks.
        prediction: what the network outputs. ``"epsilon"`` is the released one (with a learned variance);
            ``"v"`` and ``"flow"`` are safe to sample in few steps.
        clip: bound on the predicted clean sample while sampling; ``None`` leaves it free.
        draws: noise draws per condition in training (they share the transformer's work).
        share: of the masked tokens whose loss is computed in a training step, drawn anew each time: the same gradient on
            average, for less work. Frames have many tokens and neighbours tell much the same.
    """

    width: int = 1024
    depth: int = 6
    prediction: Prediction = "epsilon"
    clip: float | None = None
    draws: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.share <= 1:
            raise ValueError(f"draws={self.draws} must be at least 1, and share={self.share} in (0, 1]")


@dataclass(frozen=True)
class UVAConfig:
    """Everything that determines the network's tensors.

    Frames enter as VAE latents of ``latent_size`` x ``latent_size``, cut into ``patch_size`` patches; history frame i and
    future frame i share their tokens (concatenated channel-wise), so there are ``n_frames * tokens_per_frame`` of them.

    Args:
        vae: the autoencoder that makes the latents.
        image_size: side of the square images the VAE sees, pixels.
        patch_size: side of a token's patch, in latent pixels (1 in the released models).
        width, encoder_depth, decoder_depth, heads, mlp_ratio: the transformer.
        attention_dropout, dropout, aggregator_dropout: training only.
        n_frames: history frames, and as many future frames.
        history_steps, action_steps: control steps that the history and the future cover.
        action_dim: numbers per action.
        video_head, action_head: diffusion heads.
        aggregator: how joint-latent tokens become action conditions. ``"flatten"`` conditions one chunk-wise head;
            the others are the released ones, a condition per action.
        text_dim: size of the instruction vector (512 for CLIP), 0 without text.
        text_tokens: prefix tokens that carry it.
        proprio_dim: numbers per proprioception step, 0 without.
        proprio_steps: ``history_steps`` rows, or ``n_frames`` rows, one per history frame.
        proprio_maskable: learn a mask token for proprioception, so that it may be missing (inverse dynamics, video).
        history_actions: the actions that led here are an input.
        wrist_image: a wrist camera's history frames are an input.
        wrist_maskable: learn a mask token for them, so that they may be missing (inverse dynamics, imagined frames).
        predict_wrist: and its future frames are predicted.
        predict_proprio_dim: numbers per step of predicted future proprioception, 0 without.
        frame_state_dim: numbers per frame of low-dimensional state (keypoints, say) that an auxiliary head predicts from the
            joint latent and hands to the action head, 0 without. Trained where the data has them; never an input.
        num_keypoints: keypoints that a detector finds in every visible frame and that are embedded with its tokens, 0 without.
        keypoint_detector: ``"mlp"`` on the averaged image, or ``"conv"`` with a spatial softmax, for small objects in large
            pictures.
        keypoint_axes: ``"yx"`` where a keypoint's first coordinate runs down the picture.
        rendered_prior: move the frame's keypoints by the actions, render the current frame with them moved, and let the video
            head sample what is missing from that. Needs ``num_keypoints``, and a state head for the same keypoints.
        keypoint_dynamics: how actions move keypoints: ``"chunk"``, all steps at once; ``"steps"``, one after the other, for one
            object that pushes others, see :class:`~uva_agents.model.keypoints.recurrent_dynamics.RecurrentDynamics`.
        proprio_keypoints: so many leading keypoints are what proprioception measures, in the same units: where it is known, they
            are rendered from there instead of from where they were detected.
        keypoint_input: which keypoints the transformer is told to be moved by given actions: ``"detected"`` ones alone, or with
            those that proprioception measures taken from there, as frames are rendered (``proprio_keypoints``).
        standardize: shift and scale every latent of every position to mean 0 and deviation 1 over the training data.
        predict_actions: false for a video-only network (the released first stage).
    """

    vae: VAEConfig = field(default_factory=VAEConfig)
    image_size: int = 256
    patch_size: int = 1
    width: int = 768
    encoder_depth: int = 12
    decoder_depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    attention_dropout: float = 0.1
    dropout: float = 0.1
    aggregator_dropout: float = 0.0
    n_frames: int = 4
    history_steps: int = 16
    action_steps: int = 16
    action_dim: int = 2
    video_head: HeadConfig = field(default_factory=HeadConfig)
    action_head: HeadConfig = field(default_factory=lambda: HeadConfig(clip=1.0))
    aggregator: Aggregator = "conv_fc"
    text_dim: int = 0
    text_tokens: int = 64
    proprio_dim: int = 0
    proprio_steps: int = 16
    proprio_maskable: bool = False
    history_actions: bool = False
    wrist_image: bool = False
    wrist_maskable: bool = False
    predict_wrist: bool = False
    predict_proprio_dim: int = 0
    frame_state_dim: int = 0
    num_keypoints: int = 0
    keypoint_detector: Literal["mlp", "conv"] = "mlp"
    keypoint_axes: Literal["xy", "yx"] = "xy"
    rendered_prior: bool = False
    keypoint_dynamics: Literal["chunk", "steps"] = "chunk"
    proprio_keypoints: int = 0
    keypoint_input: Literal["detected", "measured"] = "detected"
    standardize: bool = False
    predict_actions: bool = True

    def __post_init__(self) -> None:
        if self.image_size % (16 * self.patch_size):
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of 16 * patch_size ({16 * self.patch_size})"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.action_steps % self.n_frames or self.history_steps % self.n_frames:
            raise ValueError("action_steps and history_steps must be multiples of n_frames")
        if self.proprio_dim and self.proprio_steps not in (self.history_steps, self.n_frames):
            raise ValueError(f"proprio_steps must be history_steps or n_frames, got {self.proprio_steps}")
        if self.rendered_prior and (not self.num_keypoints or self.frame_state_dim != 2 * self.num_keypoints):
            raise ValueError(
                "rendered_prior moves the keypoints that are detected: num_keypoints must be positive and frame_state_dim twice "
                f"that, got {self.num_keypoints} and {self.frame_state_dim}"
            )
        if self.proprio_keypoints and (
            2 * self.proprio_keypoints > self.proprio_dim or self.proprio_steps != self.n_frames
        ):
            raise ValueError(
                f"proprio_keypoints {self.proprio_keypoints} needs 2 numbers of proprioception each, one row per frame; "
                f"got proprio_dim {self.proprio_dim}, proprio_steps {self.proprio_steps}"
            )
        if (self.predict_wrist or self.wrist_maskable) and not self.wrist_image:
            raise ValueError(f"{'predict_wrist' if self.predict_wrist else 'wrist_maskable'} needs wrist_image")

    @cached_property
    def latent_size(self) -> int:
        """Side of a frame's latent map."""
        return self.image_size // 16

    @cached_property
    def grid(self) -> int:
        """Tokens along one side of a frame."""
        return self.latent_size // self.patch_size

    @cached_property
    def tokens_per_frame(self) -> int:
        """Tokens of a frame: S in shapes."""
        return self.grid**2

    @cached_property
    def token_dim(self) -> int:
        """Channels of one latent token."""
        return self.vae.z_channels * self.patch_size**2

    @cached_property
    def frame_stride(self) -> int:
        """Control steps between the frames that the network sees."""
        return self.action_steps // self.n_frames

    @property
    def sees_frames_alone(self) -> bool:
        """Whether frames alone are enough: nothing must be given that only the robot measures."""
        return not (self.wrist_image and not self.wrist_maskable) and not (
            self.proprio_dim and not self.proprio_maskable
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UVAConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: unknown or ill-typed fields, by name.
        """
        values = dict(values)
        unknown = set(values) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown UVAConfig fields {sorted(unknown)}: the file was written by another version")
        try:
            if "vae" in values:
                vae = dict(values["vae"])
                vae["channel_mult"] = tuple(vae.get("channel_mult", (1, 1, 2, 2, 4)))
                values["vae"] = VAEConfig(**vae)
            for name in ("video_head", "action_head"):
                if name in values:
                    values[name] = HeadConfig(**values[name])
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"bad UVAConfig: {error}") from error
