"""Pictures on their way to a network and back: the same in training and by agents."""

import dataclasses

import numpy as np
import torch

from tests.tiny import tiny_bundle
from uva_agents.agents.uva import UVA
from uva_agents.checkpoints import InterfaceSpec
from uva_agents.data import encode_frames
from uva_agents.utils.images import network_images, resize_frames, to_frames, to_images

FINE = np.random.default_rng(0).integers(0, 256, (3, 192, 192, 3), dtype=np.uint8)
"""Detail that aliases when every second pixel is taken."""


def test_frames_survive_the_way_there_and_back() -> None:
    images = to_images(FINE)
    assert images.shape == (3, 3, 192, 192) and float(images.min()) == -1.0 and float(images.max()) == 1.0
    np.testing.assert_array_equal(to_frames(images), FINE)
    assert to_images(FINE.reshape(1, 3, 192, 192, 3)).shape == (1, 3, 3, 192, 192)
    assert to_frames(torch.full((1, 3, 2, 2), 7.0)).max() == 255, "clamped"


def test_read_only_frames_are_taken_without_a_warning(recwarn) -> None:
    frames = FINE.copy()
    frames.flags.writeable = False
    to_images(frames)
    assert not recwarn.list


def test_agents_show_a_network_what_it_was_trained_on() -> None:
    """Frames twice as large as the network's: the tokens of an agent are those of a training set."""
    bundle = tiny_bundle()
    spec = dataclasses.replace(bundle.spec, image_shape=(192, 192))
    model = UVA(dataclasses.replace(bundle, spec=spec))
    seen = model.encode(FINE).tokens
    trained = encode_frames(bundle.vae, FINE, patch_size=bundle.model.config.patch_size, image_size=96)
    np.testing.assert_array_equal(seen.half().numpy(), trained)
    whole = encode_frames(bundle.vae, resize_frames(FINE, 96), patch_size=bundle.model.config.patch_size)
    np.testing.assert_array_equal(trained, whole)


def test_weights_that_were_trained_without_antialiasing_see_frames_so() -> None:
    plain = torch.nn.functional.interpolate(to_images(FINE), (96, 96), mode="bilinear", align_corners=False)
    np.testing.assert_array_equal(network_images(FINE, 96, resize="bilinear"), plain)
    assert float((network_images(FINE, 96) - plain).abs().mean()) > 0.05
    bundle = tiny_bundle()
    spec = dataclasses.replace(bundle.spec, image_shape=(192, 192), resize="bilinear")
    np.testing.assert_array_equal(UVA(dataclasses.replace(bundle, spec=spec)).images(FINE), plain)


def test_interfaces_of_earlier_versions_resize_as_those_did() -> None:
    fields = {"image_shape": [192, 192], "action_low": [0.0], "action_high": [1.0]}
    assert InterfaceSpec.from_dict({**fields, "action_pose": None, "proprio_pose": False}).resize == "bilinear"
    assert InterfaceSpec.from_dict(fields).resize == "antialiased"


def test_frames_that_fit_are_not_touched_by_either() -> None:
    frames = FINE[:, :96, :96]
    for resize in ("antialiased", "bilinear"):
        np.testing.assert_array_equal(network_images(frames, 96, resize=resize), to_images(frames))
