"""LIBERO's language-conditioned tasks, on robosuite 1.5: ``uva/Libero10-v0``."""

from uva_agents.envs.libero.env import LiberoEnv
from uva_agents.envs.libero.scene import LiberoState
from uva_agents.envs.libero.tasks import SUITES, LiberoTask, initial_states, suite_tasks

__all__ = ["SUITES", "LiberoEnv", "LiberoState", "LiberoTask", "initial_states", "suite_tasks"]
