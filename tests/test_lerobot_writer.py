"""What is written for LeRobot has what its own tools write and read; a dataset that they made keeps what it says."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests import datasets
from uva_agents.cli import main
from uva_agents.data import convert_dataset, open_dataset
from uva_agents.data.video import probe
from uva_agents.data.writers.lerobot_append import LeRobotAppender
from uva_agents.data.writers.lerobot_names import arx_names, feature_names, number_names
from uva_agents.errors import DataError, InputError

pa = pytest.importorskip("pyarrow", reason="LeRobot datasets need pyarrow: pip install 'uva-agents[data]'")
pq = pytest.importorskip("pyarrow.parquet")

EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
QUANTILES = ("q01", "q10", "q50", "q90", "q99")


@pytest.fixture(scope="module")
def arrays():
    return datasets.recording()


@pytest.fixture(scope="module")
def buffer(tmp_path_factory, arrays):
    contents = {"img": arrays["pixels"], "action": arrays["action"], "agent_pos": arrays["agent_pos"]}
    contents |= {"state": arrays["agent_pos"][:, :5], "rewards": arrays["action"][:, :1]}
    contents |= {"dones": np.isin(np.arange(55), (19, 54)), "success": np.zeros(55, bool)}
    return datasets.zarr_buffer(tmp_path_factory.mktemp("zarr") / "a.zarr", contents, attributes={"control_hz": 10})


@pytest.fixture(scope="module")
def written(tmp_path_factory, buffer):
    out = tmp_path_factory.mktemp("lerobot") / "a"
    words = ["--camera", "pixels=observation.image", "--names", "action=a,b,c,d,e,f,gripper", "--task", "push it"]
    assert main(["data", "convert", str(buffer), str(out), "--to", "lerobot", "--quiet", *words]) == 0
    return out


def info(folder):
    return json.loads((folder / "meta/info.json").read_text())


def rows(folder, name):
    return pq.read_table(str(folder / name), partitioning=None)


def test_quantiles_are_in_both_places_with_the_shape_of_the_mean(written, arrays):
    stats, episodes = json.loads((written / "meta/stats.json").read_text()), rows(written, EPISODES)
    for key in info(written)["features"]:
        for what in QUANTILES:
            assert np.shape(stats[key][what]) == np.shape(stats[key]["mean"])
            assert episodes.schema.field(f"stats/{key}/{what}").type == episodes.schema.field(f"stats/{key}/mean").type
    second = episodes.to_pylist()[1]
    for what, share in zip(QUANTILES, (0.01, 0.1, 0.5, 0.9, 0.99), strict=True):
        wanted = np.quantile(arrays["action"][20:].astype(float), share, axis=0)
        np.testing.assert_allclose(second[f"stats/action/{what}"], wanted)
    assert np.shape(stats["observation.image"]["q01"]) == (3, 1, 1)
    assert 0 <= np.min(stats["observation.image"]["q01"]) <= np.max(stats["observation.image"]["q99"]) <= 1


def test_names_cameras_rewards_flags_and_tasks_are_lerobots(written, arrays):
    features = info(written)["features"]
    assert features["action"]["names"] == ["a", "b", "c", "d", "e", "f", "gripper"]
    assert features["observation.state"]["names"] == [f"dim_{i}" for i in range(9)]
    assert features["observation.environment_state"]["shape"] == [5]
    assert "observation.image" in features and not any(key.endswith("_") for key in features)
    assert features["next.reward"] == {"dtype": "float32", "shape": [1], "names": None}
    assert {features[key]["dtype"] for key in ("next.done", "next.success")} == {"bool"}
    table = rows(written, DATA)
    assert table["next.done"].type == pa.bool_() and np.flatnonzero(table["next.done"].to_pylist()).tolist() == [19, 54]
    assert table["next.reward"].type == pa.float32()
    dataset = open_dataset(written)
    assert dataset.tasks == ("push it", "push it")
    np.testing.assert_array_equal(dataset.arrays["reward"], arrays["action"][:, :1])
    np.testing.assert_array_equal(dataset.arrays["done"][:, 0], np.isin(np.arange(55), (19, 54)))
    assert dataset.arrays["pixels"].shape == (55, 32, 32, 3)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--camera", "pixel=observation.image"], "there is no camera pixel; found pixels"),
        (["--camera", "pixels=image"], "LeRobot calls cameras observation.image or observation.images.NAME"),
        (["--camera", "pixels=observation.images.a/../../b"], "LeRobot calls cameras"),
        (["--camera", "pixels"], "give NAME=..., for example pixels=observation.image"),
        (["--names", "action=x,y"], "x, y are 2, and it has 7 different numbers"),
        (["--names", "action=a,a,b,c,d,e,f"], "different numbers"),
        (["--names", "arm=x"], "there is no vector of that name"),
        (["--hz", "10.5"], "whole number of steps per second"),
        (["--episodes", "0-9"], "no episode 9"),
        (["--to", "zarr", "--names", "action=x"], "has none"),
    ],
)
def test_words_that_do_not_fit_are_named_before_anything_is_written(tmp_path, buffer, words, why, capsys):
    out = tmp_path / "a"
    status = main(["data", "convert", str(buffer), str(out), "--to", "lerobot", "--quiet", *words])
    assert status == 2 and why in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_the_rate_of_cameras_is_taken_for_the_whole_number_that_it_means(tmp_path, buffer):
    dataset = replace(open_dataset(buffer).select(np.array([0])), control_hz=59.94)
    convert_dataset(dataset, tmp_path / "a", "lerobot")
    assert info(tmp_path / "a")["fps"] == 60 and open_dataset(tmp_path / "a").ends.tolist() == [20]


def test_flags_that_are_no_flags_are_refused_by_name(tmp_path, arrays):
    contents = {"action": arrays["action"], "success": arrays["action"][:, 0]}
    path = datasets.zarr_buffer(tmp_path / "a.zarr", contents, attributes={"control_hz": 10})
    with pytest.raises(DataError, match=r"next\.success is yes or no in LeRobot"):
        convert_dataset(open_dataset(path), tmp_path / "b", "lerobot")
    assert not (tmp_path / "b").exists()


def test_no_two_arrays_have_one_name():
    names = feature_names(["state", "agent_pos", "environment_state", "rewards", "reward", "pixels", "pixels_main"])
    assert len(set(names.values())) == len(names) and names["agent_pos"] == "observation.state"
    assert names["pixels"] == "observation.images.main" and names["pixels_main"] == "observation.images.main_2"
    with pytest.raises(InputError, match="another camera"):
        feature_names(["pixels", "pixels_b"], dict.fromkeys(["pixels", "pixels_b"], "observation.image"))
    assert number_names({"pixels": (4, 4, 3), "action": (2,), "map": (3, 3)}) == {"action": ["dim_0", "dim_1"]}


def test_recordings_of_the_arm_have_the_arms_names():
    for mode, width in {"joints": 7, "absolute_vector": 7, "absolute": 10, "relative": 10}.items():
        names = arx_names({"env": "uva/ArxX5-v0", "action_mode": mode})
        assert len(names["action"]) == width and len(set(names["action"])) == width and len(names["agent_pos"]) == 7
    assert arx_names({"env": "uva/ArxX5-v0", "action_mode": "joints"})["action"][0] == "shoulder_pan.pos"
    assert arx_names({"env": "uva/PushT-v0", "action_mode": "joints"}) == {} == arx_names(None)


@pytest.fixture
def theirs(tmp_path, written):
    """A dataset as LeRobot's own tools leave it: what they say of the arm, their codec, their columns and types."""
    folder = tmp_path / "theirs"
    shutil.copytree(written, folder)
    known = info(folder)
    known |= {"robot_type": "so100", "codebase_version": "v3.1", "data_files_size_in_mb": 55, "more": {"kept": True}}
    known["features"]["observation.image"]["info"] |= {"video.codec": "av1", "video.crf": 30}
    (folder / "meta/info.json").write_text(json.dumps(known))
    stats = json.loads((folder / "meta/stats.json").read_text())
    stats["action"]["q75"], stats["gone"] = stats["action"]["q50"], {"mean": [1.0]}
    (folder / "meta/stats.json").write_text(json.dumps(stats))
    table = rows(folder, EPISODES)
    for key in ("frame_index", "index"):  # whole numbers have whole extremes there
        for what in ("min", "max"):
            name = f"stats/{key}/{what}"
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(pa.list_(pa.int64())))
    table = table.append_column("more", pa.array([1.5, 2.5])).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(table, folder / EPISODES)
    return folder


def record(folder, arrays, count=12, task="lift it", **changes):
    draft = LeRobotAppender(folder, control_hz=10).begin()
    for step in range(count):
        row = {
            "pixels": arrays["pixels"][step],
            "action": arrays["action"][step],
            "agent_pos": arrays["agent_pos"][step],
        }
        row |= {"state": arrays["agent_pos"][step, :5], "reward": arrays["action"][step, :1]}
        row |= {"done": np.zeros(1), "success": np.ones(1)}
        draft.add({**row, **changes})
    return draft.keep(task)


def test_an_episode_more_changes_nothing_else_that_a_dataset_says(theirs, arrays):
    before, table = info(theirs), rows(theirs, EPISODES)
    assert record(theirs, arrays) == 2
    after = info(theirs)
    counted = ("total_episodes", "total_frames", "total_tasks", "splits")
    assert {key: after[key] for key in after if key not in counted} == {
        k: before[k] for k in before if k not in counted
    }
    assert (after["total_episodes"], after["total_frames"], after["total_tasks"]) == (3, 67, 2)
    now = rows(theirs, EPISODES)
    assert now.schema.equals(table.schema, check_metadata=True) and now.slice(0, 2).equals(table)
    assert rows(theirs, "data/chunk-000/file-001.parquet").schema.equals(rows(theirs, DATA).schema)
    stats = json.loads((theirs / "meta/stats.json").read_text())
    assert set(QUANTILES) | {"q75"} <= set(stats["action"]) and stats["gone"] == {"mean": [1.0]}
    everything = np.concatenate([arrays["action"], arrays["action"][:12]])
    np.testing.assert_allclose(stats["action"]["mean"], everything.mean(0), atol=1e-5)
    dataset = open_dataset(theirs)
    assert dataset.tasks == ("push it", "push it", "lift it") and dataset.ends.tolist() == [20, 55, 67]
    np.testing.assert_array_equal(dataset.arrays["action"], everything)
    assert np.abs(dataset.arrays["pixels"][[60]].astype(int) - arrays["pixels"][5]).mean() < 3
    record(theirs, arrays, task="push it")
    assert open_dataset(theirs).tasks[-1] == "push it" and info(theirs)["total_tasks"] == 2


def test_further_episodes_go_into_the_last_of_several_files(theirs, arrays):
    first, second = rows(theirs, EPISODES).slice(0, 1), rows(theirs, EPISODES).slice(1, 1)
    pq.write_table(first, theirs / EPISODES)
    pq.write_table(second, theirs / "meta/episodes/chunk-000/file-001.parquet")
    record(theirs, arrays)
    assert rows(theirs, EPISODES).equals(first)
    assert rows(theirs, "meta/episodes/chunk-000/file-001.parquet")["episode_index"].to_pylist() == [1, 2]
    assert open_dataset(theirs).ends.tolist() == [20, 55, 67]


def test_a_dataset_without_quantiles_stays_readable(theirs, arrays):
    table = rows(theirs, EPISODES)
    pq.write_table(table.drop_columns([n for n in table.column_names if n[-3:] in QUANTILES]), theirs / EPISODES)
    record(theirs, arrays)
    assert not any(name[-3:] in QUANTILES for name in rows(theirs, EPISODES).column_names)
    assert len(open_dataset(theirs)) == 3


def test_other_arrays_and_pictures_in_parquet_are_refused_by_name(theirs, arrays):
    with pytest.raises(ValueError, match=r"action is \[7\] there and \[3\] here"):
        record(theirs, arrays, action=np.zeros(3))
    known = info(theirs)
    known["features"]["observation.wrist"] = {"dtype": "image", "shape": [32, 32, 3], "names": None}
    (theirs / "meta/info.json").write_text(json.dumps(known))
    with pytest.raises(ValueError, match=r"observation\.wrist in parquet"):
        record(theirs, arrays)
    (theirs / "meta/info.json").write_text("{")
    with pytest.raises(DataError, match=r"info\.json is damaged"):
        LeRobotAppender(theirs, control_hz=10)


def test_a_film_that_was_not_written_whole_is_an_error(tmp_path, monkeypatch, arrays):
    from uva_agents.data import video
    from uva_agents.errors import MachineError

    writer = video.VideoWriter(tmp_path / "a.mp4", (32, 32), 10)
    writer.append(arrays["pixels"][:5])
    writer.frames += 1  # what ffmpeg did not get to disk
    with pytest.raises(MachineError, match="5 of 6 frames"):
        writer.close()
    assert probe(tmp_path / "a.mp4").frames == 5
