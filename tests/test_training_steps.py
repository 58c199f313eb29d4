"""A run is a list of steps: finished ones are skipped, begun ones go on; recipes and run folders of earlier versions are known."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.test_network_training import tiny_policy_recipe
from tests.test_training import curve, tiny_recipe
from tests.tiny import tiny_dataset
from uva_agents.errors import DataError, InputError
from uva_agents.model import CONFIGS, uva_nano_config
from uva_agents.training.loop import LoopOptions, run_stage
from uva_agents.training.recipe import Changes, StageConfig
from uva_agents.training.run import RunOptions, find_recipe, recipe_names, train
from uva_agents.training.saved_recipes import identity, read_recipe, recipe_from_dict
from uva_agents.training.steps import check_order, run_steps
from uva_agents.training.uva.pipeline import uva_steps

FIRST = json.loads((Path(__file__).parent / "first_recipes.json").read_text())
"""Recipes as the first version wrote them, and the hashes by which it knew run folders."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "d.zarr")


@dataclass
class Counted:
    name: str
    makes: str
    needs: tuple[str, ...] = ()
    progress: int = 0
    calls: list[str] = field(default_factory=list)

    def done(self) -> bool:
        return self.progress >= 2

    def begun(self) -> bool:
        return self.progress > 0

    def load(self) -> None:
        self.calls.append("load")

    def run(self) -> bool:
        self.calls.append("run")
        self.progress += 1
        return self.done()


def test_finished_steps_are_skipped_and_begun_ones_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Counted("a", "x", progress=2), Counted("b", "y", ("x",), progress=1), Counted("c", "z", ("y",))]
    assert not run_steps(steps, show=True)  # c takes two processes
    assert [step.calls for step in steps] == [["load"], ["run"], ["run"]]
    assert capsys.readouterr().out.splitlines() == ["a: finished before, skipped", "b: goes on", "c: starts"]
    assert run_steps(steps, show=False) and steps[1].calls == ["run", "load"]
    assert capsys.readouterr().out == ""


def test_a_step_before_what_it_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="the step 'b' needs x, which no step before it makes"):
        check_order([Counted("b", "y", ("x",)), Counted("a", "x")])


def test_a_finished_run_trains_nothing_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(data, tmp_path / "run", progress=False)
    folder = train(tiny_policy_recipe(), options)
    assert folder is not None
    weights, log = (folder / "model.safetensors").read_bytes(), curve(tmp_path / "run" / "policy")
    monkeypatch.setattr("uva_agents.training.steps.run_stage", lambda *args: pytest.fail("it was trained again"))
    assert train(tiny_policy_recipe(), replace(options, progress=True)) == folder
    assert "policy: finished before, skipped" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == weights and curve(tmp_path / "run" / "policy") == log


def test_the_steps_of_uva_make_autoencoder_latents_keypoints_network_and_weights(data: Path, tmp_path: Path) -> None:
    steps = uva_steps(tiny_recipe(), RunOptions(data, tmp_path / "run", progress=False))
    check_order(steps)
    made = list(dict.fromkeys(step.makes for step in steps))
    wanted = ["autoencoder", "latents", "keypoints", "network", "weights"]
    assert [name for name in made if name in wanted] == wanted
    assert not any(step.done() for step in steps if step.makes == "autoencoder")


def test_run_folders_of_the_first_version_are_recognised() -> None:
    makers = recipe_names()
    assert FIRST["keys"].keys() <= makers.keys()
    for name, key in FIRST["keys"].items():
        text = json.dumps(identity(makers[name]()), sort_keys=True, default=str)
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == key, name


@pytest.mark.parametrize("name", FIRST["recipes"])
def test_recipes_of_the_first_version_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(FIRST["recipes"][name]))
    assert read_recipe(tmp_path) == find_recipe(name)


def test_a_recipe_survives_its_file_and_trains_another_run(data: Path, tmp_path: Path) -> None:
    for make in recipe_names().values():
        assert recipe_from_dict(json.loads(json.dumps(make().to_dict()))) == make()
    recipe = tiny_policy_recipe(draws=3)
    train(recipe, RunOptions(data, tmp_path / "run", progress=False, stop_after=1))
    assert find_recipe(str(tmp_path / "run" / "recipe.json")) == recipe


def test_a_recipe_that_says_something_unknown_is_refused(tmp_path: Path) -> None:
    values = json.loads(json.dumps(tiny_recipe().to_dict()))
    values["network"]["history_dropuot"] = 0.5
    with pytest.raises(
        DataError, match=r"network has an unknown setting 'history_dropuot': known are .*history_dropout"
    ):
        recipe_from_dict(values)
    values = json.loads(json.dumps(tiny_recipe().to_dict()))
    values["network"]["mask_std"] = "wide"
    with pytest.raises(DataError, match="mask_std is 'wide'"):
        recipe_from_dict(values)
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(DataError, match=r"recipe\.json is damaged"):
        read_recipe(tmp_path)
    with pytest.raises(DataError, match="is no recipe"):
        recipe_from_dict({})


def test_a_stage_that_a_recipe_does_not_have_is_named() -> None:
    with pytest.raises(InputError, match="'uva-base' has no stage 'vae': --vae-steps does not apply"):
        find_recipe("uva-base").changed(Changes(stage_steps={"vae": 3}))


def test_a_network_size_is_one_row(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added to the table, it is built, trained for a step, saved and loaded like those that are there."""

    def uva_pico_config(**overrides: object):
        return uva_nano_config(**({"width": 16, "encoder_depth": 1, "decoder_depth": 1, "heads": 1} | overrides))

    monkeypatch.setitem(CONFIGS, "pico", uva_pico_config)
    recipe = tiny_recipe()
    model = CONFIGS["pico"](action_dim=2, proprio_dim=2, frame_state_dim=20)
    one = replace(recipe.network.video, steps=1, warmup=0, validate_every=1)
    recipe = replace(recipe.with_stage("vae", one), model=model, keypoints=None)
    recipe = replace(recipe, network=replace(recipe.network, video=one, joint=one))
    folder = train(recipe, RunOptions(data, tmp_path / "run", progress=False))
    assert folder is not None
    from uva_agents.agents import load_policy

    policy = load_policy(folder, device="cpu", steps=2)
    assert policy.weights.config.width == 16
    from tests.tiny import observation

    policy.reset(seed=0)
    assert policy.act(observation(0)).shape == (2,)
    assert all(torch.isfinite(p).all() for p in policy.weights.net.parameters())


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(3))
        self.matrix = nn.Parameter(torch.eye(3))
        self.second = nn.Parameter(torch.full((3,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.matrix @ (self.slope * x) + self.second).square().sum()


class ReorderedPart(nn.Module):
    """The same with other names in another order, as after a change of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.full((3,), 2.0))
        self.gain = nn.Parameter(torch.ones(3))
        self.matrix = nn.Parameter(torch.eye(3))

    @staticmethod
    def renamed_tensor(name: str) -> str:
        return {"slope": "gain", "second": "offset"}.get(name, name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.matrix @ (self.gain * x) + self.offset).square().sum()


class Fitted(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.part(x), {}


class FitStage:
    name = "fit"

    def __init__(self, part: nn.Module) -> None:
        self.module: nn.Module = Fitted(part)

    def inputs(self, step: int, rank: int, world: int) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(3)}

    def validate(self, module: nn.Module, reporter: object, step: int) -> dict[str, float]:
        return {}


def test_a_stage_goes_on_where_tensors_were_renamed_and_reordered_since(tmp_path: Path) -> None:
    config = StageConfig(steps=6, batch_size=1, lr=0.05, warmup=0, validate_every=100)
    straight, finished = run_stage(FitStage(Part()), config, LoopOptions(tmp_path / "a", progress=False))
    assert finished
    run_stage(FitStage(Part()), config, LoopOptions(tmp_path / "b", progress=False, stop_after=3))
    resumed, finished = run_stage(FitStage(ReorderedPart()), config, LoopOptions(tmp_path / "b", progress=False))
    assert finished
    for old, new in (("slope", "gain"), ("matrix", "matrix"), ("second", "offset")):
        torch.testing.assert_close(resumed[f"part.{new}"], straight[f"part.{old}"])
