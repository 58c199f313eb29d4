"""What ``uva doctor`` says of the process's surroundings: Python, locale, threads, graphics, proxies, disk."""

from __future__ import annotations

import glob
import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEWEST = (3, 12)
"""Python that the dependencies of this release are known to work with."""
_GL = ("egl", "osmesa", "glfw", "glx", "off", "disable", "disabled", "0", "false", "")
_DRAWS = ("egl", "osmesa", "glfw", "glx", "")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the report.

    Attributes:
        status: ``ok``, ``note`` (optional, or only informs) or ``FAIL`` (core).
        name: of what was looked at.
        text: what was found, and what to do.
        broken: something that is optional, is there, and does not work.
    """

    status: str
    name: str
    text: str
    broken: bool = False


def surroundings() -> Iterator[CheckResult]:
    """Everything that is known without loading a library."""
    yield python()
    yield text_encoding()
    yield threads()
    yield visible_gpus()
    yield from graphics()
    yield from proxies()
    yield space()


def python() -> CheckResult:
    """The interpreter's version."""
    version = platform.python_version()
    if sys.version_info[:2] > NEWEST:
        return CheckResult(
            "FAIL", "python", f"{version} is newer than what this release's dependencies support: take 3.11 or 3.12"
        )
    return CheckResult("ok", "python", version)


def text_encoding() -> CheckResult:
    """Of the locale and of the terminal. Files of this package are UTF-8 in any."""
    locale_, out = locale.getpreferredencoding(False), getattr(sys.stdout, "encoding", None) or "unknown"
    names = sys.getfilesystemencoding()
    text = f"locale {locale_}, terminal {out}, file names {names}"
    if all(name.lower().replace("-", "").replace("_", "") == "utf8" for name in (locale_, out, names)):
        return CheckResult("ok", "text", text)
    return CheckResult(
        "note",
        "text",
        f"{text}: other characters are shown escaped, and names of files that have some may not be found; PYTHONUTF8=1 mends both",
    )


def threads() -> CheckResult:
    """Of OpenMP, which torch computes with."""
    policy, number = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OMP_NUM_THREADS")
    text = f"OMP_NUM_THREADS={number or 'unset'}, OMP_WAIT_POLICY={policy or 'unset'}"
    # A list has a number for each level of nesting.
    if number and not all(part.strip().isdigit() and int(part) > 0 for part in number.split(",")):
        return CheckResult("note", "threads", f"{text}: no number of threads, so it is ignored", broken=True)
    if (policy or "").lower() != "passive":
        text += "; with other busy processes on the machine, OMP_WAIT_POLICY=passive is several times faster"
    return CheckResult("ok", "threads", text)


def visible_gpus() -> CheckResult:
    """Which GPUs programs may see. What torch makes of them is a check of its own."""
    value, there = os.environ.get("CUDA_VISIBLE_DEVICES"), len(glob.glob("/dev/nvidia[0-9]*"))
    text = f"CUDA_VISIBLE_DEVICES={'unset' if value is None else repr(value)}, {there} NVIDIA devices here"
    if value is None:
        return CheckResult("ok", "GPUs", text)
    if value.strip() in ("", "-1", "NoDevFiles"):
        return CheckResult("ok", "GPUs", f"{text}: none may be used, agents run on the CPU")
    numbers = [int(part) for part in value.split(",") if part.strip().isdigit()]
    wrong = [number for number in numbers if number >= there]
    if wrong:
        return CheckResult(
            "note",
            "GPUs",
            f"{text}: there is no number {wrong[0]}, so it and all after it are not seen",
            broken=there > 0,
        )
    return CheckResult("ok", "GPUs", text)


def graphics() -> Iterator[CheckResult]:
    """How pictures are drawn without a window."""
    yield CheckResult(
        "ok", "display", f"SDL_VIDEODRIVER={os.environ.get('SDL_VIDEODRIVER', 'unset (PushT sets dummy)')}"
    )
    chosen = os.environ.get("MUJOCO_GL")
    name = "MuJoCo rendering"
    if chosen is None:
        yield CheckResult("ok", name, "MUJOCO_GL=unset (headless: egl)")
    elif chosen.lower().strip() not in _GL:
        yield CheckResult(
            "note", name, f"MUJOCO_GL={chosen!r} is none of egl, osmesa and glfw: MuJoCo does not import", broken=True
        )
    elif chosen.lower().strip() not in _DRAWS:
        yield CheckResult(
            "note", name, f"MUJOCO_GL={chosen!r} draws nothing: environments of MuJoCo have no pictures", broken=True
        )
    elif chosen.lower().strip() in ("glfw", "glx", "") and not os.environ.get("DISPLAY") and sys.platform == "linux":
        yield CheckResult(
            "note",
            name,
            f"MUJOCO_GL={chosen!r} needs a window system and DISPLAY is not set: MUJOCO_GL=egl needs none",
            broken=True,
        )
    else:
        yield CheckResult("ok", name, f"MUJOCO_GL={chosen}")
    platform_ = os.environ.get("PYOPENGL_PLATFORM")
    wanted = (chosen or "egl").lower()
    if platform_ and wanted in ("egl", "osmesa") and platform_.lower() != wanted:
        yield CheckResult(
            "note", name, f"PYOPENGL_PLATFORM={platform_} contradicts MUJOCO_GL={wanted}: unset it", broken=True
        )
    device = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if device is not None and not device.isdigit():
        yield CheckResult(
            "note", name, f"MUJOCO_EGL_DEVICE_ID={device!r} is no number of a device: unset it", broken=True
        )


def proxies() -> Iterator[CheckResult]:
    """Which stand between a client and a policy server."""
    found = [
        name
        for name in ("http_proxy", "https_proxy", "all_proxy")
        if os.environ.get(name) or os.environ.get(name.upper())
    ]
    if found:
        exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "unset"
        yield CheckResult(
            "note",
            "proxies",
            f"{', '.join(found)} set, no_proxy={exempt}: policy servers that are near belong into no_proxy",
        )


def space() -> CheckResult:
    """For what is written in passing, and in the working directory."""
    parts = []
    for what, folder in (("temporary files", Path(tempfile.gettempdir())), ("the working directory", Path.cwd())):
        free = shutil.disk_usage(folder).free
        writable = os.access(folder, os.W_OK)
        if not writable:
            parts.append(f"{what} ({folder}) may not be written: results need --out or --json elsewhere")
        elif free < 1 << 30:
            parts.append(f"{what} ({folder}) have {free >> 20} MiB left")
    return CheckResult("note" if parts else "ok", "disk", "; ".join(parts) or "there is room for results")
