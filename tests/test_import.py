"""``import uva_agents``: fast, complete, and free of torchvision."""

import importlib
import importlib.util
import subprocess
import sys

import gymnasium as gym
import pytest

import uva_agents
import uva_agents.envs


def modules_after(statement: str) -> set[str]:
    """Names in ``sys.modules`` of a fresh interpreter after ``statement``."""
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import uva_agents",
        "import uva_agents, gymnasium; gymnasium.make('uva/PushT-v0').reset(seed=0)",
        "import uva_agents; uva_agents.evaluate",
        "import uva_agents.cli",
        "import uva_agents.planners, uva_agents.agents",
    ],
    ids=["package", "environment", "evaluate", "cli", "planners"],
)
def test_torch_is_not_loaded_by(statement):
    loaded = modules_after(statement)
    assert "uva_agents" in loaded
    assert "torch" not in loaded


def test_importing_the_package_loads_no_physics_or_drawing():
    assert not {"pygame", "pymunk", "cv2"} & modules_after("import uva_agents")


def test_gymnasium_can_import_the_package_by_itself():
    loaded = modules_after("import gymnasium; gymnasium.make('uva_agents:uva/PushT-v0')")
    assert "uva_agents.envs.pusht" in loaded


@pytest.mark.parametrize("name", ["envs", "planners", "benchmarks"])
def test_linked_packages_are_part_of_uva_agents(name):
    module = importlib.import_module(f"uva_agents.{name}")
    assert module.__name__ == f"uva_agents.{name}"
    assert module.__doc__


def test_environments_are_registered_with_their_step_limit():
    assert gym.spec(uva_agents.envs.PUSHT).max_episode_steps == 300


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Polcy'"):
        _ = uva_agents.Polcy


def test_public_names_resolve():
    for name in uva_agents.__all__:
        assert getattr(uva_agents, name) is not None
        assert name in dir(uva_agents)


def test_torchvision_is_absent():
    assert importlib.util.find_spec("torchvision") is None
