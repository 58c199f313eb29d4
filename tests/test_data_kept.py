"""Conversions keep what is stored, and what lies beside them; what they cannot keep they name."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from uva_agents.cli import main
from uva_agents.data import convert_dataset, open_dataset
from uva_agents.data.fields import Field
from uva_agents.data.inspect import inspect_path
from uva_agents.errors import DataError, InputError

N = 8


def _buffer(path: Path, **more: np.ndarray) -> Path:
    """Two episodes of four steps."""
    rng = np.random.default_rng(0)
    root = zarr.open_group(str(path), mode="w")
    with zarr.config.set({"array.write_empty_chunks": True}):
        data = root.create_group("data")
        arrays = {
            "img": rng.integers(0, 255, (N, 16, 16, 3)).astype(np.uint8),
            "action": rng.normal(size=(N, 2)).astype(np.float32),
            "agent_pos": rng.normal(size=(N, 2)).astype(np.float32),
        }
        for name, value in {**arrays, **more}.items():
            data.create_array(name, data=value)
        root.create_group("meta").create_array("episode_ends", data=np.array([4, N]))
    return path


def test_a_conversion_leaves_what_lies_beside_its_target_alone(tmp_path):
    source, out = _buffer(tmp_path / "in.zarr"), tmp_path / "out"
    for name in ("out.partial", "out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    for _ in range(2):
        convert_dataset(open_dataset(source), out, "zarr", force=True)
    with pytest.raises(ValueError, match="which LeRobot needs"):
        convert_dataset(open_dataset(source), out, "lerobot", force=True)
    assert [(tmp_path / name / "mine").read_text() for name in ("out.partial", "out.old")] == ["mine", "mine"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zarr", "out", "out.old", "out.partial"]
    assert len(open_dataset(out)) == 2


@pytest.mark.parametrize(
    "times",
    [
        1.67e9 + np.arange(N) * 0.1,
        1e8 + np.arange(N) * 0.1,
        1000 + np.arange(N) * 1e-6,
        np.repeat([1.6e9, 1.7e9], 4) + np.arange(N) * 0.1,  # a day's pause has a reach that float32 keeps
    ],
)
def test_floats_whose_steps_float32_would_lose_are_left_out_and_an_error_in_actions(tmp_path, times):
    dataset = open_dataset(_buffer(tmp_path / "in.zarr", stamp=times))
    assert "stamp" not in dataset.arrays and "float32 rounds them" in dataset.left_out["stamp"]
    with pytest.raises(ValueError, match=r"'action' has numbers up to .* subtract an offset"):
        open_dataset(tmp_path / "in.zarr", fields={"action": "stamp"})


@pytest.mark.parametrize(
    "numbers",
    [
        np.random.default_rng(0).normal(size=(N, 3)),
        np.full(N, 1.67e9 + 0.1),  # says nothing, so nothing is lost
        np.where(np.arange(N) < 4, 0.8, 0.3) + np.random.default_rng(0).normal(size=N) * 1e-10,  # at rest, twice
        np.array([np.nan, np.inf, 1e300, 0.5, 0.25, 0.1, 0.3, 0.7]),
        180 * np.random.default_rng(0).normal(size=N),
    ],
)
def test_floats_that_move_as_before_in_float32_are_kept(tmp_path, numbers):
    assert "more" in open_dataset(_buffer(tmp_path / "in.zarr", more=numbers)).arrays


def _demonstrations(path: Path, *, libero: bool = False) -> Path:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if libero:
            data.attrs["bddl_file_name"] = "x.bddl"
        demo = data.create_group("demo_0")
        demo["actions"] = np.random.default_rng(0).normal(size=(4, 7))
        demo["obs/agentview_rgb"] = np.random.default_rng(1).integers(0, 255, (4, 16, 16, 3)).astype(np.uint8)
    return path


@pytest.mark.parametrize("first", [True, False])
def test_files_of_which_only_some_are_stored_upside_down_are_not_opened_together(tmp_path, first):
    _demonstrations(tmp_path / "both" / "a.hdf5", libero=first)
    _demonstrations(tmp_path / "both" / "b.hdf5", libero=not first)
    libero, other = ("a", "b") if first else ("b", "a")
    with pytest.raises(ValueError, match=rf"{libero}.hdf5 is LIBERO's.* {other}.hdf5 does not say"):
        open_dataset(tmp_path / "both")


def test_links_to_demonstrations_outside_of_the_folder_are_not_opened(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.hdf5").symlink_to(_demonstrations(tmp_path / "out" / "a.hdf5"))
    with pytest.raises(ValueError, match=r"a.hdf5 is a link to .*, outside the dataset's folder"):
        open_dataset(tmp_path / "in")
    assert len(open_dataset(tmp_path / "in" / "a.hdf5")) == 1  # named by the user


def test_no_wrist_camera_of_lerobot_stands_for_the_scene_while_there_is_another(tmp_path):
    side = np.random.default_rng(0).integers(0, 255, (N, 16, 16, 3)).astype(np.uint8)
    convert_dataset(
        open_dataset(_buffer(tmp_path / "in.zarr", left_wrist=side, right_wrist=side)),
        tmp_path / "out",
        "lerobot",
        control_hz=10,
        cameras={f"pixels_{s}_wrist": f"observation.images.{s}_wrist" for s in ("left", "right")},
    )
    info = tmp_path / "out" / "meta" / "info.json"
    said = json.loads(info.read_text())
    said["features"] = dict(sorted(said["features"].items(), key=lambda item: "wrist" not in item[0]))
    info.write_text(json.dumps(said))
    found = open_dataset(tmp_path / "out").sources
    assert [name for name in found if name.startswith("pixels")] == [
        "pixels",
        "pixels_left_wrist",
        "pixels_right_wrist",
    ]
    assert "wrist" not in found["pixels"]


def _described(path: Path) -> Path:
    root = zarr.open_group(str(_buffer(path)), mode="r+")
    root.attrs.update({"control_hz": 10, "tasks": ["a", "b"], "env": "uva/PushT-v0", "camera": {"fx": 3}})
    meta = root["meta"]
    meta.create_array("success", data=np.array([1, 0]))
    meta.create_array("bins", data=np.arange(5.0))
    return path


def test_a_buffer_keeps_its_attributes_and_what_it_says_of_episodes(tmp_path):
    out = tmp_path / "out.zarr"
    assert convert_dataset(open_dataset(_described(tmp_path / "in.zarr"), episodes=[1]), out, "zarr") == ()
    root = zarr.open_group(str(out), mode="r")
    assert dict(root.attrs) == {
        "control_hz": 10,
        "tasks": ["b"],
        "env": "uva/PushT-v0",
        "camera": {"fx": 3},
        "converted_from": "zarr",
    }
    assert root["meta/success"][:].tolist() == [0] and root["meta/bins"][:].tolist() == [0, 1, 2, 3, 4]


def test_what_a_conversion_has_no_place_for_is_status_1_until_it_is_named(tmp_path, capsys):
    given = [
        "data",
        "convert",
        str(_described(tmp_path / "in.zarr")),
        str(tmp_path / "out"),
        "--to",
        "lerobot",
        "--quiet",
    ]
    assert main(given) == 1
    said = capsys.readouterr().err
    for key in ("attributes/env", "attributes/camera", "meta/success", "meta/bins"):
        assert f"{key} (nothing to hold it in lerobot)" in said
    assert (
        main([*given, "--force", "--skip", "env", "--skip", "camera", "--skip", "meta/success", "--skip", "bins"]) == 0
    )
    root = zarr.open_group(str(tmp_path / "in.zarr"), mode="r+")
    root["data/action"].attrs["unit"] = "m"
    root.create_group("extra")
    found = convert_dataset(open_dataset(tmp_path / "in.zarr"), tmp_path / "out.zarr", "zarr")
    assert sorted(found) == ["data/action/attributes", "extra"]


def test_a_converted_recording_opens_with_the_arrays_rate_and_tasks_that_it_was_written_from(tmp_path):
    rng = np.random.default_rng(1)
    side = rng.integers(0, 255, (N, 16, 16, 3)).astype(np.uint8)
    poses = {f"robot0_{name}": rng.normal(size=(N, 3)) for name in ("eef_pos", "eef_rot_axis_angle")}
    umi = _buffer(tmp_path / "in.zarr", camera0_rgb=side, robot0_gripper_width=rng.random((N, 1)), **poses)
    source = open_dataset(umi)
    assert (source.format, source.control_hz, source.control_hz_assumed) == ("umi", 59.94, True)
    convert_dataset(source, tmp_path / "out.zarr", "zarr", control_hz=20, task="fold")
    for path, format in ((tmp_path / "out.zarr", None), (umi, "umi")):
        if format:
            zarr.open_group(str(umi), mode="r+").attrs.update({"control_hz": 20, "tasks": ["fold", "fold"]})
        found = open_dataset(path, format=format)
        assert (found.control_hz, found.tasks, found.control_hz_assumed) == (20, ("fold", "fold"), False)
        assert set(found.arrays) == set(source.arrays)
        for name, value in source.arrays.items():
            np.testing.assert_array_equal(np.asarray(found.arrays[name]), np.asarray(value), name)


def test_pictures_and_numbers_of_the_same_name_do_not_replace_each_other(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 255, (N, 16, 16, 3)).astype(np.uint8)
    source = _buffer(tmp_path / "in.zarr", pixels=pictures)
    root = zarr.open_group(str(source), mode="r+")
    del root["data/img"]
    root["data"].create_array("img", data=np.arange(5.0 * N, dtype=np.float32).reshape(N, 5))
    opened = open_dataset(source)
    assert "data/img" in opened.left_out or "img" in opened.left_out  # a camera's name, and no picture
    convert_dataset(opened, tmp_path / "out.zarr", "zarr")
    found = open_dataset(tmp_path / "out.zarr").arrays
    np.testing.assert_array_equal(np.asarray(found["pixels"]), pictures)


def test_masks_and_arguments_of_demonstrations_are_kept_or_named(tmp_path):
    path = _demonstrations(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs.update({"env_args": '{"env_name": "Lift"}', "total": 8})
        file.copy("data/demo_0", "data/demo_1")
        file["data/demo_1"].attrs.update({"num_samples": 4, "model_file": "<x/>"})
        file["mask/valid"] = np.array([b"demo_1"])
    lost = convert_dataset(open_dataset(path), tmp_path / "out.zarr", "zarr")
    assert lost == ("data/demo_N/attributes",)
    root = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")
    assert root.attrs["env_args"] == '{"env_name": "Lift"}' and "total" not in root.attrs
    assert root["meta/mask_valid"][:].tolist() == [False, True]
    lost = convert_dataset(open_dataset(path), tmp_path / "out", "lerobot", control_hz=20)
    assert set(lost) == {"attributes/env_args", "meta/mask_valid", "data/demo_N/attributes"}


def test_a_rate_that_contradicts_the_data_is_refused(tmp_path):
    dataset = open_dataset(_described(tmp_path / "in.zarr"))
    for to in ("zarr", "lerobot"):
        with pytest.raises(InputError, match=r"says 10 steps per second, and --hz says 20"):
            convert_dataset(dataset, tmp_path / "out", to, control_hz=20)
    convert_dataset(dataset, tmp_path / "out", "zarr", control_hz=10)
    said = replace(dataset, control_hz=10.5)  # of which LeRobot takes a whole number
    convert_dataset(said, tmp_path / "lerobot", "lerobot", control_hz=11)
    assert open_dataset(tmp_path / "lerobot").control_hz == 11


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"pixels": Field(("img", "img"))}, r"'pixels' is a camera and takes the pictures of one stored key"),
        ({"pixels": Field("img", columns=(0,))}, r"'pixels' is a camera .* not columns"),
        (
            {"action": Field("action", columns=slice(5, 9))},
            r"columns slice\(5, 9, None\) are not all there: action has 2",
        ),
        ({"action": Field("action", columns=slice(1, 9))}, r"are not all there"),
        ({"action": Field("action", columns=slice(1, 1))}, r"are not all there"),
        ({"action": Field("action", columns=(0, 2))}, r"columns \(0, 2\) are not all there"),
        ({"action": Field("action", columns=())}, r"are not all there"),
        ({"action": ""}, r"lacks a name"),
        ({"action": Field(())}, r"lacks a name"),
        ({"": "action"}, r"lacks a name"),
    ],
)
def test_fields_that_mean_nothing_are_refused_by_name(tmp_path, fields, why):
    with pytest.raises(ValueError, match=why):
        open_dataset(_buffer(tmp_path / "in.zarr"), fields=fields)


def test_columns_from_the_end_are_taken(tmp_path):
    source = open_dataset(_buffer(tmp_path / "in.zarr"))
    for columns in (slice(-1, None), (-1,), slice(1, 2)):
        found = open_dataset(source.path, fields={"action": Field("action", columns=columns)})
        np.testing.assert_array_equal(found.arrays["action"], source.arrays["action"][:, 1:])


@pytest.mark.parametrize(("format", "why"), [("minari", "main_data"), ("hdf5", "no file .hdf5"), ("video", "no video")])
def test_another_format_than_the_path_holds_is_refused_by_name(tmp_path, format, why):
    with pytest.raises(DataError, match=why):
        open_dataset(_buffer(tmp_path / "in.zarr"), format=format)


def test_a_file_in_which_every_demonstration_is_bad_is_looked_at(tmp_path):
    path = _demonstrations(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = np.zeros((3, 2))
    found = inspect_path(path)
    assert found.worst == "error" and found.skip == (0,) and found.lengths.tolist() == [0]


def test_a_buffer_with_cameras_of_no_known_name_takes_one_that_is_on_no_wrist(tmp_path):
    side = np.random.default_rng(0).integers(0, 255, (N, 16, 16, 3)).astype(np.uint8)
    path = _buffer(tmp_path / "in.zarr", a_wrist=side, scene=side, z_wrist=side)
    del zarr.open_group(str(path), mode="r+")["data/img"]
    assert open_dataset(path).sources["pixels"] == "scene"
