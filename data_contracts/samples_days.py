"""Days and months as whole numbers, and seeded streams, for the made-up park.

A day is counted from 1970-01-01; a month is `year * 12 + month - 1`.
"""

from datetime import date
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.sources import Source

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NEVER = 10**6
"""A day past every calendar of a contract: it did not happen."""
_EPOCH = date(1970, 1, 1)
_EPOCH_MONTH = 1970 * 12


def stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one part of the park, so that a change in one part leaves the others as they were."""
    return np.random.default_rng([seed, crc32(name.encode())])


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - _EPOCH).days


def month_number(day: date) -> int:
    """The month that `day` lies in."""
    return day.year * 12 + day.month - 1


def first_days(months: Ints) -> Ints:
    """The first day of each month."""
    return (months - _EPOCH_MONTH).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def months_of(days: Ints) -> Ints:
    """The month that each day lies in."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) + _EPOCH_MONTH


def dates(days: Ints) -> pl.Series:
    """As dates; `NEVER` is null."""
    series = pl.Series(days.astype(np.int32))
    return pl.select(pl.when(series < NEVER).then(series)).to_series().cast(pl.Date)


def framed(source: Source, columns: dict[str, object]) -> pl.DataFrame:
    """A frame in the source's order of columns; a plain value fills its column."""
    spread = {name: value for name, value in columns.items() if isinstance(value, pl.Series | np.ndarray)}
    plain = [pl.lit(value).alias(name) for name, value in columns.items() if name not in spread]
    return pl.DataFrame(spread).with_columns(plain).select(list(source.columns))
