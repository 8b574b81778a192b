"""The fingerprint of what a decision may have looked at: SHA-256 over the facts and values, sorted."""

from collections.abc import Sequence
from datetime import date
from hashlib import sha256

import polars as pl

from data_contracts.sources import SOURCES, Sources
from scoring.feeds import known

FIELD, NULL = "\x1f", "\x1e"
"""Between fields, and for null; contracts refuse control characters in text, so neither occurs in a value."""


def input_hashes(
    sources: Sources, usccs: Sequence[str], as_of: date, *, extra: pl.DataFrame | None = None
) -> pl.DataFrame:
    """`uscc` and `input_hash`: one row per enterprise named, in order.

    Covers every row known by `as_of` that speaks of the enterprise, corrected ones and doubts included, and the
    registry rows and debts of other members of its group, which its decision may depend on. Loan outcomes are labels,
    not facts, and are left out, as are doubts about them. `extra`, `uscc` and columns from outside the catalogue, is
    covered by name and value, an enterprise without a row like one of nulls; without it the fingerprint is of the facts
    alone.
    """
    wanted = pl.DataFrame({"uscc": list(usccs)}, schema={"uscc": pl.String})
    parts = []
    for name, source in SOURCES.items():
        if name != "loan_outcomes":
            rows = known(getattr(sources, name), as_of).join(wanted, on="uscc", how="semi")
            parts.append(_lines(name, rows, list(source.columns)))
    told = pl.col("known_on").is_null() | (pl.col("known_on") <= as_of)
    doubts = sources.doubts.filter(told, pl.col("source") != "loan_outcomes")
    parts.append(_lines("doubts", doubts.join(wanted, on="uscc", how="semi"), list(doubts.columns)))
    parts.extend(_peers(sources, wanted, as_of))
    if extra is not None:
        values = wanted.join(extra, on="uscc", how="left", maintain_order="left").unpivot(index="uscc")
        parts.append(_lines("extra", values, ["variable", "value"]))
    lines = pl.concat(parts).sort("uscc", "line").group_by("uscc", maintain_order=True).agg("line")
    hashed = {uscc: sha256("\n".join(facts).encode()).hexdigest() for uscc, facts in lines.iter_rows()}
    nothing = sha256(b"").hexdigest()
    return wanted.with_columns(input_hash=pl.Series([hashed.get(uscc, nothing) for uscc in usccs], dtype=pl.String))


def _lines(name: str, rows: pl.DataFrame, columns: Sequence[str], about: str = "uscc") -> pl.DataFrame:
    fields = [pl.col(column).cast(pl.String).fill_null(NULL) for column in columns]
    return rows.select(pl.col(about).alias("uscc"), line=pl.concat_str(pl.lit(name), *fields, separator=FIELD))


def _peers(sources: Sources, wanted: pl.DataFrame, as_of: date) -> list[pl.DataFrame]:
    registry = known(sources.enterprises, as_of).filter(pl.col("group_id").is_not_null())
    groups = registry.join(wanted, on="uscc", how="semi").select("group_id", about="uscc").unique()
    pairs = (
        registry.select("group_id", "uscc")
        .unique()
        .join(groups, on="group_id")
        .filter(pl.col("uscc") != pl.col("about"))
    )
    parts = []
    for name in ("enterprises", "debts"):
        rows = known(getattr(sources, name), as_of).join(pairs.select("uscc", "about").unique(), on="uscc")
        parts.append(_lines(f"peer_{name}", rows, list(SOURCES[name].columns), about="about"))
    return parts
