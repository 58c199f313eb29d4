"""One set of weights behind all three agents: preprocessing and encoding that they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from uva_agents.agents.observations import Instruction, to_numpy
from uva_agents.agents.pose_actions import environment_pose_actions, network_pose_actions, relative_proprio
from uva_agents.checkpoints.store import Bundle, load_bundle
from uva_agents.data.latents import weights_fingerprint

if TYPE_CHECKING:
    from uva_agents.agents.inverse_model import InverseModel
    from uva_agents.agents.policy import Policy
    from uva_agents.agents.world_model import WorldModel


@dataclass(frozen=True)
class FrameCode:
    """What the network sees of frames: tokens (..., S, C) and, where it uses them, points (..., 2K) and wrist tokens."""

    tokens: Tensor
    points: Tensor | None
    wrist: Tensor | None = None

    def __getitem__(self, index: int) -> FrameCode:
        return FrameCode(*(None if part is None else part[index] for part in vars(self).values()))  # type: ignore[arg-type]


class UVA:
    """Unified Video Action model: ``.policy()``, ``.world_model()`` and ``.inverse_model()`` share these weights.

    Args:
        bundle: network, autoencoder, normaliser and interface.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        bundle.model.streamline()
        if bundle.vae.config.kind == "kl-f16":
            bundle.vae.streamline()
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device = "auto",
        heads: int | None = None,
        compile: bool = False,
    ) -> Self:
        """A shipped name, a weights folder or a released ``.ckpt`` file.

        Args:
            heads: attention heads, for a released file of none of the named sizes.
            compile: see :meth:`compile`.

        Raises:
            FileNotFoundError: unknown name; the message lists close matches.
            ValueError: damaged or foreign files.
        """
        uva = cls(load_bundle(name_or_path, device=device, heads=heads))
        return uva.compile() if compile else uva

    def compile(self) -> Self:
        """Compile the transformer, the heads and the encoder with ``torch.compile``; the first calls take minutes.

        Shapes are static for a batch size, and on CUDA kernels are replayed as graphs (``mode="reduce-overhead"``).
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        model, vae = self.bundle.model, self.bundle.vae
        model.sums_in_place = False  # which would go round the compiled blocks
        for block in [*model.encoder_blocks, *model.decoder_blocks]:
            block.compile(mode=None)
        if self.device.type != "cpu" or vae.config.kind == "nano":  # on a CPU, kl-f16 is faster as it is laid out
            vae.net.encoder.compile(mode=mode)
        for head in (model.video_head, getattr(getattr(model, "action_head", None), "head", None)):
            if head is not None:
                setattr(head.net, "denoise", torch.compile(head.net.denoise, mode=mode))  # noqa: B010
        return self

    def policy(self) -> Policy:
        """Observations to actions."""
        from uva_agents.agents.policy import Policy

        return Policy(self)

    def world_model(self) -> WorldModel:
        """Observations and actions to future frames."""
        from uva_agents.agents.world_model import WorldModel

        return WorldModel(self)

    def inverse_model(self) -> InverseModel:
        """Frames to actions."""
        from uva_agents.agents.inverse_model import InverseModel

        return InverseModel(self)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tensors."""
        return weights_fingerprint(self.bundle.model) + weights_fingerprint(self.bundle.vae)

    @property
    def device(self) -> torch.device:
        return self.bundle.device

    @property
    def history_offsets(self) -> np.ndarray:
        """(T,) control steps of the history frames relative to now, ending in 0."""
        c = self.bundle.model.config
        return np.arange(1 - c.n_frames, 1) * c.frame_stride

    @torch.no_grad()
    def encode(self, frames: np.ndarray, wrist: np.ndarray | None = None) -> FrameCode:
        """uint8 (N, H, W, 3), and the wrist camera's -> tokens (N, S, C) and points (N, 2K), on the device."""
        model = self.bundle.model
        images = self.images(frames)
        return FrameCode(
            model.to_tokens(self.bundle.vae.encode(images)),
            model.point_reader(images) if model.config.frame_points else None,
            None if wrist is None else model.to_tokens(self.bundle.vae.encode(self.images(wrist))),
        )

    def images(self, frames: np.ndarray) -> Tensor:
        """uint8 (N, H, W, 3) -> (N, 3, side, side) in [-1, 1], resized as in training (bilinear), on the device."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        images = images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
        side = self.bundle.model.config.image_size
        if images.shape[-2:] != (side, side):
            images = torch.nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        return images

    @torch.no_grad()
    def decode(self, tokens: Tensor, *, batch_size: int = 64) -> np.ndarray:
        """Tokens (..., S, C) -> uint8 frames (..., H, W, 3) at the environment's image size."""
        lead = tokens.shape[:-2]
        maps = self.bundle.model.to_latents(tokens.flatten(0, -3))
        height, width = self.bundle.spec.image_shape
        parts = []
        for begin in range(0, len(maps), batch_size):
            chunk = maps[begin : begin + batch_size]
            images = self.bundle.vae.decode(chunk).clamp(-1, 1)
            if images.shape[-2:] != (height, width):
                images = torch.nn.functional.interpolate(
                    images, (height, width), mode="bilinear", align_corners=False, antialias=True
                )
            parts.append(images.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(parts).numpy().reshape(*lead, height, width, 3)

    def point_positions(self, points: Tensor) -> np.ndarray:
        """The network's points (..., 2K) -> (..., K, 2) in the units of their data, float32."""
        keys, normalizer = self.bundle.spec.point_keys, self.bundle.normalizer
        size = [int(np.asarray(normalizer.scale[key]).size) for key in keys]
        parts = [normalizer.unnormalize(key, part) for key, part in zip(keys, points.split(size, dim=-1), strict=True)]
        found = torch.cat(parts, dim=-1).float().cpu().numpy()
        return found.reshape(*found.shape[:-1], -1, 2)

    def normalize_actions(self, actions: np.ndarray | Tensor, pose: np.ndarray | None = None) -> Tensor:
        """Environment units (..., A) -> network units, on the device. ``pose``: see :meth:`environment_actions`."""
        kind = self.bundle.spec.action_pose
        if kind is not None:
            actions = network_pose_actions(to_numpy(actions), _base(kind, pose))
        value = torch.as_tensor(np.asarray(actions) if not isinstance(actions, Tensor) else actions)
        return self.bundle.normalizer.normalize("action", value.to(self.device, torch.float32))

    def environment_actions(self, normalized: Tensor, pose: np.ndarray | None = None) -> np.ndarray:
        """Network units (..., A) -> environment units, clipped to the action space, float32.

        Args:
            pose: (P,) proprioception at the decision, that relative actions start from.
        """
        actions: np.ndarray = self.bundle.normalizer.unnormalize("action", normalized).float().cpu().numpy()
        kind = self.bundle.spec.action_pose
        if kind is not None:
            actions = environment_pose_actions(actions, _base(kind, pose))
        space = self.bundle.spec.action_space
        return np.clip(np.nan_to_num(actions), space.low, space.high).astype(np.float32)

    def normalize_proprio(self, rows: np.ndarray, start: np.ndarray) -> Tensor:
        """Environment units (K, P), the last row being now, and the episode's first row -> network units, on the device."""
        key = self.bundle.spec.proprio_key
        assert key is not None
        if self.bundle.spec.proprio_pose:
            rows = relative_proprio(rows, start)
        return self.bundle.normalizer.normalize(key, torch.from_numpy(np.asarray(rows, np.float32)).to(self.device))

    def embed_task(self, task: Instruction) -> Tensor | None:
        """Text vector (D,) of an instruction; each is encoded once. ``None`` without an instruction."""
        if task is None:
            return None
        wanted = self.bundle.model.config.text_dim
        if isinstance(task, str):
            if task not in self._texts:
                if self.bundle.text is None:
                    raise ValueError(
                        f"these weights have no text encoder here: give obs['task_embedding'], a vector ({wanted},), instead "
                        "of obs['task']"
                    )
                self._texts[task] = self.bundle.text.embed(task).to(self.device)
            return self._texts[task]
        if task.shape != (wanted,):
            raise ValueError(f"'task_embedding' must be ({wanted},) for these weights, got {task.shape}")
        return torch.from_numpy(np.array(task, np.float32)).to(self.device)


def _base(kind: str, pose: np.ndarray | None) -> np.ndarray | None:
    if kind == "absolute":
        return None
    if pose is None:
        raise ValueError("these weights act relative to the current pose: give it")
    return pose
