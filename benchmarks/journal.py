"""Finished episodes on disk while an evaluation runs, so that a killed one loses the running episodes only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uva_agents.benchmarks.report import EpisodeRecord, write_atomic


class Journal:
    """``NAME.partial.jsonl`` beside ``NAME.json``: a line of settings, then a line per finished episode.

    Args:
        json_path: of the report; ``None`` keeps no journal.
        settings: JSON values; only a journal with exactly these is continued, any other is begun anew.
    """

    def __init__(self, json_path: str | Path | None, settings: Mapping[str, Any]) -> None:
        self.path = None if json_path is None else Path(json_path).with_suffix(".partial.jsonl")
        # Through JSON and back: tuples become lists, as they will be when read from the file.
        self._settings = json.loads(json.dumps(settings, default=str))
        self.resumed = self._read()
        if self.path is not None:
            # Rewritten rather than appended to, because a torn last line would swallow the next one; and at one stroke,
            # because the run may be killed right now.
            values = [self._settings, *map(dataclasses.asdict, self.resumed)]
            write_atomic(self.path, "".join(json.dumps(value) + "\n" for value in values))
            self._file = self.path.open("a")

    def _read(self) -> list[EpisodeRecord]:
        if self.path is None or not self.path.exists():
            return []
        values = []
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError:
                break  # the run was killed while it wrote this line
        if not values or values[0] != self._settings:
            return []
        return [EpisodeRecord(**value) for value in values[1:]]

    def add(self, record: EpisodeRecord) -> None:
        """Append a finished episode."""
        if self.path is not None:
            self._file.write(json.dumps(dataclasses.asdict(record)) + "\n")
            self._file.flush()

    def close(self, *, finished: bool) -> None:
        """Close the file; a finished evaluation has its report and needs the journal no more."""
        if self.path is not None:
            self._file.close()
            if finished:
                self.path.unlink(missing_ok=True)
