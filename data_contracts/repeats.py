"""Rows that say again what another row said, or contradict it.

Two rows are about the same thing when key and `known_on` are equal, null equal to null. An applicant's rows are judged
among themselves and all others among themselves: an applicant's word can neither throw out what an authority or a bank
said, nor be thrown out by it. Where both stand, the applicant's counts for less (`scoring.feeds`). Told apart:

    exact_duplicate       all columns equal: the first stays
    same_from_another     all columns equal but the supplier: the authority's stays, so the fact counts once
    void_valid_conflict   invoices that differ only in `is_void`: the void one stays
    conflicting_versions  anything else: none stays, for nobody can say which is right
"""

import polars as pl

from data_contracts.sources import APPLICANT, SUPPLIERS, Source

EXACT_DUPLICATE = "exact_duplicate"
SAME_FROM_ANOTHER = "same_from_another"
VOID_VALID_CONFLICT = "void_valid_conflict"
CONFLICTING_VERSIONS = "conflicting_versions"
MEANINGS = {
    EXACT_DUPLICATE: "no earlier row is the same in all columns (the first stays)",
    SAME_FROM_ANOTHER: "no row of another supplier is the same in all other columns (an authority's stays)",
    VOID_VALID_CONFLICT: "no other row says of the same invoice that it is void (the void one stays)",
    CONFLICTING_VERSIONS: "no other row says otherwise of the same key and known_on (none stays)",
}
"""What a row keeps that does not break the rule."""
HARMLESS = (EXACT_DUPLICATE, SAME_FROM_ANOTHER)
"""What only says again what stands: nothing is lost with it."""
_AT = "row number among the rows given"
_OWN = "the applicant's own word"


def repeats(source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that may not stay.

    Args:
        source: names the key.
        rows: rows that keep the contract, in the order of the file.

    Returns:
        `at` (UInt32, place in `rows`, ascending) and `rule`.
    """
    suspects = _suspects(source, rows)
    if suspects.is_empty():
        return pl.DataFrame(schema={"at": pl.UInt32, "rule": pl.String})
    said = [name for name in source.columns if name != "supplier"]
    first = pl.struct(list(source.columns)).is_first_distinct()
    exact = suspects.filter(~first).select(pl.col(_AT).alias("at"), rule=pl.lit(EXACT_DUPLICATE))
    # Authorities come first, so that the row that stays does not depend on the order of the file.
    ranked = suspects.filter(first).sort(pl.col("supplier").cast(pl.Enum(SUPPLIERS)), maintain_order=True)
    fresh = pl.struct(*said, _OWN).is_first_distinct()
    again = ranked.filter(~fresh).select(pl.col(_AT).alias("at"), rule=pl.lit(SAME_FROM_ANOTHER))
    rest = ranked.filter(fresh)
    contradicting = rest.filter(pl.len().over([*source.key, "known_on", _OWN]) > 1)
    judged = contradicting.select(pl.col(_AT).alias("at"), rule=_verdict(source)).drop_nulls("rule")
    return pl.concat([exact, again, judged]).sort("at")


def _suspects(source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose key has the hash of another row's key: all repeats are among them, and hardly any other."""
    again = rows.select(*source.key, "known_on").hash_rows().is_duplicated()
    # Nearly always none, and then nothing else is to be copied.
    found = rows.with_row_index(_AT).filter(again) if again.any() else rows.clear().with_row_index(_AT)
    return found.with_columns((pl.col("supplier") == APPLICANT).alias(_OWN))


def _verdict(source: Source) -> pl.Expr:
    """The rule that each of several distinct rows of one key breaks; null for the one that stays."""
    if "is_void" not in source.columns:
        return pl.lit(CONFLICTING_VERSIONS)
    others = [*(name for name in source.columns if name not in {"is_void", "supplier"}), _OWN]
    only_void_differs = pl.len().over(others) == pl.len().over([*source.key, "known_on", _OWN])
    valid = pl.when(~pl.col("is_void")).then(pl.lit(VOID_VALID_CONFLICT))
    return pl.when(only_void_differs).then(valid).otherwise(pl.lit(CONFLICTING_VERSIONS))
