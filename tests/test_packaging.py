"""What is built from this tree, however it got here, and which Pythons it is for."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

LINKS = ("envs", "planners", "benchmarks")
_BUILD = "from setuptools import build_meta as b; print(b.build_sdist('dist')); print(b.build_wheel('dist'))"


def modules_of_the_tree() -> set[str]:
    return {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "uva_agents").rglob("*.py")}


def git(*words: str) -> str:
    found = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"this is no git checkout: {found.stderr.strip()[:100]}")
    return found.stdout


def copy_of_the_tree(folder: Path) -> None:
    """As it is now, links as links."""
    for name in ("pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "Makefile"):
        shutil.copy(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "constraints.txt", folder / "constraints.txt")
    for name in ("uva_agents", "tests", "docs", "examples"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    for name in LINKS:
        (folder / name).symlink_to(f"uva_agents/{name}")


def unpacked_without_links(folder: Path) -> None:
    """A zip of the last commit, as a program that knows no links unpacks it: each is a file that holds where it points."""
    archive = folder.with_suffix(".zip")
    git("archive", "--format=zip", "-o", str(archive), "HEAD", "--", ".", ":!uva_agents/checkpoints/weights")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)


def cloned_without_links(folder: Path) -> None:
    git("clone", "-q", "-c", "core.symlinks=false", "--no-checkout", str(REPOSITORY), str(folder))
    words = ["-c", "core.symlinks=false", "checkout", "-q", "HEAD", "--", ".", ":!uva_agents/checkpoints/weights"]
    subprocess.run(["git", "-C", str(folder), *words], check=True)


def build(folder: Path) -> tuple[set[str], set[str]]:
    """Names of files in the source distribution, without its top folder, and in the wheel."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        [sys.executable, "-c", _BUILD], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (sdist,), (wheel,) = (list((folder / "dist").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    with tarfile.open(sdist) as file:
        sources = {name.partition("/")[2] for name in file.getnames()}
    with zipfile.ZipFile(wheel) as wheel_file:
        return sources, set(wheel_file.namelist())


@pytest.mark.slow
@pytest.mark.parametrize("made", [copy_of_the_tree, unpacked_without_links, cloned_without_links])
def test_every_module_is_built_from_a_tree_with_links_or_without(made, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    if made is copy_of_the_tree:
        folder.mkdir()
    made(folder)
    for name in LINKS:
        assert (folder / name).is_symlink() == (made is copy_of_the_tree)
    wanted = {path.relative_to(folder).as_posix() for path in (folder / "uva_agents").rglob("*.py")}
    if made is copy_of_the_tree:
        assert wanted == modules_of_the_tree()
    sources, wheel = build(folder)
    assert {name for name in wheel if name.endswith(".py")} == wanted
    assert {name for name in sources if name.endswith(".py") and name.startswith("uva_agents/")} == wanted
    assert {f"uva_agents/{name}/__init__.py" for name in LINKS} <= wanted
    # Nothing twice, under the links' names.
    assert not {name for name in (*wheel, *sources) if name.split("/")[0] in LINKS}
    assert "uva_agents/py.typed" in wheel and any(
        name.startswith("uva_agents/envs/block_push/assets/") for name in wheel
    )
    beside = {"CHANGELOG.md", "LICENSE", "Makefile", "README.md", "constraints.txt", "docs/data.md", "tests/toys.py"}
    assert beside <= sources
    assert not {name for name in wheel if name.startswith(("tests/", "docs/", "examples/"))}


@pytest.fixture
def pythons(tmp_path: Path):
    """Makes a ``python3`` that says it is of another version."""

    def of(version: tuple[int, int]) -> Path:
        path = tmp_path / f"python{version[0]}.{version[1]}"
        lie = f"import sys; sys.version_info = ({version[0]}, {version[1]}, 0, 'final', 0); "
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = -c ]; then exec "{sys.executable}" -c "{lie}$2"; fi\necho made with "$@"; exit 7\n',
            encoding="utf-8",
        )
        path.chmod(0o755)
        return path

    return of


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    ("version", "taken"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False), ((3, 14), False)]
)
def test_make_names_a_python_that_is_too_old_or_too_new_before_it_installs_anything(version, taken, pythons, tmp_path):
    words = [
        "make",
        "-s",
        "-C",
        str(REPOSITORY),
        f"VENV={tmp_path}/venv",
        f"PYTHON={pythons(version)}",
        f"{tmp_path}/venv/bin/python",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    if taken:
        assert "made with -m venv" in done.stdout
    else:
        assert f"Python 3.11 or 3.12 is needed, and this is {version[0]}.{version[1]}: make PYTHON=" in done.stderr
        assert "made with" not in done.stdout


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser


def test_pip_and_make_and_doctor_know_the_same_pythons():
    from uva_agents.commands.surroundings import NEWEST

    assert settings()["options"]["python_requires"] == f">=3.11,<{NEWEST[0]}.{NEWEST[1] + 1}"
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f"(3, 11) <= v[:2] <= {NEWEST}" in makefile
    named = set(re.findall(r"Python :: (3\.\d+)", settings()["metadata"]["classifiers"]))
    assert named == {"3.11", f"{NEWEST[0]}.{NEWEST[1]}"}


def test_what_is_required_is_constrained_to_a_version_that_satisfies_it():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    fixed = {}
    for line in lines:
        name, equals, version = line.partition("==")
        if equals and not line.startswith("#"):
            fixed[canonicalize_name(name)] = version
    parser = settings()
    texts = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    wanted = [Requirement(line) for text in texts for line in text.splitlines() if line and not line.startswith("#")]
    assert len(wanted) > 40
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name != "uva-agents":
            assert requirement.specifier.contains(fixed[name]), requirement
