"""Damaged copies of every format without video: an error of ours, or exactly what was stored, or what is missing is said."""

import shutil
import warnings

import numpy as np
import pytest

from tests import damage, datasets
from uva_agents.data import open_dataset, write_replay_buffer_by_episode
from uva_agents.data.checksums import write_sums
from uva_agents.errors import UVAError

pytest.importorskip("h5py", reason="hdf5 needs h5py: pip install 'uva-agents[data]'")

CHECKED = ("umi zip", "ours")
KINDS = ("ours", "zarr2", "zarr3", "zarr2 blosc", "umi zip", "robomimic", "robomimic chunked", "libero", "minari")


def arrays():
    return datasets.recording(16)


def write(kind, folder, monkeypatch):
    """A small valid dataset of this kind."""
    found = arrays()
    numbers = {name: value for name, value in found.items() if name != "pixels"}
    attributes = {"control_hz": datasets.HZ, "tasks": list(datasets.TASKS)}
    reward = {"reward": np.linspace(0.1, 1, datasets.STEPS, dtype=np.float32)}
    if kind.startswith("zarr"):
        options = {}
        if "blosc" in kind:
            import numcodecs

            options["compressors"] = numcodecs.Blosc("zstd")
        contents = {"img": found["pixels"], **numbers, **reward}
        version = 3 if "3" in kind else 2
        path = folder / "a.zarr"
        return datasets.zarr_buffer(path, contents, zarr_format=version, attributes=attributes, **options)
    if kind == "ours":
        contents = {"img": found["pixels"], **numbers, **reward}
        episodes = datasets.pieces(contents)
        attributes = {"control_hz": datasets.HZ}
        write_replay_buffer_by_episode(folder / "a.zarr", episodes, attributes=attributes)
        return folder / "a.zarr"
    if kind == "umi zip":
        poses = {
            "robot0_eef_pos": found["agent_pos"][:, :3],
            "robot0_eef_rot_axis_angle": found["agent_pos"][:, 3:6],
            "robot0_gripper_width": found["agent_pos"][:, 6:7],
        }
        return datasets.zarr_buffer(folder / "a.zarr.zip", {"camera0_rgb": found["pixels"], **poses, **reward})
    if kind == "minari":
        pytest.importorskip("minari", reason="written by Minari itself: pip install minari")
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
        return datasets.minari(folder, found)
    import h5py

    path = datasets.robomimic(folder / "a.hdf5", found, libero=kind == "libero")
    if "chunked" in kind:
        rewrite_chunked(path)
    with h5py.File(path, "r+") as file:
        file["data"].attrs["total"] = datasets.STEPS  # as robomimic and LIBERO have it
    return path


def rewrite_chunked(path):
    """With chunks, compression and HDF5's own checksums."""
    import h5py

    with h5py.File(path, "r+") as file:
        every = []
        file.visititems(lambda name, item: every.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in every:
            value = file[name][()]
            del file[name]
            options = dict(chunks=(8, *value.shape[1:]), compression="gzip", fletcher32=True)
            file.create_dataset(name, data=value, **options)


def hdf5_damage(path, rng):
    """A dataset, group or attribute of an hdf5 file removed, cut, retyped or never written."""
    import h5py

    files = [file for file in damage.files_of(path) if file.suffix == ".hdf5"]
    if not files:
        return None
    with h5py.File(files[0], "r+") as file:
        items = []
        file.visititems(lambda name, item: items.append(name))
        attributes = [(name, key) for name in ["/", *items] for key in file[name].attrs]
        if rng.random() < 0.4 and attributes:
            name, key = rng.choice(attributes)
            if rng.random() < 0.4:
                del file[name].attrs[key]
                return damage.Damage("attribute", f"{name}@{key}", "removed")
            odd = rng.choice([v for v in damage.ODD if isinstance(v, str | int | float | bool)])
            file[name].attrs[key] = odd
            return damage.Damage("attribute", f"{name}@{key}", repr(odd))
        name = rng.choice(items)
        item = file[name]
        if not isinstance(item, h5py.Dataset) or rng.random() < 0.3:
            del file[name]
            return damage.Damage("remove", name, "from the file")
        value, shape = item[()], item.shape
        del file[name]
        what = rng.choice(("cut", "text", "unwritten", "scalar", "link", "complex", "wider", "group", "nan"))
        if what == "cut":
            file[name] = value[: len(value) // 2]
        elif what == "text":
            file[name] = np.array([b"x"] * len(value))
        elif what == "unwritten":
            file.create_dataset(name, shape=shape, dtype=value.dtype)
        elif what == "scalar":
            file[name] = 3.0
        elif what == "link":
            file[name] = rng.choice((h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x")))
        elif what == "complex":
            file[name] = (
                value.astype(np.complex64) if value.dtype.kind in "fiub" else np.zeros(len(value), np.complex64)
            )
        elif what == "wider" and value.dtype.kind in "fiub":
            file[name] = np.concatenate([value.reshape(len(value), -1)] * 2, axis=-1)
        elif what == "group":
            file.create_group(name)
        elif value.dtype.kind == "f":
            file[name] = np.full_like(value, np.nan)
        else:
            file[name] = value[:0]
        return damage.Damage("dataset", name, what)


def content(path):
    """Everything that is read: the loaded arrays, and what was said."""
    dataset = open_dataset(path, verify=True)
    return {
        "arrays": {name: np.asarray(value) for name, value in dataset.episodes.arrays.items()},
        "sources": dict(dataset.sources),
        "ends": dataset.ends.tolist(),
        "hz": dataset.control_hz,
        "tasks": dataset.tasks,
        "format": dataset.format,
        "said": " ".join(dataset.notes),
    }


def differences(found, expected):
    """What differs without a word having been said."""
    other = []
    fewer = any(text in found["said"] for text in ("was it cut?", "was it lost?", "are demonstrations missing?"))
    for name, value in expected["arrays"].items():
        if name not in found["arrays"]:
            if not any(key.split("/")[-1] in found["said"] for key in expected["sources"][name].split(" + ")):
                other.append(f"lost {name}")
        elif found["arrays"][name].shape != value.shape:
            other += [] if fewer else [f"shape {name}"]
        elif not np.array_equal(found["arrays"][name], value):
            other.append(f"values {name}")
    other += [f"new {name}" for name in found["arrays"] if name not in expected["arrays"]]
    other += ["format"] if found["format"] != expected["format"] else []
    other += ["ends"] if found["ends"] != expected["ends"] and not fewer else []
    if (
        found["tasks"] != expected["tasks"]
        and not fewer
        and "the tasks that it may have said are lost" not in found["said"]
    ):
        other.append("tasks")
    # No rate at all is said by inspect, and refused where one is needed.
    other += ["hz"] if found["hz"] is not None and found["hz"] != expected["hz"] else []
    return other


def unseeable(done, other, kind):
    """Differences that nobody can see without a checksum: the whole of the exceptions that docs/data.md names."""
    if done.kind == "flip" and kind not in CHECKED:
        return all(each.startswith("values ") or each in ("hz", "tasks") for each in other)
    if done.kind == "flip" and kind == "ours":  # every chunk has a checksum, descriptions have none
        return done.where.endswith("zarr.json") and all(each.startswith("values ") or each == "hz" for each in other)
    if done.kind == "remove" and len(other) == 1:  # all of an array at once, or all of the optional attributes
        name = other[0].removeprefix("lost ").replace("pixels", "img")
        return done.where in (f"data/{name}", ".zattrs") or (other == ["tasks"] and done.where == ".zattrs")
    if done.kind == "json value" and other == ["hz"]:  # another number that could be a rate
        return done.detail.startswith("control_hz = ")
    if done.kind in ("json key", "json value") and other == ["tasks"]:
        return done.detail.startswith(
            ("tasks removed", "attributes.tasks removed", "attributes removed")
        ) or done.detail.endswith("None")
    return False


def run(kind, seeds, tmp_path, monkeypatch, *, sums=False):
    source = tmp_path / "source"
    source.mkdir()
    path = write(kind, source, monkeypatch)
    if sums:
        write_sums(path)
    relative = path.relative_to(source)
    expected = content(path)

    def make(place, seed):
        shutil.copytree(source, place, dirs_exist_ok=True)
        more = [hdf5_damage] if any(f.suffix == ".hdf5" for f in damage.files_of(place / relative)) else []
        return place / relative, damage.damaged(place / relative, seed, more)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return damage.outcomes(
            make,
            content,
            lambda found: differences(found, expected),
            seeds,
            tmp_path / "copies",
            right=(UVAError, FileNotFoundError),
        )


def faults(kind, found):
    """Outcomes that should not be."""
    return [
        outcome
        for outcome in found
        if outcome.kind not in ("same", "error")
        and not (outcome.kind == "different" and unseeable(outcome.damage, outcome.detail, kind))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_copy_is_refused_or_read_as_it_was(tmp_path, monkeypatch, kind):
    few = kind in ("ours", "zarr3")  # zarr 3 is slower to read
    found = run(kind, range(25 if few else 40), tmp_path, monkeypatch)
    assert not faults(kind, found), faults(kind, found)


@pytest.mark.parametrize("kind", ["zarr2", "robomimic"])
def test_with_checksums_beside_it_every_damage_is_seen(tmp_path, monkeypatch, kind):
    found = run(kind, range(100, 120), tmp_path, monkeypatch, sums=True)
    assert {outcome.kind for outcome in found} == {"error"}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_damaged_copies_are_refused_or_read_as_they_were(tmp_path, monkeypatch, kind):
    found = run(kind, range(1000, 1500), tmp_path, monkeypatch)
    assert not faults(kind, found), faults(kind, found)
