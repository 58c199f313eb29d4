"""Gymnasium environments, registered under ``uva/`` on import. Nothing in this package imports torch."""

import gymnasium as gym

from uva_agents.envs.check import Violation, check_env
from uva_agents.envs.protocol import Restorable, Skippable

PUSHT = "uva/PushT-v0"
PUSHT_MULTI = "uva/PushTMulti-v0"
PUSHT_DISTURBED = "uva/PushTDisturbed-v0"
PUSHT_GOAL = "uva/PushTGoal-v0"
BLOCK_PUSH = "uva/BlockPush-v0"
LIBERO_10 = "uva/Libero10-v0"
TOOL_HANG = "uva/ToolHang-v0"
ARX_X5 = "uva/ArxX5-v0"
RECORDED = "uva/Recorded-v0"

# Entry points are strings: registering costs nothing, and simulators load only when an environment is made.
if PUSHT not in gym.registry:
    gym.register(PUSHT, entry_point="uva_agents.envs.pusht:PushTEnv", max_episode_steps=300)
if PUSHT_MULTI not in gym.registry:
    gym.register(PUSHT_MULTI, entry_point="uva_agents.envs.pusht_multi:PushTMultiEnv", max_episode_steps=300)
if PUSHT_DISTURBED not in gym.registry:
    gym.register(
        PUSHT_DISTURBED, entry_point="uva_agents.envs.pusht_disturbed:PushTDisturbedEnv", max_episode_steps=300
    )
if PUSHT_GOAL not in gym.registry:
    gym.register(PUSHT_GOAL, entry_point="uva_agents.envs.pusht_goal:PushTGoalEnv", max_episode_steps=50)
if BLOCK_PUSH not in gym.registry:
    gym.register(BLOCK_PUSH, entry_point="uva_agents.envs.block_push:BlockPushEnv", max_episode_steps=350)
if LIBERO_10 not in gym.registry:
    gym.register(LIBERO_10, entry_point="uva_agents.envs.libero:LiberoEnv", max_episode_steps=500)
if TOOL_HANG not in gym.registry:
    gym.register(TOOL_HANG, entry_point="uva_agents.envs.tool_hang:ToolHangEnv", max_episode_steps=700)
if ARX_X5 not in gym.registry:
    gym.register(ARX_X5, entry_point="uva_agents.envs.arx_x5.env:ArxX5Env", max_episode_steps=400)
if RECORDED not in gym.registry:  # as long as what was recorded
    gym.register(RECORDED, entry_point="uva_agents.data.recorded_env:RecordedEnv")

__all__ = [
    "ARX_X5",
    "BLOCK_PUSH",
    "LIBERO_10",
    "PUSHT",
    "PUSHT_DISTURBED",
    "PUSHT_GOAL",
    "PUSHT_MULTI",
    "RECORDED",
    "TOOL_HANG",
    "Restorable",
    "Skippable",
    "Violation",
    "check_env",
]
