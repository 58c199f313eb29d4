"""A layout in words: what a run found in the data, and what it will learn."""

from __future__ import annotations

import numpy as np

from uva_agents.data import Dataset
from uva_agents.data.meaning import meaning
from uva_agents.data.transforms import Transform
from uva_agents.training.recipe import DataConfig


def describe_layout(layout: DataConfig, dataset: Dataset) -> list[str]:
    """What was found and will be learned, a line each."""
    lengths = np.diff(dataset.ends, prepend=0)
    lines = [
        f"{dataset.path} ({dataset.format}): {len(dataset)} episodes, {int(lengths.sum())} rows; held out: {layout.held_out}"
    ]
    step = f"every {layout.rows_per_step}. row, " if layout.rows_per_step > 1 else ""
    lines.append(f"control: {layout.control_hz:g} steps a second ({step}{layout.execute} actions between decisions)")
    for name, title in (("pixels", "camera"), (layout.wrist_key, "second camera")):
        if name in layout.fields and name in dataset.arrays:
            shape = dataset.arrays[name].shape
            lines.append(f"{title}: {dataset.sources[name]}, {shape[1]}x{shape[2]}")
    unused = [dataset.sources[name] for name in dataset.cameras if name not in layout.fields]
    if unused:
        lines.append(f"cameras that are not used: {', '.join(unused)}")
    for key, title, transforms in (
        ("action", "action", layout.action_transforms),
        (layout.proprio_key, "proprioception", layout.proprio_transforms),
    ):
        if key is not None and key in dataset.arrays:
            lines.append(f"{title}: {_numbers(layout, dataset, key, transforms)}")
    texts = sorted(set(dataset.tasks or ()) - {""})
    if layout.instructions == "none":
        unread = f" ({len(texts)} in the data are not an input)" if texts else ""
        lines.append(f"instructions: none{unread}")
    else:
        example = f", {len(texts)} different, for example {texts[0]!r:.80}" if texts else ""
        lines.append(f"instructions: {layout.instructions}{example}")
    return lines


def _numbers(layout: DataConfig, dataset: Dataset, name: str, transforms: tuple[Transform, ...]) -> str:
    width = int(np.prod(dataset.arrays[name].shape[1:]))
    names, units = layout.names.get(name, ()), layout.units.get(name, ())
    called = ", ".join(f"{n} [{u}]" if u else n for n, u in zip(names, units or ("",) * len(names), strict=False))
    kind = meaning(names, dataset.arrays[name], changes=dataset.format == "hdf5").kind
    learned = ", ".join(transform.kind for transform in transforms)
    return (
        f"{dataset.sources[name]}, {width} numbers ({kind})"
        + (f": {called}" if called else "")
        + (f"; learned as {learned}" if learned else "")
    )
