"""The rules of who imports whom hold, and ``make check`` says so where they are broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_contracts import circles_of

ROOT = Path(__file__).resolve().parents[1]


def test_a_circle_of_modules_is_found_and_a_diamond_is_none() -> None:
    diamond = {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}
    assert circles_of(diamond) == []
    assert circles_of(diamond | {"d": {"a"}}) == [["a", "b", "c", "d"]]
    assert circles_of({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}) == [["a", "b"], ["d", "e"]]


@pytest.mark.slow
def test_the_rules_hold_and_breaking_one_fails_the_check(tmp_path: Path) -> None:
    skip = shutil.ignore_patterns("weights", "assets", "__pycache__")
    shutil.copytree(ROOT / "uva_agents", tmp_path / "uva_agents", ignore=skip)
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "import_contracts.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    shutil.copy(ROOT / ".importlinter", tmp_path / ".importlinter")

    def check() -> subprocess.CompletedProcess[str]:
        code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
        return subprocess.run(
            [sys.executable, "-c", code, "--no-cache"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    held = check()
    assert held.returncode == 0, held.stdout[-2000:]
    layers = tmp_path / "uva_agents" / "model" / "layers.py"
    layers.write_text(layers.read_text() + "\nimport uva_agents.model.vae\nimport uva_agents.data.episodes\n")
    vae = tmp_path / "uva_agents" / "model" / "vae.py"
    vae.write_text(vae.read_text() + "\nimport uva_agents.model.layers\n")
    broken = check()
    assert broken.returncode == 1
    assert "Layers go one way BROKEN" in broken.stdout
    assert "No module imports itself by way of others BROKEN" in broken.stdout
    assert "uva_agents.model.layers" in broken.stdout and "Traceback" not in broken.stderr
