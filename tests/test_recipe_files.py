"""Recipes as TOML files: any recipe can be printed, edited and trained from, and mistakes are named."""

import argparse
import dataclasses
from pathlib import Path

import pytest

from uva_agents.cli import main
from uva_agents.data import open_dataset
from uva_agents.data.collect.arx_x5 import ArxX5Plan, collect_arx_x5
from uva_agents.data.conventions import RelativePoses
from uva_agents.errors import DataError
from uva_agents.model import HeadConfig, uva_base_config
from uva_agents.training.cli import add_arguments, configure
from uva_agents.training.layout import find_layout
from uva_agents.training.recipe_files import recipe_from_toml, recipe_to_toml
from uva_agents.training.run import find_recipe, recipe_names, recipe_text
from uva_agents.training.uva.named_recipes import RELEASED, named, named_text
from uva_agents.training.uva.sizes import recipe_for


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_survives_its_file(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe_from_toml(recipe_to_toml(recipe)) == recipe
    assert recipe_from_toml(recipe_text(name)) == recipe


def test_a_copied_recipe_is_edited_and_trained_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--recipe", "uva-pusht"]) == 0
    text = capsys.readouterr().out
    assert text == named_text("uva-pusht")
    text = text.replace('name = "uva-pusht"', 'name = "mine"').replace('size = "base"', 'size = "large"')
    text = text.replace("action_dim = 2\n", "action_dim = 7\nvideo_head = { width = 512 }\n")
    (tmp_path / "mine.toml").write_text(text.replace("batch_size = 32", "batch_size = 16"))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [str(tmp_path / "mine.toml"), "--data", "d.zarr", "--joint-steps", "12"]
    recipe = configure(parser.parse_args(words))
    assert recipe.name == "mine" and recipe.model.width == 1024 and recipe.model.action_dim == 7
    assert recipe.model.video_head == HeadConfig(width=512), "the rest of the table stays"
    joint, video = recipe.network.joint, recipe.network.video  # type: ignore[attr-defined]
    assert (joint.steps, joint.epochs, joint.batch_size, video.epochs) == (12, None, 16, 3050)
    assert recipe.network.clips == named("uva-pusht").network.clips  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('size = "base"', 'size = "bass"', "no size 'bass': did you mean 'base'"),
        ("action_dim = 2", "action_dims = 2", "model has an unknown setting 'action_dims': did you mean 'action_dim'"),
        ("text_dropout", "text_dropuot", "network has an unknown setting 'text_dropuot'"),
        ("blur_share = 0.5", 'blur_share = "often"', "blur_share is 'often'"),
        ("blur_share = 0.5", "blur_share = 5.0", "blur_share=5.0 must be between 0 and 1"),
        ("trim = [14, 9]", "trim = 14", "trim is 14"),
        ('kind = "uva"', 'kind = "diffusion-policy"', "'size' is of recipes of kind 'uva'"),
        ("[data]", "[data", "is no TOML"),
        ('precision = "fp16"', 'precision = "fp8"', "precision is 'fp8'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = named_text("uva-pusht")
    assert before in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(before, after))
    with pytest.raises(DataError, match=r"mine\.toml") as error:
        find_recipe(str(path))
    assert message in str(error.value)


def test_released_files_say_how_they_are_started() -> None:
    for name in RELEASED:
        text = named_text(name)
        assert f"uva_agents.cli train {name} " in text and f"uva info --recipe {name} > mine.toml" in text
        assert named(name).model == uva_base_config(**{key: getattr(named(name).model, key) for key in CHANGED[name]})


CHANGED = {
    "uva-pusht": ["action_dim"],
    "uva-pusht-m": ["action_dim"],
    "uva-toolhang": [
        "action_dim",
        "wrist_image",
        "predict_wrist",
        "proprio_dim",
        "proprio_steps",
        "predict_proprio_dim",
    ],
    "uva-libero10": ["action_dim", "text_dim"],
    "uva-umi-multitask": ["action_dim", "text_dim", "proprio_dim", "proprio_steps", "predict_proprio_dim"],
}


def test_the_recipe_of_the_arm_is_the_layout_of_what_is_collected_on_its_twin(tmp_path: Path) -> None:
    plan = ArxX5Plan(2, control_hz=10.0, cameras=("wrist", "outside"), max_steps=4)
    collect_arx_x5(tmp_path / "arx.zarr", plan)
    found = find_layout(open_dataset(tmp_path / "arx.zarr"))
    recipe = named("arx-x5-nano")
    # Relative to the tool, so that what the inverse model says of the wrist camera's pictures does not depend on the room.
    relative = RelativePoses(environment="rot6d", network="rot6d", reference="vector")
    assert recipe.data == dataclasses.replace(found, action_transforms=(relative,), held_out=recipe.data.held_out)
    widths = {"action": 10, "agent_pos": 7}
    assert recipe.model == recipe_for("nano", recipe.data, widths).model
