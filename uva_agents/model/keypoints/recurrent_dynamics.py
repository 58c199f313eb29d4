"""How keypoints move, one control step after the other: what is met depends on what lies between."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RecurrentDynamics(nn.Module):
    """Points moved by actions, step by step, for scenes in which one thing pushes others.

    The leading keypoints are moved by the actions themselves; each of the others by what touches it: a network sees how it lies to
    where they were and go, and one that every pair of keypoints shares, how it lies to the others. It remembers a little of each,
    because how a thing is turned shows only in how it moved.

    Where :class:`~uva_agents.model.keypoints.dynamics.ChunkDynamics` maps a whole chunk at once, and is off by as much as things
    move as soon as a push is not one of those it knows, this is learned from single contacts.

    Args:
        keypoints: how many keypoints.
        frames: history frames, and future ones.
        steps, action_dim: of the action chunk; ``frames`` divides ``steps``.
        leading: keypoints that go where actions say.
        contact_radius: distance in the keypoints' units at which contact matters, for scale.
        width: of the hidden layers.
        memory: numbers remembered of each point.
    """

    def __init__(
        self,
        *,
        keypoints: int,
        frames: int,
        steps: int,
        action_dim: int,
        leading: int = 1,
        contact_radius: float = 0.15,
        width: int = 128,
        memory: int = 16,
    ) -> None:
        super().__init__()
        if steps % frames:
            raise ValueError(f"{frames} frames do not lie evenly in {steps} steps")
        if not 1 <= leading < keypoints:
            raise ValueError(f"leading={leading} of {keypoints} keypoints: at least one moves others, and one is moved")
        self.keypoints, self.leading, self.stride, self.contact_radius = (
            keypoints,
            leading,
            steps // frames,
            contact_radius,
        )
        self.lead = nn.Linear(action_dim, 2 * leading)
        self.kind = nn.Parameter(0.3 * torch.randn(keypoints - leading, 8))
        self.begin = nn.Linear(2 * frames, memory)
        self.touch = nn.Sequential(
            nn.Linear(20 * leading + 8 + memory, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.own = nn.Linear(width, 16)
        self.pair = nn.Sequential(nn.Linear(10 + 2 * 16, 64), nn.GELU(), nn.Linear(64, 32))
        self.out = nn.Sequential(nn.Linear(width + 32, width), nn.GELU(), nn.Linear(width, 2 + memory))
        self.register_buffer("others", ~torch.eye(keypoints - leading, dtype=torch.bool)[..., None], persistent=False)
        self.initialize()

    def initialize(self) -> None:
        """Begin with what is known: leading keypoints go where actions say, in the same units, and nothing else moves."""
        nn.init.eye_(self.lead.weight)
        nn.init.zeros_(self.lead.bias)
        last = self.out[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, history: Tensor, actions: Tensor) -> Tensor:
        """Keypoints (B, T, 2K) of history frames, normalised actions (B, steps, A) -> keypoints (B, T, 2K) of future ones."""
        return self.trajectory(history, actions)[:, self.stride - 1 :: self.stride]

    def trajectory(self, history: Tensor, actions: Tensor) -> Tensor:
        """The same after every step: (B, steps, 2K)."""
        n = len(history)
        past = history.view(n, -1, self.keypoints, 2)
        now = past[:, -1]
        leading, keypoints = now[:, : self.leading], now[:, self.leading :]
        moved = ((past - now[:, None]) / self.contact_radius)[:, :, self.leading :]
        memory = torch.tanh(self.begin(moved.transpose(1, 2).flatten(2)))
        goals = self.lead(actions).view(n, actions.shape[1], self.leading, 2)
        steps_taken = []
        for goal in goals.unbind(1):
            change = self._moved(leading, goal, keypoints, memory)
            leading, keypoints = goal, keypoints + self.contact_radius * change[..., :2]
            memory = torch.tanh(memory + change[..., 2:])
            steps_taken.append(torch.cat([leading, keypoints], dim=1))
        return torch.stack(steps_taken, dim=1).flatten(2)

    def _moved(self, here: Tensor, goal: Tensor, keypoints: Tensor, memory: Tensor) -> Tensor:
        """What changes in one step, of keypoints (B, N, 2) and memory (B, N, M): (B, N, 2 + M)."""
        n = len(keypoints)
        before, after = (keypoints[:, :, None] - x[:, None] for x in (here, goal))
        touch = self._contact(before, after, ((goal - here) / self.contact_radius)[:, None]).flatten(2)
        met = self.touch(torch.cat([touch, self.kind.expand(n, -1, -1), memory], dim=-1))
        own = self.own(met)
        count = keypoints.shape[1]
        pair = torch.cat(
            [
                self._apart(keypoints[:, :, None] - keypoints[:, None]),
                own[:, None].expand(-1, count, -1, -1),
                own[:, :, None].expand(-1, -1, count, -1),
            ],
            dim=-1,
        )
        pushed = (self.pair(pair) * self.others).sum(2)
        changed: Tensor = self.out(torch.cat([met, pushed], dim=-1))
        return changed

    def _contact(self, before: Tensor, after: Tensor, step: Tensor) -> Tensor:
        """How keypoints lie to a leading one before and after its step: offsets, directions, and directions where it is near."""
        (a, way_a, far_a), (b, way_b, far_b) = (self._polar(x) for x in (before, after))
        near_a, near_b = (torch.exp(-4 * (far - 0.6).square()) for far in (far_a, far_b))
        parts = [a.clamp(-3, 3), b.clamp(-3, 3), way_a, way_b, step.expand_as(a), far_a.log(), far_b.log()]
        return torch.cat([*parts, near_a * way_a, near_b * way_b, near_a * way_b, near_b * way_a], dim=-1)

    def _apart(self, offset: Tensor) -> Tensor:
        """How two keypoints lie to each other."""
        x, way, far = self._polar(offset)
        near = torch.exp(-4 * (far - 1).square())
        close = torch.exp(-8 * (far - 0.8).square())
        return torch.cat([x.clamp(-3, 3), way, near * way, far.log(), close, torch.exp(-far), 1 / (1 + far)], dim=-1)

    def _polar(self, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In contact radii; its direction; its length, which is never quite zero."""
        x = offset / self.contact_radius
        far = x.norm(dim=-1, keepdim=True).clamp_min(1e-3)
        return x, x / far, far
