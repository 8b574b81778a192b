from datetime import date

import pytest

from data_contracts.errors import ContractError
from models.dataset import INPUTS, comparisons, dataset, default_as_of
from scoring.features import features
from tests import make


def test_a_loan_is_seen_from_its_own_day() -> None:
    sales = make.numbered([make.invoice(issued_on=date(2023, month, 3)) for month in range(1, 13)])
    sources = make.complete(invoices=sales, loan_outcomes=[make.loan_outcome()])
    found = dataset(sources)
    assert found.table["seen_on"].to_list() == [date(2023, 6, 1)]
    assert found.table["sales_12m_fen"].item() == features(sources, date(2023, 6, 1))["sales_12m_fen"].item()
    assert found.table["sales_12m_fen"].item() == 5_000_000


def test_an_earlier_window_sees_no_later_fact() -> None:
    sales = make.numbered([make.invoice(issued_on=date(2023, month, 3)) for month in range(1, 13)])
    sources = make.complete(invoices=sales, loan_outcomes=[make.loan_outcome()])
    assert dataset(sources, as_of=date(2023, 3, 1)).table["sales_12m_fen"].item() == 2_000_000
    assert dataset(sources, as_of=date(2024, 1, 1)).table["seen_on"].item() == date(2023, 6, 1)


def test_a_loan_watched_too_briefly_is_left_out() -> None:
    brief = make.loan_outcome(observed_until=date(2024, 5, 31), known_on=date(2024, 5, 31))
    with pytest.raises(ContractError, match="watched under 12 months without default"):
        dataset(make.sources(loan_outcomes=[brief]))


@pytest.mark.parametrize(
    ("changes", "defaults"),
    [
        ({"defaulted": True, "defaulted_on": date(2023, 9, 1), "observed_until": date(2023, 9, 1)}, True),
        ({"defaulted": True, "observed_until": date(2023, 9, 1)}, True),
        ({"defaulted": True, "defaulted_on": date(2024, 6, 2), "observed_until": date(2024, 12, 1)}, False),
        ({}, False),
    ],
)
def test_default_counts_within_twelve_months(changes: dict[str, object], *, defaults: bool) -> None:
    loan = make.loan_outcome(**changes, known_on=date(2024, 12, 2))
    assert dataset(make.sources(loan_outcomes=[loan])).defaulted.tolist() == [defaults]


def test_one_loan_an_enterprise_the_latest() -> None:
    older = make.loan_outcome(loan_id="a", opened_on=date(2022, 1, 1))
    found = dataset(make.sources(loan_outcomes=[older, make.loan_outcome(loan_id="b")]))
    assert found.table["loan_id"].to_list() == ["b"]
    assert found.left_out["an earlier loan of the same enterprise"] == 1


def test_the_default_day_follows_the_latest_fact_but_no_outcome() -> None:
    sources = make.sources(invoices=[make.invoice()], loan_outcomes=[make.loan_outcome(known_on=date(2030, 1, 1))])
    assert default_as_of(sources) == date(2024, 6, 11)


def test_the_rivals_know_their_columns() -> None:
    sources = make.complete(loan_outcomes=[make.loan_outcome()])
    columns = set(dataset(sources).table.columns)
    assert {one.name for one in INPUTS} <= columns
    for rival in comparisons().values():
        assert {one.name for one in rival.inputs} <= columns
