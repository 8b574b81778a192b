"""From one file to checked rows. A file that cannot be used raises a `ContractError` with everything wrong with it."""

from io import BytesIO
from pathlib import Path

import polars as pl

from data_contracts.checking import Checked, checked, checked_text, name_problems, shape_problems
from data_contracts.errors import ContractError
from data_contracts.sources import Source
from models.sources.csv_lines import Lines, divided, header_of
from models.sources.parquet import parquet_schema, read_parquet

_BYTE_ORDER_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\x00\x00\xfe\xff", "UTF-32"))


def read_source(path: Path, source: Source) -> Checked:
    """Read and check `path`, a `.parquet` or `.csv` file of a source.

    Raises:
        ContractError: the file is no file, empty, damaged, of another encoding, or its columns are not the contract's.
        OSError: it cannot be opened.
    """
    if not path.is_file():
        raise ContractError(f"{path.name} is not a file", [f"{path.name}: is a folder or a device, not a file"])
    if path.stat().st_size == 0:
        raise ContractError(f"{path.name} cannot be used", [f"{path.name}: is empty, without even a header"])
    # polars tells a file that may not be read from a damaged one by its words only.
    path.open("rb").close()
    return _read_parquet(path, source) if path.suffix == ".parquet" else _read_csv(path, source)


def _read_parquet(path: Path, source: Source) -> Checked:
    problems = shape_problems(source, parquet_schema(path))
    if problems:
        raise ContractError(f"{path.name} cannot be used", [f"{path.name}: {problem}" for problem in problems])
    return checked(source, read_parquet(path))


def _read_csv(path: Path, source: Source) -> Checked:
    data = path.read_bytes()
    lines = _lines(path, data)
    names = header_of(lines[0])
    if names is None:
        raise ContractError(f"{path.name} cannot be used", [f"{path.name}: the header has a stray quote"])
    problems = name_problems(source, names)
    if problems:
        raise ContractError(f"{path.name} cannot be used", [f"{path.name}: {problem}" for problem in problems])
    body = divided(lines[1:], len(names))
    return checked_text(source, _cells(data, body, names), body.rows, body.broken)


def _lines(path: Path, data: bytes) -> pl.Series:
    """The lines of the file, its header first."""
    encoding = _foreign_encoding(data)
    if encoding is not None:
        raise ContractError(
            f"{path.name} cannot be used", [f"{path.name}: its text is {encoding}; save it as UTF-8 and try again"]
        )
    lines = pl.read_lines(BytesIO(data)).to_series().str.strip_suffix("\r")
    if lines.is_empty() or not lines[0].removeprefix("\ufeff").strip():
        raise ContractError(f"{path.name} cannot be used", [f"{path.name}: its first line, the header, is blank"])
    return lines


def _foreign_encoding(data: bytes) -> str | None:
    """The encoding a person should convert from; null for UTF-8."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    head = data[:4096]
    if head.count(0) * 4 > len(head):
        return "UTF-16 or no text at all"
    try:
        data.decode()
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        likely = "probably GB18030 (GBK)" if _is_gb18030(data) else "of an unknown encoding"
        return f"not UTF-8 (first seen in line {line}), {likely}"
    return None


def _is_gb18030(data: bytes) -> bool:
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        return False
    return True


def _cells(data: bytes, body: Lines, names: list[str]) -> pl.DataFrame:
    """The records as columns of text. Lines were judged one by one, so polars must find as many rows as there are."""
    if body.records.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    if body.all_records:
        cells = pl.read_csv(data, has_header=True, new_columns=names, infer_schema=False, glob=False)
    else:
        records = "\n".join(body.records.to_list()).encode()
        cells = pl.read_csv(records, has_header=False, new_columns=names, infer_schema=False, glob=False)
    if cells.shape != (body.records.len(), len(names)):
        raise ContractError(
            "the records of this file could not be told apart", [f"{cells.shape} for {body.records.len()}"]
        )
    return cells
