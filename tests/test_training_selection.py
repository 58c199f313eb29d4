"""Rollouts during training keep the best weights and may end it; a run that is killed anywhere decides the same."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.test_network_training import STAGE, tiny_policy_recipe
from tests.tiny import tiny_dataset
from uva_agents.benchmarks.evaluation.rollouts import EnvRollouts
from uva_agents.checkpoints.tensor_files import load_tensors
from uva_agents.commands.train import evaluator
from uva_agents.errors import InputError, MachineError
from uva_agents.training.cli_monitoring import add_monitoring_arguments, selection_of
from uva_agents.training.loop import LoopOptions, run_stage
from uva_agents.training.recipe import StageConfig
from uva_agents.training.run import RunOptions, train
from uva_agents.training.selection import EarlyStopping, Rollouts, Selection


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "d.zarr")


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (self.part(x) - x.sum(-1, keepdim=True)).square().mean(), {}


class SlopeStage:
    """Held-out errors by step; what is not given is 1."""

    name = "slope"

    def __init__(self, errors: dict[int, float] | None = None) -> None:
        self.module: nn.Module = Slope()
        self.errors = errors or {}
        nn.init.constant_(self.module.part.weight, 0.0)
        nn.init.constant_(self.module.part.bias, 0.0)

    def inputs(self, step: int, rank: int, world: int) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(4, 2)}

    def validate(self, module: nn.Module, reporter: object, step: int) -> dict[str, float]:
        return {"error": self.errors.get(step, 1.0)}

    def export(self, folder: Path, extra: Any) -> None:
        folder.mkdir(exist_ok=True)
        torch.save(self.module.state_dict(), folder / "model.pt")
        (folder / "config.json").write_text(json.dumps(extra))


@dataclass
class Scores:
    """An evaluator with a success rate for every step; may be killed."""

    by_step: dict[int, float]
    name: str = "a test"
    killed_at: int | None = None
    seen: list[int] = field(default_factory=list)

    def check(self, weights: Path) -> list[str]:
        assert (weights / "model.pt").exists()
        return ["success_rate", "score"]

    def evaluate(self, weights: Path, step: int) -> dict[str, float]:
        if step == self.killed_at:
            raise KeyboardInterrupt
        self.seen.append(step)
        assert (weights / "model.pt").exists()
        return {"success_rate": self.by_step.get(step, 0.0), "score": 0.5}


CONFIG = StageConfig(steps=12, batch_size=4, lr=0.05, warmup=0, validate_every=2)


def run(
    folder: Path,
    selection: Selection,
    *,
    stage: SlopeStage | None = None,
    stop_after: int | None = None,
    every_s: float = 1e9,
) -> tuple[dict[str, torch.Tensor], bool]:
    stage = stage or SlopeStage()
    options = LoopOptions(folder / "slope", progress=False, stop_after=stop_after, checkpoint_every_s=every_s)
    return run_stage(stage, CONFIG, replace(options, selection=selection, export=stage.export))


def best(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "weights-best/config.json").read_text())["selected"]


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "slope/metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_s"} for line in found]


def test_the_best_weights_are_kept_beside_the_last(tmp_path: Path) -> None:
    scores = Scores({3: 0.2, 6: 0.8, 9: 0.8, 12: 0.5})
    last, finished = run(tmp_path, Selection(Rollouts(scores, 3)))
    assert finished and scores.seen == [3, 6, 9, 12]
    chosen = best(tmp_path)
    assert (chosen["step"], chosen["metrics"]["success_rate"]) == (6, 0.8)  # of equals the first
    assert chosen["by"] == "success rate in a test"
    assert not torch.equal(torch.load(tmp_path / "weights-best/model.pt")["part.weight"], last["part.weight"])
    rollouts = [line for line in lines(tmp_path) if line["kind"] == "rollouts"]
    assert [(line["step"], line["success_rate"]) for line in rollouts] == [(3, 0.2), (6, 0.8), (9, 0.8), (12, 0.5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slope", "weights-best"]


def test_rollouts_change_nothing_of_the_training(tmp_path: Path) -> None:
    options = LoopOptions(tmp_path / "plain/slope", progress=False)
    plain, _ = run_stage(SlopeStage(), CONFIG, options)
    watched, _ = run(tmp_path / "watched", Selection(Rollouts(Scores({}), 1)))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def straight_and_in_pieces(
    tmp_path: Path, selection: Callable[[int | None], Selection], killed: list[int], errors: dict[int, float]
) -> None:
    straight, finished = run(tmp_path / "straight", selection(None), stage=SlopeStage(errors))
    assert finished
    for step in killed:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "pieces", selection(step), stage=SlopeStage(errors))
    while not (pieces := run(tmp_path / "pieces", selection(None), stage=SlopeStage(errors), stop_after=2))[1]:
        pass
    for name in straight:
        torch.testing.assert_close(straight[name], pieces[0][name])
    assert best(tmp_path / "straight") == best(tmp_path / "pieces")
    assert lines(tmp_path / "straight") == lines(tmp_path / "pieces")


def test_a_run_that_is_killed_during_rollouts_ends_in_the_same_weights(tmp_path: Path) -> None:
    def selection(killed_at: int | None) -> Selection:
        return Selection(Rollouts(Scores({3: 0.2, 6: 0.8, 12: 0.5}, killed_at=killed_at), 3))

    straight_and_in_pieces(tmp_path, selection, [3, 6, 12], {})


def test_early_stopping_survives_kills_too(tmp_path: Path) -> None:
    errors = {2: 0.5, 4: 0.4, 6: 0.45, 8: 0.41, 10: 0.1}
    rule = EarlyStopping.parse("error:2")

    def selection(killed_at: int | None) -> Selection:
        return Selection(Rollouts(Scores({3: 0.2, 6: 0.8}, killed_at=killed_at), 3), rule)

    straight_and_in_pieces(tmp_path, selection, [3, 6], errors)
    steps = [line["step"] for line in lines(tmp_path / "straight") if line["kind"] == "val"]
    assert steps == [0, 2, 4, 6, 8]
    assert lines(tmp_path / "straight")[-1]["kind"] == "rollouts"  # of the weights that it ended with


def test_a_stopped_run_is_finished_unless_it_is_asked_to_go_on(tmp_path: Path) -> None:
    errors = {2: 0.5}
    stop = Selection(early_stopping=EarlyStopping.parse("val/error:1"))
    _, finished = run(tmp_path, stop, stage=SlopeStage(errors))
    assert finished and lines(tmp_path)[-1]["step"] == 4
    assert best(tmp_path)["step"] == 2 and best(tmp_path)["by"] == "lowest val/error"
    _, finished = run(tmp_path, stop, stage=SlopeStage(errors))
    assert finished and lines(tmp_path)[-1]["step"] == 4
    options = LoopOptions(tmp_path / "slope", progress=False)
    assert run_stage(SlopeStage(errors), CONFIG, options)[1] and lines(tmp_path)[-1]["step"] == 12


def test_a_finished_run_gets_the_rollouts_that_are_asked_for_later(tmp_path: Path) -> None:
    finished = run_stage(SlopeStage(), CONFIG, LoopOptions(tmp_path / "slope", progress=False))[0]
    scores = Scores({12: 0.4})
    last, _ = run(tmp_path, Selection(Rollouts(scores, 5)))
    assert scores.seen == [12] and best(tmp_path)["step"] == 12
    assert all(torch.equal(last[name], finished[name]) for name in last)
    # Other episodes are another score: the old one is not what is to be beaten.
    harder = Scores({12: 0.1}, name="a harder test")
    run(tmp_path, Selection(Rollouts(harder, 5)))
    assert harder.seen == [12] and best(tmp_path)["by"] == "success rate in a harder test"


def test_training_ends_by_success_in_rollouts(tmp_path: Path) -> None:
    scores = Scores({2: 0.5, 4: 0.6, 6: 0.6, 8: 0.6, 10: 1.0})
    run(tmp_path, Selection(Rollouts(scores, 2), EarlyStopping.parse("success_rate:2")))
    assert scores.seen == [2, 4, 6, 8] and best(tmp_path)["step"] == 4


def test_a_metric_that_is_not_there_is_named_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metric is called 'errer': did you mean error\?"):
        run(tmp_path, Selection(early_stopping=EarlyStopping("errer", 2, higher=False)))
    assert not (tmp_path / "slope/checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("policy_error", "METRIC:PATIENCE"),
        ("policy_error:none", "METRIC:PATIENCE"),
        ("policy_error:0", "METRIC:PATIENCE"),
        ("spread:3", "spread:3:min or spread:3:max"),
        ("spread:3:up", "min or max"),
    ],
)
def test_a_rule_that_is_none_is_refused(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        EarlyStopping.parse(text)


def test_names_say_what_is_better() -> None:
    assert EarlyStopping.parse("policy_error_px:3") == EarlyStopping("policy_error_px", 3, higher=False)
    assert EarlyStopping.parse("rollouts/success_rate:3").higher and EarlyStopping.parse("forward_psnr_db:2").higher
    assert EarlyStopping.parse("spread:3:max").higher


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_monitoring_arguments(parser)
    return argparse.Namespace(**vars(parser.parse_args(words)), quiet=True)


def test_options_are_checked_together(tmp_path: Path) -> None:
    assert selection_of(arguments(), tmp_path, evaluator) is None
    with pytest.raises(InputError, match="--eval-every belongs to --eval-env"):
        selection_of(arguments("--eval-every", "5"), tmp_path, evaluator)
    with pytest.raises(InputError, match="no environment called 'uva/PushT-v9'; did you mean uva/PushT-v0"):
        selection_of(arguments("--eval-env", "uva/PushT-v9"), tmp_path, evaluator)
    with pytest.raises(InputError, match="rollouts every 0 steps"):
        selection_of(arguments("--eval-env", "uva/PushT-v0", "--eval-every", "0"), tmp_path, evaluator)
    found = selection_of(arguments("--eval-env", "uva/PushT-v0", "--stop-early", "score:3"), tmp_path, evaluator)
    assert found is not None and found.rollouts is not None and found.early_stopping is not None
    assert found.in_stage(500).rollouts.every == 50
    assert found.rollouts.evaluator.name == "uva/PushT-v0, dp-pusht v1, 20 episodes from seed 900000"


def test_a_policy_is_rolled_out_in_its_environment_while_it_is_trained(data: Path, tmp_path: Path) -> None:
    """And what was kept is a weights folder that scores what its file says."""
    import uva_agents as uva
    from uva_agents.agents import load_policy

    class Short(EnvRollouts):
        @property
        def rules(self) -> Any:
            return replace(super().rules, max_steps=20)

    rollouts = Short("uva/PushT-v0", 2, tmp_path / "run/rollouts")
    recipe = tiny_policy_recipe(stage=replace(STAGE, steps=4))
    options = RunOptions(data, tmp_path / "run", progress=False, selection=Selection(Rollouts(rollouts, 2)))
    assert train(recipe, options) is not None
    folder = tmp_path / "run/weights-best"
    chosen = json.loads((folder / "config.json").read_text())["selected"]
    assert chosen["step"] in (2, 4) and chosen["metrics"]["episodes"] == 2
    report = uva.evaluate(load_policy(folder), "uva/PushT-v0", 2, seed=900_000, protocol=rollouts.rules, progress=False)
    assert report.score == chosen["metrics"]["score"]
    assert sorted(p.name for p in (tmp_path / "run/rollouts").iterdir()) == ["step-0000002.json", "step-0000004.json"]


def test_rollouts_that_were_killed_go_on_with_the_next_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny import tiny_dp_bundle
    from uva_agents.benchmarks.evaluation.journal import Journal
    from uva_agents.checkpoints import save_net

    class Short(EnvRollouts):
        @property
        def rules(self) -> Any:
            return replace(super().rules, max_steps=10)

    add = Journal.add

    def killed(self: Journal, record: Any) -> None:
        add(self, record)
        raise KeyboardInterrupt

    rollouts = Short("uva/PushT-v0", 3, tmp_path / "rollouts")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            rollouts.evaluate(save_net(tiny_dp_bundle(), tmp_path / "first"), 100)
    # The same weights in another folder: every process exports them anew.
    metrics = rollouts.evaluate(save_net(tiny_dp_bundle(), tmp_path / "second"), 100)
    report = json.loads((tmp_path / "rollouts/step-0000100.json").read_text())
    assert report["resumed"] == 1 and metrics["episodes"] == 3


def test_weights_that_do_not_fit_the_environment_are_refused_before_the_first_step(data: Path, tmp_path: Path) -> None:
    rollouts = EnvRollouts("Pendulum-v1", 2, tmp_path / "run/rollouts", protocol="success")
    options = RunOptions(data, tmp_path / "run", progress=False, selection=Selection(Rollouts(rollouts, 2)))
    with pytest.raises(InputError, match="the agent acts in Box"):
        train(tiny_policy_recipe(), options)
    assert not (tmp_path / "run/policy/checkpoint.pt").exists()


class HungryStage(SlopeStage):
    """Takes more memory than there is for batches above a size."""

    def __init__(self, fits: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.fits, self.error = fits, error
        self.config = CONFIG
        self.module.register_forward_pre_hook(self._check, with_kwargs=True)

    def inputs(self, step: int, rank: int, world: int) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(self.config.batch_size, 2)}

    def _check(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if len(kwargs["x"]) > self.fits:
            raise self.error("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_out_of_memory_names_the_batch_size_that_fits(tmp_path: Path, error: type[Exception]) -> None:
    config = replace(CONFIG, batch_size=16)
    stage = HungryStage(5, error)
    stage.config = config
    with pytest.raises(MachineError, match=r"not enough for batches of 16 .*; 4 fit: --batch-size 4$"):
        run_stage(stage, config, LoopOptions(tmp_path / "slope", progress=False))
    assert stage.config == config
    stage = HungryStage(0, error)
    with pytest.raises(MachineError, match="not enough for a batch of one"):
        run_stage(stage, config, LoopOptions(tmp_path / "other", progress=False))


def test_another_runtime_error_stays_what_it_is(tmp_path: Path) -> None:
    stage = HungryStage(0, error=KeyError)
    with pytest.raises(KeyError):
        run_stage(stage, CONFIG, LoopOptions(tmp_path / "slope", progress=False))


TWO_PROCESSES = """
import sys
from pathlib import Path
from accelerate import PartialState
state = PartialState(cpu=True)
from tests.test_training_selection import EarlyStopping, Rollouts, Scores, Selection, SlopeStage, best, run

class Own(SlopeStage):
    def export(self, folder, extra):
        assert state.is_main_process
        super().export(folder, extra)

scores = Scores({2: 0.5, 4: 0.6, 6: 0.6, 8: 0.6, 10: 1.0})
selection = Selection(Rollouts(scores, 2), EarlyStopping.parse("success_rate:2"))
_, finished = run(Path(sys.argv[1]), selection, stage=Own())
assert finished and scores.seen == ([2, 4, 6, 8] if state.is_main_process else []), scores.seen
assert best(Path(sys.argv[1]))["step"] == 4
"""


@pytest.mark.long
def test_two_processes_end_together_and_one_makes_the_rollouts(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(tmp_path / "two.py")]
    environment = {"ACCELERATE_USE_CPU": "True", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*launch, str(tmp_path / "run")], env=os.environ | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_command_that_is_killed_again_and_again_keeps_the_same_best_weights(data: Path, tmp_path: Path) -> None:
    recipe = tiny_policy_recipe(stage=replace(STAGE, steps=16, validate_every=8))
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))

    def command(out: str) -> list[str]:
        words = ["train", str(tmp_path / "recipe.json"), "--data", str(data), "--out", str(tmp_path / out), "--quiet"]
        rollouts = [
            "--eval-env",
            "uva/PushT-v0",
            "--eval-every",
            "4",
            "--eval-episodes",
            "2",
            "--stop-early",
            "score:9",
        ]
        return [sys.executable, "-m", "uva_agents.cli", *words, *rollouts]

    subprocess.run(command("straight"), check=True, timeout=600, capture_output=True)
    killed, wait_s = 0, 4.0
    while True:
        process = subprocess.Popen(command("pieces"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert process.wait(wait_s) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed, wait_s = killed + 1, wait_s + 1.5
    assert killed > 1
    straight, pieces = tmp_path / "straight", tmp_path / "pieces"
    for name in ("weights", "weights-best"):
        one, other = (load_tensors(folder / name / "model.safetensors") for folder in (straight, pieces))
        assert all(torch.equal(one[key], other[key]) for key in one)
    chosen = [
        json.loads((folder / "weights-best/config.json").read_text())["selected"] for folder in (straight, pieces)
    ]
    assert chosen[0] == chosen[1]
    kept = [(folder / "policy/metrics.jsonl").read_text().splitlines() for folder in (straight, pieces)]
    rollouts = [[line for line in lines if '"rollouts"' in line] for lines in kept]
    assert rollouts[0] == rollouts[1] and len(rollouts[0]) == 4
    assert not [path for path in pieces.iterdir() if path.name.startswith(".")]
