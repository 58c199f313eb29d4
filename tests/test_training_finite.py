"""Training that meets NaN stops before it spoils anything, and says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from uva_agents.errors import NotFiniteError
from uva_agents.training.loop import LoopOptions, run_stage
from uva_agents.training.recipe import StageConfig


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # The root is 0 at 0, and its slope infinite.
        return (self.weight * x).sum().abs().sqrt(), {}


class Stage:
    """Inputs of ones, but for one step."""

    name = "line"

    def __init__(self, step: int, value: float) -> None:
        self.module = Line()
        self.step, self.value = step, value

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        return {"x": torch.full((3,), self.value if step == self.step else 1.0)}

    def validate(self, module: nn.Module, reporter: Any, step: int) -> dict[str, float]:
        return {}


CONFIG = StageConfig(steps=8, batch_size=1, lr=1e-3, warmup=0, validate_every=100)


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "the loss is nan"), (0.0, "the gradient's norm is")])
def test_the_last_good_checkpoint_outlives_a_step_that_is_not_finite(tmp_path: Path, value: float, what: str) -> None:
    def options(stop: int | None) -> LoopOptions:
        return LoopOptions(tmp_path, progress=False, stop_after=stop, checkpoint_every_s=0.0)

    run_stage(Stage(4, value), CONFIG, options(3))
    with pytest.raises(NotFiniteError, match=f"stage 'line': {what}.* at step 4; .*checkpoint.pt holds the last good"):
        run_stage(Stage(4, value), CONFIG, options(None))
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 4
    assert all(torch.isfinite(v.float()).all() for part in ("model", "ema") for v in saved[part].values())
    # With the fault mended it goes on from there.
    assert run_stage(Stage(-1, 0.0), CONFIG, options(None))[1]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    config = StageConfig(steps=8, batch_size=1, lr=1e39, warmup=0, validate_every=100)
    match = "the weights 'weight' are not finite after step 0; no checkpoint was written yet"
    with pytest.raises(NotFiniteError, match=match):
        run_stage(Stage(-1, 0.0), config, LoopOptions(tmp_path, progress=False, stop_after=1))
    assert not (tmp_path / "checkpoint.pt").exists()
