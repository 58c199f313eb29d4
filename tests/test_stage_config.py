"""A stage's optimisation: in epochs or steps, for one process or several, as the released code counts them."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from tests.small_nets import nano
from uva_agents.training.ema import EMA
from uva_agents.training.optimisation import learning_rate, parameter_groups
from uva_agents.training.precision import MOST_LEFT_OUT, LossScaling, precision
from uva_agents.training.recipe import StageConfig
from uva_agents.training.stage_checkpoint import restore_checkpoint, save_checkpoint


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


class Scaler:
    """What accelerate has for fp16, which computers without a GPU do not make."""

    def __init__(self) -> None:
        self.scale = 65536.0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


def test_gradients_beyond_fp16_leave_a_step_out_and_end_training_only_when_it_does_not_help() -> None:
    scaling = LossScaling(Scaler())
    assert not scaling.leaves_out(1.0, 2.0)
    assert scaling.leaves_out(1.0, math.inf) and scaling.leaves_out(1.0, math.nan)
    assert not scaling.leaves_out(1.0, 2.0) and scaling.left_out == 0
    assert not scaling.leaves_out(math.nan, math.nan), "the loss itself is no number: that is an error"
    assert [scaling.leaves_out(1.0, math.inf) for _ in range(MOST_LEFT_OUT + 1)] == [True] * MOST_LEFT_OUT + [False]
    plain = LossScaling(None)
    assert not plain.leaves_out(1.0, math.inf) and plain.state() == {}


def test_the_scale_of_the_loss_is_in_the_checkpoint(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    optimizer, ema = torch.optim.AdamW(module.parameters()), EMA(module, power=0.75, maximum=0.99)
    scaler = Scaler()
    scaler.scale = 1024.0
    save_checkpoint(tmp_path / "c.pt", "key", 3, module, optimizer, ema, scaling=LossScaling(scaler).state())
    found = Scaler()
    step, selected = restore_checkpoint(tmp_path / "c.pt", "key", module, optimizer, ema, LossScaling(found))
    assert (step, selected, found.scale) == (3, {}, 1024.0)


class Renamed(torch.nn.Linear):
    """A part that calls a tensor otherwise than an earlier version did."""

    @staticmethod
    def renamed_tensor(name: str) -> str:
        return {"kernel": "weight"}.get(name, name)


def test_a_stage_of_several_parts_goes_on_and_one_part_may_have_been_renamed(tmp_path: Path) -> None:
    def restored(saved: torch.nn.Module, today: torch.nn.Module) -> dict[str, torch.Tensor]:
        for module in (saved, today):
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter)
        optimizers = [torch.optim.AdamW(module.parameters()) for module in (saved, today)]
        averages = [EMA(module, power=0.75, maximum=0.99) for module in (saved, today)]
        save_checkpoint(tmp_path / "c.pt", "key", 3, saved, optimizers[0], averages[0])
        restore_checkpoint(tmp_path / "c.pt", "key", today, optimizers[1], averages[1])
        assert [float(value.sum()) for value in averages[1].shadow.values()] == [
            float(value.sum()) for value in averages[0].shadow.values()
        ]
        return today.state_dict()

    def parts() -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({"vae": torch.nn.Linear(2, 2), "regressor": torch.nn.Linear(2, 3)})

    saved = parts()
    for name, value in restored(saved, parts()).items():
        assert torch.equal(value, saved.state_dict()[name])
    earlier = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})
    today = restored(earlier, torch.nn.ModuleDict({"net": Renamed(2, 2)}))
    assert torch.equal(today["net.weight"], earlier.state_dict()["model.weight"])


def test_precision_is_what_the_recipe_wants_on_a_gpu_and_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {precision(wanted) for wanted in ("auto", "fp16", "bf16", "no")} == {"no"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for fast in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda fast=fast: fast)
        assert [precision(wanted) for wanted in ("auto", "fp16", "no")] == ["bf16" if fast else "no", "fp16", "no"]
