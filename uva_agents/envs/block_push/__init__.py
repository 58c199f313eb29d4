"""Two blocks, two squares, a round pusher: ``uva/BlockPush-v0`` and the scripts that demonstrate it."""

from uva_agents.envs.block_push.env import BlockPushEnv, BlockPushState
from uva_agents.envs.block_push.layout import ASSIGNMENTS, Layout, layout_of_seed
from uva_agents.envs.block_push.oracle import ORDERS, Oracle, order_of_seed
from uva_agents.envs.block_push.pusher import Pusher

__all__ = [
    "ASSIGNMENTS",
    "ORDERS",
    "BlockPushEnv",
    "BlockPushState",
    "Layout",
    "Oracle",
    "Pusher",
    "layout_of_seed",
    "order_of_seed",
]
