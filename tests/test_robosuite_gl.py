"""Pictures of robosuite environments, whatever garbage is collected in between."""

import gc
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

# Not importorskip: how robosuite is imported is what is tested.
if importlib.util.find_spec("robosuite") is None:
    pytest.skip("robosuite is not installed: pip install 'uva-agents[toolhang]'", allow_module_level=True)

from uva_agents.envs import robosuite_gl

CAMERAS = ("agentview", "robot0_eye_in_hand")


@pytest.fixture
def make_lift():
    """Makes a small environment of robosuite itself, which resets the hard way, as it does where nobody says otherwise."""
    robosuite = robosuite_gl.prepare()
    made = []

    def make():
        made.append(
            robosuite.make(
                "Lift",
                robots="Panda",
                use_camera_obs=True,
                camera_names=list(CAMERAS),
                camera_heights=32,
                camera_widths=32,
                seed=0,
            )
        )
        return made[-1]

    yield make
    for env in made:
        env.close()
    robosuite_gl.free_abandoned()


def views(env):
    """What the two cameras show now, (2, 32, 32, 3)."""
    return np.stack([env.sim.render(camera_name=name, width=32, height=32) for name in CAMERAS]).astype(np.int16)


def test_cameras_stay_apart_when_the_context_of_an_earlier_reset_is_collected(make_lift):
    env = make_lift()
    env.reset()  # the context that came with the environment is garbage now
    before = views(env)
    gc.collect()
    observation, *_ = env.step(np.zeros(7))
    shown = [observation[f"{name}_image"].astype(np.int16) for name in CAMERAS]
    assert np.abs(shown[0] - shown[1]).mean() > 10, "both cameras show the same"
    after = views(env)
    # The arm sinks by a hair in one step; a picture from a deleted framebuffer is another picture.
    assert np.abs(after - before).mean(axis=(1, 2, 3)).max() < 8


def test_an_environment_draws_as_before_while_another_is_made_and_dropped(make_lift):
    env = make_lift()
    before = views(env)
    other = make_lift()
    other.sim.render(camera_name=CAMERAS[0], width=32, height=32)
    other.close()
    gc.collect()
    assert np.array_equal(views(env), before)
    robosuite_gl.free_abandoned()
    assert np.array_equal(views(env), before)


def test_nothing_is_freed_between_drawing_and_reading(make_lift):
    env = make_lift()
    context = env.sim._render_context_offscreen
    before = views(env)
    number = env.sim.model.camera_name2id(CAMERAS[0])
    context.render(32, 32, number)
    env.reset()  # leaves `context` to us alone
    new = env.sim._render_context_offscreen
    new.render(32, 32, number)
    del context
    gc.collect()
    picture = new.read_pixels(32, 32).astype(np.int16)
    assert np.abs(picture - before[0]).mean() < 8
    assert robosuite_gl._abandoned, "the dropped context waits for a safe moment"
    robosuite_gl.free_abandoned()
    assert not robosuite_gl._abandoned


def test_preparing_twice_patches_once():
    binding = robosuite_gl.prepare().utils.binding_utils
    first = binding.MjRenderContext.render
    robosuite_gl.prepare()
    assert binding.MjRenderContext.render is first


def test_a_process_that_draws_says_nothing_from_import_to_exit():
    program = """
import os
from uva_agents.envs import robosuite_gl
robosuite = robosuite_gl.prepare()
assert os.environ["MUJOCO_GL"] == "egl"
env = robosuite.make("Lift", robots="Panda", use_camera_obs=False, has_offscreen_renderer=True)
assert env.sim.render(camera_name="agentview", width=32, height=32).std() > 1
"""
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(ImportError, match=r"uva/ToolHang-v0 needs robosuite.*uva-agents\[toolhang\]"):
        robosuite_gl.prepare(needed_by="uva/ToolHang-v0", extra="toolhang")
