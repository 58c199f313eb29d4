"""Many damaged copies of weights folders of every kind: an error that names the folder, or the right weights; in bounded memory."""

import copy
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import hostile_files as hostile
from tests.weights_folders import KINDS, LOADERS, edited, facts, same, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of every kind."""
    base = tmp_path_factory.mktemp("whole")
    return {kind: write(kind, base / kind) for kind in KINDS}


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from leaves(value, (*path, key))


STRANGE: list[Any] = [
    *(None, 0, -1, 1, 2, 3, 7, 0.5, 8.5, 10**9, 10**400, float("nan"), float("inf")),
    *(True, False, "", "x", [], {}, [0], [None], {"a": 1}),
]


def mutated(config: Any, rng: np.random.Generator) -> Any:
    config = copy.deepcopy(config)
    config.pop("files")  # tensors are what they were
    places = list(leaves({k: config[k] for k in ("format", "kind", "name", "model", "normalizer", "interface")}))
    *parents, last = places[rng.integers(len(places))]
    node = config
    for part in parents:
        node = node[part]
    kind = rng.integers(0, 4)
    if kind == 0:
        del node[last]
    elif kind == 1 and isinstance(node, dict):
        node[f"{last}_"] = node.pop(last)
    else:
        node[last] = STRANGE[rng.integers(len(STRANGE))]
    return config


def check_copies(whole: dict[str, Path], base: Path, seeds: range) -> dict[str, int]:
    right = {kind: facts(LOADERS[kind](folder, device="cpu")) for kind, folder in whole.items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {"error": 0, "right": 0}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        folder = base / f"copy{seed % 2}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole[kind], folder)
        structural = seed % 3 == 0
        if structural:
            edited(folder, folder, lambda config, rng=rng: mutated(config, rng))  # type: ignore[misc]
        else:
            files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
            path = files[rng.integers(len(files))]
            end = min(path.stat().st_size, 20_000) if rng.random() < 0.5 else None  # names as often as numbers
            path.write_bytes(hostile.damaged(path.read_bytes(), rng, end=end))
        loaded, message = hostile.outcome(lambda kind=kind, folder=folder: LOADERS[kind](folder, device="cpu"))  # type: ignore[misc]
        if loaded is None:
            assert str(folder) in message and len(message) < 1500, f"seed {seed}: {message}"
            counts["error"] += 1
            continue
        assert same(facts(loaded), right[kind], said=not structural), f"seed {seed}: other weights without a word"
        counts["right"] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1 << 20, f"{grown} KiB"
    return counts


def test_damaged_folders_are_errors_or_right(whole: dict[str, Path], tmp_path: Path) -> None:
    counts = check_copies(whole, tmp_path, range(60))
    assert counts["error"] > 30, counts


@pytest.mark.long
def test_five_hundred_damaged_folders_are_errors_or_right(whole: dict[str, Path], tmp_path: Path) -> None:
    counts = check_copies(whole, tmp_path, range(1000, 1500))
    assert counts["error"] > 250, counts
