"""Chunks in time: stamped, cut and blended."""

import numpy as np
import pytest

from uva_agents.realtime.latency import LatencyMeter, next_inference_s
from uva_agents.realtime.trajectory import ActionLayout, Trajectory, merge, stamped
from uva_agents.utils.rotations import matrix_from_rot6d, matrix_from_vector, rot6d_from_matrix, vector_from_matrix

PLAIN = ActionLayout()


def line(start_s, *, n=16, dt=0.05, speed=1.0, offset=0.0):
    times = start_s + dt * np.arange(n)
    return Trajectory(times, (speed * times + offset)[:, None])


def test_actions_are_stamped_from_the_observations_time():
    chunk = np.arange(8.0).reshape(4, 2)
    found = stamped(chunk, 10.0, 0.125)
    np.testing.assert_allclose(found.times, [10.0, 10.125, 10.25, 10.375])
    np.testing.assert_array_equal(found.actions, chunk)


def test_between_actions_the_way_is_straight_and_outside_it_stands():
    found = stamped(np.array([[0.0], [2.0], [1.0]]), 1.0, 0.5)
    np.testing.assert_allclose(found.at([0.0, 1.25, 1.75, 9.0], PLAIN)[:, 0], [0.0, 1.0, 1.5, 1.0])
    np.testing.assert_allclose(stamped(np.array([[3.0]]), 1.0, 0.5).at([0.0, 5.0], PLAIN)[:, 0], [3.0, 3.0])


def test_the_late_part_is_dropped_and_what_is_left_begins_exactly_now():
    found = merge(None, line(0.0), 0.33, blend_s=0.2, layout=PLAIN)
    assert found.start_s == 0.33 and found.end_s == 0.75
    np.testing.assert_allclose(found.actions[:, 0], found.times)
    assert merge(None, line(0.0), 0.75, blend_s=0.2, layout=PLAIN) is None
    assert merge(line(5.0), line(0.0), 6.0, blend_s=0.2, layout=PLAIN) is None


def test_blending_leads_from_the_old_to_the_new_in_the_set_time_and_no_longer():
    old, new = line(0.0), line(0.3, offset=0.1)
    found = merge(old, new, 0.5, blend_s=0.2, layout=PLAIN)
    times = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.9])
    np.testing.assert_allclose(found.at(times, PLAIN)[:, 0] - times, [0.0, 0.025, 0.05, 0.075, 0.1, 0.1], atol=1e-9)
    assert found.end_s == new.end_s


def test_an_old_chunk_that_ends_on_the_way_over_goes_on_at_its_speed():
    # Both say the same: there is nothing to blend, wherever the old one ends.
    found = merge(line(0.0), line(0.3), 0.7, blend_s=0.2, layout=PLAIN)
    np.testing.assert_allclose(found.actions[:, 0], found.times, atol=1e-12)


def test_after_a_pause_the_way_leads_from_where_the_arm_stands():
    found = merge(line(0.0), line(3.0), 3.1, blend_s=0.2, layout=PLAIN)
    assert found.at([3.1], PLAIN)[0, 0] == pytest.approx(0.75)
    np.testing.assert_allclose(found.at([3.3, 3.5], PLAIN)[:, 0], [3.3, 3.5])


def test_the_end_of_a_short_rest_is_followed_as_it_is():
    found = merge(line(-0.5, offset=1.0), line(-0.65), 0.0, blend_s=0.4, layout=PLAIN)
    assert found.end_s == pytest.approx(0.1) and found.actions[-1, 0] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["vector", "rot6d"])
def test_rotations_turn_about_one_axis_at_an_even_rate(kind):
    rng = np.random.default_rng(0)
    first, turn = rng.normal(size=3), np.array([0.4, -0.8, 0.5])
    matrices = matrix_from_vector(first) @ matrix_from_vector(np.array([0.0, 1.0])[:, None] * turn)
    encode = vector_from_matrix if kind == "vector" else rot6d_from_matrix
    decode = matrix_from_vector if kind == "vector" else matrix_from_rot6d
    actions = np.concatenate([np.zeros((2, 3)), encode(matrices), [[0.0], [1.0]]], axis=1)
    layout = ActionLayout(((3, kind),))
    shares = np.linspace(0, 1, 11)
    found = Trajectory(np.array([0.0, 1.0]), actions).at(shares, layout)
    np.testing.assert_allclose(found[:, -1], shares)
    np.testing.assert_allclose(
        decode(found[:, 3:-1]), matrix_from_vector(first) @ matrix_from_vector(shares[:, None] * turn), atol=1e-9
    )
    # Numbers mixed straight would not be rotations any more, or turn unevenly.
    straight = (1 - shares)[:, None] * actions[0] + shares[:, None] * actions[1]
    assert np.abs(found[:, 3:-1] - straight[:, 3:-1]).max() > 1e-3


def test_the_short_way_round_is_taken_where_rotation_vectors_flip():
    near = np.array([[0, 0, 0, 0, 0, np.pi - 0.05], [0, 0, 0, 0, 0, -np.pi + 0.05]])
    found = Trajectory(np.array([0.0, 1.0]), near).at([0.5], ActionLayout(((3, "vector"),)))
    assert abs(found[0, 5]) == pytest.approx(np.pi, abs=1e-6)


@pytest.mark.parametrize(
    ("times", "actions", "message"),
    [
        ([0.0, 0.0], [[1.0], [1.0]], "must rise"),
        ([0.0], [[1.0], [1.0]], "times"),
        ([], np.zeros((0, 2)), "times"),
        ([0.0, 1.0], [[1.0], [np.nan]], "action 1 has NaN"),
        ([0.0, np.inf], [[1.0], [1.0]], "not finite"),
    ],
)
def test_what_is_no_trajectory_is_refused(times, actions, message):
    with pytest.raises(ValueError, match=message):
        Trajectory(np.array(times), np.array(actions))


def test_latency_is_measured_over_the_newest_and_assumed_before():
    meter = LatencyMeter(window=20, assumed_s=0.3)
    assert meter.p95 == 0.3
    for value in [9.0] * 5 + [0.1] * 19 + [0.2]:
        meter.add(value)
    assert meter.p50 == pytest.approx(0.1) and 0.1 <= meter.p95 <= 0.2 and len(meter) == 20


def test_the_next_inference_begins_early_enough_for_its_latency():
    common = dict(dt=0.05, margin_s=0.1)
    assert next_inference_s(10.0, 10.75, execute=8, latency_s=0.1, **common) == pytest.approx(10.4)
    assert next_inference_s(10.0, 10.75, execute=8, latency_s=0.4, **common) == pytest.approx(10.25)
