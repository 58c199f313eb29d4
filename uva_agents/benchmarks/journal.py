"""Finished episodes on disk while a benchmark runs, so that a killed one loses the running episodes only."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from uva_agents.benchmarks.report import plain
from uva_agents.utils.files import write_text

R = TypeVar("R")


class Journal(Generic[R]):
    """A line of settings, then a line per finished episode, each a JSON value.

    A journal with exactly these settings is continued. One with others is kept beside it as ``NAME.1.jsonl``, ``NAME.2.jsonl``
    and so on, if it has any episode, and a warning says what differs. One that can no longer be written (the disk is full) is
    given up with a warning: the result is worth more.

    Args:
        path: of the journal; ``None`` keeps none.
        settings: all that decides what an episode's outcome means, as JSON values.
        record: dataclass of an episode, called with a line's values as keywords; lists come back as tuples.

    Attributes:
        records: finished episodes, those of earlier runs first.
        resumed: how many were there when it was opened.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], record: Callable[..., R]) -> None:
        self.path = path
        self.records: list[R] = []
        self._file: TextIO | None = None
        if path is None:
            self.resumed = 0
            return
        # Through JSON and back: tuples become lists, as they will be when read from the file.
        head = json.loads(json.dumps(plain(settings), default=str))
        found = _read(path)
        if found and found[0] == head:
            self.records = _records(found[1:], record)
        elif len(found) > 1:
            kept = _set_aside(path)
            warnings.warn(
                f"{path} was made with {_difference(found[0], head)}: its {len(found) - 1} episodes are kept in {kept}, "
                "and all are run anew",
                stacklevel=2,
            )
        self.resumed = len(self.records)
        # Rewritten rather than appended to, because a torn last line would swallow the next one; and at one stroke,
        # because the run may be killed right now.
        write_text(path, "".join(f"{line}\n" for line in (json.dumps(head), *map(_as_json, self.records))))
        self._file = path.open("a", encoding="utf-8")

    def add(self, record: R) -> None:
        """Append a finished episode."""
        self.records.append(record)
        if self._file is None:
            return
        try:
            self._file.write(_as_json(record) + "\n")
            self._file.flush()
        except OSError as error:
            warnings.warn(
                f"{self.path} cannot be written any more ({error.strerror}): the run goes on, but could not be continued from here",
                stacklevel=2,
            )
            self._give_up()

    def close(self, *, remove: bool = False) -> None:
        """Close the file; ``remove`` it where a report has everything that it has."""
        self._give_up()
        if self.path is not None and remove:
            with contextlib.suppress(OSError):  # the report is there, so the journal does no harm
                self.path.unlink(missing_ok=True)

    def _give_up(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what is in the buffer still finds no place
                file.close()


def _read(path: Path) -> list[Any]:
    """Values of its lines, the settings first; up to a line that was torn by a kill."""
    values: list[Any] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return values


def _records(values: list[Any], record: Callable[..., R]) -> list[R]:
    """Up to one that is no record."""
    found = []
    for value in values:
        try:
            found.append(record(**{key: _as_tuple(item) for key, item in value.items()}))
        except (TypeError, AttributeError):
            break
    return found


def _set_aside(path: Path) -> Path:
    """Rename to the first free ``NAME.K.SUFFIX``."""
    names = (path.with_suffix(f".{k}{path.suffix}") for k in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    os.replace(path, kept)
    return kept


def _difference(found: Any, wanted: Any, name: str = "settings") -> str:
    """What differs, by dotted name: "versions.python 3.11.2, not 3.11.7"."""
    if not (isinstance(found, Mapping) and isinstance(wanted, Mapping)):
        return f"{name} {found}, not {wanted}"
    return "; ".join(
        _difference(found.get(key), wanted.get(key), key if name == "settings" else f"{name}.{key}")
        for key in {**found, **wanted}
        if found.get(key) != wanted.get(key)
    )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_json(record: Any) -> str:
    return json.dumps(dataclasses.asdict(record))
