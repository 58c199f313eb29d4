"""Holes in zarr and hdf5 datasets, one by one: what is wrong is named, what is whole is read, nothing outside is opened."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from tests import datasets
from uva_agents.data import inspect_path, open_dataset
from uva_agents.data.opening import recognise
from uva_agents.errors import DataError, InputError, MachineError

h5py = pytest.importorskip("h5py", reason="hdf5 needs h5py: pip install 'uva-agents[data]'")


@pytest.fixture(scope="module")
def arrays():
    return datasets.recording(16)


def buffer(path, arrays, ends=datasets.ENDS, more=None, **options):
    contents = {"img": arrays["pixels"], "action": arrays["action"], "agent_pos": arrays["agent_pos"], **(more or {})}
    return datasets.zarr_buffer(path, contents, ends=ends, **options)


def retold(path, key, change):
    """A metadata file of a zarr folder, changed."""
    file = path / key
    value = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(change(value)), encoding="utf-8")


# -- zarr --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([30, 20, 55], "must increase, and episode 1 ends at 20 after 30"),
        ([20, 20, 55], "must increase"),
        ([20, 60], "episode 1 ends at 60, and the arrays have 55 rows"),
        ([20, 2**62], "ends at 4.61169e+18, and the arrays have 55 rows"),
        ([-2, 55], "episode 0 ends at -2"),
        (np.array([20, 2**64 - 1], np.uint64), "and the arrays have 55 rows"),
        ([20, np.nan], "the end of episode 1 is nan, not a whole number"),
        ([np.inf, 55], "the end of episode 0 is inf"),
        ([20.5, 55], "the end of episode 0 is 20.5"),
        (np.array([20, 55], complex), "is complex128"),
        ([[20, 55]], "one per episode"),
        ([20, 50], "the last episode ends at 50, and the arrays have 55 rows"),
        (np.arange(1, 56), "every one of 55 episodes would have a single step"),
        ([], "the dataset is empty"),
    ],
)
def test_episode_ends_that_cannot_be_are_named_and_the_rest_is_still_looked_at(tmp_path, arrays, ends, message):
    path = buffer(tmp_path / "a.zarr", arrays, ends=np.asarray(ends))
    with pytest.raises(DataError) as error:
        open_dataset(path)
    assert message in str(error.value) and str(path) in str(error.value)
    found = inspect_path(path)
    assert found.worst == "error" and any(message in text for text in found.problems)
    if len(ends):
        assert {key.name for key in found.keys} == {"pixels", "action", "agent_pos"}


def test_whole_numbers_that_are_stored_as_floats_are_ends(tmp_path, arrays):
    assert open_dataset(buffer(tmp_path / "a.zarr", arrays, ends=np.array([20.0, 55.0]))).ends.tolist() == [20, 55]


@pytest.mark.parametrize(
    "damage", ["object", "empty", "list", "null", "codec", "pickle", "shape", "dtype", "gone", "fifo"]
)
def test_one_array_that_cannot_be_opened_is_named_and_the_others_are_read(tmp_path, arrays, damage, capfd):
    path = buffer(tmp_path / "a.zarr", arrays, more={"extra": np.zeros((55, 2), np.float32) + 1})
    described = path / "data" / "extra" / ".zarray"
    if damage == "object":
        retold(path, "data/extra/.zarray", lambda v: v | {"dtype": "|O", "filters": None})
    elif damage in ("empty", "list", "null"):
        described.write_text({"empty": "", "list": "[1]", "null": "null"}[damage], encoding="utf-8")
    elif damage in ("codec", "pickle"):
        name = {"codec": "zippy", "pickle": "pickle"}[damage]
        retold(path, "data/extra/.zarray", lambda v: v | {"filters": [{"id": name}]})
    elif damage == "shape":
        retold(path, "data/extra/.zarray", lambda v: v | {"shape": [2**50, 2]})
    elif damage == "dtype":
        retold(path, "data/extra/.zarray", lambda v: v | {"dtype": "<f99"})
    else:
        described.unlink()
        if damage == "fifo":
            os.mkfifo(described)
    dataset = open_dataset(path)
    assert set(dataset.arrays) == {"pixels", "action", "agent_pos"}
    assert "extra" in " ".join(dataset.notes) and "data/extra" in dataset.left_out
    np.testing.assert_array_equal(dataset.arrays["action"], arrays["action"])
    assert "Traceback" not in capfd.readouterr().err
    retold(path, "data/action/.zarray", lambda v: v | {"dtype": "|O"})
    with pytest.raises(DataError, match=r"data/action cannot be read"):
        open_dataset(path)
    assert "data/action" in " ".join(inspect_path(path).problems)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.ones((55, 2), np.complex64), "data/action is complex64"),
        (np.full((55, 2), 2**62), "whole numbers up to 4611686018427387904"),
        (np.full((55, 2), 1e300), "'action' has NaN or infinity, first at step 0"),
        (np.array(["left"] * 55, "<U4"), "data/action"),
    ],
)
def test_actions_that_are_no_float32_are_refused_by_name(tmp_path, arrays, action, message):
    path = buffer(tmp_path / "a.zarr", {**arrays, "action": action})
    with pytest.raises(DataError, match=message):
        assert open_dataset(path).episodes
    assert inspect_path(path).worst == "error"


@pytest.mark.parametrize("compressor", ["blosc", "zstd", None])
def test_a_chunk_that_claims_more_than_its_array_is_never_unpacked(tmp_path, arrays, compressor):
    import numcodecs

    codec = {"blosc": numcodecs.Blosc(), "zstd": numcodecs.Zstd(), None: None}[compressor]
    path = buffer(tmp_path / "a.zarr", arrays, compressors=codec)
    chunk = path / "data" / "img" / "0.0.0.0"
    content = bytearray(chunk.read_bytes())
    if compressor == "blosc":
        content[4:8] = (2**31 - 1).to_bytes(4, "little")
    elif compressor == "zstd":  # a frame of its own with a size of 16 TiB
        content = bytearray(b"\x28\xb5\x2f\xfd\xe0" + (2**44).to_bytes(8, "little") + bytes(content[9:]))
    else:
        content += bytes(100)
    chunk.write_bytes(content)
    with pytest.raises(DataError, match=r"data/img is damaged: chunk 0\.0\.0\.0"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"control_hz": "10"}, "control_hz is '10'"),
        ({"control_hz": -1}, "control_hz is -1"),
        ({"control_hz": float("nan")}, "control_hz is nan"),
        ({"control_hz": True}, "control_hz is True"),
        ({"tasks": ["one"]}, "tasks has 1 entries for 2 episodes"),
        ({"tasks": [1, 2]}, "a list of texts was expected"),
    ],
)
def test_rates_and_tasks_that_cannot_be_meant_are_refused(tmp_path, arrays, attributes, message):
    path = buffer(tmp_path / "a.zarr", arrays, attributes=attributes)
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        open_dataset(path)
    found = inspect_path(path)
    assert message in " ".join(found.problems) and found.dataset.control_hz is None and found.dataset.tasks is None


def test_a_missing_chunk_costs_its_episodes_and_no_other(tmp_path, arrays):
    path = buffer(tmp_path / "a.zarr", arrays, ends=np.array([10, 30, 50, 55]))
    (path / "data" / "img" / "1.0.0.0").unlink()  # rows 16 to 31: episodes 1 and 2
    with pytest.raises(DataError, match=r"1 of 4 chunks are missing.*--episodes '!1-2'"):
        open_dataset(path)
    found = inspect_path(path)
    assert found.skip == (1, 2) and found.skip_option == "!1-2"
    dataset = open_dataset(path, episodes=found.skip_option)
    assert len(dataset) == 2 and dataset.numbers == (0, 3)
    kept = np.r_[0:10, 50:55]
    np.testing.assert_array_equal(np.asarray(dataset.arrays["pixels"]), arrays["pixels"][kept])
    with pytest.raises(DataError, match="missing"):
        np.asarray(open_dataset(path, lenient=True).arrays["pixels"][20])
    with pytest.raises(InputError, match="no episode 4"):
        open_dataset(path, episodes="4")


def test_nothing_outside_of_the_folder_is_opened(tmp_path, arrays):
    path = buffer(tmp_path / "in" / "a.zarr", arrays)
    chunk = path / "data" / "action" / "0.0"
    secret = tmp_path / "secret"
    shutil.move(chunk, secret)
    chunk.symlink_to(secret)
    with pytest.raises(DataError, match=r"a link to .*secret, outside the dataset's folder"):
        open_dataset(path)
    chunk.unlink()
    shutil.move(secret, chunk)
    whole = tmp_path / "whole"
    shutil.move(path / "data" / "action", whole)
    (path / "data" / "action").symlink_to(whole)
    with pytest.raises(DataError, match="outside the dataset's folder"):
        open_dataset(path)


def test_links_inside_a_download_of_the_hub_are_followed(tmp_path, arrays):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    datasets.robomimic(blobs / "0123", arrays)
    (snapshot / "a.hdf5").symlink_to(blobs / "0123")
    assert len(open_dataset(snapshot)) == 2


@pytest.mark.parametrize("damage", ["crc", "bomb", "encrypted flag", "cut", "text"])
def test_archives_that_are_damaged_or_mean_harm_are_refused(tmp_path, arrays, damage):
    path = buffer(tmp_path / "a.zarr.zip", arrays)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("data/action/0.0")
    if damage == "crc":
        content[entry.header_offset + 30 + len(entry.filename) + 40] ^= 1
    elif damage == "bomb":  # the central directory's size of what it unpacks to
        place = content.rindex(b"data/action/0.0") - 46
        content[place + 24 : place + 28] = (2**31).to_bytes(4, "little")
    elif damage == "encrypted flag":
        content[content.rindex(b"data/action/0.0") - 46 + 8] |= 1
    content = {"cut": content[: len(content) // 2], "text": b"hello"}.get(damage, content)
    path.write_bytes(content)
    with pytest.raises(DataError):
        open_dataset(path)


def test_what_is_no_file_and_no_folder_is_no_dataset(tmp_path):
    os.mkfifo(tmp_path / "a.hdf5")
    for odd in (tmp_path / "a.hdf5", tmp_path):
        with pytest.raises(DataError):
            open_dataset(odd)
    for odd in (None, 7, "x" * 5000):
        with pytest.raises(InputError):
            recognise(odd)


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 7]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**50, 7]}}},
        {"codecs": [{"name": "evil"}]},
        {"codecs": [{"name": "bytes"}]},
        {"shape": [2**60, 7]},
        {"node_type": None},
        {"fill_value": []},
    ],
)
def test_descriptions_of_zarr_3_that_cannot_be_are_refused_by_name(tmp_path, arrays, change):
    path = buffer(tmp_path / "a.zarr", arrays, zarr_format=3)
    retold(path, "data/action/zarr.json", lambda value: value | change)
    with pytest.raises(DataError, match="data/action"):
        open_dataset(path)


# -- hdf5 --------------------------------------------------------------------------------------------------------------


def changed(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(key, make):
    def change(file):
        shape, dtype = file[key].shape, file[key].dtype
        del file[key]
        make(file, key, shape, dtype)

    return change


def virtual(name):
    def make(file, key, shape, dtype):
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(name, "x", shape)
        file.create_virtual_dataset(key, layout)

    return make


UNREADABLE = {
    "never written": lambda f, k, s, d: f.create_dataset(k, s, d),
    "in part": lambda f, k, s, d: f.create_dataset(k, s, d, chunks=(5, *s[1:])).__setitem__(slice(0, 5), 1),
    "filled": lambda f, k, s, d: f.create_dataset(k, s, d, chunks=(5, *s[1:]), fillvalue=1),
    "virtual, no source": virtual("nowhere.hdf5"),
    "virtual, outside": virtual("/etc/hostname"),
    "raw storage": lambda f, k, s, d: f.create_dataset(k, s, d, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
    "external link": lambda f, k, s, d: f.__setitem__(k, h5py.ExternalLink("/etc/hostname", "/x")),
    "dangling": lambda f, k, s, d: f.__setitem__(k, h5py.SoftLink("/nowhere")),
    "circle": lambda f, k, s, d: f.__setitem__(k, h5py.SoftLink(f"/{k}")),
    "text": lambda f, k, s, d: f.__setitem__(k, np.array([b"x"] * s[0])),
    "other lengths": lambda f, k, s, d: f.create_dataset(k, (s[0],), h5py.vlen_dtype(np.float32)),
    "complex": lambda f, k, s, d: f.__setitem__(k, np.ones(s, np.complex64)),
    "scalar": lambda f, k, s, d: f.__setitem__(k, 3.0),
    "group": lambda f, k, s, d: f.create_group(k),
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_actions_of_one_demonstration_that_are_not_there_cost_that_episode(tmp_path, arrays, damage):
    path = changed(
        datasets.robomimic(tmp_path / "a.hdf5", arrays), replaced("data/demo_10/actions", UNREADABLE[damage])
    )
    with pytest.raises(DataError, match=r"demo_10.*--episodes '!1'"):
        open_dataset(path)
    assert inspect_path(path).skip_option == "!1"
    dataset = open_dataset(path, episodes="!1")
    np.testing.assert_allclose(dataset.arrays["action"], arrays["action"][:20])
    np.testing.assert_array_equal(np.asarray(dataset.arrays["pixels"]), arrays["pixels"][:20])


@pytest.mark.parametrize("damage", ["never written", "in part", "raw storage", "external link"])
def test_pictures_of_every_demonstration_that_are_not_there_are_refused(tmp_path, arrays, damage):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    for name in ("demo_2", "demo_10"):
        changed(path, replaced(f"data/{name}/obs/sideview_image", UNREADABLE[damage]))
    with pytest.raises(DataError, match="sideview_image"):
        open_dataset(path)
    assert inspect_path(path).worst == "error"


def test_links_and_virtual_datasets_inside_of_the_folder_are_read(tmp_path, arrays):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    with h5py.File(tmp_path / "part.h5", "w") as other:
        other["x"] = arrays["action"][20:].astype(np.float64)
    changed(path, replaced("data/demo_10/actions", virtual("part.h5")))
    np.testing.assert_allclose(open_dataset(path).arrays["action"], arrays["action"])
    link = h5py.ExternalLink("part.h5", "/x")
    changed(path, replaced("data/demo_10/actions", lambda f, k, s, d: f.__setitem__(k, link)))
    np.testing.assert_allclose(open_dataset(path).arrays["action"], arrays["action"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is no JSON"),
        (3, "is no JSON object"),
        ("[1]", "is no JSON object"),
        ('{"env_kwargs": 3}', "env_kwargs that are no JSON object"),
        ('{"env_kwargs": {"control_freq": 0}}', "control_freq is 0"),
        ('{"env_kwargs": {"control_freq": NaN}}', "control_freq is nan"),
        ('{"env_kwargs": {"control_freq": true}}', "control_freq is True"),
        ('{"env_kwargs": {"control_freq": "20"}}', "control_freq is '20'"),
    ],
)
def test_arguments_of_the_environment_that_cannot_be_meant_are_refused(tmp_path, arrays, value, message):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    changed(path, lambda file: file["data"].attrs.__setitem__("env_args", value))
    with pytest.raises(DataError, match=message):
        open_dataset(path)


def test_a_camera_that_is_stored_otherwise_in_one_demonstration_is_named(tmp_path, arrays):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    alpha = lambda f, k, s, d: f.__setitem__(k, np.full((*s[:3], 4), 255, np.uint8))  # noqa: E731
    changed(path, replaced("data/demo_10/obs/sideview_image", alpha))
    dataset = open_dataset(path)
    assert "obs/sideview_image of demo_10 are not stored as those of demo_2" in dataset.left_out["obs/sideview_image"]
    assert "pixels" not in dataset.arrays  # another camera in its place would look like it


def test_a_file_that_is_being_written_is_not_called_damaged(tmp_path, arrays):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with h5py.File(path, "r+"):
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(DataError) as error:
            open_dataset(path)
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
    assert "open for writing in another program" in str(error.value) and "damaged" not in str(error.value)
    with h5py.File(tmp_path / "b.hdf5", "w", libver="latest") as writer:
        writer["a"] = 1
        writer.swmr_mode = True
        shutil.copy(tmp_path / "b.hdf5", tmp_path / "c.hdf5")
    with pytest.raises(DataError, match=r"ended without closing it.*h5clear"):
        open_dataset(tmp_path / "c.hdf5")


def test_a_file_that_may_not_be_read_is_the_machine_s_fault(tmp_path, arrays, monkeypatch):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    access = os.access  # root may read everything
    monkeypatch.setattr(os, "access", lambda p, mode: os.fspath(p) != str(path) and access(p, mode))
    with pytest.raises(MachineError, match=r"may not be read: change its rights"):
        open_dataset(path)


def test_counts_that_do_not_agree_are_said(tmp_path, arrays):
    path = datasets.robomimic(tmp_path / "a.hdf5", arrays)
    changed(path, lambda file: file["data"].attrs.__setitem__("total", 70))
    changed(path, lambda file: file["data/demo_2"].attrs.__setitem__("num_samples", 25))
    said = " ".join(open_dataset(path).notes)
    assert "has 55: are demonstrations missing?" in said and "demo_2 says it has 25 steps, and has 20" in said
    assert inspect_path(path).worst == "warn"


# -- Minari ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """The dataset with JPEG pictures."""
    pytest.importorskip("minari", reason="written by Minari itself: pip install minari")
    folder = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        return datasets.minari(folder, datasets.recording(16), jpeg=True)


@pytest.mark.parametrize(
    "value", [b"null", b"[]", b"{", b"", b"\xff", b'{"total_episodes": "2"}', b'{"observation_space": 3}']
)
def test_minari_metadata_that_cannot_be_meant_are_refused(tmp_path, films, value):
    path = tmp_path / "a"
    shutil.copytree(films, path)
    (path / "data" / "metadata.json").write_bytes(value)
    with pytest.raises(DataError, match=r"metadata\.json"):
        open_dataset(path)


@pytest.mark.parametrize("damage", ["cut", "empty", "other size"])
def test_a_picture_of_minari_that_cannot_be_decoded_costs_its_episode(tmp_path, films, damage):
    import io

    from PIL import Image

    def change(file):
        pictures = file["episode_1/observations/pixels"]
        other = io.BytesIO()
        Image.new("RGB", (8, 8)).save(other, "JPEG")
        content = {
            "cut": pictures[3][:300],
            "empty": pictures[3][:0],
            "other size": np.frombuffer(other.getvalue(), np.uint8),
        }
        pictures[3] = content[damage]

    path = tmp_path / "a"
    shutil.copytree(films, path)
    changed(path / "data" / "main_data.hdf5", change)
    dataset = open_dataset(path)
    with pytest.raises(DataError, match="row 3"):
        np.asarray(dataset.arrays["pixels"])
    assert inspect_path(path, every_frame=True).skip_option == "!1"
    assert np.asarray(open_dataset(path, episodes="0").arrays["pixels"]).shape == (20, 16, 16, 3)


# -- memory, rights, locale --------------------------------------------------------------------------------------------


def test_numbers_that_do_not_fit_are_refused_before_they_are_read(tmp_path, arrays, monkeypatch):
    path = buffer(tmp_path / "a.zarr", arrays)
    monkeypatch.setattr("uva_agents.utils.memory.available_memory", lambda: 100)
    with pytest.raises(MachineError, match=r"action says it has 1\.5 KB, and 100 bytes of memory are free"):
        open_dataset(path)


def test_every_text_is_read_and_written_as_utf_8():
    from pathlib import Path

    import uva_agents.data
    import uva_agents.training

    for package in (uva_agents.data, uva_agents.training):
        for file in Path(package.__file__).parent.rglob("*.py"):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                for call in (".read_text(", ".write_text("):
                    plain = call in line and "encoding=" not in line and "def " not in line
                    assert not plain, f"{file}:{number} reads or writes text in whatever the locale says"


def test_a_dataset_in_a_folder_that_cannot_be_written_is_read(tmp_path, arrays):
    paths = [buffer(tmp_path / "a.zarr", arrays), datasets.robomimic(tmp_path / "a.hdf5", arrays)]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for path in paths:
        np.asarray(open_dataset(path).arrays["pixels"])
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
