"""Results of long work: written whole where they were wanted, or else somewhere, and then that is said."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from uva_agents.errors import MachineError
from uva_agents.utils.files import replacing


class UnwrittenError(MachineError):
    """A result could not be written where it was wanted.

    Attributes:
        saved: where it is instead; ``None`` if no place took it.
        result: what was to be written, where whoever catches this may go on with it.
    """

    def __init__(self, message: str, saved: Path | None) -> None:
        super().__init__(message)
        self.saved = saved
        self.result: Any = None


class Results:
    """The files that a command ends with. Use it as a context manager: its end says what was not written where it should be.

    The first file whose target fails, and every later one that does, goes into a new folder in the temporary directory under
    the name it should have had.

    Raises:
        UnwrittenError: at the end of the block, naming the first target, why, and where its files are now.
    """

    def __init__(self) -> None:
        self._elsewhere: Path | None = None
        self._problem: Exception | None = None
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check()

    def save(self, path: str | Path, write: Callable[[Path], object]) -> Path | None:
        """Let ``write`` fill a file that becomes ``path`` when it is whole. Returns where it is."""
        path = Path(path)
        try:
            with replacing(path) as partial:
                write(partial)
            return path
        except MachineError as error:
            self._problem = self._problem or error
        try:
            if self._elsewhere is None:
                self._elsewhere = Path(tempfile.mkdtemp(prefix="uva-results-"))
            with replacing(self._elsewhere / path.name) as partial:
                write(partial)
            return self._elsewhere / path.name
        except (MachineError, OSError):
            self._lost = True
            return None

    def text(self, path: str | Path, text: str) -> Path | None:
        """The same for UTF-8 text."""
        # A path that is no UTF-8 comes as surrogates, and may be part of the text.
        return self.save(path, lambda partial: partial.write_bytes(text.encode("utf-8", errors="surrogateescape")))

    def check(self) -> None:
        """Raise if something is not where it was wanted."""
        if self._problem is None:
            return
        if self._lost:
            raise UnwrittenError(f"{self._problem}; nor could the temporary directory hold it", None)
        raise UnwrittenError(f"{self._problem}; what was to be there is in {self._elsewhere}", self._elsewhere)


def save_text(path: str | Path, text: str) -> None:
    """Write one result, UTF-8, completely or not at all.

    Raises:
        UnwrittenError: it is somewhere else, or nowhere; the message says.
    """
    with Results() as results:
        results.text(path, text)
