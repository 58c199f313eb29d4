"""Small untrained networks with every input there is."""

import torch

from uva_agents.model import (
    Context,
    UVANet,
    uva_nano,
)

EVERYTHING = dict(
    width=32, heads=2, encoder_depth=1, decoder_depth=1, proprio_dim=2, frame_state_dim=4, num_keypoints=2, rendered_prior=True,
    text_dim=8, text_tokens=2,
    history_actions=True, wrist_image=True, predict_wrist=True, predict_proprio_dim=4,
)  # fmt: skip


def nano(**overrides: object) -> UVANet:
    torch.manual_seed(0)
    model = uva_nano(**{"width": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1, "proprio_dim": 2, **overrides})
    # The zero-initialised output layers would hide what reaches them.
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return model.eval()


def context(model: UVANet, batch: int = 2) -> Context:
    c = model.config
    g = torch.Generator().manual_seed(1)
    frames = (batch, c.n_frames, c.tokens_per_frame, c.token_dim)
    r = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return Context(
        history=r(*frames),
        future=r(*frames),
        actions=r(batch, c.action_steps, c.action_dim),
        proprio=r(batch, c.proprio_steps, c.proprio_dim) if c.proprio_dim else None,
        text=r(batch, c.text_dim) if c.text_dim else None,
        history_actions=r(batch, c.history_steps, c.action_dim) if c.history_actions else None,
        wrist_history=r(*frames) if c.wrist_image else None,
        wrist_future=r(*frames) if c.predict_wrist else None,
        history_keypoints=r(batch, c.n_frames, 2 * c.num_keypoints) if c.num_keypoints else None,
        future_keypoints=r(batch, c.n_frames, 2 * c.num_keypoints) if c.num_keypoints else None,
    )
