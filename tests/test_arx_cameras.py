"""Cameras: newest frame at once, its time right, and an error instead of an old picture."""

import threading
import time

import numpy as np
import pytest

from tests.ideal_arm import Virtual, Wall
from uva_agents.data.video import VideoWriter
from uva_agents.envs.arx_x5.cameras import ThreadedCamera, VideoFileCamera, fit, open_camera
from uva_agents.envs.arx_x5.interface import DriverError


class FakeCapture:
    """Gives pictures of one grey level each, at a rate, until told to stop; as ``cv2.VideoCapture``, in BGR."""

    def __init__(self, period_s=0.02, shape=(48, 64, 3)):
        self.period_s, self.shape = period_s, shape
        self.number, self.gone, self.hangs, self.released = 0, False, threading.Event(), False

    def read(self):
        time.sleep(self.period_s)
        while self.hangs.is_set() and not self.released:
            time.sleep(0.005)
        if self.gone:
            return False, None
        self.number += 1
        image = np.zeros(self.shape, np.uint8)
        image[..., 0], image[..., 2] = 200, self.number % 256  # blue, red
        return True, image

    def release(self):
        self.released = True


def until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "never"
        time.sleep(0.005)


def readable(camera):
    try:
        camera.read()
    except DriverError:
        return False
    return True


def test_the_newest_frame_is_given_at_once_with_the_latency_taken_off():
    clock, capture = Wall(), FakeCapture()
    camera = ThreadedCamera(lambda: capture, clock=clock, latency_s=0.17)
    try:
        until(lambda: readable(camera))
        time.sleep(0.2)
        began = time.perf_counter()
        frame = camera.read()
        assert time.perf_counter() - began < 0.01
        assert -0.005 < clock.now() - (frame.time_s + 0.17) < 0.2
        assert frame.image.shape == (48, 64, 3) and frame.image[0, 0, 2] == 200  # RGB
        assert frame.image[0, 0, 0] >= capture.number - 1
        assert camera.read().image[0, 0, 0] - frame.image[0, 0, 0] <= 1
    finally:
        camera.close()
    assert capture.released
    with pytest.raises(DriverError, match="closed"):
        camera.read()


def test_a_camera_that_hangs_gives_an_error_instead_of_an_old_picture():
    capture = FakeCapture()
    camera = ThreadedCamera(lambda: capture, clock=Wall(), name="wrist", stale_s=0.2)
    try:
        until(lambda: readable(camera))
        capture.hangs.set()
        until(lambda: not readable(camera))
        with pytest.raises(DriverError, match=r"wrist has given no picture for 0\.\d+ s"):
            camera.read()
        capture.hangs.clear()
        until(lambda: readable(camera))
    finally:
        capture.released = True
        camera.close()


def test_a_device_that_is_lost_is_opened_again(monkeypatch):
    from uva_agents.envs.arx_x5 import cameras

    monkeypatch.setattr(cameras, "_RETRY_S", 0.05)
    made = []

    def device():
        if len(made) == 1 and not made[0].released:
            raise AssertionError("two at once")
        if len(made) == 1 and time.monotonic() < back:
            raise DriverError("there is no camera /dev/video7")
        made.append(FakeCapture())
        return made[-1]

    back = 0.0
    camera = ThreadedCamera(device, clock=Wall(), stale_s=0.1)
    try:
        until(lambda: readable(camera))
        back = time.monotonic() + 0.5
        made[0].gone = True
        until(lambda: not readable(camera))
        until(lambda: "no camera /dev/video7" in problem(camera))
        until(lambda: readable(camera))
        assert len(made) == 2
    finally:
        camera.close()


def problem(camera):
    try:
        camera.read()
    except DriverError as error:
        return str(error)
    return ""


def test_a_device_that_is_not_there_is_an_error_that_says_what_is():
    with pytest.raises(DriverError, match="there is no camera /dev/video97"):
        open_camera(97, clock=Wall())


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
