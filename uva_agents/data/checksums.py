"""Checksums of a dataset's files, beside it: the only way to see a flipped byte where a format has no check of its own.

``PATH.sha256`` has a line per file, ``HASH  NAME``, as ``sha256sum -c`` takes them from the folder that PATH is in.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from uva_agents.data.contained import check_contained, home_of
from uva_agents.data.holes import listed
from uva_agents.errors import DataError
from uva_agents.utils.files import read_regular_text, write_text

_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
"""As ``sha256sum`` writes names that its lines cannot hold; such a line begins with a backslash."""


def sums_path(path: Path) -> Path:
    """Where the checksums of a dataset are."""
    return Path(os.path.abspath(path)).with_name(f"{path.resolve().name}.sha256")  # "." has no name of its own


def write_sums(path: Path) -> Path:
    """Write the checksums of all files of a dataset.

    Raises:
        FileNotFoundError: nothing there.
        DataError: a file that is no regular one, or lies outside.
        MachineError: the checksums cannot be written there.
    """
    if not path.exists():
        raise FileNotFoundError(f"no dataset at {path}")
    lines = [_line(_digest(file), name) for name, file in _files(path)]
    target = sums_path(path)
    write_text(target, "\n".join(lines) + "\n")
    return target


def check_sums(path: Path) -> bool:
    """Hold a dataset against its checksums. False if there are none.

    Raises:
        DataError: files are missing, changed or new.
    """
    try:
        text = read_regular_text(sums_path(path), limit=1 << 30)
    except FileNotFoundError:
        return False
    expected: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):  # other ends of lines are parts of names
        match = _LINE.fullmatch(line.removesuffix("\r"))
        if match is None:
            raise DataError(f"{sums_path(path)} is damaged: {line[:60]!r} is no line of sha256sum; write it again")
        expected[_unescaped(match[3]) if match[1] else match[3]] = match[2]
    files = dict(_files(path))
    missing = sorted(set(expected) - set(files))
    new = sorted(set(files) - set(expected))
    changed = [name for name in sorted(set(expected) & set(files)) if _digest(files[name]) != expected[name]]
    found = [
        f"{what} {listed(names, 3)}"
        for what, names in (("changed:", changed), ("missing:", missing), ("new:", new))
        if names
    ]
    if found:
        raise DataError(
            f"{path} is not what {sums_path(path).name} was written for; {'; '.join(found)}: copy the dataset again, or write its "
            f"checksums again if that was meant (uva data checksum {path})"
        )
    return True


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Files with their names in the list, sorted."""
    name = path.resolve().name
    if path.is_file():
        check_contained(path, home_of(path))
        yield name, path
        return
    home = home_of(path)
    found = []
    for folder, _, names in os.walk(path):
        for each in names:
            file = Path(folder) / each
            check_contained(file, home)
            found.append((f"{name}/{file.relative_to(path).as_posix()}", file))
    yield from sorted(found)


def _line(digest: str, name: str) -> str:
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in name)
    return f"{digest}  {name}" if escaped == name else f"\\{digest}  {escaped}"


def _unescaped(name: str) -> str:
    meant = {escape: letter for letter, escape in _ESCAPES.items()}
    return re.sub(r"\\[\\nr]", lambda found: meant[found[0]], name)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
