"""UVA: one set of weights as three agents."""

from __future__ import annotations

from uva_agents.agents.inverse_model import InverseModel
from uva_agents.agents.policy import Policy
from uva_agents.agents.weights import Weights
from uva_agents.agents.world_model import WorldModel


class UVA(Weights):
    """Unified Video Action model: ``.policy()``, ``.world_model()`` and ``.inverse_model()`` share these weights.

    >>> uva = UVA.from_pretrained("pusht-nano")                # doctest: +SKIP
    >>> policy, world = uva.policy(), uva.world_model()        # doctest: +SKIP
    """

    def policy(self) -> Policy:
        """Observations to actions."""
        return Policy(self)

    def world_model(self) -> WorldModel:
        """Observations and actions to future frames."""
        return WorldModel(self)

    def inverse_model(self) -> InverseModel:
        """Frames to actions."""
        return InverseModel(self)
