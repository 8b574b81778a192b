"""Golden limits: firms made from facts, through features and policy to the decision, with a PD handed in."""

from dataclasses import replace
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.sources import Sources
from scoring.decide import Estimate, Risk, decide
from scoring.features import features
from scoring.points import parse_ruleset
from scoring.rulebook import Rulebook, parse_rulebook, under_policy
from tests import make

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).resolve().parents[1] / "cases" / "limits.yaml").read_text(encoding="utf-8")
)
FEN = 100


def shipped(folder: str, name: str) -> str:
    return files("scoring").joinpath(folder, f"{name}.yaml").read_text(encoding="utf-8")


RULESET = shipped("rulesets", "jifen-default.2026-11-01")


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return parse_rulebook(
        shipped("policies", "torch-points.2026-11-01"), RULESET, shipped("size_classes", "sme-size.2017-12-28")
    )


def sales(firm: dict[str, Any]) -> list[make.Record]:
    monthly = firm["monthly_sales"] * FEN
    rows = [
        make.invoice(issued_on=date(year, month, 10), net_fen=monthly // 5, counterparty_id=f"B0000{buyer}")
        for year in (2022, 2023, 2024)
        for month in range(1, 13)
        for buyer in range(1, 6)
        if monthly
    ]
    if "first_sale" in firm:
        rows.append(make.invoice(issued_on=date(2024, 12, 20), net_fen=firm["first_sale"] * FEN))
    return make.numbered(rows)


def filings(firm: dict[str, Any]) -> list[make.Record]:
    quarters = [(date(y, m, 1), end) for y in (2022, 2023, 2024) for m, end in zip((1, 4, 7, 10), ends(y), strict=True)]
    return [
        make.tax_filing(
            period_from=start,
            period_to=end,
            known_on=date(2024, 12, 31) if end > date(2024, 9, 30) else date.fromordinal(end.toordinal() + 15),
            paid_on=end,
            declared_sales_fen=3 * firm["monthly_sales"] * FEN,
            tax_fen=firm["tax"] * FEN,
        )
        for start, end in quarters[:-1]
    ]


def ends(year: int) -> tuple[date, ...]:
    return date(year, 3, 31), date(year, 6, 30), date(year, 9, 30), date(year, 12, 31)


def indicators(firm: dict[str, Any]) -> list[make.Record]:
    if firm["points"] == "none":
        return []
    tops: dict[tuple[str, str], int] = {}
    for indicator in parse_ruleset(RULESET).indicators:
        for way in indicator.best_of:
            steps = getattr(way, "steps", None)
            if steps:
                key = (way.fact, way.unit)
                tops[key] = max(tops.get(key, 0), *(int(step[0]) for step in steps))
    return [
        make.innovation_indicator(indicator_id=fact, unit=unit, value=value) for (fact, unit), value in tops.items()
    ]


def statements(firm: dict[str, Any]) -> list[make.Record]:
    """Revenue, cost and receivables from which the regulator's formula gives exactly `need`: W = receivables."""
    if "need" not in firm:
        return []
    amounts = {
        "revenue": 10**12,
        "cogs": 10**12,
        "profit": 0,
        "receivables": firm["need"] * FEN,
        "inventory": 0,
        "prepayments": 0,
        "payables": 0,
        "advances_received": 0,
    }
    return [make.financial_statement(item=item, value_fen=value) for item, value in amounts.items()]


def facts(firm: dict[str, Any]) -> Sources:
    established = firm.get("established", date(2010, 5, 1))
    group = "G1" if "group_debt" in firm else None
    entered = max(established, date(2015, 1, 1))
    home = {"established_on": established, "zone_entered_on": entered, "known_on": entered, "group_id": group}
    enterprises = [make.enterprise(**home, revenue_fen=firm["monthly_sales"] * 12 * FEN)]
    debts = []
    if "debt" in firm:
        debts.append(make.debt(as_of=date(2024, 12, 31), limit_fen=firm["debt"] * FEN, balance_fen=0))
    if "group_debt" in firm:
        member = make.enterprise(2, group_id=group)
        enterprises.append(member)
        owed = firm["group_debt"] * FEN
        debts.append(
            make.debt(uscc=member["uscc"], as_of=date(2024, 12, 31), limit_fen=owed, balance_fen=owed, debt_id="line-2")
        )
    tags = [tag for tag, held in (("srdi", firm.get("srdi")), ("hightech", firm.get("tech"))) if held]
    return make.complete(
        enterprises=enterprises,
        invoices=sales(firm),
        tax_filings=filings(firm),
        innovation_indicators=indicators(firm),
        financial_statements=statements(firm),
        debts=debts,
        qualifications=[make.qualification(tag=tag) for tag in tags],
    )


def decided(firm: dict[str, Any], rulebook: Rulebook) -> dict[str, Any]:
    return answer(firm, facts(firm), rulebook)


def answer(firm: dict[str, Any], sources: Sources, rulebook: Rulebook) -> dict[str, Any]:
    frame = under_policy(features(sources, make.AS_OF, only=[make.USCC]), sources, make.AS_OF, rulebook)
    estimate = Estimate(pl.Series("pd", [firm["pd"]]), pl.Series("pd_hi", [firm["pd_hi"]]))
    asked = pl.Series("asked_fen", [firm["asked"] * FEN]) if "asked" in firm else None
    risk = Risk(estimate, estimate, {})
    return decide(frame, risk, rulebook.policy, asked=asked).row(0, named=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_a_worked_limit_comes_out_to_the_fen(case: dict[str, Any], rulebook: Rulebook) -> None:
    found = decided(case["firm"], rulebook)
    assert found["outcome"] == "eligible", found["reasons"]
    assert (found["limit_fen"], found["binding"]) == (case["limit"] * FEN, case["binding"]), found["terms"]
    assert found["conditional_limit_fen"] == found["limit_fen"]
    if "rate_bp" in case:
        assert found["rate_bp"] == case["rate_bp"]
    if case["limit"] == 0:
        assert found["rate_bp"] is None


def test_each_case_says_how_it_was_worked_and_where_its_rule_comes_from() -> None:
    assert all(case["working"] and case["source"] for case in CASES)
    assert len({case["why"] for case in CASES}) == len(CASES)


START_UP = next(case["firm"] for case in CASES if "without a single sale" in case["why"])


@given(sale=st.integers(min_value=1, max_value=500_000_000), pd=st.floats(0.0001, 0.9), more=st.floats(1, 5))
def test_a_start_up_never_gets_less_for_a_first_sale(rulebook: Rulebook, sale: int, pd: float, more: float) -> None:
    firm = START_UP | {"first_sale": sale, "pd": pd, "pd_hi": min(pd * more, 0.99)}
    assert decided(firm, rulebook)["limit_fen"] >= 1_000_000 * FEN


RETURNS = make.returns(2023, date(2024, 9, 30))


@pytest.mark.parametrize(
    "blemish",
    [
        {"tax_filings": [*RETURNS[:-1], RETURNS[-1] | {"tax_fen": 1, "arrears_fen": 1, "paid_on": None}]},
        {"tax_filings": RETURNS[:-1]},
        {"public_records": [make.public_record(kind="abnormal_operation")]},
        {"debts": [make.debt(as_of=date(2024, 12, 31), overdue_days=1)]},
        {"social_insurance": [make.social_insurance(arrears_fen=1)]},
    ],
    ids=["arrears", "a return never filed", "listing", "overdue", "social insurance owed"],
)
def test_bad_conduct_closes_the_points_branch(blemish: dict[str, list[make.Record]], rulebook: Rulebook) -> None:
    firm = {
        "enterprises": [make.enterprise(established_on=date(2023, 1, 1), known_on=date(2023, 1, 1), revenue_fen=0)],
        "innovation_indicators": indicators(START_UP),
        "qualifications": [make.qualification()],
        "tax_filings": RETURNS,
    }
    limits = []
    for given_facts in (firm, firm | blemish):
        sources = make.complete(**given_facts)
        frame = under_policy(features(sources, make.AS_OF), sources, make.AS_OF, rulebook)
        estimate = Estimate(pl.Series("pd", [0.01]), pl.Series("pd_hi", [0.02]))
        limits.append(decide(frame, Risk(estimate, estimate, {}), rulebook.policy)["terms"].struct["points_fen"][0])
    assert limits == [1_000_000 * FEN, 0]


def test_doubted_statements_never_give_more_than_undoubted_ones(rulebook: Rulebook) -> None:
    """What is left of statements of which a row was refused shows no need; without the rule as well as with it."""
    firm = next(case["firm"] for case in CASES if case["binding"] == "BOUND_NEED")
    whole = facts(firm)
    told = {"uscc": [make.USCC], "source": ["financial_statements"], "direction": [None], "known_on": [None]}
    lax = replace(rulebook, policy=rulebook.policy.model_copy(update={"rules": ()}))
    for left in (whole.financial_statements, whole.financial_statements.clear()):
        facts_left = {"financial_statements": left, "doubts": pl.DataFrame(told, schema=whole.doubts.schema)}
        doubted = Sources(**{**vars(whole), **facts_left})
        assert answer(firm, doubted, rulebook)["outcome"] == "refer"
        for policy in (rulebook, lax):
            assert answer(firm, doubted, policy)["limit_fen"] == 0 < answer(firm, whole, policy)["limit_fen"]
