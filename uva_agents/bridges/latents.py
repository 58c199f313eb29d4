"""UVA's joint latent as features for whatever learns on top of it: one vector per time step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from uva_agents.agents.encoding import ObservationEncoder
from uva_agents.agents.memory import Memory, inputs_of, row_name
from uva_agents.agents.weights import Weights
from uva_agents.model import Task

Pool = Literal["action", "frames", "mean", "tokens"]
"""How a joint latent Z (T, S, D) becomes one vector; T frames of the future, S tokens of each, D the network's width.

- ``"action"``: what the action head is conditioned on. (C,); (320,) with ``pusht-nano``. The released sizes have a row per
  action, which are put one after the other: (16 * D,).
- ``"frames"``: mean over the tokens of each frame, (T * D,); (640,).
- ``"mean"``: mean over all of it, (D,); (160,).
- ``"tokens"``: all of it, (T * S * D,); (5760,).
"""


class JointLatent:
    """Z as the policy task computes it (history and proprioception given, future and actions masked), pooled.

    Args:
        weights: whose.
        pool: see :data:`Pool`.

    Raises:
        ValueError: an unknown pool, or ``"action"`` for weights without an action head.
    """

    def __init__(self, weights: Weights, pool: Pool = "action") -> None:
        if pool not in get_args(Pool):
            raise ValueError(f"pool={pool!r}: choose one of {', '.join(get_args(Pool))}")
        c = weights.config
        if pool == "action" and not c.predict_actions:
            raise ValueError('pool="action" is what the action head sees, and these weights have none: use "frames"')
        self.weights, self.pool = weights, pool
        self.encoder = ObservationEncoder(weights)
        per_frame = {"frames": 1, "tokens": c.tokens_per_frame}
        self.size = self._action_size() if pool == "action" else c.width * c.n_frames * per_frame.get(pool, 1)
        if pool == "mean":
            self.size = c.width

    def __call__(self, memories: Sequence[Memory]) -> tuple[Tensor, list[Memory]]:
        """Features (B, size), and the memories with the frame codes that had to be computed.

        Gradients reach the transformer where its parameters ask for them; frames are always encoded without.

        Raises:
            NotFiniteError: features are NaN or infinite.
        """
        inputs, updated = self.encoder.context(memories)
        model = self.weights.net
        z = model.joint_latent(inputs, model.visibility(Task.POLICY, len(updated)))
        features = self._pooled(z)
        self.weights.require_finite(
            features.detach(), "transformer", lambda i: inputs_of(updated[i], row_name(i, len(updated)))
        )
        return features, updated

    def _pooled(self, z: Tensor) -> Tensor:
        """(B, T * S, D) -> (B, size)."""
        b, c = len(z), self.weights.config
        if self.pool == "action":
            return self.weights.net.action_condition(z).reshape(b, -1)
        if self.pool == "frames":
            return z.view(b, c.n_frames, c.tokens_per_frame, -1).mean(2).flatten(1)
        return z.mean(1) if self.pool == "mean" else z.flatten(1)

    def _action_size(self) -> int:
        c, head = self.weights.config, self.weights.net.action_head
        return c.action_head.width if head.chunked else c.width * c.action_steps
