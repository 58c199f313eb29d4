"""Cameras: newest frame at once, its time right, and an error instead of an old picture."""

import threading
import time

import numpy as np
import pytest

from tests.ideal_arm import Virtual
from uva_agents.data.video import VideoWriter
from uva_agents.envs.arx_x5.arm.interface import DriverError
from uva_agents.envs.arx_x5.system.cameras import ThreadedCamera, VideoFileCamera, fit, open_camera


class FakeCapture:
    """Gives pictures of one grey level each when a test says so; as ``cv2.VideoCapture``, in BGR."""

    def __init__(self, shape=(48, 64, 3)):
        self.shape, self.number, self.released = shape, 0, False
        self._waiting = threading.Semaphore(0)
        self.gone = threading.Event()

    def give(self):
        """The next picture."""
        self._waiting.release()

    def lose(self):
        """No more pictures, and not by waiting for one either."""
        self.gone.set()
        self._waiting.release()

    def read(self):
        self._waiting.acquire()
        if self.gone.is_set() or self.released:
            return False, None
        self.number += 1
        image = np.zeros(self.shape, np.uint8)
        image[..., 0], image[..., 2] = 200, self.number % 256  # blue, red
        return True, image

    def release(self):
        self.released = True
        self._waiting.release()


def until(condition, timeout_s=60.0):
    """Another thread's work is done; how long that takes is the machine's matter."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "never"
        time.sleep(0.002)


def shown(camera):
    """The number of the picture that is read now, 0 without one."""
    try:
        return int(camera.read().image[0, 0, 0])
    except DriverError:
        return 0


def test_the_newest_frame_is_given_with_the_latency_taken_off_and_nobody_waits_for_the_next():
    clock, capture = Virtual(), FakeCapture()
    clock.time_s = 5.0
    camera = ThreadedCamera(lambda: capture, clock=clock, latency_s=0.17)
    try:
        with pytest.raises(DriverError, match="not given a picture yet"):
            camera.read()
        for number, now in ((1, 5.1), (2, 5.2), (3, 5.25)):
            clock.time_s = now
            capture.give()
            until(lambda n=number: shown(camera) == n)
            # The device is at the next one, which does not come: reading returns all the same, again and again.
            for _ in range(3):
                frame = camera.read()
                assert frame.time_s == pytest.approx(now - 0.17)
                assert frame.image.shape == (48, 64, 3) and frame.image[0, 0, 2] == 200  # RGB
    finally:
        capture.lose()
        camera.close()
    assert capture.released
    with pytest.raises(DriverError, match="closed"):
        camera.read()


def test_a_camera_that_hangs_gives_an_error_instead_of_an_old_picture():
    clock, capture = Virtual(), FakeCapture()
    camera = ThreadedCamera(lambda: capture, clock=clock, name="wrist", stale_s=0.2)
    try:
        capture.give()
        until(lambda: shown(camera) == 1)
        clock.time_s = 0.2
        assert shown(camera) == 1
        clock.time_s = 0.25
        with pytest.raises(DriverError, match=r"wrist has given no picture for 0\.25 s"):
            camera.read()
        capture.give()
        until(lambda: shown(camera) == 2)
    finally:
        capture.lose()
        camera.close()


def test_a_device_that_is_lost_is_opened_again(monkeypatch):
    from uva_agents.envs.arx_x5.system import cameras

    monkeypatch.setattr(cameras, "_RETRY_S", 0.01)
    made, back = [], threading.Event()
    clock = Virtual()

    def device():
        if made and not made[0].released:
            raise AssertionError("two at once")
        if made and not back.is_set():
            raise DriverError("there is no camera /dev/video7")
        made.append(FakeCapture())
        return made[-1]

    camera = ThreadedCamera(device, clock=clock, stale_s=0.1)
    try:
        made[0].give()
        until(lambda: shown(camera) == 1)
        made[0].lose()
        clock.time_s = 0.5
        until(lambda: "no camera /dev/video7" in problem(camera))
        back.set()
        until(lambda: len(made) == 2)
        made[1].give()
        until(lambda: shown(camera) == 1)
    finally:
        made[-1].lose()
        camera.close()


def problem(camera):
    try:
        camera.read()
    except DriverError as error:
        return str(error)
    return ""


def test_a_device_that_is_not_there_is_an_error_that_says_what_is():
    with pytest.raises(DriverError, match="there is no camera /dev/video97"):
        open_camera(97, clock=Virtual())


@pytest.mark.parametrize("size", [(224, 224), (96, 128), (20, 90), (480, 640), (481, 640)])
def test_pictures_are_scaled_to_cover_the_size_and_cut_around_the_middle(size):
    y, x = np.mgrid[:480, :640]
    image = np.stack([x * 255 / 639, y * 255 / 479, 0 * x], axis=-1).astype(np.uint8)
    found = fit(image, size)
    assert found.shape == (*size, 3) and found.dtype == np.uint8
    # The middle stays the middle, and the shorter side is whole.
    assert np.abs(found[size[0] // 2, size[1] // 2, :2].astype(int) - [127, 127]).max() <= 3
    aspect = size[0] / size[1] / (480 / 640)
    whole = 1 if aspect > 1 else 0
    ends = found[0, 0, whole], found[-1, -1, whole]
    assert ends[0] <= 6 and ends[1] >= 249


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Thirty pictures at 10 per second, each of its own grey level."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    writer = VideoWriter(path, (48, 64), 10, crf=0)
    writer.append(np.full((30, 48, 64, 3), 8 * np.arange(30)[:, None, None, None], np.uint8))
    writer.close()
    return path


def level(frame):
    return round(float(frame.image.mean()) / 8)


def test_a_video_file_plays_in_the_time_of_the_clock(film):
    clock = Virtual()
    clock.time_s = 5.0
    camera = open_camera(film, clock=clock, size=(32, 32), latency_s=0.1)
    assert camera.read().image.shape == (32, 32, 3)
    for now, number in ((5.0, 0), (5.15, 0), (5.21, 1), (5.21, 1), (6.05, 9), (7.99, 28)):
        clock.time_s = now
        frame = camera.read()
        assert level(frame) == number and frame.time_s == pytest.approx(5.0 + number / 10)
    clock.time_s = 8.2
    with pytest.raises(DriverError, match="ended after 30 pictures"):
        camera.read()
    camera.close()
    with pytest.raises(DriverError, match="closed"):
        camera.read()


def test_a_video_file_can_be_played_again_and_again(film):
    clock = Virtual()
    camera = VideoFileCamera(film, clock=clock, loop=True)
    for now, number in ((2.95, 29), (3.05, 0), (4.0, 10), (9.55, 5)):
        clock.time_s = now
        frame = camera.read()
        assert level(frame) == number and now - 0.1 - 1e-9 < frame.time_s <= now
    camera.close()


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(DriverError, match="no such file"):
        open_camera(tmp_path / "a.mp4", clock=Virtual())
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(DriverError, match="no video that OpenCV can read"):
        open_camera(tmp_path / "a.mp4", clock=Virtual())
