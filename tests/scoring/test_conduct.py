from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from data_contracts.sources import Sources
from scoring.calendar import first_day
from scoring.features import features
from tests import make

AS_OF = date(2025, 1, 20)


def row(**records: Any) -> dict[str, Any]:
    """The features of the one default enterprise with complete feeds; filings are due until 2024-09-30."""
    return features(make.complete(**records), AS_OF).row(0, named=True)


def test_taxes_count_once_paid_and_net_of_refunds_inside_the_months_due() -> None:
    paid = make.tax_filing(period_from=date(2024, 7, 1), period_to=date(2024, 9, 30), known_on=date(2024, 10, 15))
    unpaid = make.tax_filing(
        period_from=date(2024, 4, 1), period_to=date(2024, 6, 30), paid_on=None, arrears_fen=3_600_000
    )
    refunded = make.tax_filing(
        period_from=date(2024, 1, 1), period_to=date(2024, 3, 31), known_on=date(2024, 4, 15), refund_fen=1_000_000
    )
    not_due = make.tax_filing(period_from=date(2024, 10, 1), period_to=date(2024, 12, 31), known_on=date(2025, 1, 10))
    found = row(tax_filings=[paid, unpaid, refunded, not_due])
    assert found["tax_paid_24m_fen"] == 3_600_000 + 2_600_000
    assert found["declared_sales_12m_fen"] == 3 * 120_000_000
    assert found["tax_arrears_fen"] == 3_600_000


@pytest.mark.parametrize(
    ("kind", "refund", "left"),
    [("vat", 0, 3_600_000), ("vat", 1_000_000, 2_600_000), ("vat", 9_000_000, 0), ("cit", 9_000_000, 3_600_000)],
)
def test_a_refund_in_a_filing_of_its_own_lowers_the_taxes_of_its_kind(kind: str, refund: int, left: int) -> None:
    back = make.tax_filing(
        period_from=date(2024, 1, 1), period_to=date(2024, 3, 31), known_on=date(2024, 4, 15),
        tax_kind=kind, tax_fen=0, refund_fen=refund, paid_on=None,
    )  # fmt: skip
    found = row(tax_filings=[make.tax_filing(), back])
    assert (found["tax_paid_24m_fen"], found["tax_paid_complete_24m_fen"]) == (left, left)


DAYS = [date(2024 + month // 12, month % 12 + 1, 20) for month in range(2, 20)]
TWO_YEARS = 2 * 12_000


@pytest.mark.parametrize("months", [1, 3, 12])
def test_two_years_of_tax_count_on_every_day_however_often_a_firm_files(months: int) -> None:
    """1,000 a month, filed by month, quarter or year: the same tax in the window whenever one looks."""
    filed = []
    for start in range(2021 * 12, 2026 * 12, months):
        first, end = first_day(start), first_day(start + months) - timedelta(days=1)
        filed.append(
            make.tax_filing(
                period_from=first, period_to=end, known_on=end + timedelta(days=15), paid_on=end,
                tax_kind="cit", tax_fen=1_000 * months,
            )
        )  # fmt: skip
    sources = make.complete(tax_filings=filed)
    found = {day: features(sources, day)["tax_paid_24m_fen"].item() for day in DAYS}
    assert found == dict.fromkeys(DAYS, TWO_YEARS)


@pytest.mark.parametrize(("first", "counts"), [(date(2022, 7, 1), True), (date(2022, 6, 30), False)])
def test_a_filing_of_more_than_a_year_counts_only_if_all_of_it_lies_in_the_window(first: date, *, counts: bool) -> None:
    """A tax assessed afterwards for many years is not the tax of two."""
    of_years = make.tax_filing(period_from=first, period_to=date(2023, 12, 31), tax_kind="cit", tax_fen=7)
    found = features(make.complete(tax_filings=[of_years]), date(2024, 8, 20))
    assert found["tax_paid_24m_fen"].item() == 7 * counts


def test_withheld_filings_leave_no_tax_for_the_limit() -> None:
    filing = make.tax_filing()
    assert row(tax_filings=[filing])["tax_paid_complete_24m_fen"] == 3_600_000
    unmarked = features(make.sources(tax_filings=[filing]), AS_OF).row(0, named=True)
    assert unmarked["tax_paid_complete_24m_fen"] == 0
    assert unmarked["tax_paid_24m_fen"] == 3_600_000


def test_the_latest_delay_of_two_years_counts() -> None:
    old = make.tax_filing(
        period_from=date(2022, 10, 1), period_to=date(2022, 12, 31), known_on=date(2023, 3, 1), late_days=90
    )
    recent = make.tax_filing(late_days=3)
    assert row(tax_filings=[old, recent])["tax_late_days_24m"] == 3


@pytest.mark.parametrize(
    ("grades", "level", "d_years"),
    [
        ({2023: "B"}, 3, 0),
        ({2022: "A"}, None, 0),
        ({2023: "A", 2024: "D"}, 4, 1),
        ({2024: "X"}, None, 0),
        ({}, None, 0),
    ],
)
def test_the_best_of_two_years_is_the_level_and_every_d_is_counted(
    grades: dict[int, str], level: int | None, d_years: int
) -> None:
    ratings = [
        make.taxpayer_rating(year=year, grade=grade, known_on=date(2025, 1, 1)) for year, grade in grades.items()
    ]
    found = row(taxpayer_ratings=ratings)
    assert (found["taxpayer_rating_level"], found["taxpayer_d_years"]) == (level, d_years)


def test_a_correction_replaces_a_rating() -> None:
    first = make.taxpayer_rating(grade="D")
    corrected = make.taxpayer_rating(grade="B", known_on=date(2024, 8, 1))
    found = row(taxpayer_ratings=[first, corrected])
    assert (found["taxpayer_rating_level"], found["taxpayer_d_years"]) == (3, 0)


def test_insured_person_months_and_the_largest_arrears() -> None:
    months = [
        make.social_insurance(month=date(2024, month, 1), headcount=10, arrears_fen=month * 100)
        for month in range(1, 7)
    ]
    found = row(social_insurance=months)
    assert found["insured_months_12m"] == 60
    assert found["social_arrears_12m_fen"] == 600


def test_debts_count_in_their_latest_report_while_they_are_open() -> None:
    before = make.debt(as_of=date(2024, 3, 31), overdue_days=40, five_class="substandard")
    now = make.debt(as_of=date(2024, 9, 30), overdue_days=0, balance_fen=30_000_000)
    secured = make.debt(debt_id="mortgage", kind="secured", balance_fen=900_000_000, limit_fen=900_000_000)
    closed = make.debt(debt_id="old", overdue_days=99, closed_on=date(2024, 5, 1))
    found = row(debts=[before, now, secured, closed])
    assert found["overdue_days_now"] == 0
    assert found["worst_five_class"] == 0
    assert found["existing_unsecured_fen"] == 100_000_000


def test_the_debts_of_other_members_count_against_the_group() -> None:
    firms = [make.enterprise(number, group_id="G") for number in (1, 2)] + [make.enterprise(3)]
    debts = [make.debt(uscc=firm["uscc"]) for firm in firms]
    found = features(make.complete(enterprises=firms, debts=debts), AS_OF).sort("uscc")
    group = dict(found.select("uscc", "group_existing_unsecured_fen").iter_rows())
    assert [group[firm["uscc"]] for firm in firms] == [100_000_000, 100_000_000, 0]


def test_a_listing_stands_until_it_is_removed() -> None:
    listed = make.public_record(kind="judgment_defaulter")
    removed = make.public_record(kind="judgment_defaulter", known_on=date(2025, 1, 12), removed_on=date(2025, 1, 10))
    fine = make.public_record(kind="administrative_penalty", listed_on=date(2021, 3, 1))
    assert row(public_records=[listed])["live_listings"] == 1
    assert row(public_records=[listed, removed])["live_listings"] == 0
    assert row(public_records=[listed, removed, fine])["public_records_36m"] == 1


@pytest.mark.parametrize(("valid_to", "live"), [(date(2025, 1, 20), True), (date(2025, 1, 19), False)])
def test_a_certificate_lapses(valid_to: date, *, live: bool) -> None:
    held = make.qualification(tag="srdi", valid_to=valid_to)
    found = row(qualifications=[held])
    assert (found["srdi_live"], found["tech_live"]) == (live, live)


STATEMENT = {
    "revenue": 20_315_740_000,
    "cogs": 19_178_090_000,
    "profit": 903_120_000,
    "receivables": 1_222_430_000,
    "inventory": 1_029_660_000,
    "prepayments": 1_845_390_000,
    "payables": 1_000_000,
    "advances_received": 79_550_000,
    "own_funds": 3_001_220_000,
    "expected_revenue": 36_500_000_000,
}


def statements(**changes: Any) -> list[dict[str, Any]]:
    return [make.financial_statement(item=item, value_fen=value, **changes) for item, value in STATEMENT.items()]


def test_the_need_follows_from_audited_statements() -> None:
    """The worked sheet of a bank: a new loan of 4,187.61 in units of 10,000 CNY."""
    need = row(financial_statements=statements(audited=True))["working_capital_need_fen"]
    assert need // 1_000_000 * 1_000_000 // 10_000 == 418_700
    assert abs(need - 4_187_610_000) < 10_000


def test_the_need_is_unknown_without_evidence() -> None:
    assert row(financial_statements=statements(audited=False))["working_capital_need_fen"] is None
    authority = statements(audited=False, supplier="authority")
    assert row(financial_statements=authority)["working_capital_need_fen"] is not None
    assert row(financial_statements=statements(audited=True)[1:])["working_capital_need_fen"] is None


@pytest.mark.parametrize(("supplier", "counts"), [("applicant", False), ("bank", True), ("authority", True)])
def test_an_applicants_word_that_its_statements_are_audited_does_not_count(supplier: str, counts: bool) -> None:
    need = row(financial_statements=statements(audited=True, supplier=supplier))["working_capital_need_fen"]
    assert (need is not None) == counts


@pytest.mark.parametrize("period_end", [date(2024, 6, 30), date(2024, 3, 31), date(2023, 12, 30), date(2023, 11, 30)])
def test_statements_that_do_not_end_with_the_accounting_year_are_no_yearly_figures(period_end: date) -> None:
    """会计法, article 11: the accounting year is the calendar year."""
    part = statements(period_end=period_end, known_on=date(2024, 8, 1))
    assert row(financial_statements=part)["working_capital_need_fen"] is None
    year = statements()
    whole = row(financial_statements=year)["working_capital_need_fen"]
    assert row(financial_statements=[*year, *part])["working_capital_need_fen"] == whole


def test_doubted_statements_are_told_from_the_day_of_the_doubt_on() -> None:
    whole = make.complete(financial_statements=statements())
    told = {"uscc": [make.USCC], "source": ["financial_statements"], "direction": [None]}
    for known_on, doubted in ((None, True), (AS_OF, True), (AS_OF + timedelta(days=1), False)):
        doubt = pl.DataFrame({**told, "known_on": [known_on]}, schema=whole.doubts.schema)
        found = features(Sources(**{**vars(whole), "doubts": doubt}), AS_OF)
        assert found["statements_doubted"].item() == doubted
    assert not features(whole, AS_OF)["statements_doubted"].item()
