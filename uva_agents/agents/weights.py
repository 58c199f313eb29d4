"""One set of weights, and what every agent does with it: encoding, decoding, and the units of the outside world."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from uva_agents.agents.guards import Divisor, Inputs, InputsOf, all_finite, check_networks, not_finite, rows_not_finite
from uva_agents.agents.observations import Instruction, to_floats, to_numpy
from uva_agents.checkpoints.bundle import Bundle
from uva_agents.checkpoints.store import load_bundle
from uva_agents.data.latents import weights_fingerprint
from uva_agents.data.transforms import ReferencePoses, to_environment, to_network
from uva_agents.errors import InputError
from uva_agents.model.cpu.inference import optimize_for_inference, plain_blocks
from uva_agents.utils.forks import keep_forks_safe
from uva_agents.utils.images import network_images, resize_images, to_frames

LONGEST_TASK = 4096
"""Letters of an instruction. Text encoders read less than 100 words."""
_KEPT_TEXTS = 256


@dataclass(frozen=True)
class FrameCode:
    """What the network sees of frames: tokens (..., S, C) and, where it uses them, keypoints (..., 2K) and wrist tokens."""

    tokens: Tensor
    keypoints: Tensor | None
    wrist: Tensor | None = None

    @property
    def computed(self) -> list[tuple[str, Tensor | None]]:
        """By which network each part was computed, for errors."""
        return [("autoencoder", self.tokens), ("keypoint detector", self.keypoints), ("autoencoder", self.wrist)]

    def __getitem__(self, index: int | slice) -> FrameCode:
        return FrameCode(*(None if part is None else part[index] for part in vars(self).values()))  # type: ignore[arg-type]


class Weights:
    """Network, autoencoder, normaliser and interface of a Unified Video Action model, ready for inference.

    Args:
        bundle: what was loaded, or trained.

    Attributes:
        name: of the weights.
        net, vae, text: the networks; ``text`` is ``None`` for weights without instructions.
        config: of ``net``.
        spec: what the weights expect from the outside.
        normalizer: between units of the data and of the network.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.name, self.spec, self.normalizer = bundle.name, bundle.spec, bundle.normalizer
        self.net, self.vae, self.text = bundle.model, bundle.vae, bundle.text
        self.config = self.net.config
        optimize_for_inference(self.net)
        optimize_for_inference(self.vae)
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self._divisor, self._wrist_divisor = Divisor(), Divisor()
        self._space = self.spec.action_space
        keep_forks_safe()

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
        weights = cls(load_bundle(name_or_path, device=device, heads=heads))
        return weights.compile() if compile else weights

    def compile(self) -> Self:
        """Compile the transformer, the heads and the encoder with ``torch.compile``; the first calls take minutes.

        Shapes are static for a batch size, and on CUDA kernels are replayed as graphs (``mode="reduce-overhead"``).
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        model, vae = self.net, self.vae
        plain_blocks(model)  # what is laid out for a CPU would go round the compiled ones
        for block in [*model.encoder_blocks, *model.decoder_blocks]:
            block.compile(mode=None)
        if self.device.type != "cpu" or vae.config.kind == "nano":  # on a CPU, kl-f16 is faster as it is laid out
            vae.net.encoder.compile(mode=mode)
        for head in (model.video_head, getattr(getattr(model, "action_head", None), "head", None)):
            if head is not None:
                setattr(head.net, "denoise", torch.compile(head.net.denoise, mode=mode))  # noqa: B010
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tensors."""
        return weights_fingerprint(self.net) + weights_fingerprint(self.vae)

    @property
    def device(self) -> torch.device:
        """The networks' device."""
        return self.net.frame_mask.device

    def check(self) -> None:
        """Refuse to compute with networks that would give something else than what was trained, or hang.

        Raises:
            InputError, MachineError: see :func:`~uva_agents.agents.guards.check_networks`.
            NotFiniteError: latents would be divided by infinity or 0.
        """
        check_networks(self.name, {"model": self.net, "vae": self.vae}, self.device)
        if self.config.standardize:
            self._divisor.check(self.name, "model.token_std", self.net.token_std)
            if self.config.wrist_image:
                self._wrist_divisor.check(self.name, "model.wrist_token_std", self.net.wrist_token_std)

    @property
    def history_offsets(self) -> np.ndarray:
        """(T,) control steps of the history frames relative to now, ending in 0."""
        c = self.config
        return np.arange(1 - c.n_frames, 1) * c.frame_stride

    @torch.no_grad()
    def encode(self, frames: np.ndarray, wrist: np.ndarray | None = None) -> FrameCode:
        """uint8 (N, H, W, 3), and the wrist camera's -> tokens (N, S, C) and keypoints (N, 2K), on the device.

        Raises:
            NotFiniteError: they are not finite.
        """
        self.check()
        model = self.net
        images = self.images(frames)
        code = FrameCode(
            model.to_tokens(self.vae.encode(images)),
            model.guide.detector(images) if model.guide is not None else None,
            None if wrist is None else self.encode_wrist(wrist),
        )
        parts = [(network, part) for network, part in code.computed if part is not None]
        if not all_finite(torch.stack([part.sum() for _, part in parts])):  # one number to wait for
            for network, part in parts:
                self.require_finite(
                    part, network, lambda i: Inputs(f"frame {i} of {len(frames)}", {"pixels": frames[i]})
                )
        return code

    @torch.no_grad()
    def encode_wrist(self, frames: np.ndarray) -> Tensor:
        """uint8 (N, h, w, 3) of the wrist camera -> tokens (N, S, C), on the device; unchecked."""
        return self.net.to_tokens(self.vae.encode(self.images(frames)), wrist=True)

    def require_finite(self, value: np.ndarray | Tensor, head: str, inputs: InputsOf) -> None:
        """Refuse to hand out NaN or infinity.

        Args:
            value: what a network computed, one row per input.
            head: which network.
            inputs: of a row.

        Raises:
            NotFiniteError: naming weights, head and input.
        """
        if not all_finite(value):
            raise self._not_finite(rows_not_finite(value), head, inputs)

    def _not_finite(self, rows: list[int], head: str, inputs: InputsOf) -> Exception:
        modules: dict[str, torch.nn.Module] = {"model": self.net, "vae": self.vae}
        if self.text is not None:
            modules["text"] = self.text
        return not_finite(rows, weights=self.name, head=head, inputs=inputs, modules=modules)

    def images(self, frames: np.ndarray) -> Tensor:
        """uint8 (N, H, W, 3) -> (N, 3, side, side) in [-1, 1], resized as in training, on the device."""
        side = self.config.image_size
        return network_images(frames, side, resize=self.spec.resize, device=self.device)

    @torch.no_grad()
    def decode(self, tokens: Tensor, *, batch_size: int = 64, inputs: InputsOf | None = None) -> np.ndarray:
        """Tokens (..., S, C) -> uint8 frames (..., H, W, 3) at the environment's image size.

        Args:
            inputs: that the video head computed a row of tokens (of the first axis) from.

        Raises:
            NotFiniteError: tokens or images are not finite; a black frame would say nothing of it.
        """
        self.check()
        lead = tokens.shape[:-2]
        maps = self.net.to_latents(tokens.flatten(0, -3))
        height, width = self.spec.image_shape
        parts = []
        for begin in range(0, len(maps), batch_size):
            chunk = maps[begin : begin + batch_size]
            images = self.vae.decode(chunk)
            sums = images.sum((1, 2, 3))
            if images.shape[-2:] != (height, width):
                images = resize_images(images.clamp(-1, 1), (height, width))
            parts.append(to_frames(images))
            if not all_finite(sums):
                each = len(maps) // lead[0] if lead else 1
                rows = sorted({(begin + i) // each for i in rows_not_finite(sums)})
                head = "autoencoder's decoder" if all_finite(tokens) else "video head"
                raise self._not_finite(rows, head, inputs or (lambda i: Inputs(f"row {i} of the latents")))
        frames: np.ndarray = np.concatenate(parts).reshape(*lead, height, width, 3)
        return frames

    def keypoint_positions(self, keypoints: Tensor, inputs: InputsOf | None = None) -> np.ndarray:
        """The network's keypoints (N, ..., 2K) -> (N, ..., K, 2) in the units of their data, float32.

        Raises:
            NotFiniteError: they are not finite.
        """
        keys, normalizer = self.spec.keypoint_keys, self.normalizer
        size = [int(np.asarray(normalizer.scale[key]).size) for key in keys]
        parts = [
            normalizer.unnormalize(key, part) for key, part in zip(keys, keypoints.split(size, dim=-1), strict=True)
        ]
        found = torch.cat(parts, dim=-1).float().cpu().numpy()
        self.require_finite(found, "network that moves keypoints", inputs or (lambda i: Inputs(f"row {i}")))
        return found.reshape(*found.shape[:-1], found.shape[-1] // 2, 2)

    def normalize_actions(self, actions: np.ndarray | Tensor, pose: np.ndarray | None = None) -> Tensor:
        """Environment units (..., A) -> network units, on the device. ``pose``: see :meth:`environment_actions`.

        Raises:
            InputError: they are not finite in network units, where NaN means unknown.
        """
        if transforms := self.spec.action_transforms:
            actions = to_network(transforms, to_numpy(actions), ReferencePoses(now=pose))
        value = torch.as_tensor(np.asarray(actions) if not isinstance(actions, Tensor) else actions)
        return self._normalized("action", value.to(torch.float32))

    def _normalized(self, key: str, value: Tensor) -> Tensor:
        """Network units, on the device; finite, because networks take NaN for what is not known."""
        normalized = self.normalizer.normalize(key, value.to(self.device))
        # Where the value is on the CPU already, nobody has to wait to know.
        local = normalized if self.device.type == "cpu" else self.normalizer.normalize(key, value)
        if not all_finite(local):
            bounds = f"from {value.min():g} to {value.max():g}" if value.numel() else "empty"
            raise InputError(
                f"{key!r} {'has NaN or infinity' if not all_finite(value) else f'({bounds}) is not finite once normalised'}: "
                "give finite values in environment units"
            )
        return normalized

    def environment_actions(
        self,
        normalized: Tensor,
        pose: np.ndarray | None = None,
        *,
        inputs: InputsOf | None = None,
        bounded: bool = True,
    ) -> np.ndarray:
        """Network units (N, ..., A) -> environment units, clipped to the action space, float32.

        Args:
            pose: (P,) proprioception at the decision, that relative actions start from.
            inputs: that a row was computed from.
            bounded: clip; of no use where ``pose`` is not in the environment's frame.

        Raises:
            NotFiniteError: the network's actions are not finite, or are no poses.
        """
        actions: np.ndarray = self.normalizer.unnormalize("action", normalized).float().cpu().numpy()
        actions = to_environment(self.spec.action_transforms, actions, ReferencePoses(now=pose))
        self.require_finite(actions, "action head", inputs or (lambda i: Inputs(f"row {i}")))
        if not bounded:
            return actions.astype(np.float32)
        return np.clip(actions, self._space.low, self._space.high).astype(np.float32)

    def normalize_proprio(self, rows: np.ndarray, start: np.ndarray) -> Tensor:
        """Environment units (K, P), the last row being now, and the episode's first row -> network units, on the device."""
        key = self.spec.proprio_key
        assert key is not None
        rows = to_network(self.spec.proprio_transforms, rows, ReferencePoses(now=rows[-1], start=start))
        return self._normalized(key, torch.from_numpy(np.asarray(rows, np.float32)))

    def embed_task(self, task: Instruction) -> Tensor | None:
        """Text vector (D,) of an instruction; those used last are not encoded again. ``None`` without an instruction.

        Raises:
            InputError: it is too long, is no vector of the right size, or there is no text encoder.
            NotFiniteError: the text encoder gave NaN or infinity.
        """
        if task is None:
            return None
        wanted = self.config.text_dim
        if isinstance(task, str):
            if len(task) > LONGEST_TASK:
                raise InputError(f"obs['task'] has {len(task):,} letters; at most {LONGEST_TASK:,} are read")
            if task not in self._texts:
                if self.text is None:
                    raise InputError(
                        f"these weights have no text encoder here: give obs['task_embedding'], a vector ({wanted},), instead "
                        "of obs['task']"
                    )
                vector = self.text.embed(task).to(self.device)
                self.require_finite(vector[None], "text encoder", lambda _: Inputs(f"the instruction {task!r}"))
                self._texts[task] = vector
                while len(self._texts) > _KEPT_TEXTS:  # whoever serves these weights is asked with any number of them
                    self._texts.popitem(last=False)
            self._texts.move_to_end(task)
            return self._texts[task]
        task = to_floats(task, "'task_embedding'")
        if task.shape != (wanted,):
            raise InputError(f"'task_embedding' must be ({wanted},) for these weights, got {task.shape}")
        if not np.isfinite(task).all():
            raise InputError("'task_embedding' has NaN or infinity")
        return torch.from_numpy(np.array(task, np.float32)).to(self.device)
