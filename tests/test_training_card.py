"""Training writes a model card: what the weights learned from, how, what came out, how to use them; its pictures are pictures."""

import json
import re
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from tests.test_network_training import tiny_policy_recipe
from tests.tiny import tiny_dataset
from uva_agents.checkpoints import InterfaceSpec
from uva_agents.training.card_facts import CardFacts, DatasetFacts
from uva_agents.training.card_pictures import StageMetrics, draw_curves, read_metrics
from uva_agents.training.model_card import card_text, write_card
from uva_agents.training.recipe import StageConfig
from uva_agents.training.run import RunOptions, train
from uva_agents.training.uva.recipes import pusht_nano
from uva_agents.training.uva.validation import contact_strips
from uva_agents.utils.plots import Line, panels

STAGES = {
    "video": StageConfig(steps=4, batch_size=8, lr=1e-3),
    "joint": StageConfig(steps=100, batch_size=8, lr=2e-3, validate_every=25),
}


def run_folder(folder: Path) -> Path:
    for name, config in STAGES.items():
        (folder / name).mkdir(parents=True)
        every = config.steps // 4
        steps = range(every, config.steps + 1, every)
        lines = [{"kind": "train", "step": s, "loss": 10.0 / s} for s in steps]
        lines += [
            {
                "kind": "val",
                "step": s,
                "policy_error_px": 90.0 / s,
                "cup/policy_error_px": 80.0 / s,
                "video_psnr_db": 20.0 + s,
            }
            for s in steps
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "train", "st'  # cut short by a kill
        (folder / name / "metrics.jsonl").write_text(text)
    iio.imwrite(folder / "joint/futures.png", np.zeros((20, 30, 3), np.uint8))
    return folder


def facts(**changes: object) -> CardFacts:
    recipe = pusht_nano()
    layout = {"names": {"action": ("x", "y")}, "units": {"action": ("px", "px")}, "instructions": "table"}
    recipe = replace(recipe, name="pushing", data=replace(recipe.data, **layout))
    spec = InterfaceSpec((96, 96), (0.0, 0.0), (512.0, 511.5), proprio_key="agent_pos", wrist_shape=(64, 64))
    datasets = (
        DatasetFacts("pushes.zarr", 20, 2400, (3, 7), 3.0, "abc123", instructions=("push the T", "put | it `back`")),
        DatasetFacts("films", 5, 600, has_actions=False),
    )
    return replace(CardFacts(recipe, spec, datasets, {"network": 1_500_000}), **changes)


@pytest.fixture
def card(tmp_path: Path) -> str:
    folder = tmp_path / "weights"
    folder.mkdir()
    write_card(folder, facts(), run_folder(tmp_path / "run"), STAGES, {})
    return (folder / "README.md").read_text()


def test_a_card_says_what_the_weights_see_do_and_were_trained_on(card: str) -> None:
    assert card.startswith("# pushing\n")
    for row in (
        "| network | network 1.50 M parameters |",
        "| cameras | `pixels` uint8 (96, 96, 3), `pixels_wrist` uint8 (64, 64, 3) |",
        "| action | `action`: x [0, 512] px, y [0, 511.5] px |",
        "| rate | 10 actions a second; chunks of 16 actions, 8 executed |",
        "| pushes.zarr | 20 | 2,400 | 3, 7 | 75% | `abc123` |",
        "| films (video without actions) | 5 | 600 | none | 25% |  |",
        "2. `joint`: 100 steps of 8; AdamW 0.002 cosine",
    ):
        assert row in card, row
    assert "Instructions: push the T; put   it  back." in card  # nothing that would end the table or the line
    assert "Trained on 18 episodes of `pushes.zarr` and 1 more datasets" in card


def test_a_card_has_the_numbers_of_every_dataset_beside_each_other(card: str) -> None:
    assert "Held-out episodes, averaged weights after step 100:" in card
    assert "|  | all, or of the first dataset | cup |" in card
    assert "| `policy_error_px` | 0.9 | 0.8 |" in card and "| `video_psnr_db` | 120 |  |" in card
    assert "Nothing was run in closed loop" in card


def test_a_card_calls_nothing_held_out_where_nothing_was(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    metrics = {name: read_metrics(run / name / "metrics.jsonl") for name in STAGES}
    seen = replace(facts(), datasets=(replace(facts().datasets[0], held_out=()),))
    text = card_text(tmp_path, seen, run, STAGES, metrics, ("futures.png",), {})
    assert "Episodes of the training (none was held out), averaged weights after step 100:" in text
    assert "Held-out" not in text and "No episode was held out" in text


def test_commands_and_snippet_of_a_card_are_for_these_weights(card: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(code, "card", "exec")
    (shell,) = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)
    assert shell.splitlines() == [
        "uva eval weights ENV",
        "uva imagine --weights weights --env ENV",
        "uva serve weights",
    ]


def test_the_best_weights_say_why_they_are(tmp_path: Path) -> None:
    selected = {"step": 50, "by": "success rate in uva/PushT-v0", "metrics": {"success_rate": 0.75, "score": 0.9}}
    run = run_folder(tmp_path / "run")
    metrics = {name: read_metrics(run / name / "metrics.jsonl") for name in STAGES}
    text = card_text(tmp_path, facts(), run, STAGES, metrics, (), {"selected": selected})
    assert "by the success rate in uva/PushT-v0: those after step 50" in text and "| `success_rate` | 0.75 |" in text
    assert "uva serve weights-best" in text and "Held-out episodes" in text
    assert "Nothing was run in closed loop" not in text


def test_pictures_show_what_there_is(tmp_path: Path, card: str) -> None:
    assert "![losses" in card and "![real and predicted frames](futures.png)" in card
    curves = iio.imread(tmp_path / "weights/curves.png")
    assert curves.shape[0] > 200 and len(np.unique(curves.reshape(-1, 3), axis=0)) > 5
    bare = draw_curves({"a": StageMetrics(())})
    assert bare.shape[2] == 3


def test_curves_survive_numbers_that_cannot_be_drawn() -> None:
    nan, inf = float("nan"), float("inf")
    image = panels(
        {
            "one": [Line("a", [1], [2.0])],
            "none": [Line("b", [1, 2], [nan, inf])],
            "flat": [Line("c", [1, 2], [0.0, 0.0])],
        }
    )
    assert image.dtype == np.uint8 and image.ndim == 3
    down = panels({"p": [Line("a", [0, 1, 2], [1000.0, 10.0, 0.1])]}, columns=1, width=100, height=100)
    # On a logarithmic scale the middle is in the middle.
    rows, columns = np.where((down == (31, 90, 180)).all(-1))
    middle = rows[np.abs(columns - (62 + 50)) <= 1]
    assert abs(middle.mean() - (44 + 50)) < 6


def test_strips_name_their_rows() -> None:
    frames = torch.zeros(2, 3, 96, 96)
    picture = contact_strips(
        frames, {"real": torch.zeros(2, 4, 3, 96, 96), "given actions": torch.ones(2, 4, 3, 96, 96)}
    )
    assert picture.shape == (4 * (2 * 96 + 4), 200 + 5 * (2 * 96 + 4), 3)
    assert picture[:196, :200].min() < 100  # letters


def test_training_writes_the_card_once_and_for_all(tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "d.zarr")
    options = RunOptions(data, tmp_path / "run", progress=False)
    folder = train(tiny_policy_recipe(), options)
    assert folder is not None
    text = (folder / "README.md").read_text()
    assert "| d.zarr | 6 | 144 |" in text and str(tmp_path) not in text
    assert "from uva_agents.agents import load_policy" in text and (folder / "curves.png").exists()
    train(tiny_policy_recipe(), options)
    assert (folder / "README.md").read_text() == text
