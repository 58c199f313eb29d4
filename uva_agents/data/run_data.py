"""``data.json`` of a run folder: which data its weights were trained on, so that they can be tried on it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uva_agents.data.fields import Field, as_field, field_to_dict
from uva_agents.errors import DataError, InputError
from uva_agents.utils.files import read_regular_text, write_text

FORMAT = "uva-agents/data/1"
_NAME = "data.json"
_LONGEST = 16 << 20


@dataclass(frozen=True)
class RunDataset:
    """One dataset of a run.

    Attributes:
        path: absolute.
        weight: share of what was drawn, up to a common factor.
        episodes: numbers of those that were used, as they are counted in the dataset; ``None`` for all.
        held_out: numbers of those that were kept from training.
        fields: canonical name -> where it was taken from.
    """

    path: Path
    weight: float = 1.0
    episodes: tuple[int, ...] | None = None
    held_out: tuple[int, ...] = ()
    fields: Mapping[str, Field] = field(default_factory=dict)


@dataclass(frozen=True)
class RunData:
    """What a run trained on.

    Attributes:
        datasets: the one with actions that was held out from comes first.
        rows_per_step: stored rows in a control step.
        action_offset: control steps from an observation to its action.
        control_hz: control steps per second.
    """

    datasets: tuple[RunDataset, ...]
    rows_per_step: int = 1
    action_offset: int = 0
    control_hz: float = 10.0

    @property
    def main(self) -> RunDataset:
        """The first dataset."""
        return self.datasets[0]


def write_run_data(folder: str | Path, data: RunData) -> None:
    """Write ``data.json``, completely or not at all.

    Raises:
        MachineError: it cannot be written.
    """
    datasets = [
        {
            "path": str(one.path),
            "weight": one.weight,
            "episodes": None if one.episodes is None else list(one.episodes),
            "held_out": list(one.held_out),
            "fields": {name: field_to_dict(origin) for name, origin in one.fields.items()},
        }
        for one in data.datasets
    ]
    values = {
        "format": FORMAT,
        "datasets": datasets,
        "rows_per_step": data.rows_per_step,
        "action_offset": data.action_offset,
        "control_hz": data.control_hz,
    }
    write_text(Path(folder) / _NAME, json.dumps(values, indent=1) + "\n")


def data_of_run(weights: str | Path) -> RunData | None:
    """What the weights in this folder were trained on: from beside the folder, or from inside, where somebody put it.

    ``None`` where nothing says so, for example because the weights were copied without their run.

    Raises:
        DataError: the file is damaged.
    """
    folder = Path(weights).resolve()
    for path in (folder / _NAME, folder.parent / _NAME):
        if path.is_file():
            try:
                values = json.loads(read_regular_text(path, limit=_LONGEST))
            except ValueError as error:
                raise DataError(f"{path} is damaged: {error}") from error
            if isinstance(values, Mapping) and values.get("format") == FORMAT:
                return _read(values, path)
    return None


def _read(values: Mapping[str, Any], path: Path) -> RunData:
    try:
        datasets = tuple(
            RunDataset(
                Path(one["path"]),
                float(one["weight"]),
                None if one["episodes"] is None else _numbers(one["episodes"]),
                _numbers(one["held_out"]),
                {str(name): as_field(origin) for name, origin in one["fields"].items()},
            )
            for one in values["datasets"]
        )
        rows, offset = int(values["rows_per_step"]), int(values["action_offset"])
        if not datasets or rows < 1 or offset < 0:
            raise ValueError("no dataset, or a rate that is none")
        return RunData(datasets, rows, offset, float(values["control_hz"]))
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _numbers(values: Any) -> tuple[int, ...]:
    found = tuple(int(number) for number in values)
    if any(number < 0 for number in found):
        raise ValueError(f"episode {min(found)}")
    return found
