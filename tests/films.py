"""Films whose frames carry their number, at times that a test chooses."""

import subprocess

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

SIDE = 32


def numbered(count):
    """uint8 (count, 32, 32, 3): the number's eight bits as black and white blocks."""
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    grey = (255 * bits.reshape(count, 2, 4)).astype(np.uint8).repeat(16, 1).repeat(8, 2)
    return np.repeat(grey[..., None], 3, -1)


def numbers(frames):
    """Which frames these are."""
    blocks = np.asarray(frames)[:, 8::16, 4::8, 1].reshape(len(frames), 8) > 127
    return (blocks * (1 << np.arange(8))).sum(1)


def film(path, count=40, *, times="N/10", codec=("-c:v", "libx264", "-crf", "5"), keep="1", options=()):
    """Frame ``N`` is seen at the seconds that the expression ``times`` says, if the expression ``keep`` of n says so."""
    chain = f"settb=1/15360,setpts='({times})/TB',select='{keep}'"
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE}x{SIDE}", "-r", "10", "-i", "-", "-vf", chain),
        *("-fps_mode", "passthrough", "-enc_time_base", "1/15360", *codec, *options, str(path)),
        given=numbered(count).tobytes(),
    )
    return path


def ffmpeg(*words, given=None):
    done = subprocess.run(
        [get_ffmpeg_exe(), "-v", "error", "-y", *words], input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
