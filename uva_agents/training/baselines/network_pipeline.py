"""A run of one network that looks at pixels: data, one stage, export. Resumes where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from uva_agents.checkpoints.folder import resolve
from uva_agents.checkpoints.networks import NetBundle, load_diffusion_policy, load_two_frame, save_net
from uva_agents.checkpoints.tensor_files import load_tensors
from uva_agents.data import Episodes, FrameWindows, LinearNormalizer, WindowSpec, held_out_split
from uva_agents.model import DiffusionPolicyConfig, DiffusionPolicyNet, TwoFrameConfig, TwoFrameNet
from uva_agents.training.baselines.diffusion_stage import DiffusionStage, PointsDiffusionStage
from uva_agents.training.baselines.mixture_prior_stage import GuessStage
from uva_agents.training.baselines.network_recipes import NetworkRecipe
from uva_agents.training.baselines.two_frame_stage import TwoFrameStage
from uva_agents.training.loop import LoopOptions, run_stage
from uva_agents.training.memory import Holds, check_out
from uva_agents.training.sources import open_sources, sources_of
from uva_agents.training.uva.pipeline import RunOptions, make_interface, make_normalizer
from uva_agents.training.uva.recipes import StageConfig
from uva_agents.utils.files import write_text
from uva_agents.utils.images import resize_frames


def run_network_recipe(recipe: NetworkRecipe, options: RunOptions) -> Path | None:
    """Train a recipe to the end; returns the weights folder, or ``None`` when ``stop_after`` cut it short.

    Raises:
        ValueError: the data does not fit the network, or ``options`` ask for what only UVA's recipes have.
    """
    if options.vae_weights is not None:
        raise ValueError(f"recipe {recipe.name!r} has no autoencoder: leave out --vae")
    if options.points_weights is not None and isinstance(recipe.model, TwoFrameConfig):
        raise ValueError(f"recipe {recipe.name!r} trains its own encoder: leave out --points")
    state = PartialState(cpu=not torch.cuda.is_available())
    if len(sources_of(options.data)) > 1:
        raise ValueError(f"recipe {recipe.name!r} trains on one dataset: give one --data")
    positions = recipe.positions_key if options.points_weights is not None else None
    wanted = ["action", positions or "pixels", *([recipe.proprio_key] if recipe.proprio_key else [])]
    side = recipe.model.encoder.image_size

    def holds(sources: int, size: tuple[int, int]) -> Holds:
        return Holds(1.0, resized=0 if size in ((0, 0), (side, side)) else 3 * side * side, variants=2)

    check_out(options.out)
    (part,) = open_sources(options.data, recipe, wanted, fields=options.fields, every=options.every, holds=holds)
    episodes = part.episodes
    train, held_out = held_out_split(len(episodes), recipe.held_out, seed=42)
    _check(recipe, episodes.arrays["action"].shape[-1], "action_dim", recipe.model.action_dim)
    if state.is_main_process:
        write_text(options.out / "recipe.json", json.dumps(recipe.to_dict(), indent=1, default=str))
    pixels = None
    if "pixels" in wanted:
        pixels = resize_frames(episodes.arrays["pixels"], recipe.model.encoder.image_size)
    normalizer = make_normalizer(recipe, episodes)
    spec = dataclasses.replace(
        make_interface(recipe, episodes, recipe.env_id, image_size=None if "pixels" in wanted else side),
        control_hz=recipe.control_hz,
        execute=recipe.execute,
    )
    torch.manual_seed(recipe.seed)
    net: DiffusionPolicyNet | TwoFrameNet
    stage: DiffusionStage | TwoFrameStage

    def windows(chosen: np.ndarray) -> FrameWindows:
        if isinstance(recipe.model, TwoFrameConfig):
            # The last frames of an episode have no second frame.
            s = recipe.model.stride
            pair = WindowSpec(n_frames=1, stride=s, action_steps=s)
            return FrameWindows(episodes, pixels, normalizer, pair, chosen=chosen, trim=(0, s), frame_offsets=(0, s))
        c = recipe.model
        spec = WindowSpec(c.obs_steps, 1, c.horizon, c.first_action)
        trim = (0, c.horizon + c.first_action - 1) if recipe.whole_chunks else (0, 0)
        return FrameWindows(
            episodes, pixels, normalizer, spec, chosen=chosen, proprio_key=recipe.proprio_key, trim=trim
        )

    if isinstance(recipe.model, TwoFrameConfig):
        net = TwoFrameNet(recipe.model)
        stage = TwoFrameStage(recipe, net, windows(train), windows(held_out), normalizer)
    else:
        found = episodes.arrays[recipe.proprio_key].shape[-1] if recipe.proprio_key else 0
        _check(recipe, found, "proprio_dim", recipe.model.proprio_dim)
        model = recipe.model
        if options.points_weights is not None:
            # An encoder that reads points has seen whole images.
            whole = dataclasses.replace(model.encoder, crop=model.encoder.image_size)
            model = dataclasses.replace(model, encoder=whole)
            recipe = dataclasses.replace(recipe, model=model)
        net = DiffusionPolicyNet(model)
        if options.points_weights is not None:
            _see_with(net, options.points_weights)
            if recipe.points_limits is not None:
                _speak_of(net, recipe.points_limits, normalizer, str(recipe.proprio_key))
            recorded = _positions(recipe, episodes, normalizer)
            stage = PointsDiffusionStage(recipe, net, windows(train), windows(held_out), normalizer, positions=recorded)
        else:
            stage = DiffusionStage(recipe, net, windows(train), windows(held_out), normalizer)
    if options.init is not None:
        _start_from(net, options.init)
    rest = {k: v for k, v in recipe.to_dict().items() if k not in ("stage", "guesses")}
    text = json.dumps([rest, episodes.fingerprint, _origin(options)], sort_keys=True, default=str)
    stages: list[tuple[DiffusionStage | TwoFrameStage, StageConfig]] = [(stage, recipe.stage)]
    if recipe.guesses is not None and isinstance(stage, PointsDiffusionStage):
        stages.insert(0, (GuessStage(stage, recipe.guesses), recipe.guesses))
    for each, config in stages:
        loop = LoopOptions(
            options.out / each.name,
            key=hashlib.sha256(text.encode()).hexdigest()[:16],
            seed=recipe.seed,
            progress=options.progress,
            stop_after=options.stop_after,
        )
        averaged, finished = run_stage(each, config, loop)
        each.module.load_state_dict(averaged)
        if not finished:
            return None
    if not state.is_main_process:
        return None
    extra = {"recipe": json.loads(json.dumps(recipe.to_dict(), default=str))}
    folder = options.out / "weights"
    if isinstance(net, DiffusionPolicyNet):
        return save_net(NetBundle(net, normalizer, spec, recipe.name), folder, extra=extra)
    return save_net(NetBundle(net, normalizer, spec, recipe.name), folder, extra=extra)


def _check(recipe: NetworkRecipe, found: int, name: str, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"the data has {found} numbers where recipe {recipe.name!r} has {name}={wanted}")


def _positions(recipe: NetworkRecipe, episodes: Episodes, normalizer: LinearNormalizer) -> Tensor | None:
    """Recorded positions (N, 2 P) of the effector and of the other things, normalised alike."""
    if recipe.positions_key is None:
        return None
    assert isinstance(recipe.model, DiffusionPolicyConfig) and recipe.proprio_key is not None
    arrays = [torch.from_numpy(episodes.arrays[key]) for key in (recipe.proprio_key, recipe.positions_key)]
    found = torch.cat(arrays, dim=-1)
    _check(recipe, found.shape[-1], "two numbers for each of the encoder's points,", recipe.model.encoder.outputs)
    return normalizer.normalize(recipe.proprio_key, found.unflatten(-1, (-1, 2))).flatten(1)


def _see_with(net: DiffusionPolicyNet, path: Path) -> None:
    """Take the encoder from a convolutional point reader.

    Raises:
        ValueError: it is another network.
    """
    tensors = load_tensors(path)
    if not net.config.encoder.points:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("head.")}
    own = net.encoder.state_dict()
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in own.items()}:
        raise ValueError(f"{path} is not a convolutional point reader of the size of this policy's encoder")
    net.encoder.load_state_dict(tensors)


def _speak_of(
    net: DiffusionPolicyNet,
    limits: tuple[tuple[float, float], tuple[float, float]],
    normalizer: LinearNormalizer,
    key: str,
) -> None:
    """Positions that were normalised by ``limits`` become normalised as ``key`` is, in the encoder's last layer."""
    low, high = (normalizer.normalize(key, torch.tensor(x)) for x in limits)
    scale, middle = (high - low) / 2, (high + low) / 2
    last = net.encoder.head[-1]
    assert isinstance(last, nn.Linear)
    things = len(last.bias) // 2
    with torch.no_grad():
        last.weight.mul_(scale.repeat(things)[:, None])
        last.bias.mul_(scale.repeat(things)).add_(middle.repeat(things))


def _start_from(net: nn.Module, init: str | Path) -> None:
    """Continue from finished weights of the same network.

    Raises:
        ValueError: they are another network.
    """
    load = load_diffusion_policy if isinstance(net, DiffusionPolicyNet) else load_two_frame
    origin = load(init, device="cpu").model
    if {k: v.shape for k, v in origin.state_dict().items()} != {k: v.shape for k, v in net.state_dict().items()}:
        raise ValueError(f"{resolve(init)} holds a network of another size than the recipe's")
    net.load_state_dict(origin.state_dict())


def _origin(options: RunOptions) -> str:
    used = [str(resolve(options.init).resolve())] if options.init is not None else []
    return " ".join([*used, *([str(options.points_weights)] if options.points_weights is not None else [])])
