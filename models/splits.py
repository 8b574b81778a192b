"""Seeded parts of a sample: folds and bootstrap draws that keep the share of defaults."""

import numpy as np
from numpy.typing import NDArray


def stratified_folds(defaulted: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (0 … folds - 1) of each row.

    Each class is dealt out in a seeded random order, the second class going on where the first stopped, so that folds
    differ by at most one row in all and by at most one in each class. The same label and seed give the same folds.
    """
    fold = np.empty(len(defaulted), dtype=np.int64)
    draw = np.random.default_rng(seed)
    dealt = 0
    for rows in (np.flatnonzero(defaulted), np.flatnonzero(~defaulted)):
        fold[draw.permutation(rows)] = (np.arange(len(rows)) + dealt) % folds
        dealt += len(rows)
    return fold


def bootstrap_rows(defaulted: NDArray[np.bool_], seed: int, fewest: int) -> NDArray[np.int64]:
    """Row numbers drawn with replacement, as many as there are rows, sorted.

    A draw with fewer than `fewest` *distinct* rows of either class, or of all there are if there are fewer, is drawn
    again: a model cannot be fitted on copies of two defaults. The draws go on in one seeded stream, so the answer is
    the same each time.
    """
    enough = [min(fewest, int(np.sum(defaulted == side))) for side in (True, False)]
    draw = np.random.default_rng(seed)
    while True:
        rows = np.sort(draw.integers(0, len(defaulted), len(defaulted)))
        distinct = defaulted[np.unique(rows)]
        if int(distinct.sum()) >= enough[0] and int((~distinct).sum()) >= enough[1]:
            return rows
