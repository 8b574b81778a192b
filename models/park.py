"""Writing a made-up park to a folder."""

from pathlib import Path
from typing import cast

from data_contracts.errors import UsageError
from data_contracts.samples import park
from data_contracts.sources import SOURCES
from models.sources.writing import FORMATS, Format, refuse_others, replacing, write_folder

TRUTH = "truth.parquet"


def write_park(
    folder: Path, enterprises: int, seed: int, *, dirty_share: float = 0.0, form: str = "parquet"
) -> dict[str, int]:
    """Write a park's source files, and `truth.parquet` with the true PD of each past loan; returns rows by source.

    Raises:
        UsageError: an unknown format, or a folder that holds other source files.
    """
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", [f"known: {', '.join(FORMATS)}"])
    folder.mkdir(parents=True, exist_ok=True)
    refuse_others(folder, SOURCES, cast("Format", form))
    made = park(enterprises, seed, dirty_share=dirty_share)
    with replacing(folder / TRUTH) as beside:
        made.truth.write_parquet(beside, compression="zstd")
    write_folder(made.frames, folder, cast("Format", form))
    return {name: frame.height for name, frame in made.frames.items()}
