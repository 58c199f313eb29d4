"""OpenGL without a window, for everything here that MuJoCo draws: what the environment variables ask for, one EGL display for the
process, and errors that name the variable and the fix.

MuJoCo and robosuite each have an EGL display of their own; where both are used it is the same one, and whoever shuts it down first
leaves the other's contexts behind. Here it is made once, before the first context, and shut down after the last.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from uva_agents.errors import MachineError

OFF = ("disable", "disabled", "off", "false", "0")
WINDOW = ("", "enable", "enabled", "on", "true", "1", "glfw", "glx")
_HEADLESS = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
"""Value of MUJOCO_GL -> the libraries of which one must be there."""
_INSTALL = {"egl": "apt-get install libegl1 libgl1-mesa-dri", "osmesa": "apt-get install libosmesa6"}

_lock = threading.RLock()
_drawing_in: int | None = None
"""The process that OpenGL was first used in."""


def prepare() -> str:
    """To be called before MuJoCo is imported, which reads ``MUJOCO_GL`` once; harmless to call again.

    On Linux, where nothing is set, it is set to what is installed: ``egl``, else ``osmesa``, else ``off``, with which everything
    works that draws nothing.

    Returns:
        The value of ``MUJOCO_GL``.

    Raises:
        MachineError: it is set to what there is not, or to what is not installed.
    """
    if not sys.platform.startswith("linux"):
        return _choice()
    if not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = next((name for name in _HEADLESS if _installed(name)), "off")
    choice = _choice()
    if choice not in (*OFF, *WINDOW, *_HEADLESS):
        raise MachineError(
            f"MUJOCO_GL={os.environ['MUJOCO_GL']!r} is no way to draw: unset it, or set it to egl or osmesa ({_there()})"
        )
    if choice in _HEADLESS and not _installed(choice):
        raise MachineError(
            f"MUJOCO_GL={choice} needs the library {_HEADLESS[choice][0]}, which is not there: {_INSTALL[choice]}, or unset "
            f"MUJOCO_GL ({_there()})"
        )
    return choice


def require(needed_by: str) -> None:
    """To be called before a context is made: draws nothing, but everything that drawing needs is there afterwards.

    Raises:
        MachineError: pictures cannot be drawn here; the message names the variable and the fix.
    """
    global _drawing_in
    with _lock:
        check_process(needed_by)
        choice = prepare()
        if sys.platform.startswith("linux"):
            _check_choice(choice, needed_by)
            if choice in _HEADLESS:
                _load_triton_first()
            if choice == "egl":
                _open_display(needed_by)
        _drawing_in = os.getpid()


def check_process(needed_by: str) -> None:
    """That OpenGL was not used before this process was forked: its threads stay behind, and drawing would wait for them for ever.

    Raises:
        MachineError: it was.
    """
    if _drawing_in is not None and _drawing_in != os.getpid():
        raise MachineError(
            f"{needed_by} cannot draw: this process was forked from one in which pictures had been drawn with OpenGL, which does "
            "not survive a fork. Start processes by 'spawn' or 'forkserver' (gymnasium: AsyncVectorEnv(..., context='spawn')), or "
            "draw nothing before the fork"
        )


def forked() -> bool:
    """Whether OpenGL was used in a parent of this process: nothing of it may be touched here, not even to free it."""
    return _drawing_in is not None and _drawing_in != os.getpid()


def explained(error: BaseException, needed_by: str) -> MachineError:
    """What to raise for an error of MuJoCo, robosuite or OpenGL in making a context."""
    return MachineError(
        f"{needed_by} cannot draw ({type(error).__name__}: {' '.join(str(error).split())}); {_settings()}. Without a display: "
        f"unset them and {_INSTALL['egl']} ({_there()}). If MuJoCo or PyOpenGL was imported before this environment was made, it "
        "settled then how to draw"
    )


def _check_choice(choice: str, needed_by: str) -> None:
    if choice in OFF:
        raise MachineError(
            f"{needed_by} cannot draw: MUJOCO_GL is {choice!r} ({_there()}). Unset MUJOCO_GL, and if nothing is installed: "
            f"{_INSTALL['egl']}; or make the environment with render_observations=False and call nothing that draws"
        )
    asked = os.environ.get("PYOPENGL_PLATFORM", "")
    platform = asked.lower().strip()
    if choice in _HEADLESS and platform == choice != asked and "OpenGL" not in sys.modules:
        os.environ["PYOPENGL_PLATFORM"] = choice  # MuJoCo takes capitals, PyOpenGL does not, and blames something else
    if choice in _HEADLESS and platform not in ("", choice):
        raise MachineError(
            f"{needed_by} cannot draw: PYOPENGL_PLATFORM={asked} does not go with MUJOCO_GL={choice}: unset PYOPENGL_PLATFORM"
        )
    if choice in WINDOW and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MachineError(
            f"{needed_by} cannot draw: MUJOCO_GL={choice!r} opens a window, and there is no display (DISPLAY is not set): unset "
            f"MUJOCO_GL, or set it to egl ({_there()})"
        )


def _load_triton_first() -> None:
    """Triton, where it is installed, before Mesa's compiler.

    CUDA builds of torch bring it, and load it with the first optimiser. Both are made with LLVM, of different versions: with Mesa's
    in the process, loading Triton's is a segmentation fault; the other way round all is well.
    """
    if "triton" not in sys.modules and importlib.util.find_spec("triton") is not None:
        with contextlib.suppress(Exception):  # whoever needs it will hear of it from torch
            importlib.import_module("triton")


def _open_display(needed_by: str) -> None:
    """MuJoCo's EGL display, made before MuJoCo does: on a device that is there, whatever CUDA is allowed to see."""
    try:
        egl: Any = importlib.import_module("mujoco.egl")
        if egl.EGL_DISPLAY is not None:
            return
        display = _first_that_works(egl, _wanted(len(egl.EGL.eglQueryDevicesEXT())))
    except (ImportError, AttributeError, OSError) as error:
        raise explained(error, needed_by) from error
    if display is None:
        raise MachineError(
            f"{needed_by} cannot draw: no EGL device of this machine can be used ({_settings()}): {_INSTALL['egl']}, or set "
            "MUJOCO_GL=osmesa"
        )
    egl.EGL_DISPLAY = display
    atexit.register(_close_display, egl, display, os.getpid())


def _first_that_works(egl: Any, wanted: Sequence[int]) -> Any:
    api, devices = egl.EGL, egl.EGL.eglQueryDevicesEXT()
    for number in wanted:
        display = api.eglGetPlatformDisplayEXT(api.EGL_PLATFORM_DEVICE_EXT, devices[number], None)
        if display == api.EGL_NO_DISPLAY or api.eglGetError() != api.EGL_SUCCESS:
            continue
        try:
            if api.eglInitialize(display, None, None) == api.EGL_TRUE and api.eglGetError() == api.EGL_SUCCESS:
                return display
        except egl.error.GLError:
            pass
    return None


def _wanted(n: int) -> list[int]:
    """Numbers of ``n`` EGL devices, the first choice first.

    Raises:
        MachineError: the device that ``MUJOCO_EGL_DEVICE_ID`` asks for is none.
    """
    asked = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if asked is not None and asked.strip():
        if not (asked.strip().isdecimal() and int(asked) < n):
            raise MachineError(
                f"MUJOCO_EGL_DEVICE_ID={asked!r}: this machine has the EGL devices 0 to {n - 1}; set it to one of them, or unset it"
            )
        return [int(asked)]
    # CUDA's numbers are not EGL's, may be names, and say nothing about a machine that draws on its processor: a hint.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    hint = [int(first)] if first.isdecimal() and int(first) < n else []
    return hint + [number for number in range(n) if number not in hint]


def _close_display(egl: Any, display: Any, owner: int) -> None:
    if os.getpid() == owner:
        egl.EGL.eglTerminate(display)


def _choice() -> str:
    return os.environ.get("MUJOCO_GL", "").lower().strip()


def _installed(name: str) -> bool:
    for library in _HEADLESS[name]:
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def _there() -> str:
    found = [name for name in _HEADLESS if _installed(name)] if sys.platform.startswith("linux") else []
    return f"installed here: {' and '.join(found) or 'neither'}"


def _settings() -> str:
    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES", "DISPLAY")
    return ", ".join(f"{name}={os.environ[name]!r}" if name in os.environ else f"{name} unset" for name in names)
