"""Steps in a LIBERO task."""

import numpy as np

STOVE = 2  # the task that is built fastest


def near(env, rng, reach=0.05):
    """A random absolute action around where the arm is."""
    action = env.hold_action()
    action[:9] += rng.uniform(-reach, reach, 9)
    action[9] = rng.choice([-1, 1])
    return action


def walk(env, steps=8, seed=0):
    """States that follow from random actions, (steps, 1 + nq + nv); they are functions of the present state and the seed."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(steps):
        env.step(near(env, rng))
        found.append(env.flat_state())
    return np.array(found)
