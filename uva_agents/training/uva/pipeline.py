"""UVA's network as a list of steps: autoencoder, latents, keypoints, the network on video, on all tasks, weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from uva_agents.checkpoints.filling import refilled
from uva_agents.checkpoints.initial import load_vae
from uva_agents.checkpoints.tensor_files import stored_tensors, write_tensors
from uva_agents.data import Episodes, FrameStore, encode_frames
from uva_agents.model import VAE, Task, UVANet
from uva_agents.training.frames_step import FramesStep
from uva_agents.training.keypoints.detector_stage import DetectorStage
from uva_agents.training.keypoints.motion_stages import DynamicsStage, RendererStage
from uva_agents.training.loop import Stage
from uva_agents.training.recipe import StageConfig
from uva_agents.training.run import RunOptions, make_normalizer
from uva_agents.training.sources import joined_frames
from uva_agents.training.steps import MemoryStep, StageStep, Step, WeightsStep
from uva_agents.training.uva.action_regressor import ActionFrames
from uva_agents.training.uva.clip_data import count_windows
from uva_agents.training.uva.continued import comes_with
from uva_agents.training.uva.export import card_facts, export
from uva_agents.training.uva.joint_stage import JointStage
from uva_agents.training.uva.latents_step import LatentsStep
from uva_agents.training.uva.recipes import UVARecipe
from uva_agents.training.uva.run import UVARun
from uva_agents.training.uva.stand_ins import stand_in_keypoints
from uva_agents.training.uva.vae_stage import VAEStage
from uva_agents.training.uva.video_network import take_over_video


def uva_steps(recipe: UVARecipe, options: RunOptions) -> list[Step]:
    """The steps of a run, over data that is opened here.

    Raises:
        ValueError: the data does not fit the network; the recipe needs an autoencoder that is not given.
    """
    run = UVARun(recipe, options)
    model = recipe.model
    steps: list[Step] = [_frames(run), _autoencoder(run), _latents(run)]
    steps.append(MemoryStep("initial network", "initial network", run.start_network, needs=("autoencoder", "latents")))
    if model.num_keypoints:
        found = MemoryStep("keypoints of all frames", "keypoints", run.read_keypoints, ("detector",))
        steps += [_detector(run), dataclasses.replace(found, stand_in=lambda: stand_in_keypoints(run))]
    if model.rendered_prior:
        steps += [] if comes_with(run, "dynamics") else [_dynamics(run)]
        steps += [] if comes_with(run, "renderer") else [_renderer(run)]
        steps.append(MemoryStep("fixed keypoint networks", "fixed keypoint networks", lambda: _keep(run)))
    steps += _network(run)
    write = functools.partial(export, run)
    steps.append(WeightsStep(options.out, write, ("initial network",), facts=lambda: card_facts(run)))
    return steps


def _stage(
    run: UVARun,
    name: str,
    makes: str,
    stage: str,
    config: StageConfig | None,
    *,
    target: Callable[[], nn.Module],
    build: Callable[[], Stage],
    needs: tuple[str, ...] = (),
    finish: Callable[[], object] | None = None,
    part: str = "",
) -> StageStep:
    if config is None:
        raise ValueError(f"recipe {run.recipe.name!r} has no {name} stage, which its network needs")
    o = run.options
    return StageStep(
        name,
        makes,
        stage,
        config,
        o.out,
        run.key,
        target,
        build,
        needs,
        finish,
        run.recipe.seed,
        o.progress,
        o.stop_after,
        part=part,
    )


# -- frames, autoencoder and latents -------------------------------------------------------------------------------------------


def _frames(run: UVARun) -> Step:
    enlarge = run.recipe.network.clips is None  # augmentation in the training step is of frames as they were recorded
    return FramesStep(
        [run.main, *run.others],
        run.take_frames,
        FrameStore(
            run.options.out / "frames",
            side=run.recipe.model.image_size,
            enlarge=enlarge,
            workers=run.options.workers,
        ),
        moving=(run.recipe.data.proprio_key or "action",),
        show=run.options.progress,
    )


def _autoencoder(run: UVARun) -> Step:
    """Trained here, or what the run goes on from has it, or a file."""
    recipe, options, name = run.recipe, run.options, "autoencoder"
    device = PartialState().device
    if run.origin is not None:
        found = run.origin.vae
        return MemoryStep(name, name, lambda: run.set_autoencoder(found, device))
    if options.vae_weights is None and recipe.autoencoder is None:
        raise ValueError(f"recipe {recipe.name!r} does not train its autoencoder: give --vae kl16.ckpt")
    torch.manual_seed(recipe.seed)
    vae = VAE(dataclasses.replace(recipe.model.vae, scale=1.0))
    if (path := options.vae_weights) is not None:

        def load() -> None:
            load_vae(vae, path)
            _finish_autoencoder(run, vae, device)

        return MemoryStep(name, name, load)
    # A stage is faster in this order of memory; whoever loads its result computes in the same one, to the last bit.
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _stage(
        run,
        name,
        name,
        "vae",
        recipe.stage("vae"),
        target=lambda: vae,
        part="vae",
        build=lambda: VAEStage(recipe, vae, _all_frames(run), run.episodes.select(run.checked), _action_frames(run)),
        finish=lambda: _finish_autoencoder(run, vae, device),
    )


def _action_frames(run: UVARun) -> tuple[ActionFrames, ActionFrames] | None:
    """To train on and to validate with, where the autoencoder learns from actions."""
    wanted = run.recipe.autoencoder is not None and run.recipe.autoencoder.action_weight
    return (ActionFrames(run), ActionFrames(run, held_out=True)) if wanted else None


def _all_frames(run: UVARun) -> Episodes:
    """Of all datasets, those that are trained on."""
    more = [
        part.episodes.select(train) if len(held_out) else part.episodes
        for part, (train, held_out) in zip(run.others, run.more_splits, strict=True)
    ]
    return joined_frames([run.episodes.select(run.train), *more])


def _finish_autoencoder(run: UVARun, vae: VAE, device: torch.device) -> None:
    """Measure the scale that makes its latents' standard deviation 1."""
    vae.eval().requires_grad_(False)
    if vae.config.kind == "kl-f16":
        vae.config = run.recipe.model.vae  # its scale is a constant of the released models
    else:
        frames = _all_frames(run)
        sample = frames.arrays["pixels"][:: max(1, frames.steps // 1024)]
        std = float(encode_frames(vae, sample, patch_size=1).astype(np.float32).std())
        # Rounded: the scale goes into the cache key and must not depend on how a machine sums.
        vae.config = dataclasses.replace(vae.config, scale=round(1.0 / std, 3))
    run.set_autoencoder(vae, device)


def _latents(run: UVARun) -> Step:
    """Made once, or anew in every training step."""
    if run.recipe.network.clips is not None:
        return MemoryStep("latents, in the training steps", "latents", lambda: None, needs=("autoencoder",))
    return LatentsStep(run)


# -- keypoints ---------------------------------------------------------------------------------------------------------


def _detector(run: UVARun) -> Step:
    """Trained here, or it came with the weights that the run goes on from, or a file."""
    name, makes, needs = "keypoint detector", "detector", ("initial network",)
    if comes_with(run, "detector"):
        return MemoryStep(name, makes, lambda: None, needs)
    if (path := run.options.detector_weights) is not None:
        return MemoryStep(
            name,
            makes,
            lambda: refilled(run.guide.detector, stored_tensors(path), where=str(path), what="keypoint detector"),
            needs,
        )

    def build() -> Stage:
        train, held_out = run.episodes.select(run.train), run.episodes.select(run.checked)
        normalizer = make_normalizer(run.recipe.data, train)
        return DetectorStage(run.recipe, run.guide.detector, train, held_out, normalizer)

    def finish() -> None:
        if PartialState().is_main_process:  # for other runs' detector_weights
            write_tensors(run.options.out / "points" / "reader.safetensors", run.guide.detector, torch.float32)

    return _stage(
        run,
        name,
        makes,
        "points",
        run.recipe.stage("points"),
        target=lambda: run.guide.detector,
        build=build,
        needs=needs,
        finish=finish,
    )


def _dynamics(run: UVARun) -> Step:
    def build() -> Stage:
        windows = run.train_windows, run.held_out_windows
        return DynamicsStage(run.recipe, run.guide.dynamics, *windows, run.normalizer)

    return _stage(
        run,
        "keypoint dynamics",
        "dynamics",
        "dynamics",
        run.recipe.stage("dynamics"),
        target=lambda: run.guide.dynamics,
        build=build,
        needs=("latents", "keypoints"),
    )


def _renderer(run: UVARun) -> Step:
    def build() -> Stage:
        mean, std = run.token_statistics()
        windows = run.train_windows, run.held_out_windows
        return RendererStage(run.recipe, run.guide.renderer, *windows, mean=mean, std=std)

    return _stage(
        run,
        "keypoint renderer",
        "renderer",
        "writer",
        run.recipe.stage("writer"),
        target=lambda: run.guide.renderer,
        build=build,
        needs=("latents", "keypoints"),
    )


def _keep(run: UVARun) -> None:
    """The network's own stages leave what moves and draws keypoints as it is."""
    run.guide.dynamics.requires_grad_(False)
    run.guide.renderer.requires_grad_(False)


# -- the network itself ------------------------------------------------------------------------------------------------


def _network(run: UVARun) -> list[StageStep]:
    """Video only first, then all tasks."""
    training = run.recipe.network
    needs = ("initial network", "latents", *(["keypoints"] if run.recipe.model.num_keypoints else []))
    processes, windows = PartialState().num_processes, count_windows(run)

    def stage(name: str, config: StageConfig, weights: dict[Task, float], finish: Callable[[], object]) -> StageStep:
        def model() -> UVANet:
            return run.video_model if name == "video" else run.model

        def build() -> Stage:
            check = dataclasses.replace(run.validator, video_only=name == "video")
            return JointStage(run.recipe, config, name, model(), run.mixture, weights, check, run.vae)

        return _stage(
            run, f"network, {name}", "network", name, config, target=model, build=build, needs=needs, finish=finish
        )

    def in_steps(config: StageConfig) -> StageConfig:
        return config.resolved(windows=windows, processes=processes)

    found = [stage("video", in_steps(training.video), {Task.VIDEO: 1.0}, lambda: take_over_video(run))]
    found += [stage("joint", in_steps(training.joint), dict(training.task_weights), lambda: None)]
    return [one for one in found if one.config.steps]
