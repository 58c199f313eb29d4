"""Between any agent and any driver of the ARX X5: limits, a watchdog, an emergency stop, and a record of every intervention."""

from uva_agents.envs.arx_x5.safety.config import SafetyConfig
from uva_agents.envs.arx_x5.safety.estop import EStop
from uva_agents.envs.arx_x5.safety.events import Intervention, InterventionKind, Sent
from uva_agents.envs.arx_x5.safety.safe_arm import SafeArm
from uva_agents.envs.arx_x5.safety.supervisor import Mode

__all__ = ["EStop", "Intervention", "InterventionKind", "Mode", "SafeArm", "SafetyConfig", "Sent"]
