"""Formats of datasets that other installed packages add."""

from pathlib import Path

import numpy as np
import pytest

from tests.plugin_packages import install
from uva_agents.data import convert_dataset, inspect_path, open_dataset, recognise, write_replay_buffer
from uva_agents.errors import DataError, InputError, MachineError

PENDULUM = """
    import numpy as np
    from uva_agents.data import Field, Format
    from uva_agents.data.readers.dataset import Stored
    from uva_agents.data.writers.writer import Writer

    def read(path):
        angle = np.loadtxt(path)
        return Stored({}, {"angle": angle[:, None]}, np.array([len(angle)]), {"action": Field("angle")}, control_hz=50.0)

    def write(out, dataset, options):
        np.savetxt(out, dataset.arrays["action"])

    FORMAT = Format("pendulum", "angles in text (.pendulum)", lambda path: path.suffix == ".pendulum", read, Writer(write))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def angles(tmp_path: Path) -> Path:
    path = tmp_path / "swing.pendulum"
    np.savetxt(path, np.linspace(0, 1, 20))
    return path


def replay_buffer(folder: Path) -> Path:
    arrays = {"action": np.ones((4, 2), np.float32), "img": np.zeros((4, 8, 8, 3), np.uint8)}
    write_replay_buffer(folder, arrays, np.array([4]))
    return folder


def test_a_format_of_another_package_is_recognised_read_and_written(site: Path, angles: Path, tmp_path: Path) -> None:
    install(site, "swings", PENDULUM, "pendulum = swings_module:FORMAT")
    assert recognise(angles).name == "pendulum"
    data = open_dataset(angles)
    assert data.format == "pendulum" and data.control_hz == 50.0
    np.testing.assert_allclose(data.episodes.arrays["action"][:, 0], np.linspace(0, 1, 20), atol=1e-6)
    renamed = angles.rename(tmp_path / "swing.txt")
    assert open_dataset(renamed, format="pendulum").format == "pendulum"
    assert inspect_path(renamed, format="pendulum").dataset is not None
    convert_dataset(data, tmp_path / "out.zarr", "zarr")
    assert recognise(tmp_path / "out.zarr").name == "zarr"
    convert_dataset(open_dataset(tmp_path / "out.zarr"), tmp_path / "back.pendulum", "pendulum")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "back.pendulum"), np.linspace(0, 1, 20), atol=1e-6)


def test_other_packages_are_asked_after_this_one(site: Path, tmp_path: Path) -> None:
    greedy = PENDULUM.replace('path.suffix == ".pendulum"', "True")
    install(site, "greedy", greedy, "pendulum = greedy_module:FORMAT", "zarr = greedy_module:FORMAT")
    assert recognise(replay_buffer(tmp_path / "d.zarr")).name == "zarr"
    assert open_dataset(tmp_path / "d.zarr", format="zarr").format == "zarr"


def test_a_broken_package_is_named_and_harms_nobody_else(site: Path, angles: Path, tmp_path: Path) -> None:
    install(site, "broken", "import nothing_of_this_name", "aardvark = broken_module:FORMAT")
    install(site, "swings", PENDULUM, "pendulum = swings_module:FORMAT")
    assert open_dataset(angles).format == "pendulum"
    assert open_dataset(replay_buffer(tmp_path / "d.zarr")).format == "zarr"
    with pytest.raises(MachineError, match=r"'aardvark'.*package 'broken' cannot be loaded.*nothing_of_this_name"):
        open_dataset(angles, format="aardvark")
    unknown = tmp_path / "unknown.xyz"
    unknown.write_text("?")
    with pytest.raises(DataError, match=r"no dataset of a known format.*'aardvark'.*package 'broken'"):
        open_dataset(unknown)
    with pytest.raises(InputError, match=r"format='pendulun' is unknown: pass one of lerobot.*aardvark, pendulum"):
        open_dataset(angles, format="pendulun")


@pytest.mark.parametrize(
    ("code", "entry", "message"),
    [
        ("FORMAT = 3", "three", "'three'.* is a int, expected a Format"),
        (PENDULUM, "other", "'other'.* is the format 'pendulum': they must have one name"),
        (PENDULUM.replace("angle = np.loadtxt(path)", "1 / 0"), "pendulum", "'pendulum' of another package failed.*division"),
        (PENDULUM.replace("return Stored(", "return len("), "pendulum", "failed at.*len"),
        (PENDULUM.replace("return Stored(", "return 3, Stored("), "pendulum", "failed at.*gives a tuple, not a Stored"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_format_is_said(site: Path, angles: Path, code: str, entry: str, message: str) -> None:
    name = f"odd{abs(hash(message)) % 10**8}"
    install(site, name, code, f"{entry} = {name}_module:FORMAT")
    with pytest.raises(MachineError, match=message):
        open_dataset(angles, format=entry)


def test_a_format_that_fails_at_recognising_does_not_keep_others_from_it(site: Path, angles: Path) -> None:
    failing = PENDULUM.replace('path.suffix == ".pendulum"', "1 / 0").replace('"pendulum"', '"fails"')
    install(site, "failing", failing, "fails = failing_module:FORMAT")
    install(site, "swings", PENDULUM, "pendulum = swings_module:FORMAT")
    assert recognise(angles).name == "pendulum"
