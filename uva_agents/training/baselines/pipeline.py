"""The baselines as lists of steps."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

from uva_agents.data import FrameWindows, WindowSpec
from uva_agents.errors import InputError
from uva_agents.model import DiffusionPolicyNet, TwoFrameNet
from uva_agents.training.baselines.diffusion_stage import DiffusionStage, KeypointDiffusionStage
from uva_agents.training.baselines.mixture_prior_stage import MixturePriorStage
from uva_agents.training.baselines.recipes import DiffusionPolicyRecipe, TwoFrameRecipe
from uva_agents.training.baselines.trained_detector import rescale_positions, take_encoder
from uva_agents.training.baselines.two_frame_stage import TwoFrameStage
from uva_agents.training.network_run import NetworkRun
from uva_agents.training.run import RunOptions, network_width
from uva_agents.training.steps import Step


def diffusion_policy_steps(recipe: DiffusionPolicyRecipe, options: RunOptions) -> list[Step]:
    """Mixture prior where the recipe has one, the denoiser with its encoder, weights.

    Raises:
        ValueError: the data does not fit the network; see :class:`~uva_agents.training.network_run.NetworkRun`.
    """
    detector, data = options.detector_weights, recipe.data
    positions_key = recipe.positions_key if detector is not None else None
    proprio = [data.proprio_key] if data.proprio_key else []
    arrays = ["action", positions_key or "pixels", *proprio]
    c = recipe.model
    run = NetworkRun(
        recipe,
        options,
        image_size=c.encoder.image_size,
        arrays=arrays,
        window=_chunk(recipe),
    )
    found = run.episodes.arrays[data.proprio_key].shape[-1] if data.proprio_key else 0
    if data.proprio_key:
        found = network_width(data, data.proprio_key, found)
    if recipe.model.proprio_dim or not data.action_transforms:  # else it only says where relative actions start
        run.check("proprio_dim", found, recipe.model.proprio_dim)
    if detector is not None:
        # An encoder that reads keypoints has seen whole images.
        whole = dataclasses.replace(recipe.model.encoder, crop=recipe.model.encoder.image_size)
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, encoder=whole))
        run.recipe = recipe
    torch.manual_seed(recipe.seed)
    net = DiffusionPolicyNet(recipe.model)
    if detector is not None:
        take_encoder(net, detector)
        if recipe.position_limits is not None:
            rescale_positions(net, recipe.position_limits, run.normalizer, str(data.proprio_key))
    recorded = _recorded_positions(recipe, run) if detector is not None else None
    run.start(net)

    def windows(episodes: np.ndarray) -> FrameWindows:
        c = recipe.model
        spec = _chunk(recipe)
        trim = (0, c.horizon + c.first_action - 1) if recipe.whole_chunks else (0, 0)
        return FrameWindows(
            run.episodes,
            run.pixels,
            run.normalizer,
            spec,
            chosen=episodes,
            proprio_key=data.proprio_key,
            trim=trim,
            action_transforms=data.action_transforms,
            proprio_transforms=data.proprio_transforms,
            delay=data.action_offset,
        )

    if detector is None:

        def policy() -> DiffusionStage:
            return DiffusionStage(recipe, net, windows(run.train), windows(run.checked), run.normalizer)

        return [*run.frames_step(), run.stage_step("policy", recipe.stage, net, policy), run.weights_step(net)]

    @functools.cache  # the frames go through the encoder once for both stages
    def on_keypoints() -> KeypointDiffusionStage:
        held_out = windows(run.checked)
        return KeypointDiffusionStage(recipe, net, windows(run.train), held_out, run.normalizer, positions=recorded)

    steps = [run.stage_step("policy", recipe.stage, net, on_keypoints), run.weights_step(net)]
    if (config := recipe.mixture_prior) is None:
        return [*run.frames_step(), *steps]
    prior = run.stage_step(
        MixturePriorStage.name,
        config,
        net,
        lambda: MixturePriorStage(on_keypoints(), config),
        name="mixture prior",
        makes="mixture prior",
    )
    return [*run.frames_step(), prior, *steps]


def two_frame_steps(recipe: TwoFrameRecipe, options: RunOptions) -> list[Step]:
    """The network, weights.

    Raises:
        ValueError: the data does not fit the network; see :class:`~uva_agents.training.network_run.NetworkRun`.
    """
    if options.detector_weights is not None:
        raise InputError(f"recipe {recipe.name!r} trains its own encoder: leave out --points")
    run = NetworkRun(
        recipe,
        options,
        image_size=recipe.model.encoder.image_size,
        window=_pair(recipe),
    )
    torch.manual_seed(recipe.seed)
    net = TwoFrameNet(recipe.model)
    run.start(net)

    def windows(episodes: np.ndarray) -> FrameWindows:
        # The last frames of an episode have no second frame.
        s = recipe.model.stride * recipe.data.rows_per_step
        pair = _pair(recipe)
        return FrameWindows(
            run.episodes,
            run.pixels,
            run.normalizer,
            pair,
            chosen=episodes,
            proprio_key=recipe.data.proprio_key,
            trim=(0, s),
            frame_offsets=(0, s),
            delay=recipe.data.action_offset,
            action_transforms=recipe.data.action_transforms,
            proprio_transforms=recipe.data.proprio_transforms,
        )

    def build() -> TwoFrameStage:
        return TwoFrameStage(recipe, net, windows(run.train), windows(run.checked), run.normalizer)

    stage = run.stage_step(TwoFrameStage.name, recipe.stage, net, build, name="network")
    return [*run.frames_step(), stage, run.weights_step(net)]


def _chunk(recipe: DiffusionPolicyRecipe) -> WindowSpec:
    """What a policy sees and predicts at a step."""
    c, data = recipe.model, recipe.data
    first = c.first_action + data.action_offset
    return WindowSpec(c.obs_steps, 1, c.horizon, first, rows_per_step=data.rows_per_step)


def _pair(recipe: TwoFrameRecipe) -> WindowSpec:
    """Two frames and the actions between them."""
    stride, data = recipe.model.stride, recipe.data
    return WindowSpec(1, stride, stride, data.action_offset, data.rows_per_step)


def _recorded_positions(recipe: DiffusionPolicyRecipe, run: NetworkRun) -> Tensor | None:
    """Recorded positions (N, 2 P) of the effector and of the objects, normalised alike."""
    key = recipe.data.proprio_key
    if recipe.positions_key is None:
        return None
    assert key is not None
    arrays = [torch.from_numpy(run.episodes.arrays[name]) for name in (key, recipe.positions_key)]
    found = torch.cat(arrays, dim=-1)
    run.check("two numbers for each of the encoder's keypoints,", found.shape[-1], recipe.model.encoder.outputs)
    return run.normalizer.normalize(key, found.unflatten(-1, (-1, 2))).flatten(1)
