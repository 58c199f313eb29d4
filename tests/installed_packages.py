"""Packages of other people, as pip would install them: a module and a folder with metadata on ``sys.path``."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, entry_points: str, module: str = "") -> None:
    """Write distribution ``name`` into ``folder``: the text of its ``entry_points.txt`` and the source of its one module."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (folder / f"{name}.py").write_text(module)
