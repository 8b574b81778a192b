"""Outcomes of the hall's loans are source files that models learn from: the contract holds, or nothing is written."""

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from api.outcomes import export_outcomes, outcomes
from data_contracts.checking import checked
from data_contracts.errors import ContractError, UsageError
from data_contracts.sources import LOAN_OUTCOMES
from tests.hall import made
from tests.hall.test_ledger import report


async def drawn(owner: Any, amount_fen: int, *, reports: list[dict[str, Any]]) -> tuple[made.Bank, str]:
    """A facility drawn in full and reported on: today unless a report says otherwise."""
    uscc, bank = await made.enterprise(owner, limit_fen=amount_fen), await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, amount_fen)
    await report(owner, bank, "report_drawdown", facility, amount_fen)
    for said in reports:
        today = await owner.fetchval("SELECT hall.today()")
        whole = {"as_of": str(today), "days_past_due": 0, "five_class": "normal", "restructured": False} | said
        await made.act(owner, bank.actor, "report_status", facility_id=facility, **whole)
    return bank, facility


async def later(owner: Any, days: int) -> None:
    await owner.execute(
        "INSERT INTO hall.clock_offset (tenant, \"offset\") VALUES ('default', $1) "
        'ON CONFLICT (tenant) DO UPDATE SET "offset" = excluded."offset"',
        timedelta(days=days),
    )


async def test_each_sign_of_default_counts_and_a_late_payer_is_none(owner: Any) -> None:
    signs = {
        "good": {"state": "active"},
        "late": {"state": "overdue", "days_past_due": 90, "five_class": "special-mention"},
        "91": {"state": "overdue", "days_past_due": 91},
        "class": {"state": "active", "five_class": "substandard"},
        "restructured": {"state": "active", "restructured": True},
        "lost": {"state": "written_off", "written_off_fen": 7},
        "paid": {"state": "compensated", "compensated_fen": 40, "bank_ref": "K-1"},
    }
    lent = {name: (await drawn(owner, 100, reports=[said]))[1] for name, said in signs.items()}
    await drawn(owner, 100, reports=[])
    frame = await outcomes(owner)
    by_loan = {row["loan_id"]: row for row in frame.iter_rows(named=True)}
    assert set(by_loan) == set(lent.values()), "what no bank has spoken of is not known"
    assert {name for name, loan in lent.items() if by_loan[loan]["defaulted"]} == set(signs) - {"good", "late"}
    assert by_loan[lent["lost"]]["loss_fen"] == 100
    assert by_loan[lent["paid"]]["loss_fen"] == 60
    assert by_loan[lent["91"]]["loss_fen"] is None, "it still runs"
    assert checked(LOAN_OUTCOMES, frame).quarantined.is_empty()


async def test_a_default_keeps_its_first_day_and_the_amount_is_the_most_that_was_owed(owner: Any) -> None:
    bank, facility = await drawn(owner, 100, reports=[{"state": "overdue", "days_past_due": 95}])
    opened = await owner.fetchval("SELECT hall.today()")
    await later(owner, 10)
    await report(owner, bank, "report_repayment", facility, 100)
    await report(owner, bank, "report_drawdown", facility, 60)
    today = await owner.fetchval("SELECT hall.today()")
    said = {"as_of": str(today), "days_past_due": 0, "five_class": "normal", "restructured": False, "state": "active"}
    await made.act(owner, bank.actor, "report_status", facility_id=facility, **said)
    row = (await outcomes(owner)).row(0, named=True)
    assert (row["opened_on"], row["defaulted_on"]) == (opened, opened)
    assert (row["observed_until"], row["known_on"]) == (today, today)
    assert (row["amount_fen"], row["term_months"], row["lender_id"]) == (100, 11, bank.institution)


async def test_the_term_is_the_contracts_from_the_day_the_money_was_paid_out(owner: Any) -> None:
    """Not the offer's twelve months: a loan that is repaid at the end of its contract was watched to maturity."""
    uscc, bank = await made.enterprise(owner, limit_fen=100), await made.bank(owner)
    claim = await made.claim(owner, await made.request(owner, uscc, amount_fen=100), bank, "accepted")
    signed_on = await owner.fetchval("SELECT hall.today()")
    ends_on = signed_on + timedelta(days=200)
    facility = (await made.sign(owner, claim, line_ends_on=str(ends_on)))["facility_id"]
    await later(owner, 45)
    await report(owner, bank, "report_drawdown", facility, 100)
    await later(owner, 200)
    await report(owner, bank, "report_repayment", facility, 100)
    said = {
        "as_of": str(ends_on),
        "days_past_due": 0,
        "five_class": "normal",
        "restructured": False,
        "state": "settled",
    }
    await made.act(owner, bank.actor, "report_status", facility_id=facility, **said)
    row = (await outcomes(owner)).row(0, named=True)
    assert row["term_months"] == 5, "155 days"
    matured_on = pl.select(pl.lit(row["opened_on"]).dt.offset_by("5mo")).item()
    assert row["observed_until"] == ends_on >= matured_on


@pytest.mark.parametrize("form", ["parquet", "csv"])
async def test_a_file_is_written_whole_and_read_back_as_it_was(
    owner: Any, pool: Any, tmp_path: Path, form: str
) -> None:
    await drawn(owner, 100, reports=[{"state": "active"}])
    path = tmp_path / "new" / f"loan_outcomes.{form}"
    assert await export_outcomes(pool, path) == 1
    read = pl.read_parquet(path) if form == "parquet" else pl.read_csv(path)
    assert read.height == 1
    assert read.columns == list(LOAN_OUTCOMES.columns)
    with pytest.raises(UsageError, match=r"\.parquet or \.csv"):
        await export_outcomes(pool, tmp_path / "loan_outcomes.xlsx")


async def test_rows_that_break_the_contract_are_named_and_the_old_file_stays(
    owner: Any, pool: Any, tmp_path: Path
) -> None:
    bank, facility = await drawn(owner, 10**15, reports=[{"state": "active"}])
    await report(owner, bank, "report_drawdown", facility, 10**15)
    path = tmp_path / f"{secrets.token_hex(2)}.csv"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ContractError, match=facility):
        await export_outcomes(pool, path)
    assert path.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == [path.name]


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
