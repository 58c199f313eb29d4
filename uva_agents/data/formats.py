"""The formats that datasets come in: one row each, and those that other installed packages add.

A package declares a :class:`Format` as an entry point of the group ``uva_agents.formats``, under its name. It is asked whether it
recognises a path only where no row here does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from uva_agents.data.readers.dataset import Dataset, Stored
from uva_agents.data.readers.hdf5 import has_demonstrations, read_demonstrations
from uva_agents.data.readers.lerobot import is_lerobot, read_lerobot
from uva_agents.data.readers.minari import is_minari, read_minari
from uva_agents.data.readers.umi import is_umi, read_umi
from uva_agents.data.readers.video_folder import is_video_folder, read_video_folder
from uva_agents.data.readers.zarr_buffer import is_zarr, read_zarr_buffer
from uva_agents.data.writers.lerobot import write_lerobot
from uva_agents.data.writers.writer import WriteOptions, Writer
from uva_agents.data.writers.zarr import write_zarr
from uva_agents.errors import InputError, MachineError
from uva_agents.utils.plugins import plugins

GROUP = "uva_agents.formats"
"""Entry points of other packages."""


@dataclass(frozen=True)
class Format:
    """A way in which datasets are stored.

    Attributes:
        name: short, what ``open_dataset(format=...)`` takes.
        title: what holds it, in words, and how it is recognised.
        recognises: whether a path holds it, told from names of files and folders alone, in milliseconds.
        read: the reader.
        writer: how datasets are written in it; ``None`` where nothing writes it.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Stored]
    writer: Writer | None = None


def _as_lerobot(out: Path, dataset: Dataset, options: WriteOptions) -> None:
    assert options.control_hz is not None
    write_lerobot(
        out,
        dataset.episodes,
        control_hz=options.control_hz,
        tasks=options.tasks,
        cameras=options.cameras,
        names={
            **{name: own for name, own in dataset.names.items() if len({*own}) == len(own)},
            **(options.names or {}),
        },
        progress=options.progress,
    )


# In this order: a more particular format before the one that it is a case of.
FORMATS: Mapping[str, Format] = {
    row.name: row
    for row in (
        Format(
            "lerobot",
            "LeRobot v3 (meta/info.json, parquet and mp4)",
            is_lerobot,
            read_lerobot,
            Writer(_as_lerobot, needs_rate=True, whole_rate=True, names_features=True),
        ),
        Format("umi", "UMI zarr (data/camera0_rgb and data/robot0_eef_pos)", is_umi, read_umi),
        Format(
            "zarr",
            "diffusion-policy zarr, folder or .zarr.zip (data/ and meta/episode_ends)",
            is_zarr,
            read_zarr_buffer,
            Writer(write_zarr, keeps_beside=True),
        ),
        Format("minari", "Minari (data/main_data.hdf5)", is_minari, read_minari),
        Format(
            "hdf5",
            "robomimic or LIBERO hdf5, a file or a folder (data/demo_N)",
            has_demonstrations,
            read_demonstrations,
        ),
        Format("video", "a folder of videos without actions (.mp4)", is_video_folder, read_video_folder),
    )
}


def format_named(name: str) -> Format:
    """A format of this package, or of another installed one.

    Raises:
        InputError: no such format.
        MachineError: the package that has it is broken; it names it.
    """
    if isinstance(name, str) and name in FORMATS:
        return FORMATS[name]
    added = plugins(GROUP, own=FORMATS, expected=Format)
    if name not in added:
        raise InputError(f"format={name!r} is unknown: pass one of {', '.join([*FORMATS, *added])}")
    return _loaded(name, added[name])


@dataclass
class AddedFormats:
    """Formats of other packages, loaded one after the other.

    Attributes:
        broken: what is wrong with those that could not be loaded or asked so far.
    """

    broken: list[str]

    def recognising(self, path: Path) -> Format | None:
        """The first that recognises ``path``. One that is broken does not keep the others from being asked."""
        return next(self._recognising(path), None)

    def _recognising(self, path: Path) -> Iterator[Format]:
        for name, load in plugins(GROUP, own=FORMATS, expected=Format).items():
            try:
                added = _loaded(name, load)
                recognised = added.recognises(path)
            except MachineError as error:
                self.broken.append(str(error))
            except Exception as error:  # another package's code
                self.broken.append(
                    f"the format {name!r} of another package failed at it: {type(error).__name__}: {error}"
                )
            else:
                if recognised:
                    yield added


def _loaded(name: str, load: Callable[[], Format]) -> Format:
    added = load()
    if added.name != name:
        raise MachineError(f"the entry point {name!r} ({GROUP}) is the format {added.name!r}: they must have one name")
    return added
