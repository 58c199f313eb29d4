"""What is taken as numbers, and what a refusal says about the rest."""

from __future__ import annotations

import numpy as np
import pytest

from uva_agents.envs.checks import as_numbers
from uva_agents.envs.pusht import PushTEnv
from uva_agents.envs.pusht_multi import checked_goal
from uva_agents.envs.pusht_values import checked_start
from uva_agents.errors import InputError

NO_NUMBERS = [
    np.ma.masked_array(np.full(5, 100.0), [1, 0, 0, 0, 0]),
    np.full(5, 100.0 + 1j),
    np.array(["100"] * 5),
    None,
    "100",
    np.ones(5, bool),
    [1, [2], 3, 4, 5],
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_refused_by_its_type(value):
    with pytest.raises(InputError):
        as_numbers(value, "PushT")
    for check in (checked_start, checked_goal):
        with pytest.raises(InputError, match=type(value).__name__):
            check(value)


@pytest.mark.parametrize("angle", [1e10, -1e300])
def test_an_angle_that_no_state_may_hold_is_refused_at_the_reset(angle):
    with pytest.raises(InputError, match="an angle is from"):
        checked_start([100, 100, 200, 200, angle])
    with pytest.raises(InputError, match="an angle is from"):
        checked_goal([256, 256, angle])


def test_the_largest_angle_of_a_reset_is_one_of_a_state():
    env = PushTEnv()
    env.reset(options={"reset_to_state": [100, 100, 200, 200, 1e9]})
    env.set_state(env.get_state())
    env.close()
