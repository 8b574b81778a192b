import numpy as np
import polars as pl
import pytest

from models.bagging import ROWS_FOR_TWO_THREADS, bag_log_odds
from tests.models.trained import development, sample


@pytest.mark.parametrize("rows", [0, 1, 90, ROWS_FOR_TWO_THREADS + 5])
def test_each_member_has_the_bits_it_has_alone(rows: int) -> None:
    found = development()
    table, _ = sample()
    many = pl.concat([table] * (rows // table.height + 1)).head(rows)
    pipelines = [found.pipeline, *found.bag]
    together = bag_log_odds(pipelines, found.pipeline.encoder.encoded(many))
    assert together.shape == (rows, 4)
    for place, pipeline in enumerate(pipelines):
        assert np.array_equal(together[:, place], pipeline.log_odds(many))


def test_an_empty_bag_has_no_columns() -> None:
    assert bag_log_odds([], np.zeros((3, 2))).shape == (3, 0)
