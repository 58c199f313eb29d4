"""Training from any format, and from several datasets: what fits a recipe, what does not, and that it trains."""

import argparse
import functools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.datasets import mp4, zarr_buffer
from tests.test_network_training import tiny_policy_recipe
from tests.test_training import curve, tiny_recipe
from tests.tiny import tiny_dataset
from uva_agents.checkpoints import load_bundle
from uva_agents.cli import main
from uva_agents.data import FrameStore, convert_dataset, open_dataset
from uva_agents.model import Context, Task, Visibility, joint_loss
from uva_agents.training.cli import add_arguments, configure
from uva_agents.training.frames_step import FramesStep
from uva_agents.training.run import RunOptions, train
from uva_agents.training.sources import Part, Source, joined_frames, open_sources
from uva_agents.training.uva.recipes import STAGES

WANTED = ("pixels", "action", "agent_pos", "keypoints")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same six episodes as a replay buffer and as LeRobot v3, and video of them at three times the rate, in another size."""
    folder = tmp_path_factory.mktemp("data")
    found = {"zarr": tiny_dataset(folder / "d.zarr"), "lerobot": folder / "lerobot", "video": folder / "video"}
    convert_dataset(open_dataset(found["zarr"]), found["lerobot"], "lerobot", control_hz=10)
    frames = np.asarray(open_dataset(found["zarr"]).arrays["pixels"])
    for i in range(2):
        slow = frames[24 * i : 24 * (i + 1)].repeat(3, axis=0)
        mp4(found["video"] / f"{i}.mp4", slow[:, ::2, ::2], fps=30)
    return found


def tiny(name: str = "pusht-nano"):
    """As ``uva train`` configures it, in miniature."""
    recipe = tiny_recipe()
    one = replace(recipe.network.video, steps=2, validate_every=2)
    for stage in STAGES:
        recipe = recipe.with_stage(stage, one)
    recipe = recipe.with_stage("joint", replace(one, steps=3, validate_every=3))
    return replace(recipe, name=name, augmentation=replace(recipe.augmentation, variants=1))


# -- what is read ------------------------------------------------------------------------------------------------------


def test_every_format_gives_the_recipe_s_arrays(data):
    (exact,) = open_sources(data["zarr"], tiny(), WANTED)
    (other,) = open_sources(data["lerobot"], tiny(), WANTED)
    assert list(other.episodes.arrays) == list(exact.episodes.arrays)
    np.testing.assert_array_equal(other.episodes.ends, exact.episodes.ends)
    for name in WANTED[1:]:
        np.testing.assert_allclose(other.episodes.arrays[name], exact.episodes.arrays[name], rtol=1e-6)
    lossy = other.episodes.arrays["pixels"][:].astype(int) - exact.episodes.arrays["pixels"][:]
    assert np.abs(lossy).mean() < 4


def test_video_is_brought_to_the_rate_of_the_data_with_actions_and_to_the_size_of_the_network(data, tmp_path):
    taken: list[Part] = []
    opened = open_sources([Source(data["video"], 0.5), Source(data["zarr"])], tiny(), WANTED)
    store = FrameStore(tmp_path, side=96)
    step = FramesStep(opened, taken.extend, store, ("agent_pos",), show=False)
    assert not step.done() and not step.begun() and step.run() and step.done()
    video, acted = taken
    assert (video.has_actions, acted.has_actions) == (False, True) and (video.weight, acted.weight) == (0.5, 1.0)
    assert list(video.episodes.arrays) == ["pixels"]
    np.testing.assert_array_equal(video.episodes.ends, [24, 48])  # 72 frames at 30 Hz each
    assert video.episodes.arrays["pixels"].shape == (48, 96, 96, 3) and video.shapes == {"pixels": (48, 48)}
    same = acted.episodes.arrays["pixels"][:48].astype(int) - video.episodes.arrays["pixels"][:]
    assert np.abs(same).mean() < 6
    joined = joined_frames([acted.episodes, video.episodes])
    assert joined.steps == 6 * 24 + 48 and len(joined) == 8
    np.testing.assert_array_equal(
        joined.arrays["pixels"][[3, 146]], [acted.episodes.arrays["pixels"][3], video.episodes.arrays["pixels"][2]]
    )


def test_a_dataset_opens_once_more_in_another_process(data, tmp_path, monkeypatch):
    monkeypatch.setattr("uva_agents.data.frame_store._ALONE_BYTES", 0)
    (part,) = open_sources((Source(data["lerobot"], episodes="!2"),), tiny(), WANTED, every=1)
    again = pickle.loads(pickle.dumps(part.reopens)).frames("pixels")
    assert again.fingerprint == part.episodes.arrays["pixels"].fingerprint
    stored = FrameStore(tmp_path, side=96, workers=1).get(
        part.episodes, opens=functools.partial(part.reopens.frames, "pixels")
    )
    np.testing.assert_array_equal(stored.arrays["pixels"][40:80], part.episodes.arrays["pixels"][40:80])
    assert stored.numbers == (0, 1, 3, 4, 5)


def test_faster_recordings_are_refused_or_cut_down_on_request(data, tmp_path):
    fast = tmp_path / "fast"
    convert_dataset(open_dataset(data["zarr"]), fast, "lerobot", control_hz=30)
    with pytest.raises(ValueError, match=r"30 steps a second, and recipe 'pusht-nano' 10: --every 3"):
        open_sources(fast, tiny(), WANTED)
    (part,) = open_sources(fast, tiny(), WANTED, every=3)
    np.testing.assert_array_equal(part.episodes.ends, np.arange(1, 7) * 8)
    with pytest.raises(ValueError, match="whole multiple"):
        open_sources(fast, replace(tiny(), data=replace(tiny().data, control_hz=12.0)), WANTED)


def test_fields_say_where_something_else_is(data):
    (part,) = open_sources(data["lerobot"], tiny(), ("pixels", "action"), fields={"action": "observation.state"})
    (plain,) = open_sources(data["lerobot"], tiny(), ("pixels", "action", "agent_pos"))
    np.testing.assert_array_equal(part.episodes.arrays["action"], plain.episodes.arrays["agent_pos"])


def test_what_is_missing_is_named_with_what_is_there(data, tmp_path):
    with pytest.raises(ValueError, match=r"no actions in .*video: video alone trains the video task"):
        open_sources(data["video"], tiny(), WANTED)
    rows = np.zeros((55, 2), np.float32)
    zarr_buffer(tmp_path / "r.zarr", {"img": np.zeros((55, 32, 32, 3), np.uint8), "action": rows, "state": rows})
    with pytest.raises(
        ValueError, match=r"recipe 'pusht-nano' needs 'keypoints'.*agent_pos \(2,\).*--field keypoints=KEY"
    ):
        open_sources(tmp_path / "r.zarr", tiny(), WANTED)
    zarr_buffer(
        tmp_path / "s.zarr", {"img": np.zeros((55, 32, 32, 3), np.uint8), "action": np.zeros((55, 3), np.float32)}
    )
    several = [Source(data["zarr"]), Source(tmp_path / "s.zarr")]
    with pytest.raises(ValueError, match=r"'action' differs between the datasets: 2 numbers in .*; 3 numbers in"):
        open_sources(several, tiny(), ("pixels", "action"))
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*did you mean video"):
        open_sources(data["video"].with_name("vidoe"), tiny(), WANTED)


def test_a_network_for_another_robot_is_refused_before_anything_is_trained(data, tmp_path):
    recipe = tiny()
    options = RunOptions(data["lerobot"], tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"2 numbers in 'action', and recipe 'pusht-nano' has action_dim=7"):
        train(replace(recipe, model=replace(recipe.model, action_dim=7)), options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/b", ("a/b", 1.0)), ("a:0.25", ("a", 0.25)), ("c:/x:2", ("c:/x", 2.0))],
)
def test_a_dataset_may_carry_its_weight(text, expected):
    source = Source.parse(text)
    assert (str(source.path), source.weight) == expected


def test_weights_that_are_none_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'b' is no number"):
        Source.parse("a:b")
    with pytest.raises(ValueError, match="must be above 0, got 0"):
        Source.parse("a:0")
    Path("a:b").mkdir()
    assert Source.parse("a:b") == Source(Path("a:b"))


# -- training on it ----------------------------------------------------------------------------------------------------


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


def test_uva_train_takes_lerobot_and_a_mixture_with_video(data, tmp_path, monkeypatch, capsys):
    """Through the command line, so that its options arrive; the recipe in miniature."""
    from uva_agents.training.uva import recipes as config

    monkeypatch.setitem(config.RECIPES, "pusht-nano", tiny)
    out = tmp_path / "run"
    mixture = ["--data", f"{data['lerobot']}:0.6", "--data", f"{data['video']}:0.4"]
    assert main(["train", "pusht-nano", *mixture, "--out", str(out), "--quiet"]) == 0
    last = curve(out / "joint")[-1]
    numbers = [value for value in last.values() if isinstance(value, float)]
    assert len(numbers) > 5 and np.isfinite(numbers).all()
    assert load_bundle(out / "weights").spec.action_high == (512.0, 512.0)
    weights = load_bundle(out / "weights").model.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert "weights:" in capsys.readouterr().out


@pytest.mark.long
def test_a_mixture_resumes_with_the_same_curve_and_another_one_does_not_continue_it(data, tmp_path):
    mixture = (Source(data["zarr"], 0.5), Source(data["video"], 0.5))
    straight = RunOptions(mixture, tmp_path / "straight", progress=False)
    assert train(tiny(), straight) is not None
    pieces = RunOptions(mixture, tmp_path / "pieces", progress=False, stop_after=2)
    for _ in range(3):
        if (folder := train(tiny(), pieces)) is not None:
            break
    assert folder is not None
    assert curve(tmp_path / "pieces" / "joint") == curve(tmp_path / "straight" / "joint")
    with pytest.raises(ValueError, match=r"another|other"):
        train(tiny(), replace(straight, data=(mixture[0], Source(data["video"], 0.1))))


def test_networks_of_one_stage_take_any_format_and_one_dataset(data, tmp_path):
    options = RunOptions(data["lerobot"], tmp_path / "run", progress=False)
    assert train(tiny_policy_recipe(), options) is not None
    with pytest.raises(ValueError, match="trains on one dataset"):
        train(tiny_policy_recipe(), replace(options, data=(Source(data["lerobot"]), Source(data["zarr"]))))


def test_options_of_the_command_line_are_checked(data, capsys):
    assert configure(parse("pusht-nano", "--data", "a", "--data", "b:2")).name == "pusht-nano"
    argv = ["train", "pusht-nano", "--data", str(data["zarr"]), "--quiet"]
    assert main([*argv, "--field", "action"]) == 2
    assert "NAME=KEY" in capsys.readouterr().err
    assert main(["train", "pusht-nano", "--data", f"{data['zarr']}:much"]) == 2
    assert "'much' is no number" in capsys.readouterr().err


def test_frames_without_actions_are_not_drawn_from_placeholders():
    from tests.tiny import tiny_bundle

    torch.manual_seed(0)
    model = tiny_bundle(rendered_prior=True, proprio_keypoints=1).model
    mask = torch.ones(2, 4, 9)
    visibility = Visibility.for_tasks([Task.VIDEO, Task.VIDEO], mask)
    tokens, points = torch.randn(2, 4, 9, 64), torch.rand(2, 4, 20)

    def loss(actions: torch.Tensor, has: list[bool] | None) -> float:
        torch.manual_seed(1)
        context = Context(
            history=tokens, future=tokens, actions=actions, history_keypoints=points, future_keypoints=points
        )
        return float(
            joint_loss(
                model, context, visibility, has_actions=None if has is None else torch.tensor(has)
            ).video.detach()
        )

    a, b = torch.zeros(2, 16, 2), torch.zeros(2, 16, 2)
    b[1] = 0.9
    assert loss(a, [True, True]) == loss(a, None)
    assert loss(a, None) != loss(b, None)  # the second sample's actions count...
    assert loss(a, [True, False]) == loss(b, [True, False])  # ...unless nobody knows them
    assert np.isfinite(loss(a, [False, False]))


def test_a_state_beside_the_agent_s_position_survives_conversion_to_lerobot(data):
    exact, other = open_dataset(data["zarr"]), open_dataset(data["lerobot"])
    assert other.arrays["agent_pos"].shape[1:] == (2,)
    np.testing.assert_allclose(other.arrays["environment_state"], exact.arrays["state"], rtol=1e-6)
