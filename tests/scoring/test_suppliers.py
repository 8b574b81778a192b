"""An applicant's own word neither clears a record nor vouches for a feed; and what is missing is not clean."""

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from data_contracts.checking import sources_of
from data_contracts.sources import Sources
from scoring.features import features
from tests import make

AS_OF = date(2025, 1, 20)
LATER = date(2025, 1, 2)


def row(sources: Sources) -> dict[str, Any]:
    return features(sources, AS_OF).row(0, named=True)


def test_an_applicant_cannot_remove_a_listing() -> None:
    listed = make.public_record(kind="judgment_defaulter")
    removed = listed | {"known_on": LATER, "removed_on": LATER, "supplier": "applicant"}
    whole = make.complete(public_records=[listed])
    said = make.checked_sources({**frames_of(whole), "public_records": make.frame("public_records", [listed, removed])})
    assert row(said)["live_listings"] == 1


def test_an_applicant_cannot_vouch_for_a_feed() -> None:
    mark = make.feed(supplier="applicant")
    assert row(make.sources(feeds=[mark]))["public_records_feed"] == "missing"
    assert row(make.sources(feeds=[make.feed()]))["public_records_feed"] == "complete"


def test_an_applicant_cannot_declare_sales_bring_invoices_or_clear_debts() -> None:
    facts = {"tax_filings": [make.tax_filing()], "invoices": [make.invoice()], "debts": [make.debt(overdue_days=9)]}
    whole = make.complete(**facts)
    more = {
        "tax_filings": make.tax_filing(supplier="applicant", known_on=LATER, declared_sales_fen=10**12),
        "invoices": make.invoice(supplier="applicant", known_on=LATER, invoice_no="99999999", net_fen=10**9),
        "debts": make.debt(supplier="applicant", known_on=LATER, balance_fen=0, limit_fen=0),
    }
    frames = {**frames_of(whole), **{name: make.frame(name, [*facts[name], said]) for name, said in more.items()}}
    assert row(make.checked_sources(frames)) == row(whole)


BETTER: dict[str, tuple[make.Record, make.Record]] = {
    "enterprises": (make.enterprise(zone_entered_on=None), {"zone_entered_on": date(2015, 6, 1)}),
    "qualifications": (make.qualification(tag="srdi", valid_to=date(2024, 6, 1)), {"valid_to": date(2026, 6, 1)}),
    "social_insurance": (make.social_insurance(arrears_fen=5), {"arrears_fen": 0}),
    "tax_filings": (make.tax_filing(arrears_fen=3_600_000, paid_on=None), {"arrears_fen": 0}),
    "taxpayer_ratings": (make.taxpayer_rating(grade="D"), {"grade": "A"}),
    "invoices": (make.invoice(is_void=True), {"is_void": False}),
    "debts": (make.debt(overdue_days=40), {"overdue_days": 0}),
    "public_records": (make.public_record(kind="judgment_defaulter"), {"removed_on": date(2024, 2, 1)}),
}
"""By source: what an authority or a bank says, and how an applicant would have it."""


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", BETTER)
def test_an_applicant_neither_contradicts_nor_corrects_what_others_said(name: str, later: bool) -> None:
    told, wished = BETTER[name]
    own = told | wished | {"supplier": "applicant"} | ({"known_on": LATER} if later else {})
    whole = make.complete(**{name: [told]})
    said = make.checked_sources(
        {**frames_of(whole), name: pl.concat([make.frame(name, [own]), frames_of(whole)[name]])}
    )
    assert row(said) == row(whole)


def test_an_applicants_bad_row_of_what_others_deliver_casts_no_doubt() -> None:
    whole = make.complete(public_records=[make.public_record()])
    for name in ("public_records", "feeds"):
        bad = make.MAKERS[name](supplier="applicant", known_on=date(1900, 1, 1))
        found, reports = sources_of(
            {**frames_of(whole), name: pl.concat([frames_of(whole)[name], make.frame(name, [bad])])}
        )
        assert reports[name].quarantined.height == 1
        assert row(found) == row(whole)


def test_an_applicant_corrects_no_authority() -> None:
    registered = make.enterprise(group_id="G")
    said = registered | {"known_on": LATER, "supplier": "applicant", "group_id": None}
    other = make.enterprise(2, group_id="G")
    found = features(make.sources(enterprises=[registered, said, other]), AS_OF)
    assert found["group_members"].to_list() == [1, 1]


def test_returns_that_overlap_put_the_filings_in_doubt() -> None:
    twice = make.tax_filing(period_from=date(2024, 4, 2))
    assert row(make.complete(tax_filings=[make.tax_filing()]))["tax_filings_feed"] == "complete"
    assert row(make.complete(tax_filings=[make.tax_filing(), twice]))["tax_filings_feed"] == "incomplete"


@pytest.mark.parametrize(
    ("established", "returned", "unfiled"),
    [
        (date(2015, 6, 1), date(2024, 9, 30), 0),
        (date(2015, 6, 1), date(2024, 6, 30), 3),
        (date(2024, 5, 9), date(2024, 6, 30), 3),
        (date(2024, 8, 9), None, 0),
        (date(2015, 6, 1), None, 24),
    ],
)
def test_a_return_that_was_never_filed_is_counted(established: date, returned: date | None, unfiled: int) -> None:
    firm = make.enterprise(established_on=established, known_on=established, zone_entered_on=None)
    filed = [] if returned is None else make.returns(2022, returned)
    assert row(make.complete(enterprises=[firm], tax_filings=filed))["unfiled_months_24m"] == unfiled


@pytest.mark.parametrize("source", ["enterprises", "feeds"])
def test_a_doubted_registry_row_or_mark_puts_every_feed_in_doubt(source: str) -> None:
    doubt = pl.DataFrame(
        {"uscc": [make.USCC], "source": [source], "direction": [None], "known_on": [AS_OF - timedelta(days=1)]},
        schema={"uscc": pl.String, "source": pl.String, "direction": pl.String, "known_on": pl.Date},
    )
    found = row(Sources(**{**vars(make.complete()), "doubts": doubt}))
    assert {state for name, state in found.items() if name.endswith("_feed")} == {"incomplete"}


def test_a_doubted_certificate_does_not_count() -> None:
    whole = make.complete(qualifications=[make.qualification(tag="srdi")])
    doubt = pl.DataFrame(
        {"uscc": [make.USCC], "source": ["qualifications"], "direction": [None], "known_on": [None]},
        schema={"uscc": pl.String, "source": pl.String, "direction": pl.String, "known_on": pl.Date},
    )
    assert row(whole)["srdi_live"]
    assert not row(Sources(**{**vars(whole), "doubts": doubt}))["srdi_live"]


def frames_of(sources: Sources) -> dict[str, pl.DataFrame]:
    return {name: frame for name, frame in vars(sources).items() if name != "doubts"}
