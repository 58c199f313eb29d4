"""Which guide a network has: what adds to its embeddings of history and future, and renders a prior for its video head."""

from __future__ import annotations

from uva_agents.model.keypoints.guide import KeypointGuide as Guide
from uva_agents.model.uva.config import UVAConfig

__all__ = ["Guide", "guide_for"]


def guide_for(config: UVAConfig) -> Guide | None:
    """The guide of networks that have keypoints; none in the paper."""
    return Guide(config) if config.num_keypoints else None
