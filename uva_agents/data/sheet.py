"""A picture of a dataset: moments of some episodes, all cameras."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from uva_agents.data.readers.dataset import Dataset
from uva_agents.errors import DataError


def contact_sheet(
    dataset: Dataset,
    path: Path,
    *,
    episodes: int = 6,
    frames: int = 8,
    side: int = 128,
    without: Collection[int] = (),
) -> None:
    """Write a PNG: a row per episode, moments of it from left to right, all cameras below each other.

    Args:
        without: episodes that are not shown.

    Raises:
        DataError: there are no pictures, or they cannot be read.
    """
    from PIL import Image, ImageDraw

    if not dataset.cameras:
        raise DataError(f"{dataset.path} has no pictures to show")
    starts = dataset.starts
    whole = np.setdiff1d(np.flatnonzero(np.diff(dataset.ends, prepend=0) > 0), np.array([*without], np.int64))
    if not len(whole):
        raise DataError(f"{dataset.path} has no episode that can be shown")
    chosen = whole[np.unique(np.linspace(0, len(whole) - 1, min(episodes, len(whole))).round().astype(int))]
    cameras = dataset.cameras[:3]
    side = min(side, max(max(dataset.arrays[name].shape[1:3]) for name in cameras))
    label = 14
    sheet = Image.new("RGB", (frames * side, len(chosen) * len(cameras) * (side + label)), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    top = 0
    for episode in chosen:
        steps = np.linspace(starts[episode], dataset.ends[episode] - 1, frames).round().astype(int)
        for name in cameras:
            draw.text(
                (4, top + 1), f"episode {episode}  {name}  steps 0 to {steps[-1] - starts[episode]}", (220, 220, 220)
            )
            for column, frame in enumerate(dataset.arrays[name][steps]):
                picture = Image.fromarray(frame)
                picture.thumbnail((side, side))
                sheet.paste(picture, (column * side, top + label))
            top += side + label
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
