"""A parquet file with one byte wrong, on which polars panics: what comes out of it is no `Exception`."""

from pathlib import Path

import polars as pl
import pytest

_PLACE, _WRONG = 469, 104
"""Found by trying all bytes of the file below; a file of other columns panics elsewhere."""


def panicking(path: Path) -> Path:
    """Write such a file."""
    rows = pl.DataFrame({"uscc": [f"9135{i:014d}" for i in range(20)], "hunch": [i / 7 for i in range(20)]})
    rows.write_parquet(path, compression="uncompressed", statistics=False)
    data = bytearray(path.read_bytes())
    data[_PLACE] ^= _WRONG
    path.write_bytes(data)
    with pytest.raises(pl.exceptions.PanicException):
        pl.read_parquet(path, glob=False)
    return path
