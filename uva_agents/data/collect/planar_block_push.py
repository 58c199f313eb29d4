"""Demonstrations of block pushing in the planar simulator, on disk: positions only, hundreds of thousands in a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from uva_agents.data.collect.block_push import CONTROL_HZ, STATE_NAMES
from uva_agents.data.replay_buffer import write_replay_buffer
from uva_agents.utils.files import replacing_folder

_COLUMNS = [STATE_NAMES.index(name) for name in ("red_block_x", "green_block_x", "green_square_x", "red_square_x")]


def write_planar_demonstrations(
    out: str | Path,
    n: int,
    *,
    length: int = 16,
    seed: int = 0,
    tables: int = 4096,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write ``n`` demonstrations of ``length`` steps, see :mod:`uva_agents.envs.block_push.planar`, as a replay buffer.

    Rows are those of :func:`~uva_agents.data.collect.block_push.collect_block_push` without pictures; every yaw is 0, for discs
    have none.

    Args:
        out: folder to write.
        seed: of everything.
        tables: on which they are made, at once.
        force: replace ``out``.
        progress: called with (demonstrations done, all).

    Returns: rows.

    Raises:
        ValueError: ``out`` exists, or there is nothing to write.
    """
    from uva_agents.envs.block_push.planar import planar_demonstrations

    out = Path(out)
    if out.exists() and not force:
        raise ValueError(f"{out} exists: choose another folder, or --force to replace it")
    if n < 1 or length < 1:
        raise ValueError(f"n={n}, length={length}: at least one demonstration of one step")
    state = np.zeros((n, length, len(STATE_NAMES)), np.float32)
    action = np.empty((n, length, 2), np.float32)
    done = 0
    for seen, targets in planar_demonstrations(n, length=length, seed=seed, tables=tables):
        rows = slice(done, done + len(seen))
        # The post goes exactly where it is told to go.
        for column, name in ((0, 0), (STATE_NAMES.index("target_x"), 0), *zip(_COLUMNS, range(1, 5), strict=True)):
            state[rows, :, column : column + 2] = seen[:, :, name]
        action[rows] = targets
        done += len(seen)
        if progress is not None:
            progress(done, n)
    arrays = {"action": action.reshape(-1, 2), "state": state.reshape(-1, len(STATE_NAMES))}
    with replacing_folder(out) as partial:
        write_replay_buffer(partial, arrays, np.arange(1, n + 1) * length)
        zarr.open_group(str(partial), mode="r+").attrs.update(
            {
                "env": "uva/BlockPush-v0",
                "control_hz": CONTROL_HZ,
                "state": list(STATE_NAMES),
                "planar": True,
                "seed": seed,
            }
        )
    return n * length
