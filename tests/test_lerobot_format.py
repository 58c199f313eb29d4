"""LeRobot v3 and videos: reading, writing, and the command that does both."""

import json

import numpy as np
import pytest

from tests import datasets
from uva_agents.cli import main
from uva_agents.data import open_dataset

pytest.importorskip("pyarrow", reason="LeRobot datasets need pyarrow: pip install 'uva-agents[data]'")
pq = pytest.importorskip("pyarrow.parquet")

MEAN_ERROR = 3.0
"""Grey levels: what H.264 at the quality used here may cost on smooth pictures, on average."""


@pytest.fixture(scope="module")
def arrays():
    return datasets.recording()


@pytest.fixture(scope="module")
def source(tmp_path_factory, arrays):
    return datasets.lerobot(tmp_path_factory.mktemp("lerobot") / "a", arrays)


def error(found, wanted):
    return np.abs(np.asarray(found).astype(int) - wanted).mean()


def test_lerobot_v3_is_read_with_every_frame_at_its_step(source, arrays):
    dataset = open_dataset(source)
    assert (dataset.format, dataset.control_hz, dataset.tasks) == ("lerobot", 10.0, datasets.TASKS)
    np.testing.assert_array_equal(dataset.ends, datasets.ENDS)
    np.testing.assert_array_equal(dataset.arrays["action"], arrays["action"])
    np.testing.assert_array_equal(dataset.arrays["agent_pos"], arrays["agent_pos"])
    frames = np.asarray(dataset.arrays["pixels"]).astype(int)
    assert error(frames, arrays["pixels"]) < MEAN_ERROR
    # Each frame is nearest to its own step's picture, also right after the file's middle, where the second episode begins.
    for step in (0, 1, 19, 20, 21, 54):
        distance = np.abs(arrays["pixels"].astype(int) - frames[step]).mean((1, 2, 3))
        assert distance.argmin() == step


def test_av1_the_usual_codec_is_read(tmp_path, arrays):
    dataset = open_dataset(datasets.lerobot(tmp_path / "a", arrays, codec="libaom-av1"))
    assert error(dataset.arrays["pixels"][[0, 20, 54]], arrays["pixels"][[0, 20, 54]]) < 2 * MEAN_ERROR


def test_pictures_inside_parquet_are_read(tmp_path, arrays, source):
    import io
    import shutil

    import pyarrow as pa
    from PIL import Image

    folder = tmp_path / "a"
    shutil.copytree(source, folder)
    cells = []
    for frame in arrays["pixels"]:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    file = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(
        pq.read_table(str(file), partitioning=None).append_column("observation.images.top", pa.array(cells)), file
    )
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.images.top"]["dtype"] = "image"
    (folder / "meta/info.json").write_text(json.dumps(info))
    np.testing.assert_array_equal(np.asarray(open_dataset(folder).arrays["pixels"]), arrays["pixels"])


@pytest.mark.parametrize(
    "damage", ["cut video", "no video", "cut parquet", "short parquet", "version", "json", "no column"]
)
def test_damaged_lerobot_datasets_say_what_is_wrong(tmp_path, source, damage):
    import shutil

    folder = tmp_path / "a"
    shutil.copytree(source, folder)
    video = folder / "videos/observation.images.top/chunk-000/file-000.mp4"
    data, info = folder / "data/chunk-000/file-000.parquet", folder / "meta/info.json"
    if damage == "cut video":
        video.write_bytes(video.read_bytes()[:3000])
    elif damage == "no video":
        video.unlink()
    elif damage == "cut parquet":
        data.write_bytes(data.read_bytes()[:-100])
    elif damage == "short parquet":
        pq.write_table(pq.read_table(str(data), partitioning=None).slice(0, 50), data)
    elif damage == "no column":
        pq.write_table(pq.read_table(str(data), partitioning=None).drop_columns(["action"]), data)
    elif damage == "json":
        info.write_text(info.read_text()[:100])
    else:
        info.write_text(info.read_text().replace("v3.0", "v2.1"))
    message = {
        "cut video": "cannot be read as a video",
        "no video": "file-000.mp4 is missing",
        "cut parquet": "damaged or cut short",
        "short parquet": "50 rows in data/ that do not match",
        "no column": "lacks the columns action",
        "json": "info.json is damaged",
        "version": "is LeRobot v2.1; v3 is read",
    }
    with pytest.raises(ValueError, match=message[damage]):
        open_dataset(folder)


def test_a_folder_of_videos_is_a_dataset_without_actions(tmp_path, arrays):
    datasets.mp4(tmp_path / "b" / "two.mp4", arrays["pixels"][20:])
    datasets.mp4(tmp_path / "a.mp4", arrays["pixels"][:20])
    (tmp_path / "a.txt").write_text("push\n")
    dataset = open_dataset(tmp_path)
    assert dataset.format == "video" and dataset.control_hz == 10 and dataset.tasks == ("push", "")
    assert dataset.ends.tolist() == [20, 55] and set(dataset.episodes.arrays) == {"pixels"}
    assert error(dataset.arrays["pixels"], arrays["pixels"]) < MEAN_ERROR
    datasets.mp4(tmp_path / "c.mp4", datasets.recording(side=48)["pixels"][:3])
    with pytest.raises(ValueError, match=r"different sizes.*c\.mp4 \(48, 48\)"):
        open_dataset(tmp_path)
    (tmp_path / "c.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"c\.mp4 cannot be read as a video"):
        open_dataset(tmp_path)


def test_converting_there_and_back_keeps_numbers_exactly_and_pictures_nearly(tmp_path, arrays, capsys):
    contents = {"img": arrays["pixels"], "keypoint": arrays["agent_pos"][:, :6].reshape(-1, 3, 2)}
    contents |= {"action": arrays["action"], "agent_pos": arrays["agent_pos"]}
    first = datasets.zarr_buffer(tmp_path / "first.zarr", contents, attributes={"tasks": list(datasets.TASKS)})
    middle, last = tmp_path / "middle", tmp_path / "last.zarr"
    assert main(["data", "convert", str(first), str(middle), "--to", "lerobot", "--quiet"]) == 2  # no rate
    assert "pass --hz" in capsys.readouterr().err and not middle.exists()
    assert main(["data", "convert", str(first), str(middle), "--to", "lerobot", "--quiet", "--hz", "10"]) == 0
    assert main(["data", "convert", str(middle), str(last), "--to", "zarr", "--quiet"]) == 0
    found = open_dataset(last)
    assert found.control_hz == 10 and found.tasks == datasets.TASKS
    assert found.ends.tolist() == datasets.ENDS.tolist()
    for name in ("action", "agent_pos"):
        np.testing.assert_array_equal(found.arrays[name], arrays[name])
    np.testing.assert_array_equal(found.arrays["keypoints"], arrays["agent_pos"][:, :6])
    assert error(found.arrays["pixels"], arrays["pixels"]) < MEAN_ERROR
    np.testing.assert_array_equal(np.asarray(found.arrays["pixels"]), np.asarray(open_dataset(middle).arrays["pixels"]))

    assert main(["data", "convert", str(first), str(last), "--to", "zarr", "--quiet"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["data", "convert", str(first), str(last), "--to", "zarr", "--quiet", "--force"]) == 0
    np.testing.assert_array_equal(np.asarray(open_dataset(last).arrays["pixels"]), arrays["pixels"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.zarr", "last.zarr", "middle"]
    assert main(["data", "convert", str(first), str(first), "--to", "zarr", "--quiet", "--force"]) == 2
    assert "would overwrite" in capsys.readouterr().err and first.exists()


def test_what_is_written_follows_lerobots_layout(tmp_path, arrays):
    from uva_agents.data import convert_dataset

    path = datasets.zarr_buffer(
        tmp_path / "a.zarr", {"img": arrays["pixels"], "action": arrays["action"]}, attributes={"control_hz": 10}
    )
    convert_dataset(open_dataset(path), tmp_path / "out", "lerobot")
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 10, 55)
    rows = pq.read_table(str(tmp_path / "out/data/chunk-000/file-000.parquet"), partitioning=None)
    assert {"action", "timestamp", "frame_index", "episode_index", "index", "task_index"} == set(rows.column_names)
    assert set(rows.column_names) | {"observation.images.main"} == set(info["features"])
    assert rows["index"].to_pylist() == list(range(55))
    np.testing.assert_allclose(rows["timestamp"].to_numpy(), rows["frame_index"].to_numpy() / 10, atol=1e-6)
    tasks = pq.read_schema(tmp_path / "out/meta/tasks.parquet")
    assert json.loads(tasks.metadata[b"pandas"])["index_columns"] == ["task"]
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    np.testing.assert_allclose(stats["action"]["mean"], arrays["action"].mean(0), atol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], arrays["action"].std(0), atol=1e-5)
    assert np.shape(stats["observation.images.main"]["mean"]) == (3, 1, 1)


def test_inspect_prints_what_is_there_and_draws_a_contact_sheet(tmp_path, source, capsys):
    from PIL import Image

    sheet = tmp_path / "sheet.png"
    assert main(["data", "inspect", str(source), "--sheet", str(sheet)]) == 0
    text = capsys.readouterr().out
    assert "LeRobot v3" in text and "2 episodes of 20 to 35 steps" in text and "10 Hz" in text
    assert "task: push the block" in text and "55 x 32 x 32 x 3" in text
    assert "1 of 2 episodes are shorter than a window" in text
    assert np.asarray(Image.open(sheet)).std() > 20
    assert main(["data", "inspect", str(source.parent)]) in (2, 3)
    assert "is LeRobot v3 (meta/info.json, parquet and mp4): pass that" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no dataset of a known format"):
        open_dataset(tmp_path)
