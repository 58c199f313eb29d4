"""Videos are whole or an error: imageio looks neither at how ffmpeg ended nor at what it left."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

_FULL = 1 << 20
"""Free bytes under which a disk is taken to be the reason. ffmpeg writes larger pieces than what may be left."""


@contextlib.contextmanager
def ffmpeg_writing(path: Path) -> Iterator[None]:
    """Around what hands frames to ffmpeg: an error is of the disk or of ffmpeg, not a command of 400 letters.

    Raises:
        OSError: with the reason alone; whoever catches it knows the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise unwritten(path, "ffmpeg ended before the video did") from error


def check_video(path: Path, frames: int) -> None:
    """That every frame which was handed to ffmpeg can be shown.

    Raises:
        OSError: with the reason alone.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path), "-map", "0:v:0"]
    shown = subprocess.run(
        [*command, "-f", "null", "-progress", "pipe:1", "-"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    counts = re.findall(r"^frame=\s*(\d+)", shown.stdout, re.MULTILINE)
    found = int(counts[-1]) if counts else 0
    if found != frames or shown.returncode or shown.stderr.strip():
        raise unwritten(path, f"{found} of {frames} frames can be shown, the rest was cut off")


def unwritten(path: Path, otherwise: str) -> OSError:
    """Why a video was not written: the disk, if it is full, else ``otherwise``."""
    with contextlib.suppress(OSError, AttributeError):
        facts = os.statvfs(path.parent)
        if facts.f_bavail * facts.f_frsize < _FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(otherwise)
