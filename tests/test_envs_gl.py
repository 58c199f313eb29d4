"""Drawing without a display: which variables matter, what works whatever they say, and errors that name them and the fix."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from uva_agents.envs import gl
from uva_agents.errors import MachineError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL and OSMesa are Linux's")
NAMES = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES", "DISPLAY", "WAYLAND_DISPLAY")


@pytest.fixture
def settings(monkeypatch):
    """Sets variables, all others unset; and libraries, of which EGL is there and OSMesa is not."""

    def put(*, installed=("egl",), **variables):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(gl, "_installed", lambda name: name in installed)
        monkeypatch.setattr(gl, "_drawing_in", None)
        monkeypatch.setattr(gl, "_open_display", lambda needed_by: None)

    return put


@pytest.mark.parametrize(("installed", "choice"), [(("egl", "osmesa"), "egl"), (("osmesa",), "osmesa"), ((), "off")])
@pytest.mark.parametrize("unset", [{}, {"MUJOCO_GL": ""}])
def test_where_nothing_is_set_what_is_installed_draws(settings, installed, choice, unset):
    settings(installed=installed, **unset)
    assert gl.prepare() == choice == os.environ["MUJOCO_GL"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"MUJOCO_GL": "nonsense"},
            "MUJOCO_GL='nonsense' is no way to draw: unset it.*egl or osmesa.*installed here: egl",
        ),
        (
            {"MUJOCO_GL": "osmesa"},
            "MUJOCO_GL=osmesa needs the library libOSMesa.*apt-get install libosmesa6.*installed here: egl",
        ),
        (
            {"MUJOCO_GL": "egl", "installed": ()},
            "MUJOCO_GL=egl needs.*libEGL.*apt-get install libegl1.*installed here: neither",
        ),
        (
            {"installed": ()},
            "MUJOCO_GL is 'off'.*installed here: neither.*apt-get install libegl1.*render_observations=False",
        ),
        ({"MUJOCO_GL": "off"}, "MUJOCO_GL is 'off'.*installed here: egl.*Unset MUJOCO_GL"),
        ({"MUJOCO_GL": "Disabled"}, "MUJOCO_GL is 'disabled'"),
        ({"MUJOCO_GL": "0"}, "MUJOCO_GL is '0'"),
        ({"PYOPENGL_PLATFORM": "GLX"}, "PYOPENGL_PLATFORM=GLX does not go with MUJOCO_GL=egl: unset PYOPENGL_PLATFORM"),
        ({"PYOPENGL_PLATFORM": "glx"}, "PYOPENGL_PLATFORM=glx does not go with MUJOCO_GL=egl: unset PYOPENGL_PLATFORM"),
        ({"MUJOCO_GL": "glfw"}, "MUJOCO_GL='glfw' opens a window, and there is no display.*set it to egl"),
        ({"MUJOCO_GL": "glx"}, "DISPLAY is not set"),
    ],
)
def test_what_cannot_draw_is_named_with_the_fix(settings, variables, message):
    settings(**variables)
    with pytest.raises(MachineError, match=message):
        gl.require("the environment")


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, [0, 1, 2]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [0, 1, 2]),
        ({"CUDA_VISIBLE_DEVICES": "3"}, [0, 1, 2]),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, [0, 1, 2]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"}, [0, 1, 2]),
        ({"CUDA_VISIBLE_DEVICES": "2,1"}, [2, 0, 1]),
        ({"CUDA_VISIBLE_DEVICES": "2", "MUJOCO_EGL_DEVICE_ID": "1"}, [1]),
        ({"MUJOCO_EGL_DEVICE_ID": ""}, [0, 1, 2]),
        ({"MUJOCO_EGL_DEVICE_ID": " "}, [0, 1, 2]),
    ],
)
def test_what_cuda_sees_never_keeps_from_drawing(settings, variables, devices):
    settings(**variables)
    assert gl._wanted(3) == devices


@pytest.mark.parametrize("number", ["3", "-1", "abc", "0,1"])
def test_a_device_that_there_is_not_is_named(settings, number):
    settings(MUJOCO_EGL_DEVICE_ID=number)
    with pytest.raises(MachineError, match=f"MUJOCO_EGL_DEVICE_ID={number!r}: this machine has the EGL devices 0 to 2"):
        gl._wanted(3)


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('no driver')"])
def test_triton_comes_into_the_process_before_mesas_compiler(settings, monkeypatch, tmp_path, ending):
    """The other way round the process dies of a segmentation fault, with torch's first optimiser."""
    settings()
    order: list[str] = []
    monkeypatch.setattr(gl, "loaded", order, raising=False)
    monkeypatch.setattr(gl, "_open_display", lambda needed_by: order.append("display"))
    (tmp_path / "triton.py").write_text(f"from uva_agents.envs import gl\ngl.loaded.append('triton')\n{ending}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    gl.require("this")
    assert order == ["triton", "display"]
    sys.modules.pop("triton", None)


def test_a_process_forked_from_one_that_has_drawn_is_told_so(settings, monkeypatch):
    settings()
    monkeypatch.setattr(gl, "_drawing_in", os.getpid() + 1)
    with pytest.raises(MachineError, match=r"forked.*context='spawn'"):
        gl.require("the environment")


def elsewhere(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    cleaned = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**cleaned, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


TWIN = """
import gc, logging, multiprocessing, os
import gymnasium as gym, uva_agents.envs
logging.disable(logging.WARNING)
env = gym.make("uva/ArxX5-v0", image_size=32, render_size=32)
observation, _ = env.reset(seed=0)
assert observation["pixels"].std() > 1 and env.render().std() > 1
"""


def test_the_twin_draws_whatever_cuda_sees_a_forked_child_errs_at_once_and_the_end_is_quiet():
    pytest.importorskip("mujoco", reason="needs MuJoCo: pip install 'uva-agents[arx]'")
    program = (
        TWIN
        + """
def child(connection):
    for call in (lambda: env.step(env.action_space.sample()), lambda: gym.make("uva/ArxX5-v0", image_size=32).reset(seed=0)):
        try:
            connection.send(call())
        except Exception as error:
            connection.send(f"{type(error).__name__} {error}")
    env.close()
    vars(env).clear()
    gc.collect()  # nothing here is freed that is the parent's
    connection.send("quiet")

here, there = multiprocessing.Pipe()
process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
process.start()
for _ in range(3):
    print(here.recv() if here.poll(50) else "nothing")  # drawing itself would give up after 60 s
process.join()
env.step(env.action_space.sample())  # the parent goes on
"""
    )
    done = elsewhere(program, CUDA_VISIBLE_DEVICES="GPU-8932f937-d72c", MUJOCO_EGL_DEVICE_ID="0")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and lines.pop() == "quiet"
    assert all(line.startswith("MachineError the twin of the arm cannot draw: ") for line in lines), lines
    assert all("forked" in line and "spawn" in line for line in lines)


def test_the_twin_and_robosuite_in_one_process_are_forgotten_quietly():
    """Both draw on the same EGL display: neither may shut it down before the other is gone."""
    if importlib.util.find_spec("robosuite") is None:
        pytest.skip("needs robosuite: pip install 'uva-agents[toolhang]'")
    program = (
        TWIN
        + """
from uva_agents.envs import robosuite_gl
robosuite = robosuite_gl.prepare()
lift = robosuite.make("Lift", robots="Panda", use_camera_obs=False, has_offscreen_renderer=True)
assert lift.sim.render(camera_name="agentview", width=32, height=32).std() > 1
assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
other = gym.make("uva/ArxX5-v0", image_size=32)
other.reset(seed=0)
"""
    )
    done = elsewhere(program, CUDA_VISIBLE_DEVICES="3", MUJOCO_EGL_DEVICE_ID="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_drawing_the_twin_simulates_and_the_first_picture_is_refused():
    pytest.importorskip("mujoco", reason="needs MuJoCo: pip install 'uva-agents[arx]'")
    program = """
import gymnasium as gym, uva_agents.envs
from uva_agents.commands import doctor
from uva_agents.errors import MachineError
env = gym.make("uva/ArxX5-v0", render_observations=False)
env.reset(seed=0)
env.step(env.unwrapped.hold_action())
try:
    env.render()
except MachineError as error:
    print(error)
try:
    doctor._mujoco_rendering()
except MachineError as error:
    print(error)
"""
    done = elsewhere(program, MUJOCO_GL="off")
    assert done.returncode == 0, done.stderr
    assert [line.split(" cannot draw: ")[1][:18] for line in done.stdout.splitlines()] == ["MUJOCO_GL is 'off'"] * 2
