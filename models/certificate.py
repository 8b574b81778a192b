"""Proof, not sampling, that a model never falls as a fact gets worse.

A sum of trees is non-decreasing in a feature if each tree is; a tree is, if for every two of its leaves whose boxes
meet in every other feature (missing counted as a value) and that lie in order in this one, the values are in order.
Floating-point addition keeps order, so the promise holds for the bits that are served.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Violation:
    """One place where the promise breaks or cannot be shown.

    Args:
        part: which part of the model, such as "booster 0", "additive", "blend", "calibration", "encoding".
        reason: what is wrong, in words.
        feature: name or index of the feature; empty where none is concerned.
        tree: index of the tree, -1 outside trees.
        leaves: the two leaves, lower side first; (-1, -1) outside trees.
        size: by how much the log-odds falls; 0 where it cannot be told.
    """

    part: str
    reason: str
    feature: str = ""
    tree: int = -1
    leaves: tuple[int, int] = (-1, -1)
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was checked, and every place where it failed."""

    pairs: int
    trees: int
    coefficients: int
    violations: tuple[Violation, ...]

    @property
    def holds(self) -> bool:
        """Whether the promise is proved."""
        return not self.violations

    def joined(self, other: "Certificate") -> "Certificate":
        """Both, as one."""
        return Certificate(
            self.pairs + other.pairs,
            self.trees + other.trees,
            self.coefficients + other.coefficients,
            self.violations + other.violations,
        )


NOTHING_CHECKED = Certificate(0, 0, 0, ())


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree of LightGBM's text form; children below zero are leaves, ~child their index."""

    feature: NDArray[np.int64]
    threshold: Floats
    decision: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: Floats
    categorical: bool
    linear: bool


def trees_of(text: str) -> tuple[dict[str, str], list[Tree]]:
    """The header and the trees of a booster's text form."""
    head, _, rest = text.partition("\nTree=")
    blocks = ("\nTree=" + rest.partition("\nend of trees")[0]).split("\nTree=")[1:] if rest else []
    return _fields(head), [_tree(_fields(block)) for block in blocks]


def _fields(block: str) -> dict[str, str]:
    lines = (line.partition("=") for line in block.splitlines())
    return {key: value for key, equals, value in lines if equals}


def _tree(fields: dict[str, str]) -> Tree:
    def whole(key: str) -> NDArray[np.int64]:
        return np.array(fields.get(key, "").split(), dtype=np.int64)

    def real(key: str) -> Floats:
        # Python's float() is exact to the last bit; np.fromstring is not promised to be.
        return np.array([float(one) for one in fields.get(key, "").split()], dtype=np.float64)

    return Tree(
        whole("split_feature"),
        real("threshold"),
        whole("decision_type"),
        whole("left_child"),
        whole("right_child"),
        real("leaf_value"),
        fields.get("num_cat", "0") != "0",
        fields.get("is_linear", "0") != "0",
    )


@dataclass(frozen=True, slots=True)
class Boxes:
    """The region of each leaf: (low, high] in each used feature, and whether a missing value may reach it."""

    used: NDArray[np.int64]
    low: Floats
    high: Floats
    missing: Flags
    value: Floats
    leaf: NDArray[np.int64]


def boxes_of(tree: Tree) -> Boxes:
    """The leaves of a tree that some row can reach, and their regions."""
    used = np.unique(tree.feature)
    place = {int(feature): index for index, feature in enumerate(used)}
    leaves = tree.value.size
    low, high = np.full((leaves, used.size), -np.inf), np.full((leaves, used.size), np.inf)
    missing = np.ones((leaves, used.size), dtype=bool)
    waiting = [(0, np.full(used.size, -np.inf), np.full(used.size, np.inf), np.ones(used.size, dtype=bool))]
    while waiting:
        node, lowest, highest, gaps = waiting.pop()
        if node < 0:
            low[~node], high[~node], missing[~node] = lowest, highest, gaps
            continue
        at, threshold = place[int(tree.feature[node])], tree.threshold[node]
        goes_left = _missing_goes_left(int(tree.decision[node]), float(threshold))
        for child, is_left in ((int(tree.left[node]), True), (int(tree.right[node]), False)):
            below, above, reach = lowest.copy(), highest.copy(), gaps.copy()
            if is_left:
                above[at] = min(above[at], threshold)
            else:
                below[at] = max(below[at], threshold)
            reach[at] &= goes_left == is_left
            waiting.append((child, below, above, reach))
    reachable = ((low < high) | missing).all(axis=1)
    leaf = np.flatnonzero(reachable)
    return Boxes(used, low[leaf], high[leaf], missing[leaf], tree.value[leaf], leaf)


def _missing_goes_left(decision: int, threshold: float) -> bool:
    # Bit 1 of a decision is "default left", bits 2 and 3 the kind of missing: 0 none (a NaN is read as 0), 2 NaN.
    return bool(decision & 2) if (decision >> 2) & 3 == 2 else threshold >= 0.0


def _cannot_tell(tree: Tree, directed: Flags) -> str:
    """Why a tree is outside what the proof covers; empty where it is inside."""
    if tree.linear:
        return "leaves hold linear functions"
    if not directed[tree.feature].any():
        return ""
    if tree.categorical or bool((tree.decision & 1).any()):
        return "a split by categories stands beside a directed feature"
    if bool(((tree.decision >> 2) & 3 == 1).any()):
        return "zero is read as missing"
    if not (np.isfinite(tree.value).all() and not np.isnan(tree.threshold).any()):
        return "a leaf value or threshold is not a number"
    return ""


def _pairs_parted_in_order(tree: Tree, directions: NDArray[np.int64]) -> int | None:
    """How many pairs of leaves the directed splits part, if at each all values of one side are in order with the other.

    That is proof enough: the split at which two leaves part keeps them from meeting in its feature, so two that meet in
    every other feature part at a split of the feature in question. None where it takes a look at every pair to tell.
    """
    features, left, right = tree.feature.tolist(), tree.left.tolist(), tree.right.tolist()
    values, signs = tree.value.tolist(), directions[tree.feature].tolist()
    reach: list[tuple[float, float, int]] = [(0.0, 0.0, 0)] * len(features)
    pairs = 0
    # Children stand after their parents in LightGBM's text, so one pass from the last node sees every subtree first.
    for node in range(len(features) - 1, -1, -1):
        if 0 <= left[node] <= node or 0 <= right[node] <= node:
            return None
        least, most, leaves = reach[left[node]] if left[node] >= 0 else (values[~left[node]], values[~left[node]], 1)
        lower, upper, others = (
            reach[right[node]] if right[node] >= 0 else (values[~right[node]], values[~right[node]], 1)
        )
        sign = signs[node]
        if (sign > 0 and most > lower) or (sign < 0 and least < upper):
            return None
        pairs += leaves * others if sign else 0
        reach[node] = (min(least, lower), max(most, upper), leaves + others)
    return pairs


def certify_tree(tree: Tree, directions: NDArray[np.int64], part: str, number: int) -> Certificate:
    """Check every pair of leaves of one tree."""
    reason = _cannot_tell(tree, directions != 0)
    if reason:
        return Certificate(0, 1, 0, (Violation(part, f"cannot certify: {reason}", tree=number),))
    if tree.value.size < 2 or not (directions[tree.feature] != 0).any():
        return Certificate(0, 1, 0, ())
    parted = _pairs_parted_in_order(tree, directions)
    if parted is not None:
        return Certificate(parted, 1, 0, ())
    boxes = boxes_of(tree)
    low, high = boxes.low, boxes.high
    meet = np.maximum(low[:, None], low[None]) < np.minimum(high[:, None], high[None])
    meet |= boxes.missing[:, None] & boxes.missing[None]
    apart = (~meet).sum(axis=2)
    rise = boxes.value[None] - boxes.value[:, None]
    pairs, found = 0, list[Violation]()
    for at, feature in enumerate(boxes.used.tolist()):
        sign = int(directions[feature])
        if not sign:
            continue
        # Meeting in every other feature: apart in none, or in this one alone.
        below = (high[:, None, at] <= low[None, :, at]) & (apart - ~meet[:, :, at] == 0)
        pairs += int(below.sum())
        for first, second in np.argwhere(below & (sign * rise < 0.0)):
            leaves = (int(boxes.leaf[first]), int(boxes.leaf[second]))
            size = float(-sign * rise[first, second])
            found.append(Violation(part, "leaf values fall where they must not", str(feature), number, leaves, size))
    return Certificate(pairs, 1, 0, tuple(found))


def certify_booster(
    booster: lgb.Booster | str, directions: Sequence[int], *, part: str = "booster", names: Sequence[str] = ()
) -> Certificate:
    """Prove that a LightGBM model is monotone in its directed features, or list where it is not.

    Args:
        booster: the model or its text form; all of its trees are checked.
        directions: for each feature +1 (never falls), -1 (never rises) or 0 (no promise).
        part: what to call it in violations.
        names: names of the features, for violations; indices where not given.

    Returns:
        the number of leaf pairs checked and every violation. Models outside the proof (linear leaves, zero as missing
        or categories beside a directed feature, several classes) are violations too, not errors.
    """
    text = booster if isinstance(booster, str) else booster.model_to_string(num_iteration=-1)
    header, trees = trees_of(text)
    signs = np.asarray(directions, dtype=np.int64)
    if header.get("num_tree_per_iteration") != "1" or int(header.get("max_feature_idx", "-1")) + 1 != signs.size:
        return Certificate(0, 0, 0, (Violation(part, "cannot certify: not a model of one score on these features"),))
    total = NOTHING_CHECKED
    for number, tree in enumerate(trees):
        total = total.joined(certify_tree(tree, signs, part, number))
    if not names:
        return total
    named = tuple(
        Violation(v.part, v.reason, names[int(v.feature)] if v.feature else "", v.tree, v.leaves, v.size)
        for v in total.violations
    )
    return Certificate(total.pairs, total.trees, total.coefficients, named)
