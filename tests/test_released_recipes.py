"""Every released recipe against the table of what the released code does, and the table's words against what recipes do."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.released_facts import COMMON, PROMPTS, RECIPES
from uva_agents.data import WindowSpec
from uva_agents.model import Task, UVAConfig, UVANet
from uva_agents.training.ema import EMA
from uva_agents.training.optimisation import learning_rate, parameter_groups
from uva_agents.training.recipe import StageConfig
from uva_agents.training.uva.named_recipes import RELEASED, named
from uva_agents.training.uva.recipes import UVARecipe

UNUSED = {"uva-umi-multitask": (768 * 16 + 768, 2)}
"""Numbers and tensors that the released network has and never uses: a projection for a wrist camera's picture."""


def facts(recipe: UVARecipe) -> dict[str, Any]:
    """What a recipe says, in the table's words."""
    m, n, d = recipe.model, recipe.network, recipe.data
    assert n.clips is not None
    clips, window = n.clips, WindowSpec(m.n_frames, m.frame_stride, m.action_steps, d.action_offset, d.rows_per_step)
    heads = {"video_head": m.video_head, "action_head": m.action_head}
    ema = EMA(torch.nn.Linear(1, 1), power=n.joint.ema_power, maximum=n.joint.ema_max, delay=n.joint.ema_delay)
    side = RECIPES[recipe.name]["frame_side"]
    drawn = "batch" if n.draw_together else "sample"
    found = {
        "width": m.width,
        "blocks": (m.encoder_depth, m.decoder_depth),
        "heads": m.heads,
        "mlp_ratio": m.mlp_ratio,
        "attention_dropout": m.attention_dropout,
        "projection_dropout": m.dropout,
        "image_side": m.image_size,
        "tokens_per_frame": m.tokens_per_frame,
        "token_channels": m.token_dim,
        "latent_scale": m.vae.scale,
        "frames": (m.n_frames, m.n_frames),
        "actions": m.action_steps,
        "text_tokens": m.text_tokens,
        "action_conditions": m.aggregator,
        **{name: (head.width, head.depth, head.prediction, head.clip) for name, head in heads.items()},
        "noise_draws_per_token": m.video_head.draws * m.action_head.draws,
        "share_of_masked_tokens_trained": m.video_head.share,
        "past_actions": m.history_actions,
        "gradient_checkpointing": n.gradient_checkpointing,
        "loss_weights": {"video": 1.0, "action": n.action_weight, "proprio": 1.0},
        "task_drawn_per": drawn,
        "mask_ratio_drawn_per": drawn,
        "mask_ratio": (1.0, n.mask_std, n.mask_minimum, 1.0),
        "video_stage_tasks": {"video_model": 1.0},
        "video_stage_has_action_head": recipe.video_model.predict_actions,
        "video_stage_has_proprioception": bool(
            recipe.video_model.proprio_dim or recipe.video_model.predict_proprio_dim
        ),
        "text_dropout": n.text_dropout,
        "past_actions_dropout": n.history_action_dropout,
        "history_dropout": n.history_dropout,
        "proprio_dropout": n.proprio_dropout,
        "input_noise": n.latent_noise,
        "latents": "drawn from the posterior in the loop",
        "coordinates_moved_by_augmentation": recipe.augmentation.variants > 1 or recipe.world is not None,
        "optimizer": {name: both(recipe, name) for name in ("lr", "betas", "weight_decay", "clip")},
        "decayed": "all but one-dimensional tensors" if both(recipe, "decay_embeddings") else "matrices",
        "schedule": "cosine to 0" if both(recipe, "final_lr") == 0.0 else "another",
        "epochs": both(recipe, "epochs"),
        "warmup_scheduler_steps": both(recipe, "warmup") if both(recipe, "shared_warmup") else None,
        "warmup_steps_of_8_processes": n.joint.resolved(windows=10**5, processes=8).warmup,
        "ema": {"power": both(recipe, "ema_power"), "max": both(recipe, "ema_max")},
        "ema_decays": {step: pytest.approx(ema.decay(step), abs=5e-5) for step in (0, 1, 2, 10, 1000)},
        "seed": recipe.seed,
        # what differs between the recipes
        "env": d.env_id,
        "joint_stage_tasks": {task.value: share for task, share in n.task_weights.items()},
        "history_rows": window.history.tolist(),
        "history_drawn": drawn_history(recipe),
        "future_rows": window.future.tolist(),
        "first_action_row": int(window.actions[0]),
        "action_rows": window.actions.tolist(),
        "rows_that_are_no_now": d.trim,
        "batch_size": both(recipe, "batch_size"),
        "precision": both(recipe, "precision"),
        "validation_share": d.held_out,
        "executed": d.execute,
        "parameters": tuple(np.add(parameters(m), UNUSED.get(recipe.name, (0, 0))).tolist()),
        "frame_side": side,
        "cameras": [name for name in d.fields if name.startswith("pixels")],
        "wrist": "seen and predicted" if m.wrist_image and m.predict_wrist else "none",
        "action_numbers": m.action_dim,
        "action_normalised": normalised(recipe),
        "instructions": d.instructions if m.text_dim == 512 else "none" if not m.text_dim else "another size",
        "proprio_in": (m.proprio_dim, m.proprio_steps if m.proprio_dim else 0),
        "proprio_out": m.predict_proprio_dim,
        "crop": (clips.crop_side(side), clips.crop_share),
        "jitter": (clips.brightness, clips.contrast, clips.saturation, clips.hue, clips.jitter_share),
        "sharpness": (clips.sharpness, clips.sharpness_share),
        "autocontrast": clips.autocontrast_share,
        "grey": clips.grey_share,
        "blur": (clips.blur, clips.blur_sigma, clips.blur_share),
        "start_pose_noise": n.start_noise,
        "mirrors_blacked_out": [name for name, mask in d.blacked_out.items() if mask == "umi-mirrors"],
        "validated_every_epochs": both(recipe, "validate_epochs"),
    }
    if "video_stage_parameters" in RECIPES[recipe.name]:
        found["video_stage_parameters"] = parameters(recipe.video_model)
    return found


def both(recipe: UVARecipe, name: str) -> Any:
    """A setting of the two stages, which must be the same in both."""
    values = [getattr(recipe.network.video, name), getattr(recipe.network.joint, name)]
    assert values[0] == values[1], name
    return values[0]


def drawn_history(recipe: UVARecipe) -> str:
    if not recipe.network.varied_history:
        return "never"
    per_sample = "per sample, four different ones of sixteen steps, in training alone"
    return per_sample if recipe.network.distinct_histories else "per batch, one of 816"


def normalised(recipe: UVARecipe) -> str:
    """Which of an action's numbers are brought to [-1, 1] by the data's range."""
    unscaled = set(recipe.data.unscaled.get("action", ()))
    for transform in recipe.data.action_transforms[-1:]:
        unscaled |= {column for column, limits in transform.network_limits().items() if limits == (-1.0, 1.0)}
    scaled = [column for column in range(recipe.model.action_dim) if column not in unscaled]
    return {(): "nothing", (0, 1, 2): "position"}.get(tuple(scaled), "whole")


def parameters(config: UVAConfig) -> tuple[int, int]:
    """Numbers and tensors of a network."""
    with torch.device("meta"):
        model = UVANet(config)
    return sum(p.numel() for p in model.parameters()), sum(1 for _ in model.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_a_released_recipe_says_what_the_released_code_does(name: str) -> None:
    expected = {**COMMON, **RECIPES[name]}
    expected.pop("best")  # which weights are kept is asked for on the command line
    found = facts(named(name))
    assert found.keys() == expected.keys()
    wrong = {key: (found[key], value) for key, value in expected.items() if value != found[key]}
    assert not wrong, "found, expected"


def test_the_table_has_every_released_recipe_and_recipes_differ_where_tasks_do() -> None:
    assert set(RELEASED) == set(RECIPES)
    umi = named("uva-umi-multitask")
    assert umi.data.instructions_of == PROMPTS
    assert umi.network.weigh_windows, "windows of all datasets in one pool"
    assert umi.data.control_hz == pytest.approx(59.94 / 3)
    for name in RELEASED:
        assert named(name).name == name
    same = dataclasses.replace(named("uva-pusht"), name="uva-pusht-m", data=named("uva-pusht-m").data)
    assert same == named("uva-pusht-m"), "the two differ in their environment alone"


def test_both_stages_of_pusht_have_the_released_numbers_of_steps_and_rates_on_8_gpus() -> None:
    """206 demonstrations: 4 held out, and of the others every row but the first 14 and the last 9 of each is a 'now'."""
    windows = 20_480
    stage = named("uva-pusht").network.joint.resolved(windows=windows, processes=8)
    assert (stage.steps, stage.warmup, stage.validate_every) == (3050 * 80, 125, 800)
    assert learning_rate(stage, 0) == 0.0 and learning_rate(stage, 125) == 1e-4
    assert learning_rate(stage, 25) == pytest.approx(0.2e-4)
    total, warmup = 3050 * windows / 32, 1000  # scheduler steps, of which each of ours is eight
    for step in (1000, 100_000, 200_000):
        progress = (8 * step - warmup) / (total - warmup)
        assert learning_rate(stage, step) == pytest.approx(0.5e-4 * (1 + math.cos(math.pi * progress)), rel=1e-9)


def test_weight_decay_falls_on_what_the_released_optimiser_decays() -> None:
    recipe = named("uva-libero10")
    with torch.device("meta"):
        model = UVANet(recipe.model)
    stage: StageConfig = recipe.network.joint
    decayed, rest = parameter_groups(model, stage.weight_decay, embeddings=stage.decay_embeddings)
    assert decayed["weight_decay"] == 0.02 and rest["weight_decay"] == 0.0
    assert {p.ndim for p in rest["params"]} == {1} and min(p.ndim for p in decayed["params"]) == 2
    assert len(decayed["params"]) + len(rest["params"]) == 449


def test_umi_histories_are_four_different_steps_for_every_sample() -> None:
    spec = WindowSpec(rows_per_step=3, action_offset=1)
    drawn = spec.distinct_histories(3000, np.random.default_rng(0))
    assert drawn.shape == (3000, 4) and (np.diff(drawn, axis=1) > 0).all()
    assert set(np.unique(drawn)) == set(range(-45, 1, 3))
    assert (drawn[:, -1] == 0).mean() == pytest.approx(4 / 16, abs=0.03), "now need not be among them"


def test_tasks_are_the_released_five_or_the_two_of_umi() -> None:
    assert set(named("uva-pusht").network.task_weights) == set(Task)
    assert set(named("uva-umi-multitask").network.task_weights) == {Task.POLICY, Task.POLICY_VIDEO}
