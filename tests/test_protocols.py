"""Protocols and intervals."""

import dataclasses

import numpy as np
import pytest

from uva_agents.benchmarks import PROTOCOLS, get_protocol
from uva_agents.benchmarks.evaluation.intervals import bootstrap_interval, wilson_interval


def test_dp_pusht_is_the_published_protocol():
    rules = get_protocol("dp-pusht")
    assert (rules.env_id, rules.max_steps, rules.first_seed, rules.executes) == ("uva/PushT-v0", 300, 100_000, 8)


@pytest.mark.parametrize(
    ("coverage", "score"), [(0.0, 0.0), (0.475, 0.5), (0.95, 1.0), (0.99, 1.0), (-1e-9, 0.0)], ids=str
)
def test_a_score_is_coverage_over_0_95_clipped(coverage, score):
    assert get_protocol("dp-pusht").score(coverage) == pytest.approx(score)


def test_an_unknown_protocol_names_the_close_ones():
    with pytest.raises(ValueError, match="did you mean 'dp-pusht'"):
        get_protocol("dp_pusht")
    with pytest.raises(ValueError, match="success"):
        get_protocol("xyz")


def test_a_protocol_is_passed_through_and_cannot_be_changed():
    rules = dataclasses.replace(PROTOCOLS["success"], name="mine")
    assert get_protocol(rules) is rules
    with pytest.raises(dataclasses.FrozenInstanceError):
        rules.max_steps = 3


def test_wilson_interval_has_the_textbook_values():
    assert wilson_interval(40, 50) == pytest.approx((0.66963, 0.88757), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_interval_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


def test_wilson_interval_covers_the_true_rate_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for rate in (0.1, 0.5, 0.9):
        intervals = [wilson_interval(int(k), 50) for k in rng.binomial(50, rate, size=500)]
        assert 0.92 < np.mean([low <= rate <= high for low, high in intervals]) < 0.98


def test_bootstrap_interval_matches_the_normal_one_where_that_is_right():
    values = np.random.default_rng(1).normal(0.5, 0.1, size=400)
    half = 1.96 * values.std() / 20
    assert bootstrap_interval(list(values)) == pytest.approx((values.mean() - half, values.mean() + half), abs=1.5e-3)


def test_bootstrap_interval_stays_inside_the_data_and_repeats():
    values = [0.0, 1.0, 1.0, 1.0]
    low, high = bootstrap_interval(values)
    assert 0.0 <= low < 0.75 < high <= 1.0
    assert bootstrap_interval(values) == (low, high)
    # Not (0.3, 0.3): one episode says nothing about how much episodes differ.
    assert bootstrap_interval([0.3]) == (0.0, 1.0)


def test_an_interval_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([])
