"""Errors by cause, for whoever calls this package from Python, and for the command line, which turns each into one line.

- :class:`InputError`: what the caller gave, a name, an option, an observation, an environment that does not fit. Exit status of
  ``uva``: 2.
- :class:`DataError`: a dataset, recording or video that is damaged, incomplete or not understood. 3.
- :class:`WeightsError`: a checkpoint or weights folder that is damaged, foreign or does harm. 3.
- :class:`NotFiniteError`: a network computed NaN or infinity. 3.
- :class:`MachineError`: what the machine lacks, a device, a library, a display, disk space, rights, a free port. 4.

Every message names the thing and says what to do. ``InputError``, ``DataError`` and ``WeightsError`` are ``ValueError``; those who
catch that go on working.
"""

from __future__ import annotations


class UVAError(Exception):
    """Base of this package's own errors."""

    exit_status = 2


class InputError(UVAError, ValueError):
    """What the caller gave does not fit: an argument, a name, an observation, an action, a state."""


class MissingKeyError(InputError, KeyError):
    """A dict that the caller gave lacks a key, for example an observation that comes from another environment."""

    def __str__(self) -> str:
        # A KeyError shows the repr of its message.
        return str(self.args[0]) if self.args else ""


class DataError(UVAError, ValueError):
    """A dataset, recording or video is damaged, incomplete or of a layout that is not understood."""

    exit_status = 3


class WeightsError(UVAError, ValueError):
    """A checkpoint file or weights folder is damaged, foreign, or asks for what no honest file would."""

    exit_status = 3


class NotFiniteError(UVAError, ArithmeticError):
    """A network's output is NaN or infinite; the message names weights, head and what the input looked like."""

    exit_status = 3


class MachineError(UVAError, RuntimeError):
    """The machine lacks something: a device, a library, a display, memory, disk space, rights, a free port."""

    exit_status = 4
