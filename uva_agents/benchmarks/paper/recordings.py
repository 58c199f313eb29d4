"""Held-out recordings of a task, with where its objects are, and how to read that off a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_agents.data import BLOCK_PUSH_FIELDS, PUSHT_FIELDS, Field, held_out_split, read_replay_buffer
from uva_agents.planners.blocks import BLOCK_PLANE
from uva_agents.planners.coverage import BARS, SIDE, block_middle, block_share
from uva_agents.planners.vision.camera import block_push_camera
from uva_agents.planners.vision.detector import find_blocks

Reader = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Subject:
    """A task whose recordings are compared with what a network makes of them.

    Attributes:
        name: of the task.
        fields: of its replay buffers, ``object`` among them.
        held_out: episodes that the shipped networks were not trained on, see
            :func:`~uva_agents.data.held_out_split` with seed 42.
        unit, scale: positions are printed in ``unit``, which is 1 / ``scale`` of the environment's.
        moved: an object that went further than this has moved, environment units.
        truth: the ``object`` rows (N, D) -> positions (N, K, 2) of the K objects.
        locate: uint8 (N, H, W, 3) -> positions (N, K, 2) and where they are seen (N, K). Looks at colours only; no network is
            asked what it sees in its own pictures.
    """

    name: str
    fields: Mapping[str, Field]
    held_out: int
    unit: str
    scale: float
    moved: float
    truth: Callable[[np.ndarray], np.ndarray]
    locate: Reader


@dataclass(frozen=True)
class HeldOutRecording:
    """One episode: uint8 pixels (N, H, W, 3), actions (N, A), agent_pos (N, P), objects (N, K, 2)."""

    pixels: np.ndarray
    actions: np.ndarray
    agent_pos: np.ndarray
    objects: np.ndarray

    def observation(self, t: int) -> dict[str, np.ndarray]:
        """At step ``t``."""
        return {"pixels": self.pixels[t], "agent_pos": self.agent_pos[t]}

    def history(self, t: int) -> dict[str, np.ndarray] | None:
        """Before step ``t``; ``None`` at the beginning."""
        return {"pixels": self.pixels[:t], "agent_pos": self.agent_pos[:t]} if t else None


def held_out_recordings(subject: Subject, data: Path, held_out: int | None = None) -> list[HeldOutRecording]:
    """The episodes that training keeps from its networks.

    Raises:
        FileNotFoundError: no data there.
        ValueError: it is no replay buffer of this task.
    """
    episodes = read_replay_buffer(data, subject.fields)
    count = subject.held_out if held_out is None else held_out
    found = []
    for index in held_out_split(len(episodes), count, seed=42)[1]:
        one = episodes.select(np.array([index])).arrays
        found.append(HeldOutRecording(one["pixels"], one["action"], one["agent_pos"], subject.truth(one["object"])))
    return found


def _tee_middle(pose: np.ndarray) -> np.ndarray:
    """Middle of the T's area (N, 1, 2) from x, y and angle (N, 3) of its corner frame."""
    sizes = [(x1 - x0) * (y1 - y0) for x0, x1, y0, y1 in BARS]
    along = sum(s * (y0 + y1) / 2 for s, (_, _, y0, y1) in zip(sizes, BARS, strict=True)) / sum(sizes)
    middle = pose[:, :2] + along * np.stack([-np.sin(pose[:, 2]), np.cos(pose[:, 2])], -1)
    return np.asarray(middle)[:, None]


def _locate_tee(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle, mass = block_middle(block_share(frames))
    area = sum((x1 - x0) * (y1 - y0) for x0, x1, y0, y1 in BARS) * frames.shape[1] * frames.shape[2] / SIDE**2
    return middle[:, None], (mass > 0.3 * area)[:, None]


def _locate_blocks(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    camera = block_push_camera((frames.shape[1], frames.shape[2]), BLOCK_PLANE, "workspace")
    found = [find_blocks(frames, colour, camera) for colour in ("red", "green")]
    return np.stack([camera.to_metres(f.pixels) for f in found], 1), np.stack([f.seen for f in found], 1)


PUSHT = Subject(
    "pusht",
    {**PUSHT_FIELDS, "object": Field("state", columns=(2, 3, 4))},
    held_out=10,
    unit="px",
    scale=1.0,
    moved=5.0,
    truth=_tee_middle,
    locate=_locate_tee,
)
BLOCK_PUSH = Subject(
    "block-push",
    {**BLOCK_PUSH_FIELDS, "object": Field("state", columns=(2, 3, 5, 6))},
    held_out=50,
    unit="mm",
    scale=1000.0,
    moved=0.005,
    truth=lambda rows: rows.reshape(-1, 2, 2),
    locate=_locate_blocks,
)
SUBJECTS = {subject.name: subject for subject in (PUSHT, BLOCK_PUSH)}
