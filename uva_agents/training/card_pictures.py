"""Numbers of a run's stages, and their curves, for its model card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.utils.plots import Line, panels

_NOT_MEASURED = {"kind", "step", "windows", "samples", "episodes", "failed"}


@dataclass(frozen=True)
class StageMetrics:
    """Lines of a stage's ``metrics.jsonl``: ``kind`` (train, val, rollouts), ``step`` and numbers."""

    lines: tuple[Mapping[str, Any], ...]

    @property
    def last_step(self) -> int:
        """Of any line; 0 without."""
        return max((int(line["step"]) for line in self.lines), default=0)

    def step_of(self, kind: str) -> int:
        """Of the last line of a kind; 0 without."""
        return max((int(line["step"]) for line in self.lines if line["kind"] == kind), default=0)

    def final(self, kind: str) -> dict[str, float]:
        """Numbers of the last line of a kind, those that say how much was measured left out."""
        found = [line for line in self.lines if line["kind"] == kind]
        return {k: float(v) for k, v in found[-1].items() if k not in _NOT_MEASURED} if found else {}

    def line(self, kind: str, name: str, title: str | None = None) -> Line:
        """A number over the steps."""
        found = [line for line in self.lines if line["kind"] == kind and name in line]
        return Line(title or name, [line["step"] for line in found], [float(line[name]) for line in found])


def last_name(stages: Mapping[str, object]) -> str:
    """Of the last stage; empty where there is none."""
    return list(stages)[-1] if stages else ""


def read_metrics(path: Path) -> StageMetrics:
    """What a reporter wrote; nothing where nothing is. Lines that a kill cut short are left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and {"kind", "step"} <= line.keys():
                lines.append(line)
    return StageMetrics(tuple(lines))


def draw_curves(metrics: Mapping[str, StageMetrics]) -> np.ndarray:
    """A panel with every stage's loss, then one for the last stage's held-out metrics of each unit, then its rollouts'."""
    plots: dict[str, list[Line]] = {}
    for name, measured in metrics.items():
        lines = [measured.line("train", "loss", "training"), measured.line("val", "loss", "held out")]
        if drawn := [line for line in lines if line.x]:
            plots[f"{name}: loss"] = drawn
    if last := last_name(metrics):
        by_unit: dict[str, list[str]] = {}
        for name, value in metrics[last].final("val").items():
            if name != "loss" and math.isfinite(value):
                by_unit.setdefault(_unit(name), []).append(name)
        for unit, names in by_unit.items():
            for begin in range(0, len(names), 4):  # more would not be told apart
                several = names[begin : begin + 4]
                title = f"{last}: held out, {unit}" + (f" ({begin // 4 + 1})" if len(names) > 4 else "")
                plots[title] = [metrics[last].line("val", name, name.removesuffix(f"_{unit}")) for name in several]
        if rollouts := [name for name in ("success_rate", "score") if metrics[last].line("rollouts", name).x]:
            plots[f"{last}: rollouts"] = [metrics[last].line("rollouts", name) for name in rollouts]
    return panels(plots) if plots else np.full((40, 40, 3), 255, np.uint8)


def _unit(name: str) -> str:
    """What the metric is in, as its name's last word says; metrics of one unit share a scale."""
    word = name.rpartition("_")[2]
    return word if word in ("px", "mm", "m", "db", "percent", "deg") else "error" if "error" in name else name
