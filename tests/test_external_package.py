"""A package outside this one adds a baseline, a dataset format and an evaluation protocol: a file each, and entry points."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import uva_agents as uva
from tests.installed_packages import install
from tests.tiny import tiny_dataset
from uva_agents.agents import load_policy
from uva_agents.checkpoints import info, weights_kind
from uva_agents.cli import main
from uva_agents.data import open_dataset
from uva_agents.errors import WeightsError

# The page that explains it shows the whole file.
PAGE = (Path(__file__).parents[1] / "docs" / "extend" / "baseline.md").read_text(encoding="utf-8")
BASELINE = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)[0]

FORMAT = """
import numpy as np

from uva_agents.data import Field, Format
from uva_agents.data.readers.dataset import Stored


def read(path):
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    numbers = {"where": rows[:, 1:3], "to": rows[:, 3:5]}
    ends = np.flatnonzero(np.diff(rows[:, 0], append=-1)) + 1
    return Stored({}, numbers, ends, {"agent_pos": Field("where"), "action": Field("to")}, control_hz=10.0)


POSITIONS = Format("positions", "positions in text (.positions)", lambda path: path.suffix == ".positions", read)
"""

PROTOCOL = """
from uva_agents.benchmarks import EvalProtocol

SHORT = EvalProtocol(
    name="my-short-pusht",
    description="coverage of the goal within 12 steps",
    env_id="uva/PushT-v0",
    max_steps=12,
    first_seed=300,
    executes=None,
    progress_key="coverage",
)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packages are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield folder
    for name in ("my_baseline", "my_format", "my_protocol"):
        sys.modules.pop(name, None)


def add_baseline(site: Path) -> None:
    install(site, "my_baseline", "[uva_agents.weights]\ncloning = my_baseline:CLONING\n", BASELINE)


def trained(data: Path, out: Path) -> Path:
    words = ["train", "cloning-pusht", "--data", str(data), "--out", str(out), "--steps", "2", "--batch-size", "8"]
    assert main([*words, "--quiet"]) == 0
    return out / "weights"


def test_a_baseline_trains_loads_and_acts(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_baseline(site)
    data = tiny_dataset(tmp_path / "d.zarr", episodes=12)
    folder = trained(data, tmp_path / "run")
    assert trained(data, tmp_path / "run") == folder  # again: it is finished
    policy = load_policy(folder, device="cpu")
    assert type(policy).__name__ == "Cloning"
    action, _ = policy.predict({"agent_pos": np.array([100.0, 200.0], np.float32)})
    assert action.shape == (2,) and action.min() >= 0 and action.max() <= 512
    report = uva.evaluate(policy, "uva/PushT-v0", n_episodes=1, seed=0, protocol="dp-pusht", progress=False)
    assert report.n == 1
    assert "cloning: load with my_baseline.Cloning" in info(folder)
    assert weights_kind("cloning").config.__name__ == "CloningConfig"
    more = ["train", "cloning-pusht", "--data", str(data), "--out", str(tmp_path / "more"), "--init", str(folder)]
    assert main([*more, "--steps", "1", "--batch-size", "8", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["train", "cloning-pusth", "--data", str(data)]) == 2
    assert "did you mean cloning-pusht" in capsys.readouterr().err


def test_its_weights_without_its_package_name_what_is_missing(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_baseline(site)
    folder = trained(tiny_dataset(tmp_path / "d.zarr", episodes=12), tmp_path / "run")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(site)])
    with pytest.raises(WeightsError, match=r"'cloning' weights.*known are uva.*a package that adds it may be missing"):
        load_policy(folder)


def test_a_dataset_format_opens_and_trains(site: Path, tmp_path: Path) -> None:
    add_baseline(site)
    install(site, "my_format", "[uva_agents.formats]\npositions = my_format:POSITIONS\n", FORMAT)
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.arange(12).repeat(10)[:, None], rng.uniform(0, 512, (120, 4))], axis=1)
    np.savetxt(tmp_path / "d.positions", rows, delimiter=",")
    dataset = open_dataset(tmp_path / "d.positions")
    assert (dataset.format, len(dataset.ends), dataset.arrays["action"].shape) == ("positions", 12, (120, 2))
    assert load_policy(trained(tmp_path / "d.positions", tmp_path / "run"), device="cpu").name == "cloning-pusht"


def test_an_evaluation_protocol_scores_the_baseline(site: Path, tmp_path: Path) -> None:
    add_baseline(site)
    install(site, "my_protocol", "[uva_agents.protocols]\nmy-short-pusht = my_protocol:SHORT\n", PROTOCOL)
    policy = load_policy(trained(tiny_dataset(tmp_path / "d.zarr", episodes=12), tmp_path / "run"), device="cpu")
    report = uva.evaluate(policy, "uva/PushT-v0", n_episodes=2, protocol="my-short-pusht", progress=False)
    assert (report.protocol, report.n) == ("my-short-pusht", 2)
