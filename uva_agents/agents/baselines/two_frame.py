"""TwoFrameInverse: the actions between two consecutive frames, the baseline that InverseModel is compared to."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch

from uva_agents.agents.arguments import whole
from uva_agents.agents.guards import Inputs, all_finite, check_networks, not_finite, rows_not_finite
from uva_agents.agents.observations import check_pixels
from uva_agents.checkpoints.networks import NetBundle, load_two_frame
from uva_agents.data.latents import weights_fingerprint
from uva_agents.data.transforms import ReferencePoses, to_environment
from uva_agents.errors import InputError
from uva_agents.model import TwoFrameNet
from uva_agents.utils.forks import keep_forks_safe
from uva_agents.utils.images import resize_frames


class TwoFrameInverse:
    """Inverse dynamics as in UniPi (UVA paper, Table VI): a residual network looks at two consecutive frames of a video.

    Unlike :class:`~uva_agents.agents.inverse_model.InverseModel` it sees nothing before and after: what it says about a pair
    of frames does not depend on the others. The frames are ``stride`` control steps apart, and it gives the actions between.

    Args:
        bundle: network, normaliser and interface.
        batch_size: pairs computed together.
    """

    def __init__(self, bundle: NetBundle[TwoFrameNet], *, batch_size: int = 256) -> None:
        self.bundle = bundle
        keep_forks_safe()
        self.batch_size = whole(batch_size, "batch_size")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: str | torch.device = "auto", **options: Any) -> Self:
        """A shipped name or a weights folder; ``options`` go to the constructor.

        Raises:
            FileNotFoundError: unknown name; the message lists close matches.
            ValueError: damaged or foreign files; weights of another kind, with the class that takes them.
        """
        return cls(load_two_frame(name_or_path, device=device), **options)

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one environment action."""
        return self.bundle.spec.action_space

    @property
    def name(self) -> str:
        """Of the weights."""
        return self.bundle.name

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tensors."""
        return weights_fingerprint(self.bundle.model)

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return self.bundle.device

    @property
    def stride(self) -> int:
        """Control steps from frame to frame."""
        return self.bundle.model.config.stride

    @torch.no_grad()
    def infer(self, frames: Any) -> np.ndarray:
        """The actions between consecutive frames.

        Args:
            frames: uint8 (F, H, W, 3) or (B, F, H, W, 3), ``stride`` control steps apart; at least 2.

        Returns:
            ((F - 1) * stride, A), with a leading B for a batch, environment units, from the action taken at the first frame on.
            Poses that are relative to the tool are put together, in the frame of the first one.

        Raises:
            ValueError: wrong shape or dtype, or a single frame.
        """
        pixels = check_pixels(frames, self.bundle.spec.image_shape, video=True)
        batched = pixels.ndim == 5
        pixels = pixels if batched else pixels[None]
        videos, length = pixels.shape[:2]
        if length < 2:
            raise InputError(
                f"the two-frame baseline takes at least 2 frames, {self.stride} control steps apart, got 1"
            )
        check_networks(self.bundle.name, {"model": self.bundle.model}, self.device)
        side = self.bundle.model.config.encoder.image_size
        small = resize_frames(pixels.reshape(-1, *pixels.shape[2:]), side)
        first = (np.arange(videos)[:, None] * length + np.arange(length - 1)).reshape(-1)
        parts = []
        for begin in range(0, len(first), self.batch_size):
            rows = first[begin : begin + self.batch_size, None] + np.arange(2)
            actions = self.bundle.model(torch.from_numpy(small[rows]).to(self.device))
            parts.append(self.bundle.normalizer.unnormalize("action", actions).float().cpu().numpy())
        space = self.action_space
        raw = np.concatenate(parts)
        if not all_finite(raw):

            def inputs(pair: int) -> Inputs:
                video, i = divmod(pair, length - 1)
                what = f"frames {i} and {i + 1} of video {video} of {videos} (counted from 0)"
                return Inputs(what, {"frames": pixels[video, i : i + 2]})

            raise not_finite(
                rows_not_finite(raw),
                weights=self.name,
                head="two-frame network",
                inputs=inputs,
                modules={"model": self.bundle.model},
            )
        chunks_of_pairs = raw.reshape(videos, length - 1, self.stride, -1)
        actions = np.stack([self._in_environment(pairs) for pairs in chunks_of_pairs])
        if self.bundle.spec.relative is None:  # else poses are in the frame of the first one, without bounds
            actions = np.clip(actions, space.low, space.high)
        actions = actions.astype(np.float32)
        chunks: np.ndarray = actions if batched else actions[0]
        return chunks

    def _in_environment(self, pairs: np.ndarray) -> np.ndarray:
        """Of one video: (F - 1, stride, A) as the network has them -> ((F - 1) * stride, E).

        Relative poses go on from where the pair of frames before has led, the first from the origin.
        """
        spec = self.bundle.spec
        relative = spec.relative
        if relative is None:
            return to_environment(spec.action_transforms, pairs.reshape(-1, pairs.shape[-1]), ReferencePoses())
        pose, found = relative.origin(), []
        for actions in pairs:
            found.append(to_environment(spec.action_transforms, actions, ReferencePoses(now=pose)))
            pose = relative.pose_after(found[-1][-1])
        return np.concatenate(found)

    def label(self, video: Any) -> np.ndarray:
        """Actions of a whole video at the control rate, from every ``stride``-th of its frames and the last one.

        Args:
            video: uint8 (N, H, W, 3), one frame per control step, of any length from 2.

        Returns:
            (N - 1, A), environment units: row t is the action taken at frame t.

        Raises:
            ValueError: wrong shape or dtype, or a single frame.
        """
        pixels = check_pixels(video, self.bundle.spec.image_shape, video=True)
        if pixels.ndim != 4 or len(pixels) < 2:
            raise InputError(f"label() takes one video (N, H, W, 3) of at least 2 frames, got {pixels.shape}")
        last, stride = len(pixels) - 1, self.stride
        if self.bundle.spec.relative is not None:  # each pair goes on from the one before
            index = np.minimum(np.arange(0, last + stride, stride), last)
            return self.infer(pixels[index])[:last]
        if last <= stride:  # continued by its last frame
            return self.infer(pixels[[0, last]])[:last]
        whole = last // stride * stride
        actions = self.infer(pixels[: whole + 1 : stride])
        if whole < last:
            actions = np.concatenate([actions, self.infer(pixels[[last - stride, last]])[whole - last :]])
        return actions
