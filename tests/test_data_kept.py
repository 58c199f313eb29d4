"""Conversions keep what is stored, and what lies beside them; what they cannot keep they name."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from uva_agents.cli import main
from uva_agents.data import convert_dataset, open_dataset

N = 8


def _buffer(path: Path, **more: np.ndarray) -> Path:
    """Two episodes of four steps."""
    rng = np.random.default_rng(0)
    root = zarr.open_group(str(path), mode="w")
    with zarr.config.set({"array.write_empty_chunks": True}):
        data = root.create_group("data")
        arrays = {
            "img": rng.integers(0, 255, (N, 16, 16, 3)).astype(np.uint8),
            "action": rng.normal(size=(N, 2)).astype(np.float32),
            "agent_pos": rng.normal(size=(N, 2)).astype(np.float32),
        }
        for name, value in {**arrays, **more}.items():
            data.create_array(name, data=value)
        root.create_group("meta").create_array("episode_ends", data=np.array([4, N]))
    return path


def test_a_conversion_leaves_what_lies_beside_its_target_alone(tmp_path):
    source, out = _buffer(tmp_path / "in.zarr"), tmp_path / "out"
    for name in ("out.partial", "out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    for _ in range(2):
        convert_dataset(open_dataset(source), out, "zarr", force=True)
    with pytest.raises(ValueError, match="which LeRobot needs"):
        convert_dataset(open_dataset(source), out, "lerobot", force=True)
    assert [(tmp_path / name / "mine").read_text() for name in ("out.partial", "out.old")] == ["mine", "mine"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zarr", "out", "out.old", "out.partial"]
    assert len(open_dataset(out)) == 2
