"""The weights that ship: they load, are small, and can do what the card says (on a few episodes; the benchmarks measure)."""

import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import zarr

import uva_agents as uva
from uva_agents.checkpoints import resolve, shipped_names
from uva_agents.data import held_out_split

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model() -> Any:
    return uva.UVA.from_pretrained("pusht-nano")


def test_shipped_weights_are_small_and_carry_a_card() -> None:
    assert "pusht-nano" in shipped_names()
    folder = resolve("pusht-nano")
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert size <= 30 * 2**20
    card = (folder / "README.md").read_text()
    for word in ("206", "dp-pusht", "held-out", "success", "seeds", "fp16"):
        assert word.lower() in card.lower(), word
    assert "recipe" in json.loads((folder / "config.json").read_text())


@pytest.mark.slow
def test_the_policy_pushes_the_block_onto_the_mark(model: Any) -> None:
    report = uva.evaluate(model.policy(), "uva/PushT-v0", 4, n_envs=4, progress=False)
    # The card's score is the mean of 50; a policy that has not learnt the task stays below 0.3.
    assert report.score > 0.5


def test_inverse_dynamics_reads_actions_off_held_out_frames(model: Any, shared: Path) -> None:
    """Three demonstrations that training never saw; the benchmark measures all ten."""
    data = zarr.open_group(str(shared / "data" / "pusht" / "pusht_cchi_v7_replay.zarr"), mode="r")
    ends = np.asarray(data["meta/episode_ends"])  # type: ignore[arg-type]
    errors, lazy = [], []
    for episode in held_out_split(len(ends), 10, seed=42)[1][:3]:
        start, end = int(ends[episode - 1]), int(ends[episode])
        frames = np.asarray(data["data/img"][start:end]).astype(np.uint8)  # type: ignore[index]
        actions = np.asarray(data["data/action"][start:end])  # type: ignore[index]
        for now in range(0, end - start - 16, 12):
            truth = actions[now : now + 16]
            inferred = model.inverse_model().infer(frames[[now + 4, now + 8, now + 12, now + 16]])
            errors.append(np.linalg.norm(inferred - truth, axis=-1).mean())
            lazy.append(np.linalg.norm(truth.mean(0) - truth, axis=-1).mean())
    assert np.mean(errors) < 25
    assert np.mean(errors) < 0.8 * np.mean(lazy), "no better than the mean action of each window"


def test_forward_dynamics_foresees_held_out_frames_better_than_standing_still(model: Any, shared: Path) -> None:
    """On three demonstrations that training never saw; the benchmark measures all ten."""
    data = zarr.open_group(str(shared / "data" / "pusht" / "pusht_cchi_v7_replay.zarr"), mode="r")
    ends = np.asarray(data["meta/episode_ends"])  # type: ignore[arg-type]
    world = model.world_model()
    errors = {"foreseen": [], "copied": [], "without actions": []}  # type: ignore[var-annotated]
    for episode in held_out_split(len(ends), 10, seed=42)[1][:3]:
        start, end = int(ends[episode - 1]), int(ends[episode])
        frames = np.asarray(data["data/img"][start:end]).astype(np.uint8)  # type: ignore[index]
        actions = np.asarray(data["data/action"][start:end])  # type: ignore[index]
        agent = np.asarray(data["data/state"][start:end, :2]).astype(np.float32)  # type: ignore[index]
        for now in range(12, end - start - 16, 16):
            past = {"pixels": frames[now - 12 : now], "agent_pos": agent[now - 12 : now]}
            obs = {"pixels": frames[now], "agent_pos": agent[now]}
            still = np.repeat(agent[now][None], 16, 0)
            roll = world.rollout(obs, np.stack([actions[now : now + 16], still]), history=past)
            truth = frames[now + 16].astype(float)
            errors["foreseen"].append(np.square(roll.frames[0, -1] - truth).mean())
            errors["without actions"].append(np.square(roll.frames[1, -1] - truth).mean())
            errors["copied"].append(np.square(frames[now] - truth).mean())
    decibels = {name: 10 * np.log10(255**2 / np.mean(values)) for name, values in errors.items()}
    assert decibels["foreseen"] > decibels["copied"] + 3, decibels
    assert decibels["foreseen"] > decibels["without actions"] + 2, f"the actions hardly matter: {decibels}"


def test_readme_snippets_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(blocks) >= 3
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["chunks"].shape == (4, 16, 2) and namespace["actions"].shape == (4, 16, 2)


def test_the_demo_writes_a_video_and_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import imageio.v2
    import imageio.v3 as iio

    from uva_agents.cli import main

    # A short episode: the demo's length is the environment's.
    monkeypatch.setattr(gym.registry["uva/PushT-v0"], "max_episode_steps", 20)
    assert main(["demo", "--episodes", "1", "--out", str(tmp_path)]) == 0
    sheet = iio.imread(tmp_path / "imagined.png")
    assert sheet.ndim == 3 and sheet.std() > 10
    video = imageio.v2.mimread(tmp_path / "pusht.mp4", memtest=False)
    assert len(video) >= 20 and video[0].shape[1] > video[0].shape[0]


def test_the_planning_guide_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "planning.md").read_text(), flags=re.S)
    assert len(blocks) == 6
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "planning.md", "exec"), namespace)
    assert namespace["plan"].actions.shape == (16, 2) and namespace["refined"].cost < 2


@pytest.mark.slow
def test_replanning_is_many_times_faster_than_a_straight_loop(tmp_path: Path) -> None:
    from uva_agents.benchmarks.speed.planning import main

    out = tmp_path / "planning.json"
    assert main(["--repeats", "3", "--naive", "1", "--moments", "1", "--candidates", "20", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    whole = 20 * np.median(result["naive_candidate_s"])
    plans = result["plans"]["last frame, 4 steps"]
    assert whole / np.median([p["latency_s"] for p in plans]) > 5, "20 candidates; the benchmark takes 100"
    assert np.median([p["overhead_s"] / p["latency_s"] for p in plans]) < 0.1
    assert result["agreement"]["rank correlation of 4 steps with 100"] > 0.9
