"""A whole recipe: autoencoder, cached latents, video stage, joint stage, export. Every part resumes where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from rich.progress import Progress
from torch import nn

from uva_agents.checkpoints.filling import refilled
from uva_agents.checkpoints.folder import is_checkpoint_file
from uva_agents.checkpoints.initial import load_mar, load_vae, match_into
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.checkpoints.store import Bundle, load_bundle, save_bundle
from uva_agents.checkpoints.tensor_files import stored_tensors, write_tensors
from uva_agents.data import (
    Episodes,
    LatentCache,
    LatentWindows,
    LinearNormalizer,
    MixtureWindows,
    Variant,
    apply_variant,
    encode_frames,
    held_out_split,
    standard_variants,
)
from uva_agents.model import VAE, Task, UVANet
from uva_agents.model.keypoints.detector import ConvPointReader, PointReader
from uva_agents.training.keypoints.detector_stage import PointsStage
from uva_agents.training.keypoints.motion_stages import DynamicsStage, WriterStage
from uva_agents.training.loop import LoopOptions, Stage, run_stage
from uva_agents.training.memory import Holds, check_out, latents_held
from uva_agents.training.sources import Data, Part, joined_frames, open_sources
from uva_agents.training.uva.joint_stage import JointStage
from uva_agents.training.uva.recipes import STAGES, DataLayout, Recipe, StageConfig
from uva_agents.training.uva.vae_stage import VAEStage, to_images
from uva_agents.training.uva.validation import Validator
from uva_agents.utils.files import write_text

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes.

    Args:
        data: dataset of any format, or several with weights (:class:`~uva_agents.training.sources.Source`). The first with actions
            is held out from, and trains what needs points; the others take part in the autoencoder, video and joint stages.
        out: run folder; its stages live in sub-folders, the finished weights in ``weights/``.
        vae_weights: trained autoencoder (safetensors, or the original ``kl16.ckpt``) instead of the first stage.
        points_weights: trained point reader (safetensors) instead of its stage, which writes ``points/reader.safetensors``.
        init: weights to go on from (a shipped name or a folder): their autoencoder and point reader are kept as they are,
            the network continues from theirs wherever names and shapes match. Or a MAR or released UVA checkpoint file, from
            which matching tensors of the network are taken.
        progress: show progress bars.
        stop_after: stop each stage after so many steps in this process, for tests.
        fields, every: see :func:`~uva_agents.training.sources.open_sources`.
    """

    data: Data
    out: Path
    vae_weights: Path | None = None
    points_weights: Path | None = None
    init: str | Path | None = None
    progress: bool = True
    stop_after: int | None = None
    fields: Mapping[str, str] | None = None
    every: int | None = None


def run_recipe(recipe: Recipe, options: RunOptions) -> Path | None:
    """Train a recipe to the end; returns the weights folder, or ``None`` when ``stop_after`` cut it short."""
    state = PartialState(cpu=not torch.cuda.is_available())
    check_out(options.out)
    parts = open_sources(
        options.data,
        recipe,
        _wanted(recipe),
        fields=options.fields,
        every=options.every,
        holds=lambda sources, size: _holds(recipe, options, sources, size),
    )
    first = next(i for i, part in enumerate(parts) if part.has_actions)
    episodes, others = parts[first].episodes, [part for i, part in enumerate(parts) if i != first]
    _check_sizes(recipe, episodes)
    train, held_out = held_out_split(len(episodes), recipe.held_out, seed=42)
    if state.is_main_process:
        write_text(options.out / "recipe.json", json.dumps(recipe.to_dict(), indent=1, default=str))

    torch.manual_seed(recipe.seed)
    pretrained = options.init is not None and is_checkpoint_file(options.init)
    origin = load_bundle(options.init, device="cpu") if options.init is not None and not pretrained else None
    if origin:
        vae: VAE | None = origin.vae
    else:
        # Not kept in a name: it is a copy of all frames.
        vae = _autoencoder(
            recipe,
            options,
            joined_frames([episodes.select(train), *(part.episodes for part in others)]),
            episodes.select(held_out),
        )
    if vae is None:
        return None
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, vae=vae.config))
    vae.to(state.device)
    cache = LatentCache(
        options.out / "latents",
        vae,
        patch_size=recipe.model.patch_size,
        world_size=recipe.world_size,
        image_size=recipe.model.image_size,
    )
    variants = standard_variants(recipe.variants, max_shift=recipe.max_shift, mirror=recipe.mirror)
    with state.main_process_first():  # one process encodes, the others read its files
        tokens = _with_progress(
            options.progress and state.is_main_process,
            "latents",
            lambda report: cache.get_all(episodes, variants, report),
        )
        more_tokens = [
            _with_progress(
                options.progress and state.is_main_process,
                f"latents of {part.episodes.source}",
                lambda report, part=part: cache.get_all(part.episodes, variants, report),  # type: ignore[misc]
            )
            for part in others
        ]
    torch.manual_seed(recipe.seed)  # again: how much was drawn above depends on what was already trained
    model = UVANet(recipe.model)
    model.set_gradient_checkpointing(recipe.gradient_checkpointing)
    if pretrained:
        load_mar(model, Path(str(options.init)))
    origin_has_sketch = origin is not None and origin.model.config.frame_sketch
    if origin is not None:
        match = match_into(model, origin.model.state_dict())
        if match.fresh or match.left:
            _LOG.warning("%s: %s", options.init, match)
    if recipe.model.standardize:
        tokens = _standardize(model, tokens, keep=origin is not None)
        more_tokens = [_standardize(model, some, keep=True) for some in more_tokens]
    points = _points(model, recipe, options, episodes, variants, episodes.select(train), episodes.select(held_out))
    if recipe.model.frame_points and points is None:
        return None
    normalizer = make_normalizer(recipe, episodes)
    spec = dataclasses.replace(
        make_interface(recipe, episodes, recipe.env_id), control_hz=recipe.control_hz, execute=recipe.execute
    )

    def windows(chosen: np.ndarray, some: tuple[Variant, ...]) -> LatentWindows:
        c = recipe.model
        return LatentWindows(
            episodes,
            tokens[: len(some)],
            some,
            normalizer,
            spec.window(c.n_frames, c.frame_stride, c.action_steps),
            chosen=chosen,
            proprio_key=recipe.proprio_key,
            readout_keys=recipe.readout_keys,
            world_size=recipe.world_size,
            points=None if points is None else points[: len(some)],
            history_actions=c.history_actions,
        )

    validator = Validator(
        windows(held_out, variants[:1]),
        vae,
        normalizer,
        episodes.arrays["pixels"],
        unit=recipe.unit,
        unit_scale=recipe.unit_scale,
        readout_keys=recipe.readout_keys,
    )
    stages: list[tuple[StageConfig, str, dict[Task, float], Validator]] = [
        (recipe.video, "video", {Task.VIDEO: 1.0}, dataclasses.replace(validator, video_only=True)),
        (recipe.joint, "joint", dict(recipe.task_weights), validator),
    ]
    train_windows = windows(train, variants)
    mixed: LatentWindows | MixtureWindows = train_windows
    if others:
        more = [
            _more_windows(recipe, model, p, t, variants, normalizer, spec)
            for p, t in zip(others, more_tokens, strict=True)
        ]
        mixed = MixtureWindows([train_windows, *more], [parts[first].weight, *(part.weight for part in others)])
    guide = model.guide
    if guide is not None and guide.renders and not origin_has_sketch:
        held_windows = windows(held_out, variants[:1])
        one = torch.ones(recipe.model.tokens_per_frame, recipe.model.token_dim)
        mean, std = (model.token_mean, model.token_std) if recipe.model.standardize else (0 * one, one)
        moves = DynamicsStage(recipe, guide.dynamics, train_windows, held_windows, normalizer)
        draws = WriterStage(recipe, guide.renderer, train_windows, held_windows, mean=mean, std=std)
        for stage in (moves, draws):
            if not _train(stage, None, stage.config, recipe, options):
                return None
    if guide is not None and guide.renders:
        guide.dynamics.requires_grad_(False)
        guide.renderer.requires_grad_(False)
    for config, name, weights, check in stages:
        if config.steps == 0:
            continue
        joint = JointStage(recipe, config, name, model, mixed, weights, check)
        if not _train(joint, joint.module, config, recipe, options):
            return None
    if not state.is_main_process:
        return None
    bundle = Bundle(model, vae, normalizer, spec, recipe.name)
    return save_bundle(
        bundle, options.out / "weights", extra={"recipe": json.loads(json.dumps(recipe.to_dict(), default=str))}
    )


def _holds(recipe: Recipe, options: RunOptions, sources: int, size: tuple[int, int]) -> Holds:
    """How the run keeps its data. Latents are those of the recipe's frames: an autoencoder's factor less, a few channels."""
    c = recipe.model
    tokens = c.tokens_per_frame * c.token_dim
    trains = options.init is None and options.vae_weights is None
    reduced = 0.0
    if c.frame_points and options.points_weights is None and (options.init is None or is_checkpoint_file(options.init)):
        # As :class:`PointsStage` keeps them.
        moved = bool(recipe.mirror or recipe.max_shift)
        whole = c.point_reader == "conv"
        kind = ConvPointReader if whole else PointReader
        reduced = (kind.training_variants if moved else 1) / (1 if whole else 16)
    return latents_held(
        tokens=tokens, variants=recipe.variants, sources=sources, has_autoencoder=trains, reduced=reduced
    )


def _wanted(recipe: Recipe) -> list[str]:
    """Canonical arrays that a recipe trains on."""
    proprio = [recipe.proprio_key] if recipe.proprio_key else []
    return list(dict.fromkeys(["pixels", "action", *proprio, *recipe.readout_keys]))


def _check_sizes(recipe: Recipe, episodes: Episodes) -> None:
    """That the network fits the numbers in the data.

    Raises:
        ValueError: naming the key and both sizes.
    """
    c = recipe.model
    sizes = [("action", ["action"], "action_dim", c.action_dim)]
    if recipe.proprio_key and c.proprio_dim:
        sizes.append((recipe.proprio_key, [recipe.proprio_key], "proprio_dim", c.proprio_dim))
    if c.readout_dim:
        sizes.append((" + ".join(recipe.readout_keys), list(recipe.readout_keys), "readout_dim", c.readout_dim))
    for name, keys, what, wanted in sizes:
        found = sum(episodes.arrays[key].shape[-1] for key in keys)
        if found != wanted:
            raise ValueError(
                f"{episodes.source} has {found} numbers in {name!r}, and recipe {recipe.name!r} has {what}={wanted}: "
                "choose a recipe for this robot, or other columns"
            )


def _more_windows(
    recipe: Recipe,
    model: UVANet,
    part: Part,
    tokens: list[np.ndarray],
    variants: tuple[Variant, ...],
    normalizer: LinearNormalizer,
    spec: InterfaceSpec,
) -> LatentWindows:
    """Windows of a further dataset; of video alone, without any numbers."""
    c, reader = recipe.model, None if model.guide is None else model.guide.detector
    points = None
    if reader is not None:
        points = [_read_points(reader, apply_variant(part.episodes, v, world_size=recipe.world_size)) for v in variants]
    return LatentWindows(
        part.episodes,
        tokens,
        variants,
        normalizer,
        spec.window(c.n_frames, c.frame_stride, c.action_steps),
        proprio_key=recipe.proprio_key if part.has_actions else None,
        readout_keys=recipe.readout_keys if part.has_actions else (),
        world_size=recipe.world_size,
        points=points,
        history_actions=c.history_actions,
        action_dim=c.action_dim,
    )


def make_normalizer(recipe: DataLayout, episodes: Episodes) -> LinearNormalizer:
    """From the recipe's limits where it has them, from the data elsewhere."""
    limits = {}
    for key in {"action", *([recipe.proprio_key] if recipe.proprio_key else []), *recipe.readout_keys}:
        value = episodes.arrays[key]
        dim = value.shape[-1]
        low, high = recipe.limits.get(key, (value.min(0), value.max(0)))
        limits[key] = (np.broadcast_to(low, dim).copy(), np.broadcast_to(high, dim).copy())
    return LinearNormalizer.from_limits(limits)


def make_interface(
    recipe: DataLayout, episodes: Episodes, env_id: str = "uva/PushT-v0", *, image_size: int | None = None
) -> InterfaceSpec:
    """What the trained weights will expect from an environment; ``image_size`` where training looks at no pictures."""
    shape = (image_size, image_size) if image_size else episodes.arrays["pixels"].shape[1:3]
    actions = episodes.arrays["action"]
    low, high = recipe.limits.get("action", (actions.min(0), actions.max(0)))
    dim = actions.shape[-1]
    return InterfaceSpec(
        image_shape=(shape[0], shape[1]),
        action_low=tuple(float(v) for v in np.broadcast_to(low, dim)),
        action_high=tuple(float(v) for v in np.broadcast_to(high, dim)),
        proprio_key=recipe.proprio_key,
        point_keys=recipe.readout_keys,
        env_id=env_id,
    )


def _autoencoder(recipe: Recipe, options: RunOptions, train: Episodes, held_out: Episodes) -> VAE | None:
    """Trained (or loaded) autoencoder whose scale makes its latents' standard deviation 1."""
    vae = VAE(dataclasses.replace(recipe.model.vae, scale=1.0))
    if options.vae_weights is not None:
        load_vae(vae, options.vae_weights)
    elif recipe.model.vae.kind == "kl-f16":
        raise ValueError(f"recipe {recipe.name!r} does not train its autoencoder: give --vae kl16.ckpt")
    elif not _train(VAEStage(recipe, vae, train, held_out), None, recipe.vae, recipe, options):
        return None
    vae.eval().requires_grad_(False)
    if recipe.model.vae.kind == "kl-f16":
        vae.config = recipe.model.vae  # its scale is a constant of the released models
        return vae
    some = train.arrays["pixels"][:: max(1, train.steps // 1024)]
    std = float(encode_frames(vae, some, patch_size=1).astype(np.float32).std())
    # Rounded: the scale goes into the cache key and must not depend on how a machine sums.
    vae.config = dataclasses.replace(vae.config, scale=round(1.0 / std, 3))
    return vae


def _standardize(model: UVANet, tokens: list[np.ndarray], *, keep: bool = False) -> list[np.ndarray]:
    """Tokens as the network sees them; their statistics, over every variant, go into its buffers.

    Most of an image is background, the same in every frame: unless it is subtracted, it drowns the rest.
    """
    if not keep:
        some = np.concatenate([t[::16] for t in tokens]).astype(np.float32)
        model.token_mean.copy_(torch.from_numpy(some.mean(0)))
        model.token_std.copy_(torch.from_numpy(np.maximum(some.std(0), 0.05)))
    mean, std = model.token_mean.numpy(), model.token_std.numpy()
    return [((t.astype(np.float32) - mean) / std).astype(np.float16) for t in tokens]


def _points(
    model: UVANet,
    recipe: Recipe,
    options: RunOptions,
    episodes: Episodes,
    variants: tuple[Variant, ...],
    train: Episodes,
    held_out: Episodes,
) -> list[np.ndarray] | None:
    """Points read from every frame of every variant, after training their reader.

    ``None`` when the network has no point reader, or when its training was cut short.
    """
    if model.guide is None:
        return None
    reader = model.guide.detector
    if options.init is not None and not is_checkpoint_file(options.init):
        pass  # it came with the weights
    elif options.points_weights is not None:
        refilled(reader, stored_tensors(options.points_weights), where=str(options.points_weights), what="point reader")
    else:
        stage = PointsStage(recipe, reader, train, held_out, make_normalizer(recipe, train))
        if not _train(stage, None, recipe.points, recipe, options):
            return None
        if PartialState().is_main_process:  # for other runs' points_weights
            write_tensors(options.out / stage.name / "reader.safetensors", reader, torch.float32)
    reader.eval().requires_grad_(False)
    return [_read_points(reader, apply_variant(episodes, v, world_size=recipe.world_size)) for v in variants]


@torch.no_grad()
def _read_points(reader: PointReader | ConvPointReader, episodes: Episodes) -> np.ndarray:
    frames = episodes.arrays["pixels"]
    device = next(reader.parameters()).device
    parts = [reader(to_images(frames[i : i + 512]).to(device)).cpu().numpy() for i in range(0, len(frames), 512)]
    return np.concatenate(parts)


def _train(stage: Stage, target: nn.Module | None, config: StageConfig, recipe: Recipe, options: RunOptions) -> bool:
    """Run a stage and put its averaged weights into its module; false when it was cut short."""
    folder = options.out / stage.name
    rest = {k: v for k, v in recipe.to_dict().items() if k not in STAGES}
    if not isinstance(options.data, Path) and any(source.episodes for source in options.data):
        rest["episodes"] = [source.episodes for source in options.data]
    if not isinstance(options.data, Path) and len(options.data) > 1:
        rest["data"] = [(str(source.path), source.weight) for source in options.data]
    key = hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode()).hexdigest()[:16]
    loop = LoopOptions(folder, key=key, seed=recipe.seed, progress=options.progress, stop_after=options.stop_after)
    averaged, finished = run_stage(stage, config, loop)
    module = target if target is not None else stage.module
    module.load_state_dict(averaged)
    return finished


def _with_progress(
    show: bool, title: str, work: Callable[[Callable[[int, int], None]], list[np.ndarray]]
) -> list[np.ndarray]:
    with Progress(disable=not show) as bar:
        task = bar.add_task(title, total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))
