import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.splits import bootstrap_rows, stratified_folds


@given(st.integers(5, 60), st.integers(0, 5), st.integers(2, 5), st.integers(0, 9))
def test_folds_differ_by_one_row_at_most_in_all_and_in_each_class(good: int, bad: int, folds: int, seed: int) -> None:
    defaulted = np.arange(good + bad) < bad
    fold = stratified_folds(defaulted, folds, seed)
    for rows in (np.ones_like(defaulted), defaulted, ~defaulted):
        sizes = np.bincount(fold[rows], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
        assert len(sizes) == folds


def test_folds_depend_on_the_seed_alone() -> None:
    defaulted = np.arange(40) % 4 == 0
    assert np.array_equal(stratified_folds(defaulted, 5, 1), stratified_folds(defaulted, 5, 1))
    assert not np.array_equal(stratified_folds(defaulted, 5, 1), stratified_folds(defaulted, 5, 2))


@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 30))
def test_a_bootstrap_keeps_enough_distinct_rows_of_both_classes(bad: int, good: int, seed: int) -> None:
    defaulted = np.arange(good + bad) < bad
    rows = bootstrap_rows(defaulted, seed, fewest=2)
    distinct = defaulted[np.unique(rows)]
    assert len(rows) == len(defaulted)
    assert distinct.sum() >= min(2, bad)
    assert (~distinct).sum() >= min(2, good)
    assert np.array_equal(rows, bootstrap_rows(defaulted, seed, fewest=2))
