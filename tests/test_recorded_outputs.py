"""The shipped weights decide and imagine what they did when that was recorded, whatever has been moved around them since."""

import importlib.util

import numpy as np
import pytest

from tests import recorded_outputs as recorded


def compare(found):
    known = np.load(recorded.FILE)
    for name, values in found:
        wanted = known[name]
        assert values.shape == wanted.shape and values.dtype == wanted.dtype, name
        if values.dtype == np.uint8:
            # Another processor sums in another order: single grey levels, in few places.
            difference = np.abs(values.astype(int) - wanted)
            assert difference.max() <= 3 and (difference > 0).mean() < 0.01, name
        else:
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-3 * np.abs(wanted).max(), err_msg=name)


def test_pusht_actions_and_frames_are_those_that_were_recorded():
    compare(recorded.pusht())


def test_block_push_actions_and_frames_are_those_that_were_recorded():
    if importlib.util.find_spec("pybullet") is None:
        pytest.skip("block pushing needs pybullet: pip install 'uva-agents[block-push]'")
    compare(recorded.block_push())
