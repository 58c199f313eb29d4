"""A tiny training on a handful of windows, and how near its policy comes to what was recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.any_task_data import MAKERS
from uva_agents.agents import UVA
from uva_agents.data import held_out_split, open_dataset
from uva_agents.model import Task
from uva_agents.training.any_task import LayoutOptions, make_recipe, train
from uva_agents.training.sources import Source


def small(recipe, *, steps, batch_size):
    """The recipe with a network that fits a handful of windows in seconds."""
    model = replace(
        recipe.model,
        width=96,
        heads=4,
        encoder_depth=1,
        decoder_depth=1,
        aggregator_dropout=0.0,
        video_head=replace(recipe.model.video_head, width=32, depth=1),
        action_head=replace(recipe.model.action_head, width=208, draws=8),
    )
    network = recipe.network
    network = replace(
        network,
        video=replace(network.video, steps=2, batch_size=16, validate_every=2),
        joint=replace(network.joint, steps=steps, batch_size=batch_size, lr=2e-3, validate_every=steps, warmup=20),
        task_weights={Task.POLICY: 0.9, Task.FORWARD: 0.05, Task.INVERSE: 0.05},
        history_dropout=0.0,
        proprio_dropout=0.0,
        text_dropout=0.0,
        wrist_dropout=0.0,
        latent_noise=0.0,
    )
    stage = recipe.autoencoder.stage
    autoencoder = replace(
        recipe.autoencoder, stage=replace(stage, steps=15, batch_size=16, warmup=3, validate_every=15)
    )
    augmentation = replace(recipe.augmentation, variants=1)
    return replace(recipe, model=model, network=network, autoencoder=autoencoder, augmentation=augmentation)


EPISODES = "0,2"
"""One to train on and one to hold out."""


def overfitted(root, robot):
    """Dataset and weights folder."""
    path = MAKERS[robot](root)
    about = LayoutOptions(control_hz=10.0 if robot == "pusht" else None)
    # Relative poses have a wider range than the recorded ones, in which errors are measured: they are learned for longer.
    relative = robot == "umi"
    episodes, steps, batch_size = ("0-2", 750, 44) if relative else (EPISODES, 300, 22)
    source = Source(path, episodes=episodes)
    recipe = small(make_recipe("nano", [source], about), steps=steps, batch_size=batch_size)
    return open_dataset(path, episodes=episodes), train(recipe, [source], root / "run", options={"progress": False})


def observation(dataset, row):
    """What the robot's environment would have handed over at a row."""
    obs = {name: np.asarray(dataset.arrays[name][row]) for name in dataset.cameras}
    obs["agent_pos"] = dataset.arrays["agent_pos"][row]
    if dataset.tasks is not None and len(set(dataset.tasks)) > 1:
        obs["task"] = dataset.tasks[int(np.searchsorted(dataset.ends, row, side="right"))]
    return obs


def action_error(dataset, folder, rate):
    """Mean error of every number of the actions on the episodes that were trained on, as shares of their range.

    Args:
        rate: rows in a control step.
    """
    policy = UVA.from_pretrained(folder).policy()
    spec = policy.spec
    span = np.array(spec.action_high) - np.array(spec.action_low)
    seen, _ = held_out_split(len(dataset), 1)
    errors = []
    for episode in seen:
        start, end = dataset.starts[episode], dataset.ends[episode]
        policy.reset(seed=0)
        for row in range(start, end, rate):
            action = policy.act(observation(dataset, row))
            wanted = dataset.arrays["action"][min(row + spec.action_offset * rate, end - 1)]
            errors.append(np.abs(action - wanted) / span)
    return np.mean(errors, axis=0)
