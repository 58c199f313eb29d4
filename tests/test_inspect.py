"""``uva data inspect`` names every hole, in words and in JSON; ``uva train`` takes what it says to leave out, and what fits."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests import datasets
from tests.tiny import tiny_dataset
from uva_agents.cli import main
from uva_agents.data import Episodes, FrameStore, open_dataset, write_replay_buffer_by_episode
from uva_agents.errors import DataError, InputError, MachineError
from uva_agents.training.memory import Holds
from uva_agents.training.recipe import DataConfig, Recipe
from uva_agents.training.sources import Source, open_sources, with_episodes

ENDS = np.array([40, 80, 110, 150])
STEPS = 150


def broken(folder):
    """Four episodes: one with NaN, one with a picture that cannot be unpacked, one that is short, and one that is well."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (STEPS, 16, 16, 3), dtype=np.uint8)
    action = rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32)
    action[45, 1] = np.nan
    contents = {"img": pixels, "action": action, "state": rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32)}
    path = datasets.zarr_buffer(folder / "a.zarr", contents, ends=ENDS, chunk=10, compressors=None)
    chunk = path / "data" / "img" / "9.0.0.0"  # rows 90 to 99: episode 2
    chunk.write_bytes(chunk.read_bytes()[:-1])
    return path


def run(*words):
    return main(["data", "inspect", *map(str, words)])


def test_every_hole_is_named_with_the_episodes_to_leave_out(tmp_path, capsys):
    path = broken(tmp_path)
    assert run(path, "--sheet", tmp_path / "a.png") == 1
    out = capsys.readouterr().out
    assert "action has NaN or infinity in 1 steps, first at step 45 (episode 1), its row 5" in out
    assert "img is damaged: chunk 9.0.0.0" in out
    assert "--episodes '!1-2' (2 episodes)" in out and (tmp_path / "a.png").exists()
    dataset = open_dataset(path, episodes="!1-2")
    assert len(dataset.episodes) == 2 and np.asarray(dataset.arrays["pixels"]).shape == (80, 16, 16, 3)


def test_json_says_the_same_to_machines(tmp_path, capsys):
    path = broken(tmp_path)
    assert run(path, "--json", "-") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "uva-agents/inspect/1" and said["worst"] == "error"
    assert said["skip"] == {"episodes": [1, 2], "option": "!1-2"}
    assert said["episodes"] == 4 and said["lengths"] == [40, 40, 30, 40] and said["steps"] == STEPS
    assert {array["name"] for array in said["arrays"]} == {"pixels", "action", "agent_pos"}
    assert {tuple(f["episodes"] or ()) for f in said["findings"] if f["level"] == "error"} == {(1,), (2,)}
    assert run(path, "--json", tmp_path / "a.json", "--ci") == 1
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == said
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.split(":")[0] in ("error", "warn", "note") for line in lines)


@pytest.mark.parametrize(("what", "on_warn", "on_error"), [("short", 0, 0), ("constant", 1, 0), ("nan", 1, 1)])
def test_the_status_is_that_of_the_gravest_finding(tmp_path, what, on_warn, on_error):
    rng = np.random.default_rng(0)
    contents = {
        "img": rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8),
        "action": rng.uniform(-1, 1, (60, 2)).astype(np.float32),
    }
    if what == "constant":
        contents["action"][:, 0] = 1
    elif what == "nan":
        contents["action"][3] = np.nan
    ends = [5, 60] if what == "short" else [60]
    path = datasets.zarr_buffer(tmp_path / "a.zarr", contents, ends=np.array(ends))
    assert run(path, "--ci", "--fail-on=warn") == on_warn
    assert run(path, "--ci", "--fail-on=error") == on_error


def test_a_dataset_that_cannot_be_opened_at_all_is_a_finding_too(tmp_path, capsys):
    path = tmp_path / "a.hdf5"
    path.write_bytes(b"no hdf5")
    assert run(path, "--json", "-") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["format"] is None and "no hdf5 file" in said["findings"][0]["message"] and said["arrays"] == []
    assert run(path, "--ci", "--fail-on=error") == 1
    assert run(tmp_path / "nowhere") == 2


def test_targets_are_checked_before_anything_is_looked_at(tmp_path):
    assert run(broken(tmp_path), "--json", tmp_path) == 4


def test_checksums_beside_a_dataset_show_every_change(tmp_path, capsys):
    path = tiny_dataset(tmp_path / "a.zarr")
    assert main(["data", "checksum", str(path)]) == 0
    assert (tmp_path / "a.zarr.sha256").exists()
    assert len(open_dataset(path, verify=True)) == 6
    attributes = path / "zarr.json"
    attributes.write_text(attributes.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(DataError, match=r"changed: a\.zarr/zarr\.json"):
        open_dataset(path, verify=True)
    (path / "more").write_bytes(b"x")
    attributes.unlink()
    with pytest.raises(DataError, match=r"missing: a\.zarr/zarr\.json; new: a\.zarr/more"):
        open_dataset(path, verify=True)
    assert run(path, "--ci") == 1 and "missing: a.zarr/zarr.json" in capsys.readouterr().out


def test_what_is_written_here_has_a_checksum_in_every_chunk(tmp_path):
    rng = np.random.default_rng(0)
    episode: dict[str, np.ndarray] = {
        "img": rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        "action": rng.random((30, 2), np.float32),
    }
    write_replay_buffer_by_episode(tmp_path / "a.zarr", [episode])
    chunk = tmp_path / "a.zarr" / "data" / "action" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DataError, match="data/action cannot be read"):
        open_dataset(tmp_path / "a.zarr")


# -- training ----------------------------------------------------------------------------------------------------------


RECIPE = Recipe(name="tiny", model=None, data=DataConfig(fields={}, control_hz=10.0))


def test_training_refuses_what_is_not_finite_unless_it_is_left_out(tmp_path):
    path = broken(tmp_path)
    with pytest.raises(DataError, match=r"img is damaged.*--episodes '!2'"):
        open_sources(path, RECIPE, ["pixels", "action"])
    with pytest.raises(DataError, match=r"'action' has NaN.*step 45 \(episode 1\), its row 5.*--episodes '!1'"):
        open_sources(path, RECIPE, ["action"])  # where no picture is looked at, their holes do not matter
    with pytest.raises(DataError, match=r"\(episode 1\)"):
        open_sources([Source(path, episodes="!0,2")], RECIPE, ["pixels", "action"])
    (part,) = open_sources([Source(path, episodes="!1-2")], RECIPE, ["pixels", "action"])
    assert isinstance(part.episodes, Episodes) and part.episodes.ends.tolist() == [40, 80]
    assert part.episodes.numbers == (0, 3)


def test_pictures_that_fail_while_they_are_loaded_name_their_episode(tmp_path):
    rng = np.random.default_rng(0)
    contents = {
        "img": rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8),
        "action": rng.random((60, 2), np.float32),
    }
    import numcodecs

    path = datasets.zarr_buffer(
        tmp_path / "a.zarr", contents, ends=np.array([30, 60]), chunk=10, compressors=numcodecs.GZip()
    )
    chunk = path / "data" / "img" / "5.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[20:60] = bytes(40)
    chunk.write_bytes(content)
    (part,) = open_sources(path, RECIPE, ["pixels", "action"])
    with pytest.raises(DataError, match=r"a\.zarr: pixels of episode 1 cannot be read.*--episodes '!1'"):
        FrameStore(tmp_path / "frames", side=16).get(part.episodes)


def test_several_datasets_have_their_episodes_in_order():
    sources = [Source("a"), Source("b")]
    assert [s.episodes for s in with_episodes(sources, ["all", "!3"])] == [None, "!3"]
    with pytest.raises(InputError, match="1 times for 2 datasets"):
        with_episodes(sources, ["!3"])


def test_what_does_not_fit_into_memory_or_on_the_disk_is_refused_before_a_picture_is_read(
    tmp_path, monkeypatch, capsys
):
    path, out = tiny_dataset(tmp_path / "a.zarr"), tmp_path / "run"
    monkeypatch.setattr("uva_agents.data.lazy.LazyFrames._read", lambda *_: pytest.fail("a picture was read"))
    holds = Holds(side=96, variants=3, tokens=100_000)
    with monkeypatch.context() as little:
        little.setattr("uva_agents.training.memory.available_memory", lambda: 400 << 20)
        with pytest.raises(MachineError, match="needs about 419 MB of memory for the numbers of 144 steps") as error:
            open_sources(path, RECIPE, ["pixels", "action"], holds=holds, out=out)
    assert str(path) in str(error.value) and "--every 2" in str(error.value)
    with monkeypatch.context() as little:
        little.setattr("uva_agents.training.memory.shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 24))
        with pytest.raises(
            MachineError, match=r"for the frames and latents of 144 steps, and 16\.8 MB are free"
        ) as error:
            open_sources(path, RECIPE, ["pixels", "action"], holds=holds, out=out)
    assert f"needs 18.4 MB of disk in {out}" in str(error.value)
    open_sources(path, RECIPE, ["pixels", "action"], holds=holds, out=out, show=True)
    assert (
        capsys.readouterr().out
        == f"{path}: 144 steps; 18.4 MB of frames and latents on disk, about 419 MB of memory beside a large network's\n"
    )
    assert not out.exists()
