"""What all tests share."""

import os
from collections import Counter
from pathlib import Path

# Before anything imports torch, pygame or an OpenMP library: they read these once.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")

import pytest
import torch

torch.set_num_threads(1)  # repeatable sums, and no fight for the cores with whatever else runs

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: a file is one process's, and a long one that begins last keeps the other waiting."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded data from the original code: ``$UVA_SHARED``, or ``shared`` beside the repository."""
    folder = Path(os.environ.get("UVA_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        message = f"no recorded data at {folder}; set UVA_SHARED to the folder that holds golden/"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on ``sys.path``, into which :func:`tests.installed_packages.install` puts packages of other people."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path
