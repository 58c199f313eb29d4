"""A video that was cut off is an error, and takes no name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from uva_agents.benchmarks.evaluation.video import VideoFile
from uva_agents.data.video import VideoWriter
from uva_agents.errors import MachineError
from uva_agents.utils import videos
from uva_agents.utils.pictures import write_video
from uva_agents.utils.results import Results, UnwrittenError

resource = pytest.importorskip("resource")
FRAMES = list(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))


@pytest.fixture
def no_room(monkeypatch):
    """No file may grow beyond 20 kB: ffmpeg, which imageio starts, ends early."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_video_that_is_cut_off_is_not_kept(tmp_path, no_room):
    results = Results()
    results.save(tmp_path / "a.mp4", lambda path: write_video(path, FRAMES, 10))
    with pytest.raises(UnwrittenError, match=r"a\.mp4 cannot be written") as caught:
        results.check()
    assert "FFMPEG COMMAND" not in str(caught.value) and len(str(caught.value)) < 300
    assert not list(tmp_path.iterdir())


def test_an_episode_whose_video_is_cut_off_keeps_no_video(tmp_path, no_room):
    video = VideoFile(tmp_path / "a.mp4", 10)

    def fill() -> None:
        for frame in FRAMES:
            video.add(frame)
        video.close()

    with pytest.raises(OSError, match=r"frames can be shown|ffmpeg ended"):
        fill()
    video.close(keep=False)
    assert not list(tmp_path.iterdir())


def test_a_dataset_whose_video_is_cut_off_is_an_error_of_the_machine(tmp_path, no_room):
    writer = VideoWriter(tmp_path / "a.mp4", (64, 64), 10)

    def fill() -> None:
        writer.append(FRAMES * 20)
        writer.close()

    with pytest.raises(MachineError, match="could not be written") as caught:
        fill()
    assert "FFMPEG COMMAND" not in str(caught.value)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_video(path, FRAMES, 10)
    videos.check_video(path, 12)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(OSError, match="frames can be shown"):
        videos.check_video(path, 12)
    monkeypatch.setattr(videos, "_FULL", 1 << 62)
    with pytest.raises(OSError, match="No space left on device"):
        videos.check_video(path, 12)
    assert Path(path).is_file()
