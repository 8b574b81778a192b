from collections.abc import Callable
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta

from models.metrics import (
    auc,
    auc_interval,
    bootstrap_interval,
    brier,
    ece,
    gini,
    jeffreys_upper,
    ks,
    log_loss,
    pr_auc,
    psi,
    psi_by_chance,
)

Sample = tuple[NDArray[np.bool_], NDArray[np.float64]]
ROWS = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=40).filter(
    lambda rows: len({bad for bad, _ in rows}) == 2
)


def sample(rows: list[tuple[bool, int]]) -> Sample:
    return np.array([bad for bad, _ in rows]), np.array([float(z) for _, z in rows])


@given(ROWS)
def test_auc_is_the_share_of_pairs_won_with_a_tie_worth_one_half(rows: list[tuple[bool, int]]) -> None:
    won = [
        1.0 if bad > good else 0.5 if bad == good else 0.0
        for is_bad, bad in rows
        if is_bad
        for is_good_row, good in rows
        if not is_good_row
    ]
    assert auc(*sample(rows)) == sum(won) / len(won)
    assert gini(*sample(rows)) == 2 * auc(*sample(rows)) - 1


@given(ROWS)
def test_auc_depends_on_the_order_of_log_odds_only(rows: list[tuple[bool, int]]) -> None:
    defaulted, z = sample(rows)
    assert auc(defaulted, np.exp(z) * 3 - 1) == auc(defaulted, z)
    assert auc(~defaulted, -z) == auc(defaulted, z)


def test_auc_sees_the_last_bit_of_a_log_odds() -> None:
    z = np.array([0.3, np.nextafter(0.3, 1.0)])
    assert auc(np.array([False, True]), z) == 1.0


@given(ROWS)
def test_ks_is_the_widest_gap_over_all_thresholds(rows: list[tuple[bool, int]]) -> None:
    defaulted, z = sample(rows)
    gaps = [abs(np.mean(z[defaulted] <= cut) - np.mean(z[~defaulted] <= cut)) for cut in range(-5, 6)]
    assert ks(defaulted, z) == pytest.approx(max(gaps))


@given(ROWS)
def test_pr_auc_sums_precision_over_the_recall_gained_at_each_threshold(rows: list[tuple[bool, int]]) -> None:
    defaulted, z = sample(rows)
    total, recall_before = 0.0, 0.0
    for cut in sorted(set(z), reverse=True):
        flagged = z >= cut
        recall = float(defaulted[flagged].sum() / defaulted.sum())
        total += (recall - recall_before) * float(defaulted[flagged].mean())
        recall_before = recall
    assert pr_auc(defaulted, z) == pytest.approx(total)


def test_log_loss_and_brier_of_a_case_by_hand() -> None:
    defaulted, z = np.array([True, False]), np.array([log(3), log(3)])
    assert log_loss(defaulted, z) == pytest.approx(-(log(0.75) + log(0.25)) / 2)
    assert brier(defaulted, z) == pytest.approx((0.25**2 + 0.75**2) / 2)


def test_log_loss_of_a_sure_mistake_is_large_but_finite() -> None:
    assert log_loss(np.array([True]), np.array([-800.0])) == 800.0


def test_ece_of_a_case_by_hand_and_of_a_calibrated_one() -> None:
    z = np.repeat([log(0.25 / 0.75), log(3)], 8)
    calibrated = np.array([True] * 2 + [False] * 6 + [True] * 6 + [False] * 2)
    assert ece(calibrated, z, parts=2) == pytest.approx(0.0, abs=1e-12)
    assert ece(np.ones(16, dtype=np.bool_), z, parts=2) == pytest.approx((0.75 + 0.25) / 2)


@given(ROWS, st.integers(0, 99))
def test_no_metric_depends_on_the_order_of_rows(rows: list[tuple[bool, int]], seed: int) -> None:
    defaulted, z = sample(rows)
    order = np.random.default_rng(seed).permutation(len(rows))
    for metric in (auc, ks, pr_auc, ece, brier, log_loss):
        assert metric(defaulted[order], z[order]) == pytest.approx(metric(defaulted, z), abs=1e-12)


@pytest.mark.parametrize("metric", [auc, ks, pr_auc, gini])
def test_a_rank_metric_of_one_class_is_not_a_number(metric: Callable[..., float]) -> None:
    assert np.isnan(metric(np.zeros(3, dtype=np.bool_), np.arange(3.0)))


def test_a_missing_log_odds_is_refused() -> None:
    with pytest.raises(ValueError, match="number"):
        auc(np.array([True, False]), np.array([0.0, np.nan]))


def test_psi_is_zero_without_a_shift_and_large_with_one() -> None:
    reference = np.arange(1000.0)
    assert psi(reference, reference) == 0.0
    assert psi(reference, reference + 20) < 0.1
    assert psi(reference, reference + 400) > 0.25


def test_psi_of_a_case_by_hand() -> None:
    reference, current = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])
    # Median edge 0.5: parts (2, 2, no missing) and (1, 3, none), half a row added to each of three parts.
    shares = np.array([2.5, 2.5, 0.5]) / 5.5, np.array([1.5, 3.5, 0.5]) / 5.5
    expected = np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0]))
    assert psi(reference, current, parts=2) == pytest.approx(expected)


def test_psi_by_chance_is_what_samples_of_one_distribution_have_in_the_mean() -> None:
    stream = np.random.default_rng(4)
    drawn = [psi(stream.normal(size=400), stream.normal(size=900)) for _ in range(300)]
    assert np.mean(drawn) == pytest.approx(psi_by_chance(400, 900), rel=0.1)


def test_psi_sees_values_that_go_missing() -> None:
    reference = np.arange(1000.0)
    current = np.where(reference % 2 == 0, np.nan, reference)
    assert psi(reference, current) > 0.25
    assert psi(np.full(10, np.nan), np.full(10, np.nan)) == 0.0


@pytest.mark.parametrize(("defaults", "obligors"), [(0, 20), (1, 20), (5, 20), (0, 1000), (19, 20)])
def test_jeffreys_upper_leaves_the_stated_share_below_it(defaults: int, obligors: int) -> None:
    upper = jeffreys_upper(defaults, obligors, 0.9)
    assert beta(defaults + 0.5, obligors - defaults + 0.5).cdf(upper) == pytest.approx(0.9)
    assert upper > defaults / obligors


def test_jeffreys_upper_of_nothing_seen_and_of_all_defaulted_is_one() -> None:
    assert jeffreys_upper(0, 0) == jeffreys_upper(7, 7) == 1.0
    with pytest.raises(ValueError, match="obligors"):
        jeffreys_upper(3, 2)


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.5, 0.99))
def test_jeffreys_upper_rises_with_defaults_and_falls_with_goods(bad: int, good: int, confidence: float) -> None:
    upper = jeffreys_upper(bad, bad + good, confidence)
    assert jeffreys_upper(bad + 1, bad + 1 + good, confidence) >= upper
    assert jeffreys_upper(bad, bad + good + 1, confidence) <= upper


def test_delong_interval_equals_the_variance_of_placements_by_brute_force() -> None:
    stream = np.random.default_rng(1)
    defaulted = stream.random(60) < 0.4
    z = np.round(stream.normal(size=60) + defaulted, 1)
    won = (z[defaulted][:, None] > z[~defaulted]) + 0.5 * (z[defaulted][:, None] == z[~defaulted])
    variance = won.mean(axis=1).var(ddof=1) / defaulted.sum() + won.mean(axis=0).var(ddof=1) / (~defaulted).sum()
    interval = auc_interval(defaulted, z)
    assert interval.value == pytest.approx(won.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.959964 * np.sqrt(variance))


def test_delong_interval_of_a_single_default_says_nothing() -> None:
    interval = auc_interval(np.array([True, False, False]), np.array([2.0, 1.0, 0.0]))
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_a_bootstrap_interval_is_seeded_and_holds_its_figure() -> None:
    stream = np.random.default_rng(2)
    defaulted = stream.random(80) < 0.3
    z = stream.normal(size=80) + defaulted
    one = bootstrap_interval(log_loss, defaulted, z, seed=3, draws=60)
    assert one == bootstrap_interval(log_loss, defaulted, z, seed=3, draws=60)
    assert one != bootstrap_interval(log_loss, defaulted, z, seed=4, draws=60)
    assert one.low < one.value < one.high
