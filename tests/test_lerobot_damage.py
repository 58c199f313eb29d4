"""LeRobot datasets that contradict themselves, mean harm or have holes: the right data, or an error that names what is wrong."""

import json
import shutil

import numpy as np
import pytest

from tests import datasets
from uva_agents.data import open_dataset
from uva_agents.errors import DataError

pa = pytest.importorskip("pyarrow", reason="LeRobot datasets need pyarrow: pip install 'uva-agents[data]'")
pq = pytest.importorskip("pyarrow.parquet")

EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
TASKS, VIDEO = "meta/tasks.parquet", "videos/observation.images.top"
FILM = f"{VIDEO}/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = datasets.lerobot(tmp_path_factory.mktemp("lerobot") / "a", datasets.recording())
    pq.write_table(pa.table({"task_index": [0, 1], "task": list(datasets.TASKS)}), folder / TASKS)
    return folder


@pytest.fixture
def copy(tmp_path, source):
    shutil.copytree(source, tmp_path / "a")
    return tmp_path / "a"


def table(folder, name, **columns):
    """Replace columns of a parquet file; ``None`` removes one."""
    found = pq.read_table(str(folder / name), partitioning=None)
    for key, values in columns.items():
        key = key.replace("__", "/").replace("VIDEO", VIDEO)
        if key in found.column_names:
            found = found.drop_columns([key])
        if values is not None:
            found = found.append_column(key, values if isinstance(values, pa.Array) else pa.array(values))
    pq.write_table(found, folder / name)


def info(folder, **entries):
    file = folder / "meta/info.json"
    known = json.loads(file.read_text())
    known.update(entries)
    file.write_text(json.dumps(known))


def feature(folder, key, value):
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    info(folder, features={**features, key: value})


def refused(folder, *words):
    with pytest.raises(DataError) as caught:
        open_dataset(folder)
    for word in (str(folder), *words):
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


TIMES = [
    ([2.0, 0.0], [4.0, 3.5], "episode 1", "begin before those of episode 0"),  # swapped
    ([0.0, 0.0], [2.0, 3.5], "episode 1", "another episode"),  # that of the other
    ([0.0, 2.05], [2.0, 5.55], "episode 1", "step 0 is at 2.05 s"),  # half a frame late
    ([-0.1, 2.0], [1.9, 5.5], "episode 0", "step 0 is at -0.1 s"),
    ([0.0, 2.1], [2.0, 5.6], "episode 1", "cut short"),
    ([0.0, float("nan")], [2.0, 5.5], "episode 1", "nan"),
    ([0.0, 1e300], [2.0, 1e300], "episode 1", "1e+300"),
    ([0.0, 2.0], [2.0, 9.5], "episode 1", "said to last from 2 to 9.5 s"),
    ([0.0, 2.0], [3.5, 5.5], "episode 0", "said to last from 0 to 3.5 s"),
]


@pytest.mark.parametrize(("begins", "ends", "episode", "why"), TIMES)
def test_times_of_episodes_are_those_of_their_own_frames(copy, begins, ends, episode, why):
    table(copy, EPISODES, VIDEO__from_timestamp=begins, VIDEO__to_timestamp=ends)
    refused(copy, FILM, episode, "camera observation.images.top", why)


@pytest.mark.parametrize(
    ("change", "episode"),
    [
        (lambda t: np.where(np.arange(55) == 33, np.nan, t), "step 13 of episode 1"),
        (lambda t: t[::-1], "step 0 of episode 0"),
        (lambda t: t * 1.5, "step 1 of episode 0"),
        (lambda t: t + 5.0 * (np.arange(55) >= 50), "step 30 of episode 1"),
        (lambda t: t + 0.05, "step 0 of episode 0"),
    ],
    ids=["NaN", "falling", "another rate", "gap", "half a step"],
)
def test_times_of_rows_are_those_of_the_rate(copy, change, episode):
    times = pq.read_table(str(copy / DATA), partitioning=None)["timestamp"].to_numpy()
    table(copy, DATA, timestamp=change(times).astype(np.float32))
    refused(copy, "timestamp", episode)


def test_rows_are_as_wide_as_they_are_said_to_be(copy):
    actions = datasets.recording()["action"].tolist()
    actions[3], actions[4] = actions[3][:6], [*actions[4], 0.5]  # the same number of numbers in all
    table(copy, DATA, action=pa.array(actions, pa.list_(pa.float32())))
    refused(copy, DATA, "action", "rows of different lengths", "row 3 6")
    table(copy, DATA, action=pa.array([row[:6] for row in datasets.recording()["action"].tolist()]))
    refused(copy, DATA, "action has rows of shape (6,), meta/info.json says (7,)")
    table(copy, DATA, action=pa.array([None, *datasets.recording()["action"].tolist()[1:]]))
    refused(copy, DATA, "action has no value in 1 places, first in row 0")
    table(copy, DATA, action=["x"] * 55)
    refused(copy, DATA, "action holds string, not numbers")


def test_a_camera_that_the_episodes_do_not_know_is_named(copy):
    feature(copy, "observation.images.side", {"dtype": "video", "shape": [32, 32, 3], "names": None})
    refused(copy, EPISODES, "the camera observation.images.side that meta/info.json declares")


INFO = [
    ({"features": []}, "features is []"),
    ({"features": {"action": {"shape": [7]}}}, "the feature action"),
    ({"features": {"action": 3}}, "the feature action is 3"),
    ({"features": {"action": {"dtype": "float32", "shape": "7"}}}, "the shape of action is '7'"),
    ({"features": {"action": {"dtype": "float32", "shape": [10**12]}}}, "the shape of action"),
    ({"features": {"top": {"dtype": "video", "shape": [3]}}}, "pictures top"),
    ({"data_path": "data/{nothing}.parquet"}, "data_path is"),
    ({"data_path": "data/{}.parquet"}, "data_path is"),
    ({"data_path": "data/{chunk_index:999999999999d}/{file_index}"}, "data_path is"),
    ({"data_path": "data/{chunk_index:{file_index}d}"}, "data_path is"),
    ({"data_path": "data/{chunk_index.__class__}"}, "data_path is"),
    ({"data_path": "data/{chunk_index!r:>9999999999}"}, "data_path is"),
    ({"data_path": "data/{"}, "data_path is"),
    ({"data_path": 7}, "data_path is 7"),
    ({"video_path": "{video_key:>99999999999}"}, "video_path is"),
    ({"total_episodes": "2"}, "total_episodes is '2'"),
    ({"total_frames": 55.0}, "total_frames is 55.0"),
    ({"total_frames": 54}, "has 55 rows, not 54"),
    ({"total_episodes": -1}, "total_episodes is -1"),
    ({"total_episodes": True}, "total_episodes is True"),
    ({"fps": "10"}, "fps is '10'"),
    ({"fps": 0}, "fps is 0"),
    ({"fps": float("nan")}, "fps is nan"),
    ({"fps": True}, "fps is True"),
    ({"fps": 20}, "timestamp"),
    ({"codebase_version": 3}, "is LeRobot 3"),
]


@pytest.mark.parametrize(("entries", "why"), INFO)
def test_what_info_says_is_checked_before_it_is_believed(copy, entries, why):
    info(copy, **entries)
    refused(copy, why)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "[" * 100_000, "{", "\ufeff{}", ""])
def test_an_info_that_is_no_object_is_named(copy, text):
    (copy / "meta/info.json").write_text(text, encoding="utf-8")
    refused(copy, "info.json")


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        (pa.array([None, None], pa.list_(pa.string())), "tasks of episode 0"),
        (pa.array([1, 2]), "tasks of episode 0 in meta/episodes are 1"),
        (pa.array([[1.5], [2.5]]), "tasks of episode 0"),
        (pa.array([["push the block"], [None]], pa.list_(pa.string())), "tasks of episode 1"),
        (pa.array([["push the block"], ["another"]]), "the task of episode 1 is 'another'"),
    ],
)
def test_tasks_are_texts_and_the_same_in_both_places(copy, tasks, why):
    table(copy, EPISODES, tasks=tasks)
    refused(copy, why)


def test_tasks_are_found_in_either_place(copy, source):
    assert open_dataset(copy).tasks == datasets.TASKS
    table(copy, EPISODES, tasks=None)
    assert open_dataset(copy).tasks == datasets.TASKS
    table(copy, TASKS, task=[1, 2])
    refused(copy, TASKS, "tasks are 1, texts belong there")
    table(copy, TASKS, task=["x", "y"], task_index=[0, 7])
    refused(copy, "task_index 1, which meta/tasks.parquet lacks")
    (copy / TASKS).unlink()
    assert open_dataset(copy).tasks is None


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"episode_index": [0, 2]}, "lists episode 2 in meta/episodes where 1 should be"),
        ({"episode_index": [0, 0]}, "lists episode 0"),
        ({"episode_index": [0, None]}, "episode_index has no value"),
        ({"length": [20, -35]}, "episode 1 has a length of -35"),
        ({"length": ["20", "35"]}, "length holds string"),
        ({"length": [20.5, 34.5]}, "whole numbers belong there"),
        ({"length": [21, 34]}, "dataset_from_index 20 in meta/episodes, not 21"),
        ({"data__file_index": [0, 1]}, "file-001.parquet is missing"),
        ({"data__chunk_index": [0, -1]}, "episode 1 is in data chunk -1"),
        ({"VIDEO__file_index": [0, 7]}, "file-007.mp4 is missing"),
        ({"VIDEO__file_index": [0, 2**40]}, "episode 1 is in"),
        ({"length": None}, "lacks the columns length"),
    ],
)
def test_what_the_episodes_say_is_checked(copy, columns, why):
    table(copy, EPISODES, **columns)
    refused(copy, why)


@pytest.mark.parametrize("where", ["../b", "absolute", "link", "link to a folder", "pipe"])
def test_nothing_outside_the_folder_is_opened(copy, tmp_path, where):
    import os

    outside = tmp_path / "b"
    shutil.copytree(copy, outside)
    if where == "../b":
        info(copy, data_path="../b/data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")
    elif where == "absolute":
        info(copy, data_path=str(outside) + "/data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")
    elif where == "link":
        (copy / FILM).unlink()
        (copy / FILM).symlink_to(outside / FILM)
    elif where == "link to a folder":
        shutil.rmtree(copy / "meta/episodes")
        (copy / "meta/episodes").symlink_to(outside / "meta/episodes")
    else:
        (copy / DATA).unlink()
        os.mkfifo(copy / DATA)
    with pytest.raises(DataError, match="not a regular file" if where == "pipe" else "outside the dataset.s folder"):
        open_dataset(copy)


def test_a_snapshot_of_a_hugging_face_cache_is_read(tmp_path, source):
    """Its files are links to blobs beside it."""
    snapshot, blobs = tmp_path / "datasets--me--a/snapshots/0123", tmp_path / "datasets--me--a/blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(file for file in source.rglob("*") if file.is_file())):
        link = snapshot / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        link.symlink_to(blobs / str(number))
    found, wanted = open_dataset(snapshot), open_dataset(source)
    np.testing.assert_array_equal(found.arrays["pixels"][[0, 54]], wanted.arrays["pixels"][[0, 54]])


def test_what_is_not_read_is_named(copy):
    feature(copy, "words", {"dtype": "string", "shape": [1], "names": None})
    feature(copy, "cloud", {"dtype": "float32", "shape": [5000], "names": None})
    table(copy, DATA, words=["x"] * 55, cloud=[[0.0] * 5000] * 55)
    dataset = open_dataset(copy)
    assert set(dataset.left_out) == {"words", "cloud"} and len(dataset.notes) == 2
    table(copy, DATA, more=list(range(55)))
    refused(copy, DATA, "columns more that meta/info.json does not declare")


def test_depth_is_no_colour(copy):
    feature(
        copy,
        "observation.images.top",
        {"dtype": "video", "shape": [32, 32, 3], "names": None, "info": {"video.is_depth_map": True}},
    )
    dataset = open_dataset(copy)
    assert "distances" in dataset.left_out["observation.images.top"] and not dataset.cameras


def test_frames_of_no_episode_are_said(copy):
    rows = pq.read_table(str(copy / DATA), partitioning=None).slice(0, 20)
    pq.write_table(rows, copy / DATA)
    pq.write_table(pq.read_table(str(copy / EPISODES), partitioning=None).slice(0, 1), copy / EPISODES)
    info(copy, total_episodes=1, total_frames=20)
    assert any("35 of its 55 frames belong to no episode" in note for note in open_dataset(copy).notes)


def test_what_is_wrong_with_one_episode_leaves_the_others(copy, tmp_path, capsys):
    from uva_agents.cli import main
    from uva_agents.data.inspect import inspect_path

    table(copy, EPISODES, VIDEO__from_timestamp=[0.0, 2.05], VIDEO__to_timestamp=[2.0, 5.55])
    refused(copy, "step 0 is at 2.05 s", "--episodes '!1'")
    found = open_dataset(copy, episodes="!1")
    assert found.ends.tolist() == [20] and found.arrays["pixels"][:].shape == (20, 32, 32, 3)
    out = tmp_path / "out.zarr"
    assert main(["data", "convert", str(copy), str(out), "--to", "zarr", "--quiet", "--episodes", "!1"]) == 0
    assert open_dataset(out).ends.tolist() == [20]
    seen = inspect_path(copy)
    assert any("step 0 is at 2.05 s" in finding.message and finding.episodes == (1,) for finding in seen.findings)
    table(copy, EPISODES, VIDEO__from_timestamp=[2.0, 0.0], VIDEO__to_timestamp=[4.0, 3.5])
    with pytest.raises(DataError, match="another episode"):
        open_dataset(copy, episodes="0")  # whichever of the two is wrong
    table(copy, EPISODES, VIDEO__from_timestamp=[0.0, 2.0], VIDEO__to_timestamp=[2.0, 5.5])
    times = pq.read_table(str(copy / DATA), partitioning=None)["timestamp"].to_numpy().copy()
    times[3] = np.nan
    table(copy, DATA, timestamp=times)
    with pytest.raises(DataError, match="timestamp of step 3 of episode 0"):
        open_dataset(copy, episodes="0")


def test_films_with_lost_frames_are_refused_and_say_where(copy):
    from tests.films import film

    film(copy / FILM, 55, times="(N+5*gte(N,30))/10", codec=("-c:v", "libx264", "-g", "2"))
    refused(copy, FILM, "episode 1", "step 10 is at 3 s, and the nearest frame at 3.5 s", "frames are missing")
    assert open_dataset(copy, episodes="0").arrays["pixels"][:].shape == (20, 32, 32, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "clear", "small", "torn", "path", "none"])
def test_pictures_inside_parquet_are_8_bit_colour_or_grey_of_the_size_that_is_said(copy, mode):
    import io

    from PIL import Image

    cells: list[tuple[bytes | None, str | None]] = []
    for frame in datasets.recording()["pixels"]:
        image = Image.fromarray(frame)
        if mode == "I;16":
            image = Image.fromarray(frame[..., 0].astype(np.uint16) * 200)
        elif mode == "clear":
            image.putalpha(100)
        elif mode in ("L", "RGBA", "P"):
            image = image.convert(mode)
        elif mode == "small":
            image = image.resize((16, 32))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = buffer.getvalue()[:200] if mode == "torn" else buffer.getvalue()
        cells.append((content, None))
    if mode in ("path", "none"):
        cells = [(None, "/etc/passwd" if mode == "path" else None)] * 55
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": content, "path": path} for content, path in cells], cell)
    table(copy, DATA, **{"observation.images.top": pictures})
    feature(copy, "observation.images.top", {"dtype": "image", "shape": [32, 32, 3], "names": None})
    if mode in ("L", "RGBA", "P"):
        dataset = open_dataset(copy)
        assert np.asarray(dataset.arrays["pixels"]).shape == (55, 32, 32, 3)
        assert mode == "P" or any("observation.images.top: " in note for note in dataset.notes)
    else:
        refused(copy, DATA, "picture observation.images.top of row 0 cannot be read")


@pytest.mark.parametrize("place", ["rows", "table"])
def test_a_task_that_changes_within_an_episode_is_said(copy, place):
    both = [list(datasets.TASKS), [datasets.TASKS[1]]]
    if place == "rows":
        index = pq.read_table(str(copy / DATA), partitioning=None)["task_index"].to_numpy().copy()
        index[:5] = 1
        table(copy, DATA, task_index=index)
        both[0].reverse()
    else:
        (copy / TASKS).unlink()
    table(copy, EPISODES, tasks=both)
    dataset = open_dataset(copy)
    assert dataset.tasks == (", ".join(both[0]), datasets.TASKS[1])
    assert any("the task changes within episode 0: " in note for note in dataset.notes)
    (hole,) = open_dataset(copy, lenient=True).holes
    assert (hole.level, hole.episodes) == ("warn", (0,))
