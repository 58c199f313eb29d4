"""A stage's optimisation: in epochs or steps, for one process or several, as the released code counts them."""

import dataclasses
import json

import pytest

from tests.small_nets import nano
from uva_agents.training.loop import learning_rate, parameter_groups
from uva_agents.training.recipe import StageConfig


def test_a_stage_in_epochs_is_resolved_for_the_data_and_the_processes() -> None:
    stage = StageConfig(
        steps=0, batch_size=32, lr=1e-4, warmup=1000, shared_warmup=True, epochs=30, validate_epochs=10, final_lr=0.0
    )
    alone, eight = (stage.resolved(windows=20_000, processes=n) for n in (1, 8))
    assert (alone.steps, alone.validate_every, alone.warmup) == (30 * 625, 6250, 1000)
    assert (eight.steps, eight.validate_every, eight.warmup) == (30 * 78, 780, 125)
    assert eight.resolved(windows=20_000, processes=8) == eight
    # accelerate steps its scheduler once per process: step 1 of 8 processes is the eighth of one.
    wide, narrow = (
        dataclasses.replace(alone, steps=steps, warmup=warmup) for steps, warmup in ((8000, 1000), (1000, 125))
    )
    for step in (0, 1, 100, 125, 500, 999):
        assert learning_rate(narrow, step) == pytest.approx(learning_rate(wide, 8 * step), rel=1e-12)
    short = stage.shortened(3).resolved(windows=20_000, processes=1)
    assert (short.steps, short.validate_every) == (3, 3)
    with pytest.raises(ValueError, match="200 training windows do not fill one batch of 32 x 8"):
        stage.resolved(windows=200, processes=8)


def test_weight_decay_spares_vectors_and_embeddings_unless_asked_for() -> None:
    module = nano(text_dim=8, text_tokens=2)
    for embeddings in (False, True):
        decayed, rest = (
            {id(p) for p in group["params"]} for group in parameter_groups(module, 0.02, embeddings=embeddings)
        )
        for name, parameter in module.named_parameters():
            wanted = parameter.ndim > 1 and (embeddings or not name.endswith(("_pos", "_mask")))
            assert (id(parameter) in decayed) == wanted and (id(parameter) in rest) != wanted, name


def test_settings_that_came_later_leave_checkpoints_recognised_where_they_change_nothing() -> None:
    stage = StageConfig(steps=4, batch_size=8, lr=1e-3)
    first = {
        "steps", "batch_size", "lr", "warmup", "final_lr", "weight_decay", "betas", "clip", "ema_power", "ema_max",
        "validate_every",
    }  # fmt: skip
    assert set(stage.signature()) == first
    later = dataclasses.replace(stage, ema_delay=1, precision="fp16")
    assert set(later.signature()) - first == {"ema_delay", "precision"}
    json.dumps(later.signature())
