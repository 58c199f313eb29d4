"""The weights that ship: they load, are small, and can do what the card says (on a few episodes; the benchmarks measure)."""

import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import uva_agents as uva
from uva_agents.checkpoints import resolve, shipped_names

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model() -> Any:
    return uva.UVA.from_pretrained("pusht-nano")


@pytest.fixture(scope="module")
def driven(model: Any) -> dict[str, Any]:
    """Sixty steps of the policy, which moves as people do: actions (60, 2) and the 61 observations around them."""
    env = gym.make("uva/PushT-v0")
    obs, _ = env.reset(seed=100_003)
    policy = model.policy()
    policy.reset(seed=0)
    actions, observations = [], [obs]
    for _ in range(60):
        actions.append(policy.act(observations[-1]))
        observations.append(env.step(actions[-1])[0])
    env.close()
    return {"actions": np.stack(actions), "observations": observations}


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
    report = uva.evaluate(model.policy(), "uva/PushT-v0", 8, n_envs=4, progress=False)
    # The card's score is the mean of 50; a policy that has not learnt the task stays below 0.3.
    assert report.score > 0.5


def test_inverse_dynamics_reads_actions_off_frames(model: Any, driven: dict[str, Any]) -> None:
    inverse = model.inverse_model()
    errors, lazy = [], []
    for now in range(0, 44, 4):
        frames = np.stack([driven["observations"][now + k]["pixels"] for k in (4, 8, 12, 16)])
        truth = driven["actions"][now : now + 16]
        errors.append(np.linalg.norm(inverse.infer(frames) - truth, axis=-1).mean())
        lazy.append(np.linalg.norm(driven["observations"][now + 8]["agent_pos"] - truth, axis=-1).mean())
    assert np.mean(errors) < 30
    assert np.mean(errors) < 0.7 * np.mean(lazy)


def test_readme_snippets_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(blocks) >= 3
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["chunks"].shape == (4, 16, 2) and namespace["actions"].shape == (4, 16, 2)


def test_the_demo_writes_a_film_and_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import imageio.v2
    import imageio.v3 as iio

    from uva_agents.cli import main

    # A short episode: the demo's length is the environment's.
    monkeypatch.setattr(gym.registry["uva/PushT-v0"], "max_episode_steps", 20)
    assert main(["demo", "--episodes", "1", "--out", str(tmp_path)]) == 0
    sheet = iio.imread(tmp_path / "imagined.png")
    assert sheet.ndim == 3 and sheet.std() > 10
    film = imageio.v2.mimread(tmp_path / "pusht.mp4", memtest=False)
    assert len(film) >= 20 and film[0].shape[1] > film[0].shape[0]
