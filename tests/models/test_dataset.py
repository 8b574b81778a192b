from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.checking import sources_of
from data_contracts.errors import ContractError
from models.dataset import INPUTS, Dataset, comparisons, dataset, default_as_of, told_of_lately
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


def test_loans_of_firms_that_nobody_knew_on_their_day_are_no_training_set() -> None:
    """A registry that was delivered today says nothing of last year."""
    sources = make.complete(
        enterprises=[make.enterprise(known_on=date(2024, 12, 31))], loan_outcomes=[make.loan_outcome()]
    )
    with pytest.raises(ContractError, match="no loan to train on") as refused:
        dataset(sources)
    assert "1 left out: enterprise not known on the day" in refused.value.problems
    with pytest.raises(ContractError, match="no loan to train on"):
        dataset(make.complete(loan_outcomes=[make.loan_outcome()]), as_of=date(1990, 1, 1))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_lenders_loans_the_order_of_their_rows_decides_nothing(order: tuple[int, int]) -> None:
    loans = [
        make.loan_outcome(lender_id="a", defaulted=True, defaulted_on=date(2023, 9, 1)),
        make.loan_outcome(lender_id="b"),
    ]
    assert labelled(*(loans[place] for place in order)).defaulted.tolist() == [False, False]


WATCHED = make.loan_outcome(uscc=make.enterprise(2)["uscc"], loan_id="watched")
"""Another loan of the same lender, which shows how long the lender looked on."""


def labelled(*loans: make.Record) -> Dataset:
    firms = sorted({loan["uscc"] for loan in (*loans, WATCHED)})
    enterprises = [make.enterprise(number) for number in range(1, 60) if make.enterprise(number)["uscc"] in firms]
    return dataset(make.sources(enterprises=enterprises, loan_outcomes=[*loans, WATCHED]))


def label_of(loan: make.Record) -> list[bool]:
    """The label of the loan; none if it is left out."""
    found = labelled(loan)
    return found.table.with_columns(bad=found.defaulted).filter(loan_id=loan["loan_id"])["bad"].to_list()


def test_a_loan_watched_too_briefly_is_left_out() -> None:
    brief = make.loan_outcome(observed_until=date(2024, 5, 31), known_on=date(2024, 5, 31))
    assert label_of(brief) == []
    assert labelled(brief).left_out["watched neither to maturity nor for 12 months, without default"] == 1
    with pytest.raises(ContractError, match="opened under 12 months before the lender's last look"):
        dataset(make.sources(loan_outcomes=[brief]))


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"defaulted": True, "defaulted_on": date(2023, 9, 1), "observed_until": date(2023, 9, 1)}, [True]),
        ({"defaulted": True, "observed_until": date(2023, 9, 1)}, [True]),
        ({"defaulted": True, "defaulted_on": date(2024, 6, 2), "observed_until": date(2024, 12, 1)}, [False]),
        ({}, [False]),
    ],
)
def test_default_counts_within_twelve_months(changes: dict[str, object], labels: list[bool]) -> None:
    assert label_of(make.loan_outcome(**changes, known_on=date(2024, 12, 2))) == labels


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"term_months": 6, "observed_until": date(2023, 12, 1)}, [False]),
        ({"term_months": 6, "observed_until": date(2023, 11, 30)}, []),
        ({"term_months": 36, "observed_until": date(2024, 6, 1)}, [False]),
        ({"term_months": 36, "observed_until": date(2024, 5, 31)}, []),
        ({"term_months": 6, "defaulted": True, "defaulted_on": date(2024, 3, 1)}, [True]),
    ],
)
def test_a_short_loan_repaid_at_maturity_is_good(changes: dict[str, object], labels: list[bool]) -> None:
    assert label_of(make.loan_outcome(**changes, known_on=date(2024, 12, 2))) == labels


def test_a_vintage_younger_than_the_horizon_is_left_out_whole() -> None:
    young = {"opened_on": date(2023, 6, 2), "term_months": 6}
    good = make.loan_outcome(**young, loan_id="good", observed_until=date(2023, 12, 2))
    bad = make.loan_outcome(**young, loan_id="bad", defaulted=True, observed_until=date(2024, 3, 1))
    assert label_of(good) == label_of(bad) == []
    assert labelled(bad).left_out["opened under 12 months before the lender's last look"] == 1
    # Another lender's longer look says nothing of this one's loans.
    assert label_of(make.loan_outcome(lender_id="bank-2", defaulted=True, observed_until=date(2023, 9, 1))) == []


def test_a_look_that_is_still_to_come_ripens_no_vintage() -> None:
    """A mistyped year in one loan would else bring in every young loan of its lender, the defaults foremost."""
    typo = make.loan_outcome(uscc=make.enterprise(3)["uscc"], loan_id="typo", observed_until=date(2042, 6, 1))
    young = make.loan_outcome(opened_on=date(2024, 2, 1), defaulted=True, observed_until=date(2024, 6, 1))
    firms = [make.enterprise(number) for number in (1, 2, 3)]
    found, reports = sources_of(make.frames(enterprises=firms, loan_outcomes=[typo, young, WATCHED]))
    assert reports["loan_outcomes"].quarantined["rules"].to_list() == ["known_on_before_observed_until"]
    assert dataset(found).table["loan_id"].to_list() == ["watched"]


def test_what_an_applicant_says_of_its_loans_is_no_label() -> None:
    own = {"uscc": make.enterprise(3)["uscc"], "supplier": "applicant", "known_on": date(2025, 6, 1)}
    repaid = make.loan_outcome(**own, loan_id="own", observed_until=date(2025, 6, 1))
    young = make.loan_outcome(opened_on=date(2024, 2, 1), defaulted=True, observed_until=date(2024, 6, 1))
    assert labelled(repaid, young).table["loan_id"].to_list() == ["watched"]


@given(
    loans=st.lists(st.tuples(st.integers(1, 36), st.booleans(), st.integers(0, 700)), min_size=1, max_size=40),
)
def test_neither_short_terms_nor_young_vintages_move_the_share_of_defaults(
    loans: list[tuple[int, bool, int]],
) -> None:
    """Whether a loan is used depends on when it was opened, never on how it ended."""
    last_look = WATCHED["observed_until"]
    made: list[make.Record] = []
    for number, (term, bad, age) in enumerate(loans, 3):
        opened = last_look - timedelta(days=age)
        closed = min(last_look, opened + timedelta(days=92 if bad else term * 31))
        made.append(
            make.loan_outcome(
                uscc=make.enterprise(number)["uscc"],
                loan_id=f"loan-{number}",
                opened_on=opened,
                term_months=term,
                defaulted=bad and closed < last_look,
                defaulted_on=closed if bad and closed < last_look else None,
                observed_until=closed,
                known_on=last_look,
            )
        )
    found = labelled(*made)
    used = set(found.table["loan_id"])
    old = {f"loan-{number}" for number, (_, _, age) in enumerate(loans, 3) if age > 366}
    young = {f"loan-{number}" for number, (_, _, age) in enumerate(loans, 3) if age < 365}
    assert old <= used
    assert not young & used


def test_the_day_by_which_the_last_label_was_known_is_told() -> None:
    days = (date(2024, 7, 1), date(2024, 9, 5), date(2024, 8, 2))
    loans = [
        make.loan_outcome(uscc=make.enterprise(number)["uscc"], loan_id=f"l{number}", known_on=day)
        for number, day in enumerate(days, start=3)
    ]
    assert labelled(*loans).labels_known_on == date(2024, 9, 5)
    unseen = make.loan_outcome(uscc=make.enterprise(9)["uscc"], opened_on=date(2023, 12, 1), known_on=date(2025, 1, 1))
    assert labelled(*loans, unseen).labels_known_on == date(2024, 9, 5), "a loan that is left out is no label"


def test_undated_defaults_are_counted() -> None:
    assert labelled(make.loan_outcome(defaulted=True)).undated == 1
    assert labelled(make.loan_outcome(defaulted=True, defaulted_on=date(2023, 9, 1))).undated == 0


def test_one_loan_an_enterprise_the_latest() -> None:
    older = make.loan_outcome(loan_id="a", opened_on=date(2022, 1, 1))
    found = dataset(make.sources(loan_outcomes=[older, make.loan_outcome(loan_id="b")]))
    assert found.table["loan_id"].to_list() == ["b"]
    assert found.left_out["an earlier loan of the same enterprise"] == 1


def test_the_default_day_follows_the_latest_fact_but_no_outcome() -> None:
    sources = make.sources(invoices=[make.invoice()], loan_outcomes=[make.loan_outcome(known_on=date(2030, 1, 1))])
    assert default_as_of(sources) == date(2024, 6, 11)


def test_a_word_that_is_not_heard_moves_no_default_day() -> None:
    own = make.invoice(supplier="applicant", invoice_no="00000002", issued_on=date(2099, 1, 1))
    assert default_as_of(make.sources(invoices=[make.invoice(), own])) == date(2024, 6, 11)


def test_how_many_firms_a_day_has_facts_of() -> None:
    firms = [make.enterprise(number) for number in (1, 2, 3)]
    sales = [make.invoice(uscc=firm["uscc"]) for firm in firms[:2]]
    sources = make.sources(
        enterprises=firms, invoices=[*sales, make.invoice(uscc=firms[2]["uscc"], supplier="applicant")]
    )
    assert told_of_lately(sources, date(2024, 6, 11), 1) == (2, 3)
    assert told_of_lately(sources, date(2024, 6, 12), 1) == (0, 3)


def test_the_rivals_know_their_columns() -> None:
    sources = make.complete(loan_outcomes=[make.loan_outcome()])
    columns = set(dataset(sources).table.columns)
    assert {one.name for one in INPUTS} <= columns
    for rival in comparisons().values():
        assert {one.name for one in rival.inputs} <= columns
