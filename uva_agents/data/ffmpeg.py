"""What the ffmpeg program that imageio-ffmpeg brings says of a video file: times of its frames, and the frames."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_agents.errors import DataError, MachineError

_DISCARDED = 4
"""Flag of packets that are decoded but not shown: those before the beginning of an edit list."""
_AS_THEY_COME = ("-fps_mode", "passthrough", "-enc_time_base", "demux")
_PAST_EDITS = ("-ignore_editlist", "1")
_LARGEST_SIDE = 16_384
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,obu,flv,ogg,asf,gif,mxf,nut,dv"
)
_SHOWN = re.compile(r"\bpts:\s*(NOPTS|-?\d+).* s:(\d+)x(\d+) ")
_TICK = re.compile(r"time_base: (\d+)/(\d+)")
_VIDEO = re.compile(r"^\s*(?:\[info\]\s+)?Stream #0:\d+.*: Video: ")
_ALPHA = re.compile(r", (?:rgba|bgra|argb|abgr|yuva|gbrap|ya8|ya16|ayuv|vuya)")
_ALPHA_BESIDE = re.compile(r"^\s*(?:\[info\]\s+)?alpha_mode\s*: 1", re.MULTILINE | re.IGNORECASE)
_DEEP_GREY = re.compile(r", gray(?:9|1[0-6]|f|32)")
_RATIO = re.compile(r"SAR (\d+:\d+)")
_INTERLACED = re.compile(r"(?:top|bottom) (?:coded )?first")
_HARMLESS = ("deprecated pixel format used",)


@dataclass(frozen=True, eq=False)
class Shown:
    """Frames that were decoded.

    Attributes:
        times: (n,) seconds, as the file counts them; NaN where it does not say.
        sizes: (n, 2) height and width of each, rotation applied.
        pixels: uint8 (n, H, W, 3), empty if they were not asked for.
        errors: what the decoder complained about.
    """

    times: np.ndarray
    sizes: np.ndarray
    pixels: np.ndarray
    errors: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """When a file shows its frames, told from its packets.

    Attributes:
        seconds: (N,) in the order in which they are shown; NaN where the file does not say.
        beyond_s: ``None``, or how far the clock of the whole file is ahead of its edit list's, where that list hides the last
            frame alone. It hides it because the frame was given no duration, as writers of uneven times often do, and no frame
            of a recording may vanish for that: such a file is read past its edit list.
        remarks: what the file has and the frames that are read of it have not.
    """

    seconds: np.ndarray
    beyond_s: float | None = None
    remarks: tuple[str, ...] = ()


def packet_times(path: Path) -> FrameTimes:
    """Times of all frames; all packets are read, none is decoded.

    Raises:
        DataError: no regular file, no video in it, or it is damaged or cut short. NaN among the times is not an error here.
    """
    seconds, hidden, remarks = _packets(path, ())
    shown = seconds[~hidden]
    if hidden.sum() == 1 and np.nanmax(seconds) == seconds[hidden]:
        whole, still, _ = _packets(path, _PAST_EDITS)
        if len(whole) == len(seconds) and not still.any():
            beyond = float(whole.min() - (shown if len(shown) else seconds).min())
            return FrameTimes(np.sort(whole) - beyond, beyond, remarks)
    return FrameTimes(np.sort(shown), remarks=remarks)


def _packets(path: Path, options: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Seconds of each packet, in the order of decoding, whether the edit list hides it, and remarks on the file."""
    done = _run(path, ["-copyts", *options], ["-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"])
    if done.returncode < 0:  # it crashes when it copies some containers, which it decodes well
        shown = show(path)
        if shown.errors:
            raise DataError(f"{path} cannot be read as a video; it is damaged or cut short: {shown.errors[-1]}")
        return shown.times, np.zeros(len(shown.times), bool), ()
    if errors := _errors(done):
        if "matches no streams" in " ".join(errors):
            raise DataError(f"{path} cannot be read as a video; there is none in it")
        raise DataError(f"{path} cannot be read as a video; it is damaged or cut short: {errors[-1]}")
    tick, times, hidden = 0.0, [], []
    for line in done.stdout.decode("ascii", errors="replace").splitlines():
        if line.startswith("#tb 0:"):
            numerator, denominator = line.split(":")[1].split("/")
            tick = int(numerator) / int(denominator)
        elif not line.startswith("#"):
            fields = [field.strip() for field in line.split(",")]
            flags = next((int(field[2:], 16) for field in fields[6:] if field.startswith("F=")), 0)
            shown_at = int(fields[2])
            times.append(float("nan") if shown_at == -(2**63) else shown_at * tick)
            hidden.append(bool(flags & _DISCARDED))
    return np.array(times), np.array(hidden, bool), _remarks(path, done.stderr.decode(errors="replace"))


def _remarks(path: Path, log: str) -> tuple[str, ...]:
    """What would be lost without a word, from what ffmpeg says of its input.

    Raises:
        DataError: pictures with alpha, or grey ones of more than 8 bits: made colours of 8 bits they would be others.
    """
    given = log.split("Output #0")[0].split("Stream mapping:")[0]
    streams = [line for line in given.splitlines() if _VIDEO.search(line) and "attached pic" not in line]
    if not streams:
        return ()
    first = streams[0]
    if _ALPHA.search(first) or _ALPHA_BESIDE.search(given):
        raise DataError(
            f"{path}: its frames may be transparent, and what is behind them is not stored: flatten them first"
        )
    if _DEEP_GREY.search(first):
        raise DataError(
            f"{path}: its frames are grey of more than 8 bits, which may be depth: store grey pictures with 8 bits, or leave it out"
        )
    found = []
    if len(streams) > 1:
        found.append(f"only the first of its {len(streams)} video streams is read")
    if (ratio := _RATIO.search(first)) and ratio[1] not in ("1:1", "0:1"):
        found.append(f"its pixels are not square ({ratio[1]}), frames are read as they are stored")
    if _INTERLACED.search(first):
        found.append(
            "it is interlaced, and read with both fields in one frame: ffmpeg's filter bwdif makes frames of them"
        )
    return tuple(found)


def show(
    path: Path,
    *,
    count: int | None = None,
    after_s: float | None = None,
    skip: int = 0,
    shape: tuple[int, int, int] | None = None,
    beyond_s: float | None = None,
) -> Shown:
    """Decode frames.

    Args:
        count: how many; all by default.
        after_s: find the first one at or after this time by seeking.
        skip: decode and drop so many first.
        shape: (H, W, 3) of the frames, whose pixels are wanted; times and sizes alone by default.
        beyond_s: see :class:`FrameTimes`.

    Raises:
        DataError: no regular file, or no video that can be decoded at all.
    """
    ahead = beyond_s or 0.0
    seek = [] if after_s is None else ["-seek_timestamp", "1", "-ss", f"{after_s + ahead:.6f}"]
    past = _PAST_EDITS if beyond_s is not None else ()
    chosen = f"select='gte(n\\,{skip})'," if skip else ""
    frames = [] if count is None else ["-frames:v", str(count)]
    sink = ["-f", "null", "-"] if shape is None else ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = _run(
        path,
        ["-copyts", *past, *seek],
        ["-map", "0:V:0", "-vf", f"{chosen}showinfo=checksum=0", *frames, *_AS_THEY_COME, *sink],
    )
    tick, times, sizes = float("nan"), [], []
    for line in done.stderr.decode(errors="replace").splitlines():
        if "showinfo" not in line:
            continue
        if "config in" in line and (found := _TICK.search(line)):
            tick = int(found[1]) / int(found[2])
        elif found := _SHOWN.search(line):
            times.append(float("nan") if found[1] == "NOPTS" else int(found[1]) * tick)
            sizes.append((int(found[3]), int(found[2])))
    pixels = np.empty((0, 0, 0, 3), np.uint8)
    if shape is not None:
        size = int(np.prod(shape))
        whole = len(done.stdout) // size
        pixels = np.frombuffer(done.stdout, np.uint8, whole * size).reshape(whole, *shape)
    return Shown(np.array(times) - ahead, np.array(sizes, int).reshape(-1, 2), pixels, _errors(done))


def first_size(path: Path, beyond_s: float | None = None) -> tuple[int, int]:
    """Height and width of the first frame, rotation applied.

    Args:
        beyond_s: see :class:`FrameTimes`.

    Raises:
        DataError: it cannot be decoded.
    """
    shown = show(path, count=1, beyond_s=beyond_s)
    if not len(shown.sizes):
        reason = shown.errors[-1] if shown.errors else "no frame comes out of it"
        raise DataError(f"{path} cannot be read as a video; it is damaged or cut short: {reason}")
    height, width = shown.sizes[0].tolist()
    if max(height, width) > _LARGEST_SIDE:
        raise DataError(f"{path}: frames of {height} x {width} are too large, at most {_LARGEST_SIDE} on a side")
    return height, width


def _run(path: Path, before: Sequence[str], after: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    from imageio_ffmpeg import get_ffmpeg_exe

    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{path} cannot be read as a video; it is no regular file")
    # "file:" keeps names with colons from being taken for addresses. Playlists, which open other files, are no video.
    source = ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS, "-i", f"file:{path}"]
    common = ["-nostdin", "-hide_banner", "-nostats", "-v", "level+info", "-threads", "1"]
    try:
        program = get_ffmpeg_exe()
    except RuntimeError as error:
        raise MachineError(f"{path}: no ffmpeg program: {_short(error)}; pip install imageio-ffmpeg") from error
    command = [program, *common, *before, *source, "-an", "-sn", "-dn", *after]
    limit = 60 + facts.st_size / 2**20
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{path} cannot be read as a video; ffmpeg did not end in {limit:.0f} s") from error


def _errors(done: subprocess.CompletedProcess[bytes]) -> tuple[str, ...]:
    """What ffmpeg calls errors; why it failed, if it did."""
    lines = done.stderr.decode(errors="replace").splitlines()
    found = [line for line in lines if re.search(r"\[(error|fatal|panic)\]", line)]
    found = [line for line in found if not any(text in line for text in _HARMLESS)]
    if done.returncode and not found:
        found = lines[-1:] or [f"ffmpeg ended with status {done.returncode}"]
    return tuple(_short(re.sub(r"\[(error|fatal|panic)\] |\[[^]]* @ 0x[0-9a-f]+\] ", "", line)) for line in found)


def _short(error: object) -> str:
    lines = str(error).strip().splitlines()
    return json.dumps(lines[-1][:200])[1:-1] if lines else ""
