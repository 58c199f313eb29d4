"""robosuite without a window: imported quietly, with pictures that stay right when Python collects garbage.

``MjRenderContext.__del__`` of robosuite 1.5 frees OpenGL objects without making its own context the current one. Every hard
reset leaves an old context to Python's cyclic collector; when that runs, it deletes the framebuffers of whichever context *is*
current. There is no error: from then on every camera gives the same wrong picture. :func:`prepare` replaces what frees and
what draws. It applies to everything built on robosuite, LIBERO included, and has to be called before an environment is made.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import itertools
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from uva_agents.envs import gl
from uva_agents.errors import MachineError

_LOGGER = "robosuite_logs"
_DRAWN = "an environment of robosuite or LIBERO"
_PATCHED, _NUMBER = "_uva_agents_patched", "_uva_agents_number"

# MuJoCo's and OpenGL's half of every context. They have finalizers of their own, which free in the same careless way: while they
# are in here, the collector cannot reach them.
_in_use: dict[int, tuple[Any, Any]] = {}
_abandoned: list[tuple[Any, Any]] = []
_inherited: list[tuple[Any, Any]] = []
"""Of the process that this one was forked from, whose they are: kept, so that nothing frees them here."""
_numbers = itertools.count()
_lock = threading.RLock()
_at_exit = False


def prepare(*, needed_by: str = "this environment", extra: str = "toolhang") -> ModuleType:
    """Import robosuite, ready to draw without a display. Cheap and harmless to call again.

    Sets ``MUJOCO_GL`` on Linux where nothing is set (see :func:`uva_agents.envs.gl.prepare`; what is set is kept, which robosuite
    does not), and silences what robosuite logs when it is imported and when it reads a file. Warnings and errors that come later
    are shown.

    Args:
        needed_by: named in the error.
        extra: of this package, named in the error.

    Returns:
        The module ``robosuite``.

    Raises:
        ImportError: robosuite or MuJoCo is not installed or does not import; the message says what to install.
        MachineError: ``MUJOCO_GL`` asks for what there is not.
    """
    choice = gl.prepare()
    try:
        with _without_import_messages(), _as_it_was("MUJOCO_GL"), _agreed_devices():
            robosuite = importlib.import_module("robosuite")
            binding: Any = importlib.import_module("robosuite.utils.binding_utils")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{needed_by} needs robosuite and MuJoCo, and {error.name} is not installed: pip install 'uva-agents[{extra}]'"
        ) from error
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"robosuite does not import ({error}); MUJOCO_GL is {os.environ.get('MUJOCO_GL')!r}. Drawing without a display needs "
            "the EGL library of Mesa or of the graphics driver (Debian: libegl1 libgl1-mesa-dri), or MUJOCO_GL=osmesa"
        ) from error
    binding._MUJOCO_GL = choice
    # What it says at this level is which files it reads.
    logger = logging.getLogger(_LOGGER)
    if logger.level < logging.WARNING:
        logger.setLevel(logging.WARNING)
    with _lock:
        _patch(binding.MjRenderContext)
    return robosuite


def free_abandoned() -> None:
    """Free the OpenGL side of contexts that nobody holds any more.

    Happens by itself before a context is made and before a picture is drawn; call it after closing an environment so that its
    memory does not wait for the next one. No context is current afterwards.
    """
    with _lock:
        while _abandoned:
            _free(*_abandoned.pop())


def _patch(context_class: Any) -> None:
    if getattr(context_class, _PATCHED, False):
        return
    make, allocate, draw = context_class.__init__, context_class._set_mujoco_context_and_buffers, context_class.render

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        gl.require(_DRAWN)
        free_abandoned()
        _register_at_exit()
        try:
            _share_display()
            make(self, *args, **kwargs)
        except MachineError:
            raise
        except Exception as error:  # of OpenGL's many kinds
            raise gl.explained(error, _DRAWN) from error

    def _set_mujoco_context_and_buffers(self: Any) -> None:
        # Called again when a larger picture is asked for than any before.
        allocate(self)
        if not hasattr(self, _NUMBER):
            setattr(self, _NUMBER, next(_numbers))
        _in_use[getattr(self, _NUMBER)] = (self.con, self.gl_ctx)

    def render(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Another environment, or one that was just freed, may have made its own context current, or none.
        gl.check_process(_DRAWN)
        free_abandoned()
        self.gl_ctx.make_current()
        return draw(self, *args, **kwargs)

    def __del__(self: Any) -> None:
        # The collector may call this at any moment, between drawing and reading a picture, too: switching contexts here would
        # be the same mistake again. They are only put aside.
        parts = _in_use.pop(getattr(self, _NUMBER, -1), None)
        if parts is not None:
            _abandoned.append(parts)

    for method in (__init__, _set_mujoco_context_and_buffers, render, __del__):
        setattr(context_class, method.__name__, method)
    setattr(context_class, _PATCHED, True)


def _free(context: Any, owner: Any) -> None:
    if gl.forked():
        _inherited.append((context, owner))
        return
    # At worst a few megabytes stay with the driver; an exception here would end an episode that has nothing to do with it.
    with contextlib.suppress(Exception):
        owner.make_current()
        context.free()
    with contextlib.suppress(Exception):
        owner.free()


def _share_display() -> None:
    """robosuite's contexts on the display that MuJoCo's are on: chosen once, shut down once."""
    if gl.prepare() == "egl":
        theirs: Any = importlib.import_module("robosuite.renderers.context.egl_context")
        if theirs.EGL_DISPLAY is None:
            theirs.EGL_DISPLAY = importlib.import_module("mujoco.egl").EGL_DISPLAY


def _register_at_exit() -> None:
    """Free every context before EGL itself is shut down, which was registered before this."""
    global _at_exit
    if not _at_exit:
        _at_exit = True
        atexit.register(_free_all)


def _free_all() -> None:
    with _lock:
        _abandoned.extend(_in_use.values())
        _in_use.clear()
        free_abandoned()


@contextlib.contextmanager
def _without_import_messages() -> Iterator[None]:
    """robosuite's logger gets its level and its handler while it is imported, so only a filter can be there before."""
    logger = logging.getLogger(_LOGGER)
    quiet = logging.Filter()
    quiet.filter = lambda record: record.levelno >= logging.ERROR  # type: ignore[method-assign]
    logger.addFilter(quiet)
    try:
        with warnings.catch_warnings():
            # Python 3.12 says so of backslashes in its text, where it is compiled.
            warnings.simplefilter("ignore", SyntaxWarning)
            yield
    finally:
        logger.removeFilter(quiet)


@contextlib.contextmanager
def _as_it_was(name: str) -> Iterator[None]:
    """robosuite sets ``MUJOCO_GL`` to egl when it is imported, whatever it says."""
    kept = os.environ.get(name)
    try:
        yield
    finally:
        if kept is not None:
            os.environ[name] = kept


@contextlib.contextmanager
def _agreed_devices() -> Iterator[None]:
    """robosuite's import fails where the device to draw on is none of those to compute on, which need not be the same."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = bool(visible) and os.environ.get("MUJOCO_EGL_DEVICE_ID") is not None
    if hidden:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    try:
        yield
    finally:
        if hidden and visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
