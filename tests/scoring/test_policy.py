"""A policy file is closed: nothing unknown or repeated, no table or rule that runs the wrong way, all said at once."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import reduce
from importlib.resources import files
from operator import getitem
from typing import Any

import pytest
import yaml

from data_contracts.errors import PolicyError
from scoring.policy import parse_policy, policy_version

SHIPPED = sorted(
    entry.name for entry in files("scoring").joinpath("policies").iterdir() if entry.name.endswith(".yaml")
)
TORCH = files("scoring").joinpath("policies", "torch-points.2026-11-01.yaml").read_text(encoding="utf-8")
VALUES: dict[str, Any] = yaml.safe_load(TORCH)

ROUND_TRADE = "(round_trade_share_12m_bp IS NULL OR round_trade_share_12m_bp <= 3000)"

Change = Callable[[dict[str, Any]], object]


def changed(*changes: Change) -> str:
    """The torch policy with changes, written out again."""
    values = deepcopy(VALUES)
    for change in changes:
        change(values)
    return yaml.dump(values, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True, sort_keys=False)


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as refused:
        parse_policy(text)
    return list(refused.value.problems)


def rule(policy: dict[str, Any], code: str) -> dict[str, Any]:
    return next(one for one in policy["rules"] if one["code"] == code)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_is_sound_and_named_after_itself(name: str) -> None:
    text = files("scoring").joinpath("policies", name).read_text(encoding="utf-8")
    policy = parse_policy(text)
    assert name == f"{policy.name}.{policy.version.isoformat()}.yaml"
    assert policy.label == f"{policy.name}@{policy.version.isoformat()}"


def test_rewriting_a_policy_without_a_change_keeps_it() -> None:
    assert parse_policy(changed()) == parse_policy(TORCH)


def test_the_version_covers_every_text_that_decides() -> None:
    policy = parse_policy(TORCH)
    versions = {
        policy_version(policy, *texts)
        for texts in (("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("y", "b", "c"), ("ab", "", "c"))
    }
    assert len(versions) == 5
    assert all(version.startswith("torch-points@2026-11-01#") for version in versions)


def without(code: str) -> Change:
    return lambda p: p.update(rules=[one for one in p["rules"] if one["code"] != code])


WRONG: dict[str, tuple[Change, str]] = {
    "grades fall": (lambda p: p["grades"]["bands"].insert(0, p["grades"]["bands"].pop(1)), "pd_below_bp must rise"),
    "a worse grade has the larger tax multiple": (
        lambda p: p["grades"]["bands"][2].update(tax_multiple_bp=90_000),
        "tax_multiple_bp must not rise with PD",
    ),
    "grades end early": (lambda p: p["grades"]["bands"].pop(), "must end at 10000"),
    "a grade twice": (lambda p: p["grades"]["bands"][1].update(grade="A1"), "named twice"),
    "haircut thresholds fall": (lambda p: p["haircut"]["steps"].reverse(), "pd_hi_at_most_bp must rise"),
    "haircut rises with risk": (
        lambda p: p["haircut"]["steps"][2].update(share_bp=9_500),
        "share_bp must not rise with pd_hi",
    ),
    "uplift thresholds fall": (lambda p: p["uplift"]["steps"].reverse(), "points_share_at_least_bp must rise"),
    "uplift falls with points": (
        lambda p: p["uplift"]["steps"][3].update(uplift_bp=10_600),
        "uplift_bp must not fall with points",
    ),
    "uplift above 1.3": (lambda p: p["uplift"]["steps"][3].update(uplift_bp=13_001), "uplift_bp"),
    "uplift below 1": (lambda p: p["uplift"]["steps"][0].update(uplift_bp=9_999), "uplift_bp"),
    "points amounts fall": (
        lambda p: p["points_branch"]["steps"][4].update(amount_fen=1_000_000),
        "amount_fen must not fall with points",
    ),
    "points thresholds repeat": (
        lambda p: p["points_branch"]["steps"][1].update(points_share_at_least_bp=3_000),
        "points_share_at_least_bp must rise",
    ),
    "more lent without tax than with": (
        lambda p: p["limit"]["sales_share_without_tax"].update(value=2_600),
        "sales_share_without_tax is above most_sales_share",
    ),
    "a step of nothing": (lambda p: p["limit"]["step"].update(value=0), "step must be at least 1"),
    "a minimum between steps": (lambda p: p["limit"]["minimum"].update(value=5_000_001), "whole number of steps"),
    "least rate above most": (lambda p: p["price"]["least_rate"].update(value=1_300), "least_rate is above most_rate"),
    "a price in fen": (lambda p: p["price"]["lgd"].update(unit="fen"), "lgd is not in bp"),
    "a loss above the whole": (lambda p: p["price"]["lgd"].update(value=10_001), "lgd is above 10000"),
    "no utilisation": (lambda p: p["price"]["utilisation"].update(value=0), "utilisation must be above 0"),
    "a negative number": (lambda p: p["price"]["funding"].update(value=-1), "funding is below 0 bp"),
    "a fraction of a basis point": (lambda p: p["price"]["funding"].update(value=1.5), "funding.value"),
    "a number as text": (lambda p: p["price"]["funding"].update(value="200"), "funding.value"),
    "no central tendency": (lambda p: p["central_tendency"].update(value=0), "central_tendency is below 1 bp"),
    "a central tendency of the whole": (
        lambda p: p["central_tendency"].update(value=10_000),
        "central_tendency is above 9999 bp",
    ),
    "a central tendency in fen": (lambda p: p["central_tendency"].update(unit="fen"), "central_tendency is not in bp"),
    "validity in fen": (lambda p: p["quote_valid"].update(unit="fen"), "quote_valid is not in days"),
    "validity beyond the calendar": (
        lambda p: p["quote_valid"].update(value=30_000_000_000),
        "quote_valid is above 366",
    ),
    "no validity": (lambda p: p["quote_valid"].update(value=0), "quote_valid is below 1 days"),
    "a cap in days": (lambda p: p["limit"]["ordinary_cap"].update(unit="days"), "ordinary_cap is not in fen"),
    "a share in fen": (lambda p: p["limit"]["most_sales_share"].update(unit="fen"), "most_sales_share is not in bp"),
    "more than all sales": (lambda p: p["limit"]["most_sales_share"].update(value=10_001), "is above 10000 bp"),
    "a smaller share in fen": (
        lambda p: p["limit"]["sales_share_without_tax"].update(unit="fen"),
        "sales_share_without_tax is not in bp",
    ),
    "debt above all sales": (lambda p: p["limit"]["most_debt_share"].update(value=50_000), "most_debt_share is above"),
    "a PD in days": (lambda p: p["limit"]["most_pd_hi"].update(unit="days"), "most_pd_hi is not in bp"),
    "a unit that no number has": (lambda p: p["limit"]["most_pd_hi"].update(unit="months"), "limit.most_pd_hi.unit"),
    "a PD above the whole": (lambda p: p["limit"]["most_pd_hi"].update(value=80_000), "most_pd_hi is above 10000 bp"),
    "a group cap in bp": (lambda p: p["limit"]["group_cap"].update(unit="bp"), "group_cap is not in fen"),
    "a minimum in days": (lambda p: p["limit"]["minimum"].update(unit="days"), "minimum is not in fen"),
    "a cap beyond all money": (
        lambda p: p["limit"]["ordinary_cap"].update(value=10**14 + 1),
        "ordinary_cap is above 100000000000000 fen",
    ),
    "a step in bp": (lambda p: p["limit"]["step"].update(unit="bp"), "step is not in fen"),
    "a need in days": (
        lambda p: p["limit"]["need"]["required_above"].update(unit="days"),
        "required_above is not in fen",
    ),
    "points without a ruleset": (lambda p: p.update(ruleset=None), "no ruleset is named"),
    "a code twice": (lambda p: rule(p, "NOT_LISTED").update(code="REGISTERED"), "code REGISTERED is used twice"),
    "a cap that shares a rule's code": (
        lambda p: p["limit"]["status_caps"][0].update(code="REGISTERED"),
        "code REGISTERED is used twice",
    ),
    "a condition without its name": (lambda p: rule(p, "NO_OVERDUE").pop("condition"), "condition is there if"),
    "a condition nobody needs": (lambda p: rule(p, "NOT_LISTED").update(condition="x_y"), "condition is there if"),
    "an unknown key": (lambda p: p["limit"].update(surprise=1), "limit.surprise"),
    "a missing key": (lambda p: p["limit"].pop("step"), "limit.step"),
    "a number without its source": (lambda p: p["limit"]["step"].pop("source"), "limit.step.source"),
    "an empty why": (lambda p: p["limit"]["step"].update(why=""), "limit.step.why"),
    "an unknown outcome": (lambda p: rule(p, "NOT_LISTED").update(on_fail="approve"), "on_fail"),
    "a null approves": (lambda p: rule(p, "NOT_LISTED").update(on_unknown="eligible"), "on_unknown"),
    "an unknown column": (
        lambda p: rule(p, "NOT_LISTED").update(passes="mood = 0"),
        "there is no column mood",
    ),
    "the bank's own rating": (
        lambda p: rule(p, "NOT_LISTED").update(passes="bank_rating <> 'D'"),
        "there is no column bank_rating",
    ),
    "an aggregate": (
        lambda p: rule(p, "NOT_LISTED").update(passes="sales_12m_fen > AVG(sales_12m_fen)"),
        "a rule looks at one row only",
    ),
    "a window": (
        lambda p: rule(p, "NOT_LISTED").update(passes="RANK() OVER (ORDER BY sales_12m_fen) > 3"),
        "passes",
    ),
    "a subquery": (
        lambda p: rule(p, "NOT_LISTED").update(passes="sales_12m_fen > (SELECT 1)"),
        "passes",
    ),
    "a statement": (lambda p: rule(p, "NOT_LISTED").update(passes="DROP TABLE firms"), "passes"),
    "a number for an answer": (
        lambda p: rule(p, "NOT_LISTED").update(passes="sales_12m_fen + 1"),
        "gives Int64, not true or false",
    ),
    "types that do not fit": (lambda p: rule(p, "NOT_LISTED").update(passes="size_class > 3"), "types do not fit"),
    "a rule that more sales fail": (
        lambda p: rule(p, "NOT_LISTED").update(passes="sales_12m_fen < 100000000"),
        "runs the wrong way in sales_12m_fen",
    ),
    "a rule that wants listings": (
        lambda p: rule(p, "NOT_LISTED").update(passes="live_listings >= 1"),
        "runs the wrong way in live_listings",
    ),
    "a rule turned round by NOT": (
        lambda p: rule(p, "NOT_LISTED").update(passes="NOT (live_listings <= 2)"),
        "runs the wrong way in live_listings",
    ),
    "a window of sales": (
        lambda p: rule(p, "NOT_LISTED").update(passes="sales_12m_fen BETWEEN 5 AND 100"),
        "runs the wrong way in sales_12m_fen",
    ),
    "a branch closed by sales": (
        lambda p: p["points_branch"].update(open_when="tech_live AND sales_12m_fen = 0"),
        "open_when: runs the wrong way in sales_12m_fen",
    ),
    "a branch opened by arrears": (
        lambda p: p["points_branch"].update(clean_when="tax_arrears_fen > 0"),
        "clean_when: runs the wrong way in tax_arrears_fen",
    ),
    "a branch opened by what is withheld": (
        lambda p: p["points_branch"].update(open_when="tech_live AND COALESCE(tax_late_days_24m, 0) = 0"),
        "open_when: passes while tax_late_days_24m is not known",
    ),
    "a branch clean for want of records": (
        lambda p: p["points_branch"].update(
            clean_when=p["points_branch"]["clean_when"].replace("live_listings = 0", "COALESCE(live_listings, 0) = 0")
        ),
        "clean_when: passes while live_listings is not known",
    ),
    "a branch opened by invoices withheld": (
        lambda p: p["points_branch"].update(open_when=f"tech_live AND {ROUND_TRADE}"),
        "open_when: passes while round_trade_share_12m_bp is not known",
    ),
    "a branch opened by invoices bought withheld": (
        lambda p: p["points_branch"].update(
            open_when=f"tech_live AND invoices_out_feed = 'complete' AND {ROUND_TRADE}"
        ),
        "open_when: passes while round_trade_share_12m_bp is not known",
    ),
    "a branch opened by a comparison with what is withheld": (
        lambda p: p["points_branch"].update(
            open_when="tech_live AND COALESCE(round_trade_share_12m_bp <= top1_share_12m_bp, TRUE)"
        ),
        "open_when: passes while round_trade_share_12m_bp is not known",
    ),
    "debts withheld without a condition": (
        without("NO_OVERDUE"),
        "points_branch opens while overdue_days_now is not known",
    ),
    "a condition that another fact takes away": (
        lambda p: rule(p, "NO_OVERDUE").update(passes="overdue_days_now = 0 OR live_listings = 0"),
        "points_branch opens while overdue_days_now is not known",
    ),
    "a condition that a rule of scope never leaves": (
        lambda p: rule(p, "NO_OVERDUE").update(kind="scope", passes="COALESCE(overdue_days_now, 0) = 0"),
        "points_branch opens while overdue_days_now is not known",
    ),
    "a budget that nothing would keep": (
        lambda p: p["points_branch"].update(budget_fen=10**12),
        "points_branch.budget_fen",
    ),
    "a firm's promise for evidence": (lambda p: rule(p, "NO_OVERDUE").update(evidence="promise"), "evidence"),
    "a cap lost with a certificate": (
        lambda p: p["limit"]["status_caps"][0].update(when="NOT srdi_live"),
        "when: runs the wrong way in srdi_live",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_policy_that_is_wrong_in_one_place_is_refused_for_it_alone(name: str) -> None:
    change, said = WRONG[name]
    found = problems(changed(change))
    assert any(said in problem for problem in found), found
    assert len({problem.split(":")[0] for problem in found}) == 1, found


def test_a_branch_may_open_while_debts_are_unknown_if_the_bank_is_told() -> None:
    """A condition on the very fact, or on another that is not known with it: of both, the rule never passes unknown."""
    split = "CASE WHEN overdue_days_now = 0 AND worst_five_class = 0 THEN TRUE WHEN overdue_days_now > 0 THEN FALSE END"
    parse_policy(changed(lambda p: rule(p, "NO_OVERDUE").update(passes=split)))
    parse_policy(changed(lambda p: p["points_branch"].update(clean_when="overdue_days_now = 0"), without("NO_OVERDUE")))


def test_a_branch_may_open_without_a_sale_if_it_asks_for_the_feeds_that_say_so() -> None:
    """Round trade is null for want of sales as well; where both its feeds are complete nothing is withheld."""
    delivered = "invoices_out_feed = 'complete' AND invoices_in_feed = 'complete'"
    parse_policy(changed(lambda p: p["points_branch"].update(open_when=f"tech_live AND {delivered} AND {ROUND_TRADE}")))


def test_everything_wrong_is_said_at_once_with_its_place() -> None:
    # A record whose own keys are wrong is not looked at as a whole, so each change is in a record of its own.
    chosen = (
        "grades fall",
        "haircut rises with risk",
        "uplift falls with points",
        "points amounts fall",
        "a price in fen",
        "an unknown column",
        "an unknown key",
        "a number as text",
    )
    found = problems(changed(*(WRONG[name][0] for name in chosen)))
    for place in ("grades", "haircut", "uplift", "points_branch", "price", "rules", "limit.surprise"):
        assert any(problem.startswith(place) for problem in found), (place, found)


@pytest.mark.parametrize("line", ["name: again", "limit: {}", "approved_by: somebody else"])
def test_a_repeated_key_is_refused(line: str) -> None:
    found = problems(TORCH + f"\n{line}\n")
    assert any("the key is repeated" in problem for problem in found), found


def test_a_repeated_key_inside_a_number_is_refused() -> None:
    found = problems(TORCH.replace("funding: {value: 200,", "funding: {value: 200, value: 300,"))
    assert [problem for problem in found if problem.startswith("price.funding.value") and "repeated" in problem]


@pytest.mark.parametrize("text", ["", "[]", "5", "name: [", "a: &x 1\nb: *x", "!!python/object:os.system {}", "\x00"])
def test_what_is_no_policy_at_all_is_refused_with_a_word(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    "passes",
    [
        "zone_months >= 12 AND size_class IN ('small', 'micro')",
        "sales_12m_fen IS NOT NULL AND sales_12m_fen > 100",
        "CASE WHEN tech_live THEN sales_12m_fen > 5 ELSE sales_12m_fen > 50 END",
        "NOT (live_listings > 2)",
    ],
)
def test_a_rule_in_the_right_direction_is_taken(passes: str) -> None:
    policy = parse_policy(changed(lambda p: rule(p, "NOT_LISTED").update(passes=passes)))
    assert passes in {one.passes for one in policy.rules}


def test_every_number_of_a_policy_is_refused_in_another_unit_and_out_of_bounds() -> None:
    whole = yaml.safe_load(TORCH)
    settings = list(places(whole))
    assert len(settings) > 20
    for place in settings:
        own = reduce(getitem, place, whole)["unit"]
        other = "fen" if own == "days" else "days"
        wrong = (({"unit": other}, "not in"), ({"value": -1}, "below"), ({"value": 10**14 + 1}, "above"))
        for change, said in wrong:
            values = deepcopy(whole)
            reduce(getitem, place, values).update(change)
            found = problems(yaml.safe_dump(values, allow_unicode=True, sort_keys=False))
            assert any(f"{place[-1]} is {said}" in problem for problem in found), (place, found)


def places(node: object, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a number with a unit stands."""
    if isinstance(node, dict):
        if {"value", "unit"} <= node.keys():
            yield place
        for key, inside in node.items():
            yield from places(inside, (*place, key))
