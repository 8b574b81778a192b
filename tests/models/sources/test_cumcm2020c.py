"""The importer of real invoices assumes what it says and nothing else."""

from pathlib import Path

import polars as pl
import pytest

from data_contracts.checking import sources_of
from data_contracts.errors import ContractError
from data_contracts.sources import SOURCES, Sources
from data_contracts.uscc import CodeState, code_state
from models.sources.cumcm2020c import credit_code, frames_of


@pytest.fixture(scope="module")
def src(shared_data: Path) -> Path:
    return shared_data / "cumcm2020c"


@pytest.fixture(scope="module")
def frames(src: Path) -> dict[str, pl.DataFrame]:
    return frames_of(src)


@pytest.fixture(scope="module")
def checked_set(frames: dict[str, pl.DataFrame]) -> tuple[Sources, pl.DataFrame]:
    sources, reports = sources_of(frames)
    for report in reports.values():
        assert report.read == report.good.height + report.quarantined.height
        assert report.warnings == ()
    assert all(reports[name].quarantined.is_empty() for name in frames if name != "invoices")
    return sources, reports["invoices"].quarantined


def test_every_row_of_the_set_is_there(frames: dict[str, pl.DataFrame]) -> None:
    assert {name: frame.height for name, frame in frames.items()} == {
        "enterprises": 425,
        "invoices": 1_099_441,
        "loan_outcomes": 123,
        "feeds": 850,
    }
    assert frames["loan_outcomes"]["defaulted"].sum() == 27


def test_the_duplicates_and_wrong_sums_that_the_set_names_are_quarantined(
    checked_set: tuple[Sources, pl.DataFrame],
) -> None:
    counts = checked_set[1].group_by("direction", "rules").len().sort("direction", "rules").rows()
    assert counts == [
        ("in", "exact_duplicate", 5_484),
        ("in", "gross_not_net_plus_tax", 4),
        ("in", "void_valid_conflict", 2),
        ("out", "exact_duplicate", 6_181),
        ("out", "gross_not_net_plus_tax", 1),
        ("out", "void_valid_conflict", 3),
    ]


def test_yuan_become_fen_to_the_cent(src: Path, frames: dict[str, pl.DataFrame]) -> None:
    for file, direction in (("input_invoices", "in"), ("output_invoices", "out")):
        yuan = pl.read_parquet(src / f"{file}.parquet", columns=["amount_net", "tax", "amount_gross"])
        fen = frames["invoices"].filter(direction=direction)
        for column, name in (("amount_net", "net_fen"), ("tax", "tax_fen"), ("amount_gross", "gross_fen")):
            assert yuan[column].sum() * 100 == fen[name].sum()
            assert (yuan[column] == (fen[name].cast(pl.Decimal(20, 2)) / 100).cast(pl.Decimal(18, 2))).all()


def test_the_marks_reconcile_with_the_good_rows_of_every_firm_without_doubt(
    checked_set: tuple[Sources, pl.DataFrame],
) -> None:
    sources, _ = checked_set
    key = ["uscc", "direction"]
    seen = sources.invoices.group_by(key).agg(
        rows=pl.struct(SOURCES["invoices"].key).n_unique(), total=pl.sum("gross_fen")
    )
    compared = sources.feeds.join(seen, on=key, how="left").join(sources.doubts.unique(key), on=key, how="left")
    off = compared.filter((pl.col("row_count") != pl.col("rows")) | (pl.col("total_fen") != pl.col("total")))
    assert off["source_right"].null_count() == 0
    assert off.height <= sources.doubts.unique(key).height == 6


def test_neither_the_number_of_a_firm_nor_its_rating_can_be_read_off_a_column(
    src: Path, frames: dict[str, pl.DataFrame]
) -> None:
    number = frames["enterprises"]["name"].str.extract(r"^E(\d+) ").cast(pl.Int64)
    place = pl.Series(range(425))
    codes = frames["enterprises"]["uscc"].rank()
    for column in (place, codes):
        assert abs(pl.DataFrame({"a": number, "b": column}).select(pl.corr("a", "b", method="spearman")).item()) < 0.1
    assert frames["enterprises"]["uscc"].is_sorted()
    assert frames["loan_outcomes"]["uscc"].is_sorted()
    ratings = pl.read_parquet(src / "enterprises.parquet")["credit_rating"].cast(pl.String)
    for frame in frames.values():
        for column in frame.get_columns():
            assert set(column.cast(pl.String).unique()) - {None} != set(ratings.unique()) - {None}


def test_the_credit_codes_are_valid_and_distinct() -> None:
    codes = [credit_code(f"E{number}") for number in range(1, 426)]
    assert len(set(codes)) == 425
    assert all(code_state(code) is CodeState.VALID for code in codes)
    assert codes == [credit_code(f"E{number}") for number in range(1, 426)]


def test_a_folder_that_is_not_the_set_is_refused_with_everything_that_is_missing(tmp_path: Path) -> None:
    pl.DataFrame({"enterprise_id": [1]}).write_parquet(tmp_path / "enterprises.parquet")
    (tmp_path / "input_invoices.parquet").write_bytes(b"PAR1")
    with pytest.raises(ContractError) as refused:
        frames_of(tmp_path)
    said = "\n".join(refused.value.problems)
    assert "enterprises.parquet: no column enterprise_id of type String" in said
    assert "enterprises.parquet: no column is_default of type Boolean" in said
    assert "input_invoices.parquet: damaged" in said
    assert "output_invoices.parquet: is missing" in said
    assert "industry_annotation.parquet: is missing" in said
