"""A hand-held gripper's recordings, and PushT's without keypoints: a policy does what was recorded."""

from __future__ import annotations

import pytest

from tests.any_task_training import action_error, overfitted


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["umi", "pusht"])
def test_the_policy_reproduces_what_was_recorded(tmp_path, robot):
    dataset, folder = overfitted(tmp_path, robot)
    error = action_error(dataset, folder, rate=3 if robot == "umi" else 1)
    assert error.mean() < 0.02, error
