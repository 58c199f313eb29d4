"""Pictures in every layout that datasets store: converted and said where one reading is possible, refused by name where not."""

import re

import numpy as np
import pytest

from tests import datasets
from uva_agents.cli import main
from uva_agents.data import open_dataset
from uva_agents.data.picture_layouts import picture_layout
from uva_agents.data.selection import format_episodes, parse_episodes
from uva_agents.errors import DataError, InputError

pytest.importorskip("h5py", reason="hdf5 needs h5py: pip install 'uva-agents[data]'")


@pytest.fixture(scope="module")
def arrays():
    return datasets.recording()


def alpha(pixels, value=255):
    return np.concatenate([pixels, np.full_like(pixels[..., :1], value)], -1)


STORED = {
    "channels first": (lambda p: np.moveaxis(p, -1, 1), "channels come first"),
    "alpha": (alpha, "alpha channel"),
    "alpha first": (lambda p: np.moveaxis(alpha(p), -1, 1), "channels come first, put last here; has an alpha"),
    "grey": (lambda p: p[..., 0], "grey"),
    "grey with an axis": (lambda p: p[..., :1], "grey"),
    "grey first": (lambda p: p[..., 0][:, None], "grey"),
    "float of one": (lambda p: (p / 255).astype(np.float32), r"numbers in \[0, 1\]"),
    "float of 255": (lambda p: p.astype(np.float64), r"numbers in \[0, 255\]"),
    "half floats first": (lambda p: np.moveaxis((p / 255).astype(np.float16), -1, 1), r"first.*numbers in \[0, 1\]"),
    "long numbers": (lambda p: p.astype(np.int64), r"numbers in \[0, 255\]"),
}
REFUSED = {
    "two axes of three": (lambda p: p[:, :3], "could have their channels first or last"),
    "six channels": (lambda p: np.concatenate([p, p], -1), "no axis of 1, 3 or 4 channels"),
    "symmetric floats": (lambda p: (p / 127.5 - 1).astype(np.float32), r"\[0, 1\] or \[0, 255\], got \[-"),
    "depth": (lambda p: (p[..., :1] / 100).astype(np.float32), "may be depth"),
    "metres": (lambda p: (p / 100).astype(np.float32), "no picture in"),
    "black and white": (lambda p: (p > 127).astype(np.float32), "white is 1 or 255"),
    "NaN": (lambda p: np.where(p == p[0, 0, 0, 0], np.nan, p / 255).astype(np.float32), "NaN"),
    "transparent": (lambda p: alpha(p, 254), "transparent"),
    "sixteen bits": (lambda p: p.astype(np.uint16) * 257, r"got \[\d+, \d{5}\]"),
    "no pixel": (lambda p: p[:, :0], "have no pixel"),
    "mixed scales": (lambda p: np.where(np.arange(55)[:, None, None, None] < 30, p, p / 255), "some in"),
}


def stored(kind, path, arrays, pixels):
    """A dataset of one camera beside actions, as zarr or hdf5."""
    if kind == "zarr":
        attributes = {"control_hz": 10}
        return datasets.zarr_buffer(path / "a.zarr", {"img": pixels, "action": arrays["action"]}, attributes=attributes)
    import h5py

    with h5py.File(path / "a.hdf5", "w") as file:
        for number, piece in enumerate(datasets.pieces({"image": pixels, "actions": arrays["action"]})):
            file[f"data/demo_{number}/actions"] = piece["actions"]
            file[f"data/demo_{number}/obs/image"] = piece["image"]
    return path / "a.hdf5"


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
@pytest.mark.parametrize("name", STORED)
def test_other_layouts_are_converted_and_that_is_said(tmp_path, arrays, kind, name):
    make, note = STORED[name]
    wanted = np.repeat(arrays["pixels"][..., :1], 3, -1) if "grey" in name else arrays["pixels"]
    dataset = open_dataset(stored(kind, tmp_path, arrays, make(arrays["pixels"])))
    assert dataset.arrays["pixels"].shape == wanted.shape and not dataset.left_out
    tolerance = 1 if "half" in name else 0
    assert np.abs(np.asarray(dataset.arrays["pixels"]).astype(int) - wanted).max() <= tolerance
    assert re.search(note, " ".join(dataset.notes))


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
@pytest.mark.parametrize("name", REFUSED)
def test_pictures_that_could_be_read_in_two_ways_are_refused_by_name(tmp_path, arrays, kind, name):
    make, why = REFUSED[name]
    dataset = open_dataset(stored(kind, tmp_path, arrays, make(arrays["pixels"])))
    assert not dataset.cameras and len(dataset.left_out) == 1
    key, said = next(iter(dataset.left_out.items()))
    assert re.search(why, said) and any(key in note and said in note for note in dataset.notes)
    with pytest.raises(DataError, match=f"wanted as 'pixels'.*{why}"):
        open_dataset(dataset.path, fields={"pixels": key.removeprefix("data/")})


def test_numbers_are_no_pictures():
    def never(rows):
        raise AssertionError("numbers are not looked at")

    for shape in ((9, 4, 4), (9, 3, 3), (9, 21, 2), (9, 2, 3, 3), (9, 7), (9,), (9, 5, 5, 4), (9, 50, 50)):
        assert picture_layout(shape, np.dtype(np.float32), never, "x") is None
    assert picture_layout((9, 8, 8), np.dtype(np.uint8), never, "x") is None
    for shape in ((9, 16, 16, 3), (9, 10, 21, 3), (9, 3, 47, 47), (9, 16, 16, 1)):
        assert picture_layout(shape, np.dtype(np.float32), never, "a.zarr/data/tactile") is None


def test_small_numbers_are_pictures_where_somebody_says_so(tmp_path, arrays):
    small = arrays["pixels"].astype(np.float32) / 255
    contents = {"img": arrays["pixels"], "action": arrays["action"], "touch": small}
    path = datasets.zarr_buffer(tmp_path / "a.zarr", contents)
    np.testing.assert_array_equal(open_dataset(path).arrays["touch"], small)
    dataset = open_dataset(path, fields={"pixels_touch": "touch"})
    np.testing.assert_array_equal(np.asarray(dataset.arrays["pixels_touch"]), arrays["pixels"])


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_cameras_that_are_no_pictures_are_named(tmp_path, arrays, kind):
    for number, pixels in enumerate((arrays["pixels"][:, None], arrays["pixels"].reshape(55, -1))):
        (tmp_path / str(number)).mkdir()
        path = stored(kind, tmp_path / str(number), arrays, pixels)
        if kind == "hdf5" and number:
            import h5py

            with h5py.File(path, "r+") as file:
                for demo in file["data"].values():
                    demo["obs"].move("image", "agentview_image")
        dataset = open_dataset(path)
        assert set(dataset.arrays) == {"action"} and len(dataset.left_out) == 1


def test_rows_that_break_the_promise_of_those_before_are_errors_when_they_are_read(tmp_path, arrays):
    pixels = (arrays["pixels"] / 255).astype(np.float32)
    pixels[1] *= 255  # among the few rows that opening does not look at
    frames = open_dataset(stored("zarr", tmp_path, arrays, pixels)).arrays["pixels"]
    assert frames[5:9].shape == (4, 32, 32, 3)
    with pytest.raises(DataError, match="bring them to one scale"):
        np.asarray(frames)


def test_demonstrations_in_different_layouts_are_refused_by_name(tmp_path, arrays):
    import h5py

    path = stored("hdf5", tmp_path, arrays, arrays["pixels"])
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/obs/image"]
        file["data/demo_1/obs/image"] = alpha(arrays["pixels"])[20:]
    dataset = open_dataset(path)
    assert "obs/image of demo_1 are not stored as those of demo_0" in dataset.left_out["obs/image"]
    assert set(dataset.arrays) == {"action"}


def test_a_conversion_that_leaves_something_out_says_so_and_does_not_succeed_unless_told(tmp_path, arrays, capsys):
    contents = {"img": arrays["pixels"], "depth": np.ones((55, 32, 32, 1), np.float32), "action": arrays["action"]}
    path = str(datasets.zarr_buffer(tmp_path / "a.zarr", contents))

    def convert(*options):
        out = str(tmp_path / "out.zarr")
        status = main(["data", "convert", path, out, "--to", "zarr", "--quiet", "--force", *options])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    status, said = convert()
    assert status == 1 and "left out data/depth" in said and "--skip data/depth" in said
    assert set(open_dataset(tmp_path / "out.zarr").arrays) == {"pixels", "action"}  # what can be converted, was
    for options in (["--skip"], ["--skip", "depth"], ["--skip", "data/depth"]):
        assert convert(*options)[0] == 0
    status, said = convert("--skip", "dept")
    assert status == 2 and "no array 'dept'" in said and "depth" in said
    assert convert("--skip", "--skip", "action")[0] == 0
    assert set(open_dataset(tmp_path / "out.zarr").arrays) == {"pixels"}
    assert main(["data", "inspect", path, "--sheet", str(tmp_path / "a.png")]) in (0, 1)
    assert "left out data/depth" in capsys.readouterr().out


def test_some_episodes_are_chosen_in_words():
    for text, wanted in {
        "0": [0],
        "0-2,5": [0, 1, 2, 5],
        " 5 , 1-1": [1, 5],
        "!3,8": [0, 1, 2, 4, 5, 6, 7, 9],
        "!0-8": [9],
        "2,2,1-2": [1, 2],
    }.items():
        found = parse_episodes(text, 10)
        assert found.tolist() == wanted
        assert parse_episodes(format_episodes(found), 10).tolist() == wanted
        rest = sorted(set(range(10)) - set(wanted))
        assert parse_episodes(format_episodes(rest, others=True), 10).tolist() == wanted
    assert format_episodes([4, 0, 1, 2, 4]) == "0-2,4" and format_episodes([]) == ""
    for text, why in {
        "": "no number",
        "x": "'x' is no number",
        "1-": "no number",
        "-1": "no number",
        "3-1": "ends before",
        "10": "no episode 10; the dataset has 10",
        "0-99999999999": "no episode",
        "!0-9": "leaves none",
        "!": "no number",
        "1.5": "no number",
        "1,,2": "no number",
        "\u0663": "no number",
    }.items():
        with pytest.raises(InputError, match=why):
            parse_episodes(text, 10)


def test_a_conversion_of_some_episodes(tmp_path, arrays, capsys):
    contents = {"img": arrays["pixels"], "action": arrays["action"]}
    path = datasets.zarr_buffer(tmp_path / "a.zarr", contents, attributes={"tasks": list(datasets.TASKS)})
    command = ["data", "convert", str(path), str(tmp_path / "b.zarr"), "--to", "zarr", "--quiet", "--episodes"]
    assert main([*command, "2"]) == 2 and "no episode 2" in capsys.readouterr().err
    assert main([*command, "!0"]) == 0
    found = open_dataset(tmp_path / "b.zarr")
    assert found.ends.tolist() == [35] and found.tasks == datasets.TASKS[1:]
    np.testing.assert_array_equal(found.arrays["action"], arrays["action"][20:])
    np.testing.assert_array_equal(np.asarray(found.arrays["pixels"]), arrays["pixels"][20:])
