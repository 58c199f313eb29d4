"""What the documentation shows is run, and what it points to is there."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page for folder in ("", "tutorials", "extend", "cards") for page in (ROOT / "docs" / folder).glob("*.md")
)
RUN = [
    ROOT / "docs" / "quickstart.md",
    ROOT / "docs" / "block_push.md",
    *sorted((ROOT / "docs" / "extend").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
]
NEEDS = {"arm": "mujoco", "serve": "websockets", "block_push": "pybullet"}


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_every_snippet_of_a_tutorial_runs(page: Path) -> None:
    if page.stem in NEEDS and importlib.util.find_spec(NEEDS[page.stem]) is None:
        pytest.skip(f"needs {NEEDS[page.stem]}")
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), scope)
    assert blocks


EXCERPTS = [
    ROOT / "docs" / f"{name}.md"
    for name in ("pusht", "serving", "stable_baselines3", "arx_x5", "data", "libero", "realtime")
]
"""Pages whose snippets take a policy and an environment for granted."""
ELSEWHERE = ('driver="arx5"', ".ckpt", "libero", "Libero", "recordings=", "demonstration()", "ArxRobotInterface")
"""What a snippet has that does not run here, or not within a test: an arm, downloads, data, real time."""


@pytest.mark.parametrize("page", EXCERPTS, ids=lambda page: page.stem)
def test_every_snippet_of_a_page_runs_or_at_least_imports(page: Path) -> None:
    needs = {"arx_x5": "mujoco", "serving": "websockets", "stable_baselines3": "stable_baselines3", "libero": "mujoco"}
    if page.stem in needs and importlib.util.find_spec(needs[page.stem]) is None:
        pytest.skip(f"needs {needs[page.stem]}")
    import gymnasium as gym
    import numpy as np

    import uva_agents as uva

    scope: dict[str, Any] = {"gym": gym, "np": np, "uva": uva}
    if page.stem == "serving":
        scope |= {"policy": uva.Policy.from_pretrained("pusht-nano"), "obs": gym.make("uva/PushT-v0").reset(seed=0)[0]}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M):
        tree = ast.parse(block)
        if any(word in block for word in ELSEWHERE):
            tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(tree, page.name, "exec"), scope)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"^[a-z0-9_/-]+$", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), flags=re.M))
    assert {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES} - {"index"} <= listed


def test_commands_that_pages_name_exist() -> None:
    from uva_agents.cli import COMMANDS

    for page in (*PAGES, ROOT / "README.md"):
        blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        for command in re.findall(r"^uva ([a-z]+)", "\n".join(blocks), flags=re.M):
            assert command in COMMANDS, f"{page.name}: uva {command}"


@pytest.mark.parametrize("name", ["planners", "model", "data"])
def test_a_reference_has_every_public_name(name: str) -> None:
    text = (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")
    listed = re.findall(r"(?:auto(?:class|function|exception)|py:data):: (\w+)$", text, flags=re.M)
    assert sorted(listed) == sorted(importlib.import_module(f"uva_agents.{name}").__all__)


def test_the_walks_through_the_code_name_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package, steps = ROOT / "uva_agents", 0
    for path, inside, outside in re.findall(
        r"(?:\()?`([\w/]+\.py)`(?: \((`[^)]*)\)|,\s+((?:`[\w.]+`(?:,\s+)?)+)\))?", text
    ):
        assert "/" not in path or (package / path).is_file(), path
        for name in re.findall(r"`([\w.]+)`", inside or outside):
            source = (package / path).read_text(encoding="utf-8")
            for part in name.split("."):
                assert re.search(rf"^\s*(?:async )?(?:def|class) {part}\b", source, flags=re.M), f"{path}: {name}"
            steps += 1
    assert steps > 40


def test_the_layers_of_the_architecture_page_are_those_that_are_checked() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rules = (ROOT / ".importlinter").read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n(.*?)^```", text, flags=re.S | re.M)[0].split("\n")
    checked = re.findall(r"^layers =\n((?:    .*\n)+)", rules, flags=re.M)[0].split("\n")
    assert [line.strip() for line in shown] == [line.strip() for line in checked]


def test_every_folder_of_the_package_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "uva_agents").glob("*/__init__.py")}
    assert not {folder for folder in folders if f"| `{folder}` |" not in text}


def found(name: str) -> bool:
    """Whether there is such a module, or something of that name in one; true as well where a package that it needs is missing."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            place: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("uva_agents"):
                return True
            continue
        for part in parts[length:]:
            if part in getattr(place, "__annotations__", {}):
                return True
            if not hasattr(place, part):
                return False
            place = getattr(place, part)
        return True
    return False


def test_references_in_docstrings_and_pages_lead_to_what_is_there() -> None:
    role = r"(?::|\{)(?:class|func|meth|attr|data|mod|exc)(?::|\})`~?(uva_agents[\w.]*)(?:\(\))?`"
    paths = [*(ROOT / "uva_agents").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    names = {name for path in paths for name in re.findall(role, path.read_text(encoding="utf-8"))}
    assert len(names) > 100
    assert not [name for name in sorted(names) if not found(name)]
