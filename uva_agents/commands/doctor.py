"""``uva doctor``: tries everything that the package relies on, and says what to do about what fails."""

from __future__ import annotations

import argparse
import functools
import glob
import importlib.metadata
import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym

from uva_agents.commands.surroundings import CheckResult, surroundings
from uva_agents.envs import RECORDED

_EXTRAS = {
    "tensorboard": ("tensorboard", "training curves: pip install 'uva-agents[train]'"),
    "stable_baselines3": ("stable-baselines3", "its agents and checkers: pip install 'uva-agents[sb3]'"),
    "h5py": ("h5py", "LIBERO, robomimic and Minari data: pip install 'uva-agents[data]'"),
    "pyarrow": ("pyarrow", "LeRobot data: pip install 'uva-agents[data]'"),
    "imagecodecs": ("imagecodecs", "pictures of UMI recordings: pip install 'uva-agents[data]'"),
    "websockets": ("websockets", "policy server and its clients: pip install 'uva-agents[serve]'"),
    "msgpack": ("msgpack", "policy server and its clients: pip install 'uva-agents[serve]'"),
    "mujoco": ("mujoco", "robosuite and LIBERO environments"),
    "robosuite": ("robosuite", "tool hanging and LIBERO"),
    "libero": ("rpent-libero", "LIBERO environments: pip install 'uva-agents[libero]'"),
}
_CORE_ENVS = ("uva/PushT-v0",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``uva doctor`` takes none."""


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if something that the core needs does not work."""
    failed, broken = 0, []
    for finding in diagnose():
        print(f"{finding.status:>4}  {finding.name:<22}{finding.text}", flush=True)
        failed += finding.status == "FAIL"
        if finding.broken:
            broken.append(finding.name)
    print("everything that the core needs works" if not failed else f"{failed} problems: see the lines marked FAIL")
    if broken:
        print(f"not everything else does: {', '.join(dict.fromkeys(broken))}; see the lines marked note")
    return 1 if failed else 0


def diagnose() -> Iterator[CheckResult]:
    """All checks, each reported as soon as it is done."""
    yield from surroundings()
    yield _tried("torch", _torch)
    yield from _cuda()
    yield from _numpy()
    yield _torchvision()
    yield _tried("diffusers", _diffusers)
    if importlib.util.find_spec("mujoco") is not None:
        yield _tried("MuJoCo drawing", _mujoco_rendering, core=False)
    yield _tried("ffmpeg", _ffmpeg)
    for env_id in sorted(name for name in gym.registry if name.startswith("uva/")):
        yield _tried(env_id, functools.partial(_step, env_id), core=env_id in _CORE_ENVS)
    for module, (distribution, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield CheckResult("note", distribution, f"not installed (optional; {purpose})")
        else:
            # The module may have come with another distribution.
            yield _tried(distribution, functools.partial(importlib.metadata.version, distribution), core=False)
    yield _tried("shipped weights", _weights)


def _tried(name: str, check: Callable[[], str], *, core: bool = True) -> CheckResult:
    try:
        return CheckResult("ok", name, check())
    except Exception as error:  # whatever it is, it is the finding
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        missing = isinstance(error, ImportError) and "not installed" in text
        return CheckResult("FAIL" if core else "note", name, text, broken=not core and not missing)


def _cuda() -> Iterator[CheckResult]:
    """Why there is no CUDA, where one would expect it."""
    import torch

    if torch.cuda.is_available():
        return
    if torch.version.cuda is None and torch.version.hip is None:
        there = bool(glob.glob("/dev/nvidia[0-9]*"))
        yield CheckResult("note", "CUDA", "this torch is built without it: --device cuda does not work", broken=there)
    else:
        yield CheckResult(
            "note", "CUDA", f"torch is built for {torch.version.cuda} and sees no GPU: --device cuda does not work"
        )


def _numpy() -> Iterator[CheckResult]:
    """robosuite asks for one mink, which asks for numpy 1; a newer one works with both."""
    import numpy as np

    yield CheckResult("ok", "numpy", np.__version__)
    if importlib.util.find_spec("mink") is None or np.__version__.startswith("1."):
        return
    mink = importlib.metadata.version("mink")
    if tuple(int(part) for part in mink.split(".")[:3] if part.isdigit()) < (0, 0, 10):
        yield CheckResult(
            "note",
            "mink",
            f"{mink} (of robosuite) is for numpy 1: pip install --no-deps 'mink==0.0.13' where ToolHang or LIBERO fail below",
        )


def _torch() -> str:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.ones(8, 8, device=device)
    if float((x @ x).sum()) != 512.0:
        raise RuntimeError(f"a matrix product on {device} gives a wrong result")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return f"{torch.__version__} on {name}, {torch.get_num_threads()} threads"


def _torchvision() -> CheckResult:
    if importlib.util.find_spec("torchvision") is None:
        return CheckResult("ok", "torchvision", "absent, as it should be")
    return CheckResult(
        "note", "torchvision", "installed but not used; if torch or diffusers fail above or below, uninstall it"
    )


def _diffusers() -> str:
    import diffusers
    from diffusers import AutoencoderKL, DDIMScheduler  # the imports are the check: they are resolved lazily

    return f"{diffusers.__version__} ({AutoencoderKL.__name__}, {DDIMScheduler.__name__})"


def _mujoco_rendering() -> str:
    from uva_agents.envs import gl

    choice = gl.prepare()
    gl.require("MuJoCo")
    import mujoco

    scene = "<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(scene)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    try:
        with mujoco.Renderer(model, 32, 32) as renderer:
            renderer.update_scene(data)
            drawn = renderer.render()
    except Exception as error:  # of OpenGL's many kinds
        raise gl.explained(error, "MuJoCo") from error
    if not drawn.any():
        raise RuntimeError(f"MUJOCO_GL={choice}: what is drawn stays black")
    return f"draws, with MUJOCO_GL={choice}"


def _ffmpeg() -> str:
    import imageio_ffmpeg

    executable = imageio_ffmpeg.get_ffmpeg_exe()
    output = subprocess.run([executable, "-version"], capture_output=True, text=True, check=True, timeout=30).stdout
    return output.splitlines()[0]


def _step(env_id: str) -> str:
    if env_id == RECORDED:
        return _replay()
    return _stepped(gym.make(env_id))


def _replay() -> str:
    """What was recorded a moment ago."""
    import numpy as np

    from uva_agents.data import write_replay_buffer

    arrays: dict[str, np.ndarray] = {"img": np.zeros((3, 8, 8, 3), np.uint8), "action": np.eye(3, 2, dtype=np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recorded.zarr"
        write_replay_buffer(path, arrays, np.array([3]))
        return _stepped(gym.make(RECORDED, data=path))


def _stepped(env: gym.Env[Any, Any]) -> str:
    try:
        observation, _ = env.reset(seed=0)
        hold = getattr(env.unwrapped, "hold_action", env.action_space.sample)  # arms need not be thrown about for this
        env.step(hold())
        seen = ", ".join(f"{key} {getattr(value, 'shape', repr(value))}" for key, value in observation.items())
        return f"made, reset and stepped: {seen}"
    finally:
        env.close()


def _weights() -> str:
    from uva_agents import checkpoints

    return ", ".join(checkpoints.shipped_names()) or "none"
