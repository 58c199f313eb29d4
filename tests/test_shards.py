"""Data larger than memory: frames and latents in shards are those of arrays, a killed run goes on, what is damaged costs itself."""

import errno
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.any_task_data import MAKERS
from tests.synthetic_frames import DamagedFrames, DeadlyFrames, MadeFrames, lazy, made_episodes
from tests.test_training import tiny_recipe
from uva_agents.data import (
    Episodes,
    FrameStore,
    LatentStore,
    LatentWindows,
    LinearNormalizer,
    MixtureWindows,
    Variant,
    WindowSpec,
    apply_variant,
    encode_frames,
    open_dataset,
    standard_variants,
)
from uva_agents.data.conventions import RelativePoses
from uva_agents.data.frame_windows import cut
from uva_agents.data.rows import JoinedRows, standardized, token_statistics
from uva_agents.data.shard_files import OpenShards
from uva_agents.data.shard_plan import ShardPlan
from uva_agents.data.shards import Shards
from uva_agents.data.window_numbers import WindowNumbers
from uva_agents.errors import DataError, InputError, MachineError
from uva_agents.model import VAE, nano_vae_config
from uva_agents.model.keypoints.detector import PooledDetector
from uva_agents.training.any_task import LayoutOptions, make_recipe
from uva_agents.training.frames_step import FramesStep
from uva_agents.training.keypoints.detector_stage import MovedFrames
from uva_agents.training.run import RunOptions
from uva_agents.training.sources import Part, Source
from uva_agents.training.uva.pipeline import uva_steps
from uva_agents.training.uva.recipes import UVARecipe
from uva_agents.utils.images import resize_frames

SMALL = 64 * 8 * 8 * 3
"""Bytes of a shard of 64 small frames."""


def in_memory(episodes: Episodes, side: int | None = None) -> Episodes:
    frames = np.asarray(episodes.arrays["pixels"])
    return Episodes(
        {**episodes.arrays, "pixels": frames if side is None else resize_frames(frames, side)}, episodes.ends
    )


@contextmanager
def torch_threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def written(folder, values: np.ndarray, largest: int = SMALL) -> Shards:
    shards = Shards(folder, ShardPlan.of(len(values), values.shape[1:], str(values.dtype), largest=largest))
    with shards.writing() as missing:
        for number in missing:
            begin, end = shards.plan.bounds(number)
            shards.write(number, [values[begin : begin + 10], values[begin + 10 : end]])
    return shards


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(nano_vae_config()).eval().requires_grad_(False)


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_rows_of_shards_are_those_of_the_array(tmp_path):
    values = np.random.default_rng(0).standard_normal((300, 3, 16)).astype(np.float16)
    array = written(tmp_path, values, largest=64 * 96).array()
    assert array.shards.plan.count == 5 and array.shape == values.shape and array.dtype == values.dtype
    rows = np.random.default_rng(1).integers(0, 300, (7, 4))
    for key in (rows, rows[0], np.int64(299), slice(None, None, 16), slice(250, 999), slice(10, 200), rows[:0]):
        np.testing.assert_array_equal(array[key], values[key])
    np.testing.assert_array_equal(np.asarray(array), values)
    np.testing.assert_array_equal(np.load(array.shards.path(1)), values[64:128])  # an ordinary file of numpy's
    with pytest.raises(IndexError, match="300"):
        array[np.array([300])]


def test_large_rows_are_read_to_where_they_belong(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (200, 40, 40, 3), dtype=np.uint8)
    array = written(tmp_path, values, largest=64 * 4800).array()
    rows = np.random.default_rng(1).integers(0, 200, (5, 6))
    for key in (rows, rows[0], slice(60, 140), slice(None, None, 7), np.array([5, 5, 6, 7, 199, 0])):
        np.testing.assert_array_equal(array[key], values[key])
    array.shards.path(1).write_bytes(array.shards.path(1).read_bytes()[:9000])
    with pytest.raises(DataError, match=r"000001\.npy cannot be read: it was cut short"):
        array[100:110]


def test_few_open_files_and_little_memory_are_enough(tmp_path, monkeypatch):
    values = np.arange(300 * 48, dtype=np.float32).reshape(300, 48)
    array = written(tmp_path, values, largest=64 * 192).array()
    monkeypatch.setattr("uva_agents.data.shards.FILES", files := OpenShards(resident=1000, most_open=2))
    for seed in range(20):
        rows = np.random.default_rng(seed).integers(0, 300, 30)
        np.testing.assert_array_equal(array[rows], values[rows])
    assert len(files._open) == 2


def test_rows_joined_from_arrays_and_shards_are_one_tensor(tmp_path):
    values = np.random.default_rng(0).standard_normal((90, 2, 8)).astype(np.float16)
    joined = JoinedRows([values[:40], written(tmp_path, values[40:], largest=64 * 32).array()])
    rows = torch.randint(0, 90, (5, 6))
    assert torch.equal(joined[rows], torch.from_numpy(values)[rows])
    assert joined[:0].shape == (0, 2, 8) and joined[:0].dtype == torch.float16
    with pytest.raises(ValueError, match="same rows"):
        JoinedRows([values, values[:, :1]])


def test_statistics_of_little_data_are_those_of_every_sixteenth_row_and_of_much_data_of_fewer():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((200, 9, 64)) * 30).astype(np.float16)
    mean, std = token_statistics([values, values[:77]])
    sample = np.concatenate([values[::16], values[:77:16]]).astype(np.float32)
    np.testing.assert_array_equal(mean, sample.mean(0))
    np.testing.assert_array_equal(std, sample.std(0))
    few, _ = token_statistics([values], most_bytes=4 * 576 * 10)
    np.testing.assert_array_equal(few, values[::20].astype(np.float32).mean(0))


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "longer", "gone", "another"])
def test_a_damaged_shard_costs_that_shard(tmp_path, damage):
    values = np.arange(300 * 16, dtype=np.float32).reshape(300, 16)
    shards = written(tmp_path, values, largest=64 * 64)
    path = shards.path(2)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[:-100], "longer": whole + b"x", "another": shards.path(4).read_bytes()}[damage])
    again = Shards(tmp_path, shards.plan)
    assert again.missing() == [2]
    with pytest.raises(DataError, match=r"000002\.npy is missing or damaged"):
        again.array()
    np.testing.assert_array_equal(written(tmp_path, values, largest=64 * 64).array()[:], values)
    assert path.read_bytes() == whole


def test_what_is_there_keeps_the_plan_it_was_begun_with(tmp_path):
    values = np.zeros((300, 16), np.float32)
    written(tmp_path, values, largest=64 * 64)
    assert Shards(tmp_path, ShardPlan.of(300, (16,), "float32")).plan.count == 5
    assert Shards(tmp_path, ShardPlan.of(301, (16,), "float32")).plan.count == 1  # another array


def test_content_is_known_by_itself_and_not_by_its_place(tmp_path):
    values = np.arange(200.0)[:, None]
    a, b, c = written(tmp_path / "a", values), written(tmp_path / "b", values), written(tmp_path / "c", values + 1)
    assert a.digest == b.digest != c.digest


def test_a_full_disk_names_folder_and_need_and_keeps_what_is_whole(tmp_path, monkeypatch):
    shards = Shards(tmp_path / "s", ShardPlan.of(300, (16,), "float32", largest=64 * 64))

    def full():
        yield np.zeros((10, 16), np.float32)
        raise OSError(errno.ENOSPC, "No space left on device")

    with shards.writing():
        shards.write(0, [np.zeros((64, 16), np.float32)])
        with pytest.raises(
            MachineError, match=r"the disk is full: .*/s needs 15\.1 KB more; what is whole stays.*--out"
        ):
            shards.write(1, full())
    assert shards.missing() == [1, 2, 3, 4] and not list((tmp_path / "s").glob(".*partial*"))
    monkeypatch.setattr("uva_agents.data.shards.shutil.disk_usage", lambda _: SimpleNamespace(free=5120))
    with (
        pytest.raises(MachineError, match=r"needs 15\.1 KB, and 5\.1 KB are free there: free some, .*--out"),
        shards.writing(),
    ):
        pass


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [None, 8, 5])
def test_frames_of_the_store_are_those_of_the_array_at_the_network_s_size(tmp_path, side):
    episodes = made_episodes(MadeFrames(300))
    stored = FrameStore(tmp_path, side=side, workers=0, largest_shard=SMALL).get(episodes)
    expected = in_memory(episodes, side).arrays["pixels"]
    rows = np.random.default_rng(0).integers(0, 300, (4, 5))
    np.testing.assert_array_equal(stored.arrays["pixels"][rows], expected[rows])
    np.testing.assert_array_equal(stored.arrays["pixels"], expected)
    part = stored.select(np.array([4, 1]))
    np.testing.assert_array_equal(part.arrays["pixels"], np.concatenate([expected[200:250], expected[50:100]]))


def test_frames_smaller_than_the_network_s_stay_as_recorded_on_request(tmp_path):
    small, large = made_episodes(MadeFrames(70, side=8)), made_episodes(MadeFrames(70, side=20))
    for enlarge, expected in ((True, 12), (False, 8)):
        store = FrameStore(tmp_path, side=12, enlarge=enlarge, workers=0)
        assert store.get(small).arrays["pixels"].shape[1:3] == (expected, expected)
        assert store.get(large).arrays["pixels"].shape[1:3] == (12, 12)


def test_worker_processes_write_the_bytes_that_one_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("uva_agents.data.frame_store._ALONE_BYTES", 0)
    source = MadeFrames(300)
    episodes, done = made_episodes(source), []
    one = FrameStore(tmp_path / "one", side=5, workers=0, largest_shard=64 * 75)
    two = FrameStore(tmp_path / "two", side=5, workers=2, largest_shard=64 * 75)
    one.get(episodes)
    two.get(episodes, opens=partial(lazy, source), progress=lambda n, total: done.append((n, total)))
    assert done[-1] == (300, 300) and len(done) == 5
    for number in range(5):
        assert one.shards(episodes).path(number).read_bytes() == two.shards(episodes).path(number).read_bytes()


def test_a_script_without_a_guard_is_not_run_again_in_the_processes_that_decode(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from tests.synthetic_frames import MadeFrames, lazy, made_episodes\n"
        "import uva_agents.data.frame_store as frame_store\n"
        "print('runs')\n"
        "frame_store._ALONE_BYTES, source = 0, MadeFrames(70)\n"
        "store = frame_store.FrameStore(Path(sys.argv[1]), side=None, workers=1)\n"
        "print(store.get(made_episodes(source), opens=partial(lazy, source)).steps)\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "frames")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["runs", "70"]


def test_two_processes_that_share_a_folder_do_the_work_once(tmp_path):
    episodes = made_episodes(MadeFrames(300))
    done: list[list[int]] = [[], []]

    def decode(number: int) -> None:
        store = FrameStore(tmp_path, side=None, workers=0, largest_shard=SMALL)
        store.get(episodes, progress=lambda n, total: (done[number].append(n), time.sleep(0.05)))  # type: ignore[func-returns-value]

    # A lock is one for every time that a file is opened: two threads stand for two processes.
    threads = [threading.Thread(target=decode, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, done)) == [0, 5]


def test_a_worker_that_dies_is_started_once_more_and_then_its_episodes_are_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("uva_agents.data.frame_store._ALONE_BYTES", 0)
    store = FrameStore(tmp_path / "a", side=None, workers=1, largest_shard=SMALL)
    once = DeadlyFrames(128, flag=tmp_path / "flag")
    stored = store.get(made_episodes(once), opens=partial(lazy, once))
    np.testing.assert_array_equal(stored.arrays["pixels"][:], MadeFrames(128).read(np.arange(128)))
    assert "the worker process died (exit code 9); once more" in caplog.text
    always = DeadlyFrames(127)
    with pytest.raises(MachineError, match=r"made: decoding pixels of episodes 1 to 2 failed twice.*--episodes '!1-2'"):
        store.get(made_episodes(always), opens=partial(lazy, always))


def test_a_frame_that_cannot_be_read_names_the_episode_and_the_next_run_goes_on(tmp_path, monkeypatch):
    store = FrameStore(tmp_path, side=None, workers=2, largest_shard=SMALL)
    damaged = DamagedFrames(300)
    message = r"made: pixels of episode 2 cannot be read: the picture is damaged; .*--episodes '!2'"
    with pytest.raises(DataError, match=message):
        store.get(made_episodes(damaged))
    assert store.shards(made_episodes(damaged)).missing() == [1, 2, 3, 4]
    monkeypatch.setattr("uva_agents.data.frame_store._ALONE_BYTES", 0)
    with pytest.raises(DataError, match=message):
        store.get(made_episodes(damaged), opens=partial(lazy, damaged))


def test_an_interrupted_store_goes_on_with_the_shards_that_are_there(tmp_path):
    episodes = made_episodes(MadeFrames(300))
    whole = FrameStore(tmp_path / "whole", side=None, workers=0, largest_shard=SMALL)
    cut = FrameStore(tmp_path / "cut", side=None, workers=0, largest_shard=SMALL)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.get(episodes, progress=stop)
    done: list[int] = []
    assert cut.shards(episodes).missing() == [1, 2, 3, 4]
    again = cut.get(episodes, progress=lambda n, total: done.append(n))
    assert done == [128, 192, 256, 300]
    assert again.fingerprint == whole.get(episodes).fingerprint


def test_fewer_than_no_workers_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"workers=-1: 0 \(this process decodes\) or more"):
        FrameStore(tmp_path, side=None, workers=-1)


def test_frames_that_changed_are_decoded_anew(tmp_path):
    store = FrameStore(tmp_path, side=None, workers=0)
    a, b = store.get(made_episodes(MadeFrames(90))), store.get(made_episodes(MadeFrames(91)))
    assert a.fingerprint != b.fingerprint and store.shards(made_episodes(MadeFrames(92))).missing()


def test_a_camera_that_freezes_is_named_with_its_episode(tmp_path, caplog):
    store = FrameStore(tmp_path, side=None, workers=0, largest_shard=SMALL)
    moving = ("agent_pos",)
    with pytest.raises(
        DataError, match=r"made: pixels shows one and the same frame in all of episode 2, .*--episodes '!2'"
    ):
        store.get(made_episodes(MadeFrames(300, frozen=(99, 150))), moving=moving)
    with pytest.raises(DataError, match=r"in all of its episodes, .*Take another: --field pixels=KEY"):
        store.get(made_episodes(MadeFrames(300, frozen=(0, 300))), moving=moving)
    store.get(made_episodes(MadeFrames(300, frozen=(110, 144))), moving=moving)
    assert "pixels of episode 2 shows the same frame from its step 10 to 43" in caplog.text
    caplog.clear()
    episodes = made_episodes(MadeFrames(300, frozen=(110, 144)))
    still = Episodes({**episodes.arrays, "agent_pos": np.zeros((300, 2), np.float32)}, episodes.ends)
    store.get(still, moving=moving)  # nothing moves: nothing was missed
    store.get(made_episodes(MadeFrames(300, frozen=(110, 125))), moving=moving)
    assert not caplog.text


# -- latents -----------------------------------------------------------------------------------------------------------


def latents(folder, vae: VAE, **options) -> LatentStore:
    return LatentStore(folder, vae, patch_size=2, largest_shard=64 * 128, **options)


def test_latents_of_every_variant_are_those_of_the_whole_array(tmp_path, vae):
    episodes = made_episodes(MadeFrames(150, side=32))
    frames = FrameStore(tmp_path / "frames", side=32, workers=0, largest_shard=64 * 3072).get(episodes)
    store = latents(tmp_path / "latents", vae)
    for variant in standard_variants(4):
        tokens = store.get(frames, variant)
        moved = apply_variant(in_memory(episodes), variant, world_size=512)
        expected = encode_frames(vae, moved.arrays["pixels"], patch_size=2)
        assert tokens.shards.plan.count == 3
        np.testing.assert_array_equal(tokens[:], expected)
    assert len(list((tmp_path / "latents").iterdir())) == 4
    assert store.is_whole(frames, Variant()) and not store.is_begun(frames, Variant(max_shift=3))


def test_latents_are_keyed_by_weights_data_and_variant_and_damage_costs_a_shard(tmp_path, vae):
    episodes = made_episodes(MadeFrames(150, side=32))
    store = latents(tmp_path, vae)
    seen: list[int] = []
    first = store.get(episodes, Variant(), lambda done, total: seen.append(done))
    assert first.shape == (150, 1, 64) and seen == [64, 128, 150]
    seen.clear()
    np.testing.assert_array_equal(store.get(episodes, Variant(), lambda done, total: seen.append(done))[:], first[:])
    assert not seen
    torch.manual_seed(1)
    other = VAE(nano_vae_config()).eval()
    assert latents(tmp_path, other).path(episodes, Variant()) != store.path(episodes, Variant())
    assert store.path(episodes, Variant(mirror=True)) != store.path(episodes, Variant())
    assert store.path(made_episodes(MadeFrames(150, side=32), 40), Variant()) != store.path(episodes, Variant())
    path = first.shards.path(1)
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    again = store.get(episodes, Variant(), lambda done, total: seen.append(done))
    assert seen == [150] and path.read_bytes() == whole and again.shards.digest == first.shards.digest
    np.testing.assert_array_equal(again[::3], first[::3])


def test_an_encoding_that_was_killed_goes_on_to_the_same_bytes(tmp_path, vae):
    script = (
        "import os, sys, torch\n"
        "from tests.synthetic_frames import MadeFrames, made_episodes\n"
        "from tests.test_shards import latents, standard_variants\n"
        "from uva_agents.model import VAE, nano_vae_config\n"
        "torch.set_num_threads(1); torch.manual_seed(0)\n"
        "vae = VAE(nano_vae_config()).eval().requires_grad_(False)\n"
        "def stop(done, total):\n"
        "    if done >= 128: os._exit(9)\n"
        "latents(sys.argv[1], vae).get(made_episodes(MadeFrames(200, side=32)), standard_variants(3)[2], stop)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "killed")], check=False)
    episodes, variant = made_episodes(MadeFrames(200, side=32)), standard_variants(3)[2]
    (folder,) = (tmp_path / "killed").iterdir()
    assert killed.returncode == 9 and len(list(folder.glob(".*.partial.npy"))) == 1
    assert [path.name for path in sorted(folder.glob("0*.npy"))] == ["000000.npy"]
    first = (folder / "000000.npy").stat().st_mtime_ns
    with torch_threads(1):
        stored = latents(tmp_path / "killed", vae).get(episodes, variant)
        whole = latents(tmp_path / "whole", vae).get(episodes, variant)
    for number in range(4):
        assert stored.shards.path(number).read_bytes() == whole.shards.path(number).read_bytes()
    assert (folder / "000000.npy").stat().st_mtime_ns == first and not list(folder.glob(".*.partial.npy"))


# -- windows -----------------------------------------------------------------------------------------------------------


def windows(episodes: Episodes, tokens, variants) -> LatentWindows:
    normalizer = LinearNormalizer.from_limits({k: (np.zeros(2), np.full(2, 512.0)) for k in ("action", "agent_pos")})
    return LatentWindows(episodes, tokens, variants, normalizer, WindowSpec(), frame_state_keys=("agent_pos",))


def test_batches_from_shards_equal_batches_from_arrays_bit_for_bit(tmp_path, vae):
    store = latents(tmp_path / "standardized", vae)
    rng, variants = np.random.default_rng(0), standard_variants(3)
    mean, std = rng.standard_normal((9, 64)).astype(np.float32), rng.random((9, 64)).astype(np.float32) + 0.1
    parts: dict[str, list[LatentWindows]] = {"array": [], "shards": []}
    for n in (300, 170):
        episodes = made_episodes(MadeFrames(n))
        tokens = [(3 * rng.standard_normal((n, 9, 64))).astype(np.float16) for _ in variants]
        stored = [written(tmp_path / f"{n}-{i}", t, largest=64 * 1152).array() for i, t in enumerate(tokens)]
        whole = [standardized(t, mean, std) for t in tokens]
        parts["array"].append(windows(episodes, whole, variants))
        parts["shards"].append(windows(episodes, [store.standardized(t, mean, std) for t in stored], variants))
    mixed = {name: MixtureWindows(found, [0.7, 0.3]) for name, found in parts.items()}
    for served in ({name: found[0] for name, found in parts.items()}, mixed):
        order = served["array"].order(32, seed=3)
        for step in range(20):
            a, b = (served[name].batch(*order.at(step)) for name in ("array", "shards"))
            for name, value in vars(a).items():
                other = getattr(b, name)
                assert (value is None and other is None) or torch.equal(value, other), name


@pytest.mark.parametrize("convention", [None, RelativePoses()], ids=["as they are", "relative"])
def test_numbers_that_are_the_same_in_every_variant_are_kept_once_and_taken_alike(convention):
    rng = np.random.default_rng(0)
    arrays = {key: rng.standard_normal((50, 7)).astype(np.float32) for key in ("action", "agent_pos")}
    copies = [{key: value.copy() for key, value in arrays.items()} for _ in range(3)]
    transforms, width = ((), 7) if convention is None else ((convention,), 10)
    normalizer = LinearNormalizer({"action": np.full(width, 0.5)}, {"action": np.full(width, 0.1)})
    once, thrice = (
        WindowNumbers(variants, "action", normalizer, transforms, pose_key="agent_pos")
        for variants in ([arrays] * 3, copies)
    )
    sizes = [len(numbers.values if numbers.raw is None else numbers.raw) for numbers in (once, thrice)]
    assert sizes == [50, 150]
    rows, now, start = rng.integers(0, 150, (8, 5)), rng.integers(0, 150, 8), rng.integers(0, 150, 8)
    assert torch.equal(once.take(rows, now, start), thrice.take(rows, now, start))
    if convention is None:
        assert torch.equal(once.joined(), thrice.joined())


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_detector_s_moved_frames_are_the_same_whether_kept_or_made_for_a_batch(tmp_path, monkeypatch):
    recipe = tiny_recipe()
    recipe = replace(recipe, data=replace(recipe.data, frame_state_keys=("agent_pos",)))
    episodes = FrameStore(tmp_path, side=None, workers=0).get(made_episodes(MadeFrames(150, side=32)))
    detector = PooledDetector(image_size=32, keypoints=1)
    kept = MovedFrames(recipe, episodes, detector, 4)
    monkeypatch.setattr("uva_agents.training.keypoints.detector_stage.KEPT_BYTES", 0)
    made = MovedFrames(recipe, episodes, detector, 4)
    chosen = np.random.default_rng(0).integers(0, len(made), 64)
    np.testing.assert_array_equal(made.reduced(chosen), kept.reduced(chosen))
    np.testing.assert_array_equal(made.keypoints(chosen), kept.keypoints(chosen))


def test_crops_of_stored_frames_are_those_of_the_array(tmp_path):
    episodes = made_episodes(MadeFrames(150))
    stored = FrameStore(tmp_path, side=None, workers=0).get(episodes).arrays["pixels"]
    rng = np.random.default_rng(0)
    rows, corners = rng.integers(0, 150, 20), rng.integers(0, 4, (20, 2))
    np.testing.assert_array_equal(cut(stored, rows, corners, 5), cut(np.asarray(stored), rows, corners, 5))


def test_a_run_s_batches_of_both_cameras_equal_those_of_arrays_bit_for_bit(tmp_path):
    """Recording, frames, latents of all variants, standardised: the stores of a run against arrays from end to end."""
    path = MAKERS["arx"](tmp_path)
    recipe = make_recipe("nano", [Source(path)], LayoutOptions())
    assert isinstance(recipe, UVARecipe)
    recipe = replace(recipe, augmentation=replace(recipe.augmentation, variants=3, max_shift=4, mirror=False))
    recipe = replace(recipe, model=replace(recipe.model, width=32, heads=2, encoder_depth=1, decoder_depth=1))
    steps = uva_steps(recipe, RunOptions(path, tmp_path / "run", progress=False))
    frames, _, latents_step = steps[:3]
    run = latents_step.of
    torch.manual_seed(0)
    assert frames.run()
    run.set_autoencoder(VAE(run.recipe.model.vae), torch.device("cpu"))
    assert latents_step.run() and latents_step.done() and frames.done()
    run.start_network()

    def tokens(camera: str, variants) -> list[np.ndarray]:
        pixels = resize_frames(np.asarray(open_dataset(path).arrays[camera]), 96)
        whole = Episodes({"pixels": pixels}, run.episodes.ends)
        moved = [apply_variant(whole, variant, world_size=None).arrays["pixels"] for variant in variants]
        encoded = [encode_frames(run.vae, each, patch_size=recipe.model.patch_size) for each in moved]
        sample = np.concatenate([each[::16] for each in encoded]).astype(np.float32)
        std = np.maximum(sample.std(0), 0.05)
        return [((each.astype(np.float32) - sample.mean(0)) / std).astype(np.float16) for each in encoded]

    arrays = LatentWindows(
        run.episodes,
        tokens("pixels", run.variants),
        run.variants,
        run.normalizer,
        run.window,
        chosen=run.train,
        proprio_key=recipe.data.proprio_key,
        world_size=None,
        extras=replace(run.train_windows.extras, wrist=tokens("pixels_wrist", run.wrist_variants)),
    )
    order = arrays.order(8)
    for step in range(5):
        a, b = (windows.batch(*order.at(step)) for windows in (arrays, run.train_windows))
        assert b.wrist_history is not None and b.text is not None
        for name, value in vars(a).items():
            other = getattr(b, name)
            assert (value is None and other is None) or torch.equal(value, other), name


def test_a_few_frames_stand_for_all_in_a_rehearsal_which_writes_nothing(tmp_path):
    taken: list[Part] = []
    episodes = made_episodes(DamagedFrames(300))
    step = FramesStep([Part(episodes, 1.0)], taken.extend, FrameStore(tmp_path / "frames", side=4), (), show=False)
    assert step.rehearse() == 300 * 4 * 4 * 3
    (part,) = taken
    assert part.episodes.arrays["pixels"][[0, 64, 299]].shape == (3, 4, 4, 3)
    assert not (tmp_path / "frames").exists()


@pytest.mark.long
def test_the_memory_of_an_epoch_does_not_grow_with_the_frames(tmp_path):
    """3 GB of frames, stored small, so that the disk is spared: a process that held them could not stay below the bound."""
    script = (
        "import sys; from pathlib import Path\n"
        "import torch; torch.set_num_threads(1)\n"
        "from uva_agents.benchmarks.speed.large_epoch import measure_epoch\n"
        "found = measure_epoch(Path(sys.argv[1]), 3.0, 256, stored_side=32, workers=2, variants=2, batch=64)\n"
        "print(found.recorded_gb, found.peak_gb, found.worker_gb)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    recorded, peak, worker = map(float, done.stdout.split())
    assert recorded > 2.9 and peak < 1.2 and worker < 1.0
