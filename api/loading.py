"""`jifen load`: a folder of source files becomes facts of the hall, by short transactions made visible by one flag.

A write transaction that stays open would hold back the feed of events, so rows come by COPY in chunks. An interrupted
load leaves a batch that never counts; the next one begins anew.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import cast

import polars as pl

from api.database import Connection, Pool, transaction
from data_contracts.sources import SOURCES
from models.sources.folder import Folder, read_folder, write_quarantine
from models.sources.writing import FORMATS

CHUNK = 50_000
"""Rows a transaction: under two seconds each on slow disks."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class Loaded:
    """What a load did.

    Attributes:
        batch_id: of the batch that counts.
        before: the same files were loaded before, and nothing was added.
        folder: what checking found; None if the files were not read again.
        rows: good rows by source.
    """

    batch_id: int
    before: bool
    folder: Folder | None
    rows: Mapping[str, int]


async def load(pool: Pool, folder: Path, on_progress: Told) -> Loaded:
    """Check a folder, write its quarantine beside it as `jifen data check` does, and store the good rows.

    Raises:
        ContractError: a file cannot be used; nothing was stored.
        Overloaded: the database went away; what was stored does not count, and the load may be repeated.
    """
    fingerprint, label = _fingerprint(folder)
    async with transaction(pool) as connection:
        known = await connection.fetchval(
            "SELECT id FROM hall.fact_batch WHERE fingerprint = $1 AND visible_at IS NOT NULL", fingerprint
        )
    if known is not None:
        return Loaded(known, before=True, folder=None, rows={})
    found = read_folder(folder, on_progress=on_progress)
    write_quarantine(folder, found)
    rows = {name: getattr(found.sources, name).height for name in SOURCES}
    async with transaction(pool) as connection:
        batch = await connection.fetchval(
            """
            INSERT INTO hall.fact_batch (source_label, fingerprint, made_by, report)
            VALUES ($1, $2, 'jifen load', $3) RETURNING id
            """,
            label,
            fingerprint,
            {"good": rows, "quarantined": {name: one.quarantined for name, one in found.reports.items()}},
        )
    await _store(pool, cast("int", batch), found, on_progress)
    on_progress("making it count")
    async with transaction(pool) as connection:
        counts = cast("int", await connection.fetchval("SELECT hall.show_batch($1)", batch))
    return Loaded(counts, before=counts != batch, folder=found, rows=rows)


async def _store(pool: Pool, batch: int, found: Folder, on_progress: Told) -> None:
    for name, source in SOURCES.items():
        frame = getattr(found.sources, name)
        for first, text in _chunks(frame, batch):
            on_progress(f"{name}: {min(first + CHUNK, frame.height):,} of {frame.height:,} rows")
            async with transaction(pool) as connection:
                await _copy(connection, f"fact_{name}", ["batch_id", "line", *source.columns], text)
    doubts = found.sources.doubts
    if doubts.height:
        text = doubts.insert_column(0, pl.lit(batch).alias("batch_id")).write_csv(include_header=False).encode()
        async with transaction(pool) as connection:
            await _copy(connection, "fact_doubt", ["batch_id", "uscc", "source", "direction", "known_on"], text)


def _chunks(frame: pl.DataFrame, batch: int) -> Iterator[tuple[int, bytes]]:
    """First row and CSV text of each chunk. No contract allows an empty text, so that an empty cell is null."""
    numbered = frame.with_row_index("line", offset=1).insert_column(0, pl.lit(batch).alias("batch_id"))
    for first in range(0, frame.height, CHUNK):
        yield first, numbered.slice(first, CHUNK).write_csv(include_header=False).encode()


async def _copy(connection: Connection, table: str, columns: list[str], text: bytes) -> None:
    await connection.copy_to_table(table, schema_name="hall", columns=columns, source=BytesIO(text), format="csv")


def _fingerprint(folder: Path) -> tuple[bytes, str]:
    """SHA-256 over the names and contents of the source files that are there, and the folder's own name."""
    whole = sha256()
    for name in sorted(f"{source}.{ending}" for source in SOURCES for ending in FORMATS):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                content = sha256()
                while block := file.read(1 << 20):
                    content.update(block)
            whole.update(f"{name}\x00{content.hexdigest()}\n".encode())
    return whole.digest(), folder.resolve().name
