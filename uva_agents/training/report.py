"""What a run tells: a progress bar with time left, ``metrics.jsonl``, TensorBoard scalars and pictures, other trackers."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from uva_agents.training.trackers import StageTracking
from uva_agents.utils.files import replacing, write_text
from uva_agents.utils.progress import progress_bar


class Reporter:
    """Collects a stage's numbers. Scalars are averaged over ``every`` steps before they are written.

    On resume, lines of ``metrics.jsonl`` past the checkpoint are dropped: they will be written again.

    Args:
        folder: of the stage.
        name, total: of the stage, its steps.
        start: steps that are done.
        show: the progress bar.
        write: files; only one process does.
        tracking: further trackers.
        again: kinds of lines that will be written again for the step ``start``, too.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        total: int,
        start: int,
        *,
        show: bool,
        write: bool,
        every: int = 25,
        tracking: StageTracking | None = None,
        again: Collection[str] = (),
    ) -> None:
        self.folder, self.name, self.every, self.write = folder, name, every, write
        self._tracking = tracking if write else None
        if self._tracking is not None:
            self._tracking.begin(total)
        self._sums: dict[str, float] = {}
        self._count = 0
        self._last = time.monotonic()
        self._line = ""
        self._writer = _tensorboard(folder, start) if write else None
        if self._writer is not None and tracking is not None and start == 0:
            recipe = json.dumps(tracking.run.config, indent=1)
            self._writer.add_text("recipe", "\n".join(f"    {line}" for line in recipe.splitlines()))  # as code
        if write:
            _drop_after(folder / "metrics.jsonl", start, again)
        self._progress = progress_bar(note="{task.fields[note]}", width=20, disable=not show)
        self._task = self._progress.add_task(name, total=total, completed=start, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def step(self, step: int, loss: float, lr: float, norm: float, scalars: dict[str, float]) -> None:
        """One optimiser step."""
        for key, value in {"loss": loss, "grad_norm": norm, **scalars}.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        if step % self.every == 0:
            means = {key: value / self._count for key, value in self._sums.items()}
            now = time.monotonic()
            rate = self._count / (now - self._last)
            self._record("train", step, {**means, "lr": lr, "steps_per_s": rate})
            self._line = f"loss {means['loss']:.4g}  {rate:.2f} steps/s"
            self._sums, self._count, self._last = {}, 0, now
        self._progress.update(self._task, completed=step, note=self._line)

    def validation(self, step: int, metrics: dict[str, float], *, kind: str = "val") -> None:
        """Held-out metrics, or those of another ``kind``."""
        self._record(kind, step, metrics)
        self._progress.console.print(f"{self.name} {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
        self._last = time.monotonic()

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """uint8 (H, W, 3): to TensorBoard, and the latest one as a PNG in the folder."""
        if not self.write:
            return
        import imageio.v3 as iio

        path = self.folder / f"{name}.png"
        with replacing(path) as partial:
            iio.imwrite(partial, image)
        if self._tracking is not None:
            self._tracking.picture(name, image, path, step)
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def _record(self, kind: str, step: int, values: dict[str, float]) -> None:
        if not self.write:
            return
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(f"{kind}/{key}", value, step)
        if self._tracking is not None:
            self._tracking.log(kind, step, values)


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None  # metrics.jsonl has the same numbers; the extra 'train' brings TensorBoard
    return SummaryWriter(str(folder), purge_step=start)


def _drop_after(path: Path, step: int, again: Collection[str]) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
            if found["step"] < step or (found["step"] == step and found["kind"] not in again):
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError):
            continue  # a line cut short by a kill
    write_text(path, "".join(kept))
