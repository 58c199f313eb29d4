"""What a recipe says about the training of UVA's network itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uva_agents.data.clip_augmentation import ClipAugmentation
from uva_agents.model import Task
from uva_agents.training.recipe import StageConfig


@dataclass(frozen=True)
class JointTraining:
    """Training of the network itself: a video stage, then all tasks.

    Args:
        video, joint: optimisation.
        task_weights: share of each task in the joint stage.
        mask_minimum, mask_std: of the truncated normal that draws how much of a future frame is masked.
        history_dropout: share of samples whose history is the current frame repeated, as at the start of an episode.
        proprio_dropout: share of samples that get no proprioception.
        text_dropout: share of samples that get no instruction, where those are an input.
        wrist_dropout: share of samples that get no second camera, where that may be missing.
        history_action_dropout: share of the actions before now that are hidden, where they are an input.
        varied_history: draw which past frames a step's history consists of, instead of evenly spaced ones.
        distinct_histories: with ``varied_history``, every sample has its own: as many different ones of the steps up to now, which
            need not be among them.
        draw_together: a batch has one task and one masked share, as in the released code; each sample its own otherwise.
        start_noise: standard deviation of noise on the pose at an episode's start, metres and radians, where proprioception
            refers to it.
        clips: augment frames and encode them in the training step, with latents drawn from the posterior, instead of encoding
            augmented variants of the data once; ``None`` for the latter.
        own_video_network: the video stage trains a network without action head, proprioception and second camera, whose tensors
            are then taken over wherever name and shape match, as in the released code.
        weigh_windows: a dataset's share of what is drawn is its number of windows times its weight, instead of its weight.
        latent_noise: standard deviation of noise on the latents in training (their own is 1).
        action_weight, frame_state_weight: of the action loss and the auxiliary state loss.
        gradient_checkpointing: recompute the transformer's activations in the backward pass instead of keeping them.
    """

    video: StageConfig
    joint: StageConfig
    task_weights: Mapping[Task, float]
    mask_minimum: float = 0.2
    mask_std: float = 0.5
    history_dropout: float = 0.0
    proprio_dropout: float = 0.1
    text_dropout: float = 0.1
    wrist_dropout: float = 0.0
    history_action_dropout: float = 0.5
    varied_history: bool = False
    distinct_histories: bool = False
    draw_together: bool = False
    start_noise: float = 0.0
    clips: ClipAugmentation | None = None
    own_video_network: bool = False
    weigh_windows: bool = False
    latent_noise: float = 0.0
    action_weight: float = 1.0
    frame_state_weight: float = 2.0
    gradient_checkpointing: bool = False
