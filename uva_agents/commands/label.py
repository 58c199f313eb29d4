"""``uva label``: the actions of a video that carries none."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.errors import DataError, InputError
from uva_agents.utils.files import folder_target
from uva_agents.utils.plots import curves, path_over
from uva_agents.utils.progress import progress_bar
from uva_agents.utils.results import Results

_MOST = 0.95
"""Of a frame: where less is read, that is said."""
_MOST_STEPS = 1_000_000
_COLUMNS = ("time_s", "frame")
_NOT_TWICE = {name: f"action.{name}" for name in _COLUMNS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``uva label``."""
    parser.add_argument("video", type=Path, help="a video file, or an .npy / .npz of uint8 frames (N, H, W, 3)")
    parser.add_argument(
        "--weights", default="pusht-nano", help="shipped name, weights folder or .ckpt (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder (default: outputs/label/NAME OF THE VIDEO)")
    parser.add_argument(
        "--fps", type=float, default=None, help="frames per second of the video; by default what the file says"
    )
    parser.add_argument(
        "--crop",
        type=int,
        nargs=4,
        metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"),
        default=None,
        help="pixels of every frame that show the scene as the weights know it (default: its middle, with their aspect)",
    )
    parser.add_argument("--draws", type=int, default=8, help="samples that are averaged (default %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Write ``actions.npz``, ``actions.csv`` and ``trajectory.png``.

    Raises:
        FileNotFoundError: there is no such video.
        MachineError: nothing can be written in ``--out``; known before the work.
        DataError: the file holds no video, or too short a one.
        ValueError: ``--crop`` is not inside it.
    """
    _check_file(args.video)
    with folder_target(args.out or Path("outputs/label") / args.video.stem) as out:
        return _label(args, out)


def _label(args: argparse.Namespace, out: Path) -> int:
    from uva_agents.agents import UVA, InverseModel
    from uva_agents.checkpoints.trained import action_names

    model = UVA.from_pretrained(args.weights, device=args.device)
    spec, hz = model.spec, model.spec.control_hz
    frames, seconds = read_video(args.video, args.fps, hz)
    index = resampled(seconds, hz)
    part = chosen(frames[0].shape[:2], spec.image_shape, args.crop)
    video = np.stack([fit(frames[i][part], spec.image_shape) for i in index])
    inverse = InverseModel(model, draws=args.draws)
    with progress_bar(disable=args.quiet) as bar:
        task = bar.add_task("labelling", total=None)
        actions = inverse.label(video, progress=lambda done, total: bar.update(task, completed=done, total=total))
    times = np.arange(len(actions)) / hz
    names = [_NOT_TWICE.get(name, name) for name in action_names(args.weights, actions.shape[1])]
    square = spec.action_low == (0.0, 0.0) and spec.action_high[0] == spec.action_high[1] and not spec.action_transforms
    if square and actions.shape[1] == 2:  # image coordinates: the path belongs on the picture
        picture = path_over(video[-1], actions / spec.action_high[0])
    else:
        picture = curves(actions, names, hz)
    import imageio.v3 as iio

    with Results() as results:
        results.save(out / "actions.npz", lambda path: _save_npz(path, actions, times, index[:-1]))
        results.save(out / "actions.csv", lambda path: _save_csv(path, names, times, index[:-1], actions))
        results.save(out / "trajectory.png", lambda path: iio.imwrite(path, picture))
    print(f"{len(actions)} actions at {hz:g} Hz from {len(frames)} frames {_spacing(seconds)}")
    if spec.relative is not None:
        print("  poses as seen from the tool at the first frame: a video does not say where that was")
    for name in ("actions.npz", "actions.csv", "trajectory.png"):
        print(f"  {out / name}")
    return 0


def read_video(path: Path, fps: float | None, hz: float) -> tuple[Any, np.ndarray]:
    """Frames uint8 (N, H, W, 3), those of a video on disk until they are looked at, and the seconds (N,) at which they are seen.

    Args:
        fps: frames per second, whatever a video says. Arrays are taken to be at the control rate otherwise.
        hz: the control rate.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no video, or one without times; a rate that is none.
    """
    from uva_agents.data.lazy import LazyFrames
    from uva_agents.data.video import VideoFrames, probe

    _check_file(path)
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise InputError(f"--fps {fps:g}: frames per second, above 0")
    if path.suffix in (".npy", ".npz"):
        frames = _array(path)
        return frames, np.arange(len(frames)) / (fps or hz)
    try:
        info = probe(path)
    except DataError as error:
        raise DataError(f"{path} is not a video that ffmpeg can read: {error}") from error
    every = np.arange(info.frames)
    seconds = info.times - info.times[0] if fps is None else every / fps
    return LazyFrames([VideoFrames(path, info, every)], info.shape), seconds


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")


def _array(path: Path) -> np.ndarray:
    """Frames (N, H, W, 3) of an array, channels where they may be."""
    from zipfile import BadZipFile

    from uva_agents.data.picture_layouts import picture_layout

    try:
        loaded = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            arrays = {key: loaded[key] for key in loaded.files}
            videos = [key for key, value in arrays.items() if value.ndim == 4]
            if len(videos) != 1:
                raise DataError(f"{path} has arrays {loaded.files}: exactly one of them must be a video (N, H, W, 3)")
            loaded = arrays[videos[0]]
    except (OSError, EOFError, BadZipFile, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an array: {error}") from error
    wanted = f"{path} must hold uint8 frames (N, H, W, 3), got {loaded.dtype} {loaded.shape}"
    layout = (
        picture_layout(loaded.shape, loaded.dtype, lambda rows: loaded[rows], str(path), asked=True)
        if loaded.ndim > 2
        else None
    )
    if layout is None or not len(loaded):
        raise DataError(wanted)
    if layout.note:
        print(f"{path}: {layout.note}", file=sys.stderr)
    return layout.convert(loaded, str(path))


def resampled(seconds: np.ndarray, hz: float) -> np.ndarray:
    """Numbers of the frames nearest in time to every control step.

    Args:
        seconds: (N,) at which the frames are seen, increasing from 0.

    Raises:
        DataError: less than two control steps of video.
        InputError: more of it than anybody records, as at a rate of frames that is wrong.
    """
    if seconds[-1] * hz > _MOST_STEPS:
        raise InputError(
            f"the video lasts {seconds[-1]:.3g} s, which is {seconds[-1] * hz:.3g} control steps at {hz:g} Hz, and at most "
            f"{_MOST_STEPS:,} are labelled: give its true --fps"
        )
    steps = int(np.floor(seconds[-1] * hz + 1e-6)) + 1
    if steps < 2:
        raise DataError(f"the video lasts {seconds[-1]:.2f} s, which is less than two control steps at {hz:g} Hz")
    places = np.interp(np.arange(steps) / hz, seconds, np.arange(len(seconds)))
    nearest: np.ndarray = np.rint(np.round(places, 6)).astype(int)
    return nearest


def _spacing(seconds: np.ndarray) -> str:
    gaps = np.diff(seconds)
    mean = float(seconds[-1]) / len(gaps)
    if np.abs(seconds - np.arange(len(seconds)) * mean).max() <= mean / 4:
        return f"at {round(1 / mean, 2):g} per second"
    return f"{gaps.min():.3g} to {gaps.max():.3g} s apart, each taken at its time"


def chosen(size: tuple[int, int], aspect: tuple[int, int], crop: Sequence[int] | None) -> tuple[slice, slice]:
    """Rows and columns of a frame of ``size`` (H, W) that are read: of ``crop`` (left, top, width, height) or of all of it, the
    middle with the aspect of (H, W) ``aspect``. Says on stderr what it leaves out, if nobody asked for that.

    Raises:
        ValueError: ``crop`` is not inside the frame.
    """
    left, top, width, height = crop or (0, 0, size[1], size[0])
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise ValueError(
            f"--crop {left} {top} {width} {height} (left, top, width, height) is not inside the frames, which are "
            f"{size[1]} wide and {size[0]} high"
        )
    scale = min(height / aspect[0], width / aspect[1])
    h, w = round(aspect[0] * scale), round(aspect[1] * scale)
    if crop is None and h * w < _MOST * height * width:
        print(
            f"of frames {width} wide and {height} high, the middle {w} by {h} is read, which has the aspect of these weights; "
            "--crop takes another part",
            file=sys.stderr,
        )
    top, left = top + (height - h) // 2, left + (width - w) // 2
    return slice(top, top + h), slice(left, left + w)


def fit(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A frame resized to ``shape`` (H, W)."""
    from PIL import Image

    if frame.shape[:2] == shape:
        return frame
    smoothly = Image.Resampling.BOX if frame.shape[0] > shape[0] else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((shape[1], shape[0]), smoothly))


def _save_npz(path: Path, actions: np.ndarray, times: np.ndarray, frames: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, actions=actions, times_s=times, frames=frames)


def _save_csv(path: Path, names: list[str], times: np.ndarray, frames: np.ndarray, actions: np.ndarray) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *names])
        writer.writerows(_rows(times, frames, actions))


def _rows(times: np.ndarray, frames: np.ndarray, actions: np.ndarray) -> Iterator[list[str]]:
    for time, frame, row in zip(times, frames, actions, strict=True):
        yield [f"{time:.4f}", str(frame), *(f"{value:.6g}" for value in row)]
