"""Finished episodes on disk while a benchmark runs, so that a killed one loses the running episodes only."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import typing
import warnings
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from uva_agents.benchmarks.evaluation.report import plain
from uva_agents.errors import MachineError
from uva_agents.utils.files import check_file_target, read_regular, write_text

R = TypeVar("R")

_LARGEST = 1 << 30
"""Bytes of a journal: millions of episodes."""


class Journal(Generic[R]):
    """A line of settings, then a line per finished episode, each a JSON value.

    A journal with exactly these settings is continued. One with others is kept beside it as ``NAME.1.jsonl``, ``NAME.2.jsonl``
    and so on, if it has any episode, and a warning says what differs. One that can no longer be written (the disk is full) is
    given up with a warning: the result is worth more. Lines are no more trusted than other files: one that is no episode of
    this run is dropped, and a warning says how many were.

    Args:
        path: of the journal; ``None`` keeps none.
        settings: all that decides what an episode's outcome means, as JSON values.
        record: dataclass of an episode, called with a line's values as keywords; lists come back as tuples. Values are of the
            types that it declares, and finite.
        fits: whether a record can be of this run.
        key: what only one record can have; two that differ say nothing of which one is true, and both are dropped.

    Raises:
        DataError, MachineError: something else than a readable regular file is there; :func:`check_journal` knows it earlier.

    Attributes:
        records: finished episodes, those of earlier runs first.
        resumed: how many were there when it was opened.
    """

    def __init__(
        self,
        path: Path | None,
        settings: Mapping[str, Any],
        record: type[R],
        *,
        fits: Callable[[R], bool] = lambda _: True,
        key: Callable[[R], Hashable] | None = None,
    ) -> None:
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
            read = [_record(value, record) for value in found[1:]]
            self.records = _unique([r for r in read if r is not None and fits(r)], key)
            dropped = len(read) - len(self.records)
            if dropped:
                warnings.warn(
                    f"{path}: {dropped} of {len(read)} lines {'is' if dropped == 1 else 'are'} damaged or no "
                    f"episode{'' if dropped == 1 else 's'} of this run, and dropped: those episodes are run again",
                    stacklevel=2,
                )
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


class _Damaged:
    """Stands for a line that is no JSON value."""

    def __repr__(self) -> str:
        return "that cannot be read"


def check_journal(path: Path) -> None:
    """That a journal can be kept at ``path``, before the work.

    Raises:
        MachineError: see :func:`~uva_agents.utils.files.check_file_target`; a pipe or a device is there.
    """
    check_file_target(path)
    if path.exists() and not path.is_file():
        raise MachineError(f"{path} is not a regular file, and the journal of a run is kept there: move it away")


def _read(path: Path) -> list[Any]:
    """Values of its lines, the settings first; a last line that was torn by a kill is left out."""
    try:
        text = read_regular(path, limit=_LARGEST).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    *lines, torn = text.split("\n")
    values = [_value(line) for line in lines]
    last = _value(torn)
    return values if isinstance(last, _Damaged) else [*values, last]


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # numbers of thousands of digits, thousands of brackets
        return _Damaged()


def _record(value: Any, record: type[R]) -> R | None:
    """``None`` where it is none."""
    if not isinstance(value, dict):
        return None
    try:
        made = record(**{key: _as_tuple(item) for key, item in value.items()})
    except (TypeError, ValueError):
        return None
    hints = typing.get_type_hints(record)
    return made if all(_is_a(getattr(made, name), hint) for name, hint in hints.items()) else None


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is what a dataclass declares."""
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if hint in (int, bool, str):
        return type(value) is hint
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return isinstance(value, tuple) and all(_is_a(item, parts[0]) for item in value)
    return True


def _unique(records: list[R], key: Callable[[R], Hashable] | None) -> list[R]:
    if key is None:
        return records
    found: dict[Hashable, R] = {}
    unclear = set()
    for record in records:
        if found.setdefault(key(record), record) != record:
            unclear.add(key(record))
    return [record for name, record in found.items() if name not in unclear]


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
