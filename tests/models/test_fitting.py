import pytest

from models.fitting import FEW_DEFAULTS, LEAF_DEFAULTS, SMALL_SHAPE, small_shape


@pytest.mark.parametrize(("rows", "defaults", "leaf"), [(123, 27, 23), (300, 21, 60), (150, 72, 11), (400, 300, 8)])
def test_with_few_defaults_a_leaf_expects_several_of_them(rows: int, defaults: int, leaf: int) -> None:
    shape = small_shape(rows, defaults)
    assert shape.fewest_rows == leaf
    rarer = min(defaults, rows - defaults)
    if rarer < FEW_DEFAULTS and leaf < rows // 5:
        assert leaf * rarer / rows >= LEAF_DEFAULTS


@pytest.mark.parametrize(("rows", "defaults"), [(800, 100), (50, 0), (50, 50)])
def test_with_enough_defaults_or_none_the_usual_leaf_stays(rows: int, defaults: int) -> None:
    assert small_shape(rows, defaults) == SMALL_SHAPE
