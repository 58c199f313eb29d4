"""Damaged copies of LeRobot datasets and folders of films: an error of ours, or exactly what was stored."""

import shutil

import numpy as np
import pytest

from tests import damage, datasets
from tests.films import film
from uva_agents.data import convert_dataset, open_dataset
from uva_agents.data.checksums import write_sums
from uva_agents.errors import UVAError

pa = pytest.importorskip("pyarrow", reason="LeRobot datasets need pyarrow: pip install 'uva-agents[data]'")
pq = pytest.importorskip("pyarrow.parquet")

KINDS = ("ours", "theirs", "films")


def write(kind, folder):
    """A small valid dataset: written here, file by file as LeRobot writes it, or only films."""
    if kind == "films":
        (folder / "a").mkdir()
        film(folder / "a" / "even.mp4", 24)
        film(folder / "a" / "holes.mkv", 24, times="(N+5*gte(N,13))/10")
        (folder / "a" / "even.txt").write_text("push the block\n")
        return folder / "a"
    if kind == "theirs":
        path = datasets.lerobot(folder / "a", datasets.recording())
        pq.write_table(pa.table({"task_index": [0, 1], "task": list(datasets.TASKS)}), path / "meta/tasks.parquet")
        return path
    found = datasets.recording()
    contents = {"img": found["pixels"], "action": found["action"], "agent_pos": found["agent_pos"]}
    attributes = {"control_hz": datasets.HZ, "tasks": list(datasets.TASKS)}
    source = datasets.zarr_buffer(folder / "a.zarr", contents, attributes=attributes)
    convert_dataset(open_dataset(source), folder / "a", "lerobot")
    return folder / "a"


def parquet_damage(path, rng):
    """A column of a parquet file removed, nulled, retyped, shifted or reversed."""
    files = [file for file in damage.files_of(path) if file.suffix == ".parquet"]
    if not files:
        return None
    file = rng.choice(files)
    table = pq.read_table(str(file), partitioning=None)
    read = [name for name in table.column_names if not name.startswith(("stats/", "meta/"))]
    name = rng.choice(read)
    place, column = table.column_names.index(name), table[name].combine_chunks()
    what = rng.choice(("removed", "null", "one null", "text", "reversed", "shifted", "short", "nested"))
    if what == "removed":
        table = table.drop_columns([name])
    elif what == "short":
        table = table.slice(0, rng.randrange(table.num_rows))
    else:
        values = column.to_pylist()
        if what == "null":
            values = [None] * len(values)
        elif what == "one null":
            values[rng.randrange(len(values))] = None
        elif what == "text":
            values = ["x"] * len(values)
        elif what == "nested":
            values = [[value] for value in values]
        elif what == "reversed":
            values = values[::-1]
        elif isinstance(values[0], int | float):
            values = [value + rng.choice((-1, 1, 0.5, 1e9)) for value in values]
        else:
            return None
        fitting = column.type if what in ("null", "one null", "reversed") else None
        table = table.set_column(place, name, pa.array(values, fitting))
    pq.write_table(table, file)
    return damage.Damage("parquet", file.relative_to(path).as_posix(), f"{name} {what}")


def content(path):
    """Everything that is read."""
    dataset = open_dataset(path, verify=True)
    return {
        "arrays": {name: np.asarray(value) for name, value in dataset.episodes.arrays.items()},
        "ends": dataset.ends.tolist(),
        "hz": dataset.control_hz,
        "tasks": dataset.tasks,
        "format": dataset.format,
    }


def differences(found, expected):
    other = [key for key in ("ends", "hz", "tasks", "format") if found[key] != expected[key]]
    names = found["arrays"].keys() | expected["arrays"].keys()
    for name in sorted(names):
        here, there = found["arrays"].get(name), expected["arrays"].get(name)
        if here is None or there is None or here.shape != there.shape:
            other.append(f"lost or new {name}")
        elif not np.array_equal(here, there):
            other.append(f"values {name}")
    return other


def unseeable(done, other, kind):
    """What nobody can see without checksums: the whole of the exceptions that docs/data.md names."""
    inside = done.where.endswith((".mp4", ".mkv"))
    if done.kind == "flip" and inside:
        # Coded pictures, where the decoder finds nothing wrong; and times in the container, in a folder of films.
        return all(
            each == "values pixels" or (kind == "films" and each in ("ends", "hz", "lost or new pixels"))
            for each in other
        )
    if done.kind == "flip" and done.where.endswith(".parquet"):
        return kind == "theirs" and all(each.startswith("values ") for each in other)  # written without checksums
    if kind == "films":
        # A film or its text that is not there any more, or a text with other words in it; a Matroska file that ends at a cluster.
        return done.kind == "remove" or done.where.endswith(".txt") or (done.kind == "cut" and inside)
    if done.kind == "parquet":  # whole columns exchanged for other plausible ones
        return other in (["values action"], ["values agent_pos"]) and "reversed" in done.detail
    return False


def run(kind, seeds, tmp_path, *, sums=False):
    source = tmp_path / "source"
    source.mkdir()
    path = write(kind, source)
    if sums:
        write_sums(path)
    shutil.rmtree(source / "a.zarr", ignore_errors=True)
    expected = content(path)

    def make(place, seed):
        shutil.copytree(source, place, dirs_exist_ok=True)
        return place / "a", damage.damaged(place / "a", seed, [] if kind == "films" else [parquet_damage])

    right = (UVAError, FileNotFoundError)
    return damage.outcomes(
        make, content, lambda found: differences(found, expected), seeds, tmp_path / "copies", right=right
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
def test_a_damaged_copy_is_refused_or_read_as_it_was(tmp_path, kind):
    found = run(kind, range(14), tmp_path)
    assert not faults(kind, found), faults(kind, found)


def test_with_checksums_beside_it_every_damage_is_seen(tmp_path):
    found = run("theirs", range(100, 110), tmp_path, sums=True)
    assert {outcome.kind for outcome in found} == {"error"}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_damaged_copies_are_refused_or_read_as_they_were(tmp_path, kind):
    found = run(kind, range(1000, 1500), tmp_path)
    assert not faults(kind, found), faults(kind, found)
