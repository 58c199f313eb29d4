"""What the steps of a UVA run share: its data, and what earlier steps have made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uva_agents.checkpoints.bundle import Bundle
from uva_agents.checkpoints.folder import is_checkpoint_file
from uva_agents.checkpoints.initial import Match, continue_from, load_mar
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.checkpoints.store import load_bundle
from uva_agents.checkpoints.text import load_clip
from uva_agents.data import (
    Episodes,
    LatentWindows,
    LinearNormalizer,
    MixtureWindows,
    Variant,
    WindowSpec,
    standard_variants,
)
from uva_agents.data.dataset import Extras
from uva_agents.data.episodes import split_by
from uva_agents.data.latent_store import LatentStore
from uva_agents.data.rows import RowArray
from uva_agents.errors import InputError
from uva_agents.model import VAE, UVANet
from uva_agents.model.keypoints.guide import KeypointGuide
from uva_agents.training.data_file import write_data
from uva_agents.training.instructions import Texts, read_instructions
from uva_agents.training.memory import check_out
from uva_agents.training.run import RunOptions, make_interface, make_normalizer, write_recipe
from uva_agents.training.saved_recipes import identity
from uva_agents.training.sources import Part, open_sources
from uva_agents.training.uva.clip_data import RESIZE, clip_windows, encoded_clip_windows
from uva_agents.training.uva.fits import check_fits, held_by
from uva_agents.training.uva.held_out import further_splits, make_validator
from uva_agents.training.uva.keypoints_of_all import keypoints_of_all
from uva_agents.training.uva.recipes import UVARecipe
from uva_agents.training.uva.tokens import standardized_tokens
from uva_agents.training.uva.validation import Validator
from uva_agents.training.uva.video_network import begin_video_with, video_network

_LOG = logging.getLogger(__name__)
_WRIST_SEED = 7919
"""Added to a variant's seed: two cameras that shift together would tell how much."""


class UVARun:
    """Data of a run, and what its steps have made so far. Attributes of later steps exist when those are done.

    Args:
        recipe: what is trained.
        options: from what, and where to.

    Attributes:
        recipe: the autoencoder's scale is filled in when it is known.
        origin: weights that the run goes on from, or ``None``.
        main: the dataset with actions that is held out from; what ``others`` are.
        train, held_out: numbers of its episodes; ``more_splits`` of those of each other dataset.
        vae: the autoencoder.
        latents: where latents are kept.
        tokens, more_tokens: latents of the main dataset and of each other one, a (N, S, C) per variant.
        wrist_tokens, more_wrist_tokens: the same of the second camera, where the network has one.
        texts: vectors of all episodes' instructions, where they are an input.
        model: the network.
        match: what of the weights that the run goes on from the network took.
        video_model: what the video stage trains: the network, or one of its own until that stage is over.
        keypoints, more_keypoints: keypoints (N, 2 K) of the same frames; ``None`` for networks without.
    """

    vae: VAE
    latents: LatentStore
    tokens: Sequence[RowArray]
    more_tokens: Sequence[Sequence[RowArray]]
    model: UVANet
    match: Match | None = None
    video_model: UVANet
    wrist_tokens: Sequence[RowArray] | None = None
    more_wrist_tokens: Sequence[Sequence[RowArray]]
    keypoints: list[np.ndarray] | None = None
    more_keypoints: list[list[np.ndarray]] | None = None

    def __init__(self, recipe: UVARecipe, options: RunOptions) -> None:
        self.recipe, self.options = recipe, options
        check_out(options.out)
        parts = open_sources(
            options.data,
            recipe,
            recipe.data.arrays,
            fields=options.fields,
            every=options.every,
            holds=held_by(recipe),
            out=options.out,
            show=options.progress,
        )
        first = next(i for i, part in enumerate(parts) if part.has_actions)
        self.main, self.others = parts[first], [part for i, part in enumerate(parts) if i != first]
        self.texts: Texts | None = None
        if recipe.data.instructions != "none":
            encoder = None if options.text_encoder is None else load_clip(options.text_encoder)
            self.texts = read_instructions([self.main, *self.others], recipe.data.instructions, encoder)
        check_fits(recipe, self.episodes, 0 if self.texts is None else self.texts.dim)
        self.train, self.held_out = split_by(len(self.episodes), recipe.data.held_out, seed=42)
        self.more_splits = further_splits(self.others, recipe.data.held_out)
        if not len(self.held_out):
            _LOG.warning("no episode is held out: validation looks at what is trained on, and says little")
        write_recipe(recipe, options.out)
        write_data(options.out, recipe.data, [self.main, *self.others], self.held_out, every=options.every)
        self.origin: Bundle | None = None
        if options.init is not None and not is_checkpoint_file(options.init):
            self.origin = load_bundle(options.init, device="cpu")

    @property
    def episodes(self) -> Episodes:
        """Of the main dataset."""
        return self.main.episodes

    def take_frames(self, parts: list[Part]) -> None:
        """The datasets, the main one first, with frames that are decoded."""
        self.main, *self.others = parts

    @property
    def checked(self) -> np.ndarray:
        """Episodes that validation looks at: those that are held out, or all where none are, which then says little."""
        return self.held_out if len(self.held_out) else self.train

    @property
    def guide(self) -> KeypointGuide:
        """The network's keypoints, which only steps of networks that have them ask for."""
        assert self.model.guide is not None
        return self.model.guide

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Of every dataset."""
        a = self.recipe.augmentation
        if a.mirror and self.recipe.world_size is None:
            raise InputError(
                f"recipe {self.recipe.name!r} mirrors pictures, and the numbers that go with them have no plane: set "
                "augmentation.mirror to false"
            )
        return standard_variants(a.variants, max_shift=a.max_shift, mirror=a.mirror)

    @cached_property
    def wrist_variants(self) -> tuple[Variant, ...]:
        """Of the second camera, whose shifts are drawn by themselves."""
        return tuple(dataclasses.replace(variant, seed=variant.seed + _WRIST_SEED) for variant in self.variants)

    def wrist_view(self, episodes: Episodes) -> Episodes | None:
        """The second camera's frames as those of a dataset; ``None`` where a dataset has none."""
        data = self.recipe.data
        if not data.has_wrist or data.wrist_key not in episodes.arrays:
            return None
        return Episodes({"pixels": episodes.arrays[data.wrist_key]}, episodes.ends, f"{episodes.source} (wrist camera)")

    @cached_property
    def normalizer(self) -> LinearNormalizer:
        """Of actions, proprioception and state."""
        data = self.recipe.data
        more = [part.episodes for part in self.others if part.has_actions and data.normalize == "together"]
        return make_normalizer(data, self.episodes, self.window, more=more)

    def normalizer_of(self, part: Part) -> LinearNormalizer:
        """Of a further dataset."""
        if self.recipe.data.normalize == "together" or not part.has_actions:
            return self.normalizer
        return make_normalizer(self.recipe.data, part.episodes, self.window)

    @cached_property
    def spec(self) -> InterfaceSpec:
        """Saved with the weights."""
        found = make_interface(self.recipe.data, self.episodes, shapes=self.main.shapes)
        return found if self.recipe.network.clips is None else dataclasses.replace(found, resize=RESIZE)

    @cached_property
    def window(self) -> WindowSpec:
        """That everything is cut into."""
        c, data = self.recipe.model, self.recipe.data
        return WindowSpec(c.n_frames, c.frame_stride, c.action_steps, data.action_offset, data.rows_per_step)

    def key(self) -> str:
        """Of all stages; see :class:`~uva_agents.training.loop.LoopOptions`."""
        values, data = identity(self.recipe), self.options.data
        if not isinstance(data, Path) and any(source.episodes for source in data):
            values["episodes"] = [source.episodes for source in data]
        if not isinstance(data, Path) and len(data) > 1:
            values["data"] = [(str(source.path), source.weight) for source in data]
        if any(len(held_out) for _, held_out in self.more_splits):  # earlier versions trained on all of them
            values["held_out_of_others"] = [held_out.tolist() for _, held_out in self.more_splits]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def set_autoencoder(self, vae: VAE, device: torch.device) -> None:
        """The finished autoencoder, from now on as it is."""
        self.vae = vae.eval().requires_grad_(False).to(device)
        self.recipe = dataclasses.replace(self.recipe, model=dataclasses.replace(self.recipe.model, vae=vae.config))

    def start_network(self) -> None:
        """Make the network, with random weights or those that the run goes on from, and bring latents to its scale."""
        recipe, init = self.recipe, self.options.init
        torch.manual_seed(recipe.seed)  # how much was drawn before depends on what was already trained
        self.model = UVANet(recipe.model)
        self.video_model = video_network(recipe, self.model)
        if self.origin is not None:
            self.match = continue_from(self.model, self.origin.model)
            if match_lines := self.match.lines():
                taken = len(self.match.matched)
                _LOG.warning("%s: %d tensors taken over, but for\n  %s", init, taken, "\n  ".join(match_lines))
            begin_video_with(self)
        elif init is not None:
            load_mar(self.video_model, Path(str(init)))
        if recipe.model.standardize:
            self._standardize()

    def _standardize(self) -> None:
        taken = () if self.match is None else self.match.matched
        keep = "token_mean" in taken
        of_main = self.model.token_statistics()
        self.tokens = standardized_tokens(of_main, self.latents, self.tokens, keep=keep)
        self.more_tokens = [standardized_tokens(of_main, self.latents, t, keep=True) for t in self.more_tokens]
        if self.wrist_tokens is not None:
            of_wrist = self.model.token_statistics(wrist=True)
            keep = "wrist_token_mean" in taken
            self.wrist_tokens = standardized_tokens(of_wrist, self.latents, self.wrist_tokens, keep=keep)
            self.more_wrist_tokens = [
                standardized_tokens(of_wrist, self.latents, t, keep=True) for t in self.more_wrist_tokens
            ]

    def read_keypoints(self) -> None:
        """Find the keypoints in every frame of every variant, with the network's finished detector."""
        detector = self.guide.detector.eval().requires_grad_(False)

        def read(episodes: Episodes) -> list[np.ndarray]:
            return [keypoints_of_all(detector, episodes, variant) for variant in self.variants]

        self.keypoints = read(self.episodes)
        self.more_keypoints = [read(part.episodes) for part in self.others]

    # -- windows, made when the first stage asks for them ------------------------------------------------------------

    @cached_property
    def train_windows(self) -> LatentWindows:
        """Of the main dataset's training episodes, in all variants."""
        if self.recipe.network.clips is not None:
            return clip_windows(self, 0, self.main, self.train)
        return self._windows(self.train, self.variants)

    @cached_property
    def held_out_windows(self) -> LatentWindows:
        """Of its held-out episodes, as they are."""
        if self.recipe.network.clips is not None:
            return encoded_clip_windows(self, 0, self.main, self.checked)
        return self._windows(self.checked, self.variants[:1])

    @cached_property
    def mixture(self) -> LatentWindows | MixtureWindows:
        """Of all datasets, by weight."""
        if not self.others:
            return self.train_windows
        more = [self.more_windows(i, p, self.more_splits[i][0], self.variants) for i, p in enumerate(self.others)]
        windows, weights = [self.train_windows, *more], [self.main.weight, *(part.weight for part in self.others)]
        if self.recipe.network.weigh_windows:
            weights = [weight * len(part) for weight, part in zip(weights, windows, strict=True)]
        return MixtureWindows(windows, weights)

    @cached_property
    def validator(self) -> Validator:
        """On the held-out windows of every dataset."""
        return make_validator(self)

    def token_statistics(self) -> tuple[Tensor, Tensor]:
        """(S, C) mean and standard deviation that latents were standardised with."""
        c = self.recipe.model
        one = torch.ones(c.tokens_per_frame, c.token_dim)
        return (self.model.token_mean, self.model.token_std) if c.standardize else (0 * one, one)

    def _windows(self, episodes: np.ndarray, variants: tuple[Variant, ...]) -> LatentWindows:
        c, n = self.recipe.model, len(variants)
        return LatentWindows(
            self.episodes,
            self.tokens[:n],
            variants,
            self.normalizer,
            self.window,
            chosen=episodes,
            proprio_key=self.recipe.data.proprio_key,
            frame_state_keys=self.recipe.data.frame_state_keys,
            world_size=self.recipe.world_size,
            keypoints=None if self.keypoints is None else self.keypoints[:n],
            history_actions=c.history_actions,
            extras=self.extras(0, None if self.wrist_tokens is None else self.wrist_tokens[:n]),
        )

    def more_windows(
        self, index: int, part: Part, episodes: np.ndarray, variants: tuple[Variant, ...]
    ) -> LatentWindows:
        """Windows of a further dataset; of video alone, without any numbers."""
        if self.recipe.network.clips is not None:
            return clip_windows(self, 1 + index, part, episodes)
        c, data, n = self.recipe.model, self.recipe.data, len(variants)
        wrist = self.more_wrist_tokens[index][:n] if self.wrist_tokens is not None else None
        return LatentWindows(
            part.episodes,
            self.more_tokens[index][:n],
            variants,
            self.normalizer_of(part),
            self.window,
            proprio_key=data.proprio_key if part.has_actions else None,
            frame_state_keys=data.frame_state_keys if part.has_actions else (),
            world_size=self.recipe.world_size,
            chosen=episodes,
            keypoints=None if self.more_keypoints is None else self.more_keypoints[index][:n],
            history_actions=c.history_actions,
            action_dim=c.action_dim,
            extras=self.extras(1 + index, wrist),
        )

    def extras(self, dataset: int, wrist: Sequence[RowArray] | None) -> Extras:
        """What one of the datasets, the main one first, has beside frames, actions and proprioception."""
        c, data = self.recipe.model, self.recipe.data
        return Extras(
            wrist=wrist or None,  # video alone has one camera
            text=None if self.texts is None else self.texts.vectors[dataset],
            action_transforms=data.action_transforms,
            proprio_transforms=data.proprio_transforms,
            every_step=bool(c.proprio_dim) and c.proprio_steps != c.n_frames,
            proprio_target=c.predict_proprio_dim,
            trim=data.trim,
            pose_delay=data.pose_delay,
            start_key=data.start_key,
        )

    # -- before anything is loaded -----------------------------------------------------------------------------------
