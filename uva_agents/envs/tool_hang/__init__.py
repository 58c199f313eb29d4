"""Put a hook frame into its stand and hang a wrench on it: ``uva/ToolHang-v0``."""

from uva_agents.envs.tool_hang.env import ToolHangEnv, ToolHangState

__all__ = ["ToolHangEnv", "ToolHangState"]
