"""Trackers get the recipe and every number once, from one process, and a resumed run goes on in the same run of the tracker."""

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from accelerate.tracking import GeneralTracker

from tests.test_network_training import tiny_policy_recipe
from tests.tiny import tiny_dataset
from uva_agents.errors import InputError, MachineError
from uva_agents.training.cli_monitoring import add_monitoring_arguments, trackers_of
from uva_agents.training.run import RunOptions, train
from uva_agents.training.trackers import Tracking, check_trackers, flat


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "d.zarr")


class ListTracker(GeneralTracker):
    """Keeps what it is given."""

    name = "list"
    requires_logging_directory = False

    def __init__(self, broken_after: int | None = None) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.lines: list[tuple[int, dict[str, Any]]] = []
        self.images: list[str] = []
        self.starts = self.ends = 0
        self.broken_after = broken_after

    @property
    def tracker(self) -> "ListTracker":
        return self

    def start(self) -> None:
        self.starts += 1

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        if self.broken_after is not None and len(self.lines) >= self.broken_after:
            raise ConnectionError("no answer")
        self.lines.append((step or 0, values))

    def log_images(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self.images += values

    def finish(self) -> None:
        self.ends += 1


def test_a_tracker_gets_the_recipe_and_what_is_in_metrics_jsonl(data: Path, tmp_path: Path) -> None:
    tracker, recipe = ListTracker(), tiny_policy_recipe()
    train(recipe, RunOptions(data, tmp_path / "run", progress=False, trackers=[tracker]))
    assert (tracker.starts, tracker.ends) == (1, 1)
    assert tracker.config["stage.lr"] == recipe.stage.lr and tracker.config["name"] == recipe.name
    assert all(isinstance(value, bool | int | float | str) for value in tracker.config.values())
    written = [json.loads(line) for line in (tmp_path / "run/policy/metrics.jsonl").read_text().splitlines()]
    assert [(step, len(values)) for step, values in tracker.lines] == [(w["step"], len(w) - 2) for w in written]
    assert tracker.lines[-1][1]["policy/val/action_error"] == written[-1]["action_error"]
    # A finished run starts none.
    again = ListTracker()
    train(recipe, RunOptions(data, tmp_path / "run", progress=False, trackers=[again]))
    assert again.starts == 0


def test_a_tracker_that_fails_is_given_up_and_training_goes_on(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = ListTracker(broken_after=1)
    with caplog.at_level(logging.WARNING):
        folder = train(tiny_policy_recipe(), RunOptions(data, tmp_path / "run", progress=False, trackers=[tracker]))
    assert folder is not None and len(tracker.lines) == 1
    assert caplog.text.count("the tracker list fails (ConnectionError: no answer) and is given up") == 1


def test_steps_count_on_from_stage_to_stage_and_pictures_follow(tmp_path: Path) -> None:
    tracker = ListTracker()
    with Tracking([tracker], tmp_path, "p", {}) as tracking:
        tracking.start()
        for name in ("vae", "joint"):
            stage = tracking.stage(name)
            stage.begin(100)
            stage.log("train", 25, {"loss": 1.0})
            stage.picture("futures", np.zeros((4, 4, 3), np.uint8), tmp_path / "futures.png", 25)
    assert tracker.lines == [(25, {"vae/train/loss": 1.0}), (125, {"joint/train/loss": 1.0})]
    assert tracker.images == ["vae/futures", "joint/futures"]
    # Another process, for which the first stage is finished.
    with Tracking([tracker], tmp_path, "p", {}) as tracking:
        tracking.start()
        stage = tracking.stage("joint")
        stage.begin(100)
        stage.log("train", 50, {"loss": 1.0})
    assert tracker.lines[-1] == (150, {"joint/train/loss": 1.0})


def test_other_processes_than_the_first_log_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = ListTracker()
    monkeypatch.setattr("uva_agents.training.trackers.PartialState", lambda: SimpleNamespace(is_main_process=False))
    with Tracking([tracker], tmp_path, "p", {}) as tracking:
        tracking.start()
        tracking.log({"loss": 1.0}, 1)
    assert not (tracker.starts or tracker.lines or tracker.ends) and not list(tmp_path.iterdir())


def fake_packages(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Stand-ins for the three packages, behind accelerate's own trackers."""

    def run(name: str) -> Any:
        return SimpleNamespace(
            log=lambda values, step=None, **_: calls.append((f"{name}.log", {"step": step, **values})),
            finish=lambda: calls.append((f"{name}.finish", {})),
            info=SimpleNamespace(run_id="given-by-the-server"),
        )

    def init(name: str) -> Any:
        return lambda **options: calls.append((f"{name}.init", options)) or run(name)

    for name in ("wandb", "trackio"):
        module = ModuleType(name)
        module.init, module.config = init(name), SimpleNamespace(update=lambda values, **_: None)
        module.Image = lambda image: image
        monkeypatch.setitem(sys.modules, name, module)
    mlflow = ModuleType("mlflow")
    mlflow.search_experiments = lambda **_: [SimpleNamespace(experiment_id="7")]
    mlflow.start_run = init("mlflow")
    mlflow.log_params = lambda values: calls.append(("mlflow.params", values))
    mlflow.log_metrics = lambda values, step=None: calls.append(("mlflow.log", {"step": step, **values}))
    mlflow.end_run = lambda: calls.append(("mlflow.finish", {}))
    mlflow.utils = SimpleNamespace(validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)


def test_a_resumed_run_goes_on_in_the_same_run_of_each_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    fake_packages(monkeypatch, calls)
    for step in (1, 2):
        with Tracking(["tensorboard", "wandb", "mlflow", "trackio"], tmp_path, "pushing", {"lr": 0.1}) as tracking:
            tracking.start()
            tracking.log({"loss": 0.5}, step)
    made = {
        name: [options for call, options in calls if call == f"{name}.init"] for name in ("wandb", "mlflow", "trackio")
    }
    first, second = made["wandb"]
    assert first["id"] == second["id"] and first["resume"] == "allow" and first["project"] == "pushing"
    assert [options["run_id"] for options in made["mlflow"]] == [None, "given-by-the-server"]
    first, second = made["trackio"]
    assert first["name"] == second["name"] and first["name"].startswith(tmp_path.name) and first["resume"] == "allow"
    assert [call for call, _ in calls if call.endswith("log")] == 2 * ["wandb.log", "mlflow.log", "trackio.log"]
    assert ("mlflow.params", {"lr": 0.1}) in calls
    assert calls[-1][0] == "trackio.finish"


def test_a_tracker_that_cannot_start_is_named_before_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PermissionError("not logged in")

    tracker = ListTracker()
    monkeypatch.setattr(tracker, "start", refuse)
    with pytest.raises(MachineError, match="the tracker list cannot be started: PermissionError: not logged in"):
        train(tiny_policy_recipe(), RunOptions(data, tmp_path / "run", progress=False, trackers=[tracker]))
    assert not (tmp_path / "run/policy/checkpoint.pt").exists()


def test_what_is_missing_is_named_with_its_package_before_the_data_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match="wandb and mlflow not installed: pip install wandb mlflow"):
        check_trackers(["wandb", "mlflow", "wandb"])
    with pytest.raises(MachineError, match="trackio not installed"):
        train(tiny_policy_recipe(), RunOptions(tmp_path / "nothing", tmp_path / "run", trackers=["trackio"]))
    with pytest.raises(InputError, match="no tracker is called 'wandbb': tensorboard, wandb, mlflow, trackio"):
        check_trackers(["wandbb"])


def test_the_option_is_taken_several_times() -> None:
    parser = argparse.ArgumentParser()
    add_monitoring_arguments(parser)
    pytest.importorskip("tensorboard")
    assert trackers_of(parser.parse_args(["--tracker", "tensorboard", "--tracker", "tensorboard"])) == ("tensorboard",)
    assert trackers_of(parser.parse_args([])) == ()


def test_tensorboard_holds_the_recipe(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = replace(tiny_policy_recipe(), name="told-to-tensorboard")
    train(recipe, RunOptions(data, tmp_path / "run", progress=False, trackers=["tensorboard"]))
    events = EventAccumulator(str(tmp_path / "run/policy"))
    events.Reload()
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"name": "told-to-tensorboard"' in text
    assert "val/action_error" in events.Tags()["scalars"]


def test_names_are_those_that_every_tracker_takes(tmp_path: Path) -> None:
    tracker = ListTracker()
    with Tracking([tracker], tmp_path, "p", {}) as tracking:
        tracking.start()
        tracking.stage("joint").log("val", 1, {"put the cup, then (wait)/error": 0.5, "a.zarr/error": 0.25})
    assert tracker.lines[0][1] == {"joint/val/put the cup_ then _wait_/error": 0.5, "joint/val/a.zarr/error": 0.25}


def test_nested_values_become_dotted_names() -> None:
    values = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None, "f": True, "g": {}}
    assert flat(values) == {"a.b": 1, "a.c.d": "[1, 2]", "e": "null", "f": True, "g": "{}"}
