"""Every format gives the same episodes; damaged files say what is wrong."""

import json
import shutil

import numpy as np
import pytest

from tests import datasets
from uva_agents.data import (
    RELEASED_TRIM,
    WindowIndex,
    WindowSpec,
    inspect_dataset,
    open_dataset,
    read_replay_buffer,
    recognise,
)
from uva_agents.data.lazy import as_lazy
from uva_agents.data.replay_buffer import Field

pytest.importorskip("h5py", reason="hdf5 needs h5py: pip install 'uva-agents[data]'")


@pytest.fixture(scope="module")
def arrays():
    return datasets.recording()


def write(kind, folder, arrays, monkeypatch):
    """A dataset of this kind."""
    if kind == "zarr2":
        return datasets.zarr_buffer(folder / "a.zarr", {"img": arrays["pixels"], **rest(arrays)})
    if kind == "zarr3 zip":
        return datasets.zarr_buffer(folder / "a.zarr.zip", {"image": arrays["pixels"], **rest(arrays)}, zarr_format=3)
    if kind == "robomimic":
        return datasets.robomimic(folder / "low.hdf5", arrays)
    if kind == "libero":
        (folder / "suite").mkdir()
        datasets.robomimic(folder / "suite" / "KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5", arrays, libero=True)
        return folder / "suite"
    pytest.importorskip("minari", reason="written by Minari itself: pip install minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return datasets.minari(folder, arrays)


def rest(arrays):
    return {name: value for name, value in arrays.items() if name != "pixels"}


def windows(dataset):
    """What training would see: frames, proprioception and actions of every window."""
    episodes, spec = dataset.episodes, WindowSpec()
    index = WindowIndex(episodes, spec)
    every = np.arange(len(index))
    frames = episodes.arrays["pixels"]
    return (
        frames[index.steps(every[::7], spec.history)],
        frames[index.steps(every[::7], spec.future)],
        episodes.arrays["agent_pos"][index.steps(every, spec.history)],
        episodes.arrays["action"][index.steps(every, spec.actions)],
    )


@pytest.mark.parametrize("kind", ["zarr2", "zarr3 zip", "robomimic", "libero", "minari"])
def test_windows_are_the_same_from_every_lossless_format(tmp_path, monkeypatch, arrays, kind):
    path = write(kind, tmp_path, arrays, monkeypatch)
    dataset = open_dataset(path)
    assert dataset.format == {"robomimic": "hdf5", "libero": "hdf5"}.get(kind, kind.split()[0].rstrip("23"))
    assert dataset.ends.tolist() == datasets.ENDS.tolist()
    assert as_lazy(dataset.arrays["pixels"]) is not None
    expected = datasets.zarr_buffer(tmp_path / "expected.zarr", {"img": arrays["pixels"], **rest(arrays)})
    for found, wanted in zip(windows(dataset), windows(open_dataset(expected)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.asarray(dataset.arrays["pixels"]), arrays["pixels"])
    np.testing.assert_array_equal(dataset.arrays["action"], arrays["action"])
    if kind in ("robomimic", "libero"):
        assert dataset.control_hz == datasets.HZ
        np.testing.assert_array_equal(dataset.arrays["pixels_wrist"][3], arrays["pixels"][3] // 2)
    if kind == "libero":
        assert set(dataset.tasks) == {"KITCHEN SCENE3 turn on the stove"} and "upright" in " ".join(dataset.notes)


def test_jpeg_pictures_of_minari_are_read(tmp_path, monkeypatch, arrays):
    pytest.importorskip("minari", reason="written by Minari itself: pip install minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = open_dataset(datasets.minari(tmp_path, arrays, jpeg=True))
    error = np.abs(np.asarray(dataset.arrays["pixels"]).astype(int) - arrays["pixels"])
    assert 0 < error.mean() < 3 and any("JPEG" in note for note in dataset.notes)


def test_frames_on_disk_behave_like_an_array(tmp_path, arrays):
    frames = open_dataset(datasets.robomimic(tmp_path / "a.hdf5", arrays)).arrays["pixels"]
    whole = arrays["pixels"]
    for key in (
        3,
        -1,
        slice(5, 40, 3),
        [7, 2, 2, 54],
        np.array([[1, 30], [29, 0]]),
        (slice(0, 3), 4),
        (5, 1, 2, 0),
        slice(0, 0),
    ):
        np.testing.assert_array_equal(frames[key], whole[key])
    assert frames.shape == whole.shape and len(frames) == 55 and frames.dtype == np.uint8
    with pytest.raises(IndexError):
        frames[55]
    np.testing.assert_array_equal(np.asarray(frames.select(np.array([50, 3]))), whole[[50, 3]])


def test_selecting_and_downsampling_read_nothing_and_keep_rows_together(tmp_path, arrays):
    episodes = open_dataset(datasets.robomimic(tmp_path / "a.hdf5", arrays)).episodes
    second = episodes.select(np.array([1]))
    assert as_lazy(second.arrays["pixels"]) is not None and second.steps == 35
    np.testing.assert_array_equal(second.arrays["pixels"][0], arrays["pixels"][20])
    third = episodes.downsampled(3)
    assert third.ends.tolist() == [7, 19]
    np.testing.assert_array_equal(third.arrays["pixels"][7], arrays["pixels"][20])
    np.testing.assert_array_equal(third.arrays["action"][8], arrays["action"][23])
    assert len({episodes.fingerprint, second.fingerprint, third.fingerprint}) == 3
    with pytest.raises(ValueError, match="at least 1"):
        episodes.downsampled(0)


def test_fields_choose_other_cameras_and_join_keys(tmp_path, arrays):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    fields = {
        "pixels": "obs/robot0_eye_in_hand_image",
        "agent_pos": Field(("obs/robot0_gripper_qpos", "obs/robot0_eef_pos"), columns=slice(0, 3)),
    }
    dataset = open_dataset(path, fields=fields)
    np.testing.assert_array_equal(dataset.arrays["pixels"][9], arrays["pixels"][9] // 2)
    np.testing.assert_array_equal(dataset.arrays["agent_pos"], arrays["agent_pos"][:, [7, 8, 0]])
    with pytest.raises(ValueError, match=r"no obs/robot0_eye_in_hand \(wanted as 'pixels'\).*robot0_eye_in_hand_image"):
        open_dataset(path, fields={"pixels": "obs/robot0_eye_in_hand"})


def test_the_published_pusht_recordings_read_as_the_replay_buffer_reader_does(shared):
    path = shared / "data" / "pusht" / "pusht_cchi_v7_replay.zarr"
    dataset = open_dataset(path)
    assert len(dataset) == 206 and dataset.ends[-1] == 25650
    whole = read_replay_buffer(path, {"action": Field("action"), "agent_pos": Field("state", columns=slice(0, 2))})
    for name in whole.arrays:
        np.testing.assert_array_equal(dataset.arrays[name], whole.arrays[name])
    frames = dataset.arrays["pixels"][[0, 25649]]
    assert frames.shape == (2, 96, 96, 3) and frames.dtype == np.uint8 and frames.max() == 255
    assert len(WindowIndex(dataset.episodes, WindowSpec(), trim=RELEASED_TRIM)) > 20_000


# -- what is wrong ---------------------------------------------------------------------------------


def test_what_is_no_dataset_is_refused_with_advice(tmp_path, arrays):
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="an empty folder"):
        recognise(tmp_path)
    inside = tmp_path / "deep" / "a.zarr"
    inside.parent.mkdir()
    datasets.zarr_buffer(inside, {"img": arrays["pixels"], **rest(arrays)})
    with pytest.raises(ValueError, match=r"a\.zarr is diffusion-policy zarr.*pass that"):
        recognise(inside.parent)
    with pytest.raises(ValueError, match=r"folder above is one: pass .*a\.zarr"):
        recognise(inside / "data")
    with pytest.raises(FileNotFoundError, match=r"did you mean a\.zarr"):
        recognise(inside.parent / "b.zarr")
    with pytest.raises(ValueError, match="unknown: pass one of"):
        open_dataset(inside, format="rlds")


@pytest.mark.parametrize("damage", ["missing chunk", "cut chunk", "no ends", "other length", "cut zip"])
def test_damaged_zarr_says_what_is_wrong(tmp_path, arrays, damage):
    contents = {"img": arrays["pixels"], **rest(arrays)}
    if damage == "other length":
        contents["action"] = contents["action"][:-5]
    path = datasets.zarr_buffer(tmp_path / ("a.zarr.zip" if damage == "cut zip" else "a.zarr"), contents)
    chunk = path / "data" / "img" / "1.0.0.0"
    if damage == "missing chunk":
        chunk.unlink()
    elif damage == "cut chunk":
        chunk.write_bytes(chunk.read_bytes()[:-40])
    elif damage == "no ends":
        shutil.rmtree(path / "meta" / "episode_ends")
    elif damage == "cut zip":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = {
        "missing chunk": "1 of 4 chunks are missing",
        "cut chunk": "img is damaged",
        "no ends": "no meta/episode_ends",
        "other length": "unequal lengths.*'action': 50",
        "cut zip": "not a zarr group",
    }
    with pytest.raises(ValueError, match=message[damage]):
        open_dataset(path)


@pytest.mark.parametrize("damage", ["cut", "no actions", "missing key", "other length", "empty", "other file"])
def test_damaged_hdf5_says_what_is_wrong(tmp_path, arrays, damage):
    import h5py

    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "other file":
        path.write_bytes(b"hello")
    else:
        with h5py.File(path, "a") as file:
            if damage == "empty":
                del file["data/demo_2"], file["data/demo_10"]
            elif damage == "no actions":
                del file["data/demo_2/actions"]
            else:
                value = file["data/demo_10/obs/sideview_image"][:-1]
                del file["data/demo_10/obs/sideview_image"]
                if damage == "other length":
                    file["data/demo_10/obs/sideview_image"] = value
    message = {
        "cut": "damaged",
        "other file": "damaged, cut short or no hdf5 file",
        "empty": "no data/demo_N",
        "no actions": "demo_2 has no actions",
        "missing key": "demo_10 has no obs/sideview_image, which demo_2 has",
        "other length": "demo_10 have unequal lengths.*34",
    }
    with pytest.raises(ValueError, match=message[damage]):
        open_dataset(path)


def test_damaged_minari_says_what_is_wrong(tmp_path, monkeypatch, arrays):
    import h5py

    path = write("minari", tmp_path, arrays, monkeypatch)
    main = path / "data" / "main_data.hdf5"
    with h5py.File(main, "a") as file:
        actions = file["episode_1/actions"][:-2]
        del file["episode_1/actions"]
        file["episode_1/actions"] = actions
    with pytest.raises(ValueError, match=r"episode_1/observations/agent_pos has 36 rows for 33 actions"):
        open_dataset(path)
    with h5py.File(main, "a") as file:
        del file["episode_1"]
    with pytest.raises(ValueError, match="promises 2 episodes, 1 are there"):
        open_dataset(path)
    main.write_bytes(main.read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged"):
        open_dataset(path)
    described = json.loads((path / "data" / "metadata.json").read_text())
    (path / "data" / "metadata.json").write_text(json.dumps({**described, "data_format": "arrow"}))
    with pytest.raises(ValueError, match="stored as arrow"):
        open_dataset(path)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, arrays):
    import sys

    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install 'uva-agents\[data\]'"):
        open_dataset(path)


def test_inspection_finds_nan_constant_columns_short_episodes_and_black_pictures(tmp_path, arrays):
    broken = {name: value.copy() for name, value in arrays.items()}
    broken["action"][30, 2] = np.nan
    broken["agent_pos"][:, 4] = 0.5
    broken["pixels"][20:] = 0
    path = datasets.zarr_buffer(tmp_path / "a.zarr", {"img": broken["pixels"], **rest(broken)})
    found = inspect_dataset(open_dataset(path))
    text = "\n".join(found.problems)
    assert "action has NaN or infinity in 1 steps, first at step 30 (episode 1)" in text
    assert "agent_pos never changes in column 4" in text
    short = "1 of 2 episodes are shorter than a window of 29 steps (first: episode 0, 20 steps)"
    assert short in "\n".join(found.notes) and short not in text  # they are valid
    assert "50% of the pictures looked at are of one colour" in text
    with pytest.raises(ValueError, match="'action' has NaN"):
        found.dataset.episodes  # noqa: B018
    good = {**arrays, "action": arrays["action"]}
    path = datasets.zarr_buffer(tmp_path / "b.zarr", {"img": good["pixels"], **rest(good)})
    assert [p for p in inspect_dataset(open_dataset(path), every_frame=True).problems if "shorter" not in p] == []


def test_columns_of_zeros_survive_being_written_and_an_incomplete_extra_is_left_out(tmp_path, arrays):
    import zarr

    from uva_agents.data import write_replay_buffer, write_replay_buffer_by_episode

    zeros = np.zeros((55, 1), np.float32)
    contents = {"img": arrays["pixels"] * 0, "action": arrays["action"], "reward": zeros}
    write_replay_buffer(tmp_path / "a.zarr", contents, datasets.ENDS)
    write_replay_buffer_by_episode(tmp_path / "b.zarr", datasets.pieces(contents))
    for name in ("a.zarr", "b.zarr"):
        dataset = open_dataset(tmp_path / name)
        np.testing.assert_array_equal(dataset.arrays["reward"], zeros)
        assert (dataset.arrays["pixels"][:5] == 0).all() and not dataset.notes
    data = zarr.open_group(str(tmp_path / "a.zarr"), mode="a")["data"]
    data.create_array("bonus", data=zeros, chunks=(16, 1))  # zarr 3 as it comes: nothing is stored
    dataset = open_dataset(tmp_path / "a.zarr")
    assert "bonus" not in dataset.arrays and "left out data/bonus" in dataset.notes[0]
