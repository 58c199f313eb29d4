"""Packages with entry points, as pip installs them."""

import textwrap
from pathlib import Path


def install(folder: Path, name: str, code: str, *entries: str, group: str = "uva_agents.formats") -> None:
    """A distribution whose module ``NAME_module`` has this code, and entry points of the group."""
    (folder / f"{name}_module.py").write_text(textwrap.dedent(code), encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(entries) + "\n", encoding="utf-8")
