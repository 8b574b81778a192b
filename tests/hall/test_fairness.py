"""F2: what the month's report finds and what it leaves alone; and that the hall keeps what it needs for it."""

from itertools import product
from math import comb, prod
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import PCG64, Generator

from api.database import Pool
from api.fairness import LEAST_INSTITUTIONS, LEAST_ROUNDS, LEVEL, Fairness, Group, fairness, holm, two_sided, wins_of
from api.fairness_reports import export_fairness, monthly
from data_contracts.errors import UsageError
from tests.hall import made
from tests.hall.callers import Hall, serving
from tests.hall.racing import requests

COLUMNS = ["fr_id", "round", "institution_id", "size_class", "means", "won"]
SIZES = {"state": 6, "joint-stock": 12, "city": 20, "rural": 14, "other": 5}
"""A town like Xiamen's 57 institutions."""

CHANCES = st.lists(st.floats(0.01, 0.99), max_size=9).map(np.array)


def history(
    seed: int, rounds: int, speed: dict[str, float] | None = None, sizes: dict[str, int] | None = None
) -> pl.DataFrame:
    """A month's attempts: for each round some of the town try, and one wins, likelier the quicker its connection is.

    Args:
        seed: of the draws.
        rounds: how many.
        speed: weight in the draw by connection; 1 where it is not named.
        sizes: institutions by size.
    """
    draw = Generator(PCG64(seed))
    town = [(f"{size}-{n}", size) for size, many in (sizes or SIZES).items() for n in range(many)]
    means = [("stream", "stream", "poll", "snapshot")[n % 4] for n in range(len(town))]
    rows: list[tuple[Any, ...]] = []
    for number in range(rounds):
        there = draw.choice(len(town), size=int(draw.integers(1, 30)), replace=False)
        weights = np.array([(speed or {}).get(means[one], 1.0) for one in there])
        winner = draw.choice(there, p=weights / weights.sum())
        rows += [(f"fr{number}", 1, *town[one], means[one], bool(one == winner)) for one in there]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def by_name(found: Fairness) -> dict[tuple[str, str], Group]:
    return {(one.by, one.group): one for one in found.groups}


def differing(found: Fairness) -> dict[str, str]:
    return {one.group: one.verdict for one in found.groups if "share" in one.verdict}


# -------------------------------------------------------------------------------------------------- golden histories


def test_where_speed_decides_it_is_found_and_size_is_not_blamed() -> None:
    found = fairness(history(1, 400, {"stream": 3.0}))
    told = by_name(found)
    assert differing(found) == {
        "stream": "wins more than its share",
        "poll": "wins less than its share",
        "snapshot": "wins less than its share",
    }
    stream = told["connection", "stream"]
    assert stream.wins is not None
    assert stream.expected_hundredths is not None
    assert 100 * stream.wins > stream.expected_hundredths
    assert stream.holm_p_millionths is not None
    assert stream.holm_p_millionths <= LEVEL * 1e6
    assert {told["size", size].verdict for size in SIZES} == {"no difference found"}


def test_of_fair_months_at_most_the_stated_share_finds_anything() -> None:
    """200 months of 100 rounds: at a level of 5 % more than 18 come less than once in a hundred such tests."""
    wrong = sum(bool(differing(fairness(history(seed, 100)))) for seed in range(200))
    assert wrong <= 18


def test_a_small_history_gives_the_figures_that_a_hand_computes() -> None:
    """32 rounds of six city and six rural banks, of which the city wins 24: a fair coin that falls so one way."""
    rows = [
        (f"fr{number}", 1, f"{size}{n}", size, "stream", n == 0 and (size == "city") == (number < 24))
        for number in range(32)
        for size in ("city", "rural")
        for n in range(6)
    ]
    found = fairness(pl.DataFrame(rows, schema=COLUMNS, orient="row"))
    city = by_name(found)["size", "city"]
    tail = sum(comb(32, wins) for wins in range(24, 33)) / 2**32
    assert (city.institutions, city.rounds, city.wins, city.win_share_bp) == (6, 32, 24, 7500)
    assert (city.expected_hundredths, city.z_hundredths) == (1600, 283)
    assert city.p_millionths == pytest.approx(2e6 * tail, abs=1)
    assert city.holm_p_millionths == pytest.approx(4e6 * tail, abs=2), "two groups are tested"
    assert city.verdict == "wins more than its share"
    stream = by_name(found)["connection", "stream"]
    assert (stream.verdict, stream.rounds) == ("too few to tell", None), "all came by stream: nobody to compare with"
    assert found.contested_rounds == 32


# --------------------------------------------------------------------------------------------------------- too few


def numbers(group: Group) -> set[Any]:
    return {value for name, value in vars(group).items() if name not in ("by", "group", "verdict")}


def test_a_group_of_few_institutions_has_no_number_and_none_by_subtraction() -> None:
    sizes = {"city": 20, "rural": 9, "state": LEAST_INSTITUTIONS - 1}
    told = by_name(fairness(history(2, 300, sizes=sizes)))
    assert told["size", "city"].wins is not None
    for hidden in ("state", "rural"):  # without rural the four of state would be the rest of the rounds
        assert told["size", hidden].verdict == "too few to tell"
        assert numbers(told["size", hidden]) == {None}
    enough = by_name(fairness(history(2, 300, sizes=sizes | {"state": LEAST_INSTITUTIONS})))
    assert enough["size", "state"].wins is not None
    together = by_name(fairness(history(2, 300, sizes=sizes | {"other": 3})))
    assert together["size", "rural"].wins is not None, "state and other are seven together"


def test_a_month_of_few_contested_rounds_has_no_number() -> None:
    few = fairness(history(3, LEAST_ROUNDS - 1))
    assert {one.verdict for one in few.groups} == {"too few to tell"}
    assert set().union(*(numbers(one) for one in few.groups)) == {None}
    assert fairness(history(3, 4 * LEAST_ROUNDS)).groups != few.groups


def test_a_round_that_one_institution_alone_tried_for_says_nothing() -> None:
    whole = history(4, 100)
    alone = pl.DataFrame([(f"own{n}", 1, "state-0", "state", "stream", True) for n in range(500)], schema=COLUMNS,
                         orient="row")  # fmt: skip
    assert fairness(pl.concat([whole, alone])) == fairness(whole)


def test_an_empty_month_is_empty() -> None:
    assert fairness(history(5, 1).clear()) == Fairness(0, ())


# -------------------------------------------------------------------------------------------------------- properties


@given(chances=CHANCES)
@settings(deadline=None)
def test_the_distribution_of_wins_is_the_sum_over_all_outcomes(chances: Any) -> None:
    expected = [0.0] * (len(chances) + 1)
    for outcome in product((False, True), repeat=len(chances)):
        expected[sum(outcome)] += prod(p if won else 1 - p for p, won in zip(chances, outcome, strict=True))
    assert wins_of(chances) == pytest.approx(expected, abs=1e-12)


@given(chances=CHANCES, level=st.floats(0.001, 1))
def test_a_fair_month_falls_below_a_level_at_most_so_often(chances: Any, level: float) -> None:
    likely = wins_of(chances)
    below = sum(p for wins, p in enumerate(likely) if two_sided(likely, wins) <= level)
    assert below <= level + 1e-9


@given(found=st.lists(st.floats(0, 1), max_size=9))
def test_holm_never_makes_a_p_smaller_and_keeps_their_order(found: list[float]) -> None:
    adjusted = holm(found)
    assert all(a >= p for a, p in zip(adjusted, found, strict=True))
    ranked = [a for _, a in sorted(zip(found, adjusted, strict=True))]
    assert ranked == sorted(ranked)
    assert all(a <= 1 for a in adjusted)
    if found:
        assert min(adjusted) == pytest.approx(min(1.0, len(found) * min(found)))


@given(seed=st.integers(0, 50))
@settings(max_examples=8, deadline=None)
def test_the_order_of_rows_and_the_names_of_requests_change_nothing(seed: int) -> None:
    whole = history(seed, 60, {"poll": 2.0})
    turned = whole.sample(fraction=1.0, shuffle=True, seed=seed).with_columns("x" + pl.col("fr_id"))
    assert fairness(turned) == fairness(whole)


# --------------------------------------------------------------------------------------- what the hall keeps for it


async def grab(owner: asyncpg.Connection, bank: made.Bank, fr: str, **given: Any) -> bool:
    """Whether a bank's grab of round 1 wins."""
    args = {"outlet_id": bank.outlet, "product_id": bank.product, "product_version": 1, "card_version": 5} | given
    try:
        await made.act(owner, bank.actor, "grab", fr_id=fr, round=1, **args)
    except made.Refused as refused:
        if refused.code != "grab-lost":
            raise
        return False
    return True


async def attempts(owner: asyncpg.Connection) -> list[tuple[Any, ...]]:
    rows = await owner.fetch("SELECT fr_id, outlet_id, means FROM hall.grab_attempt ORDER BY at")
    return [tuple(row.values()) for row in rows]


async def test_the_winner_and_each_loser_are_kept_once(owner: asyncpg.Connection) -> None:
    banks = [await made.bank(owner) for _ in range(3)]
    (fr,) = await requests(owner, 1)
    assert [await grab(owner, bank, fr) for bank in (*banks, banks[2])] == [True, False, False, False]
    assert await attempts(owner) == [(fr, bank.outlet, "none") for bank in banks]
    for statement in ("UPDATE hall.grab_attempt SET means = 'poll'", "DELETE FROM hall.grab_attempt"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(statement)


async def test_who_is_refused_before_the_gate_or_outside_the_audience_has_not_tried(owner: asyncpg.Connection) -> None:
    bank = await made.bank(owner)
    (fr,) = await requests(owner, 1)
    stranger = await made.bank(owner)
    await owner.execute("UPDATE hall.round SET opens_at = hall.hall_now() + interval '1 minute'")
    for one, code in ((bank, "gate-not-open"), (stranger, "not-found")):
        with pytest.raises(made.Refused, match=code):
            await grab(owner, one, fr)
    assert await attempts(owner) == []


async def test_who_could_not_have_won_has_not_tried(owner: asyncpg.Connection) -> None:
    """Capped or with a product, an officer or a card that is not so: `grab-lost` as before, and no row."""
    winner, bank, other = [await made.bank(owner) for _ in range(3)]
    (fr,) = await requests(owner, 1)
    assert await grab(owner, winner, fr)
    officer = await made.officer(owner, bank.outlet)
    mine = {"officer_id": officer}
    stale = await made.product(owner, bank.institution, withdrawn_at=await now(owner))
    unapproved = await made.product(owner, bank.institution, approved_by=None, approved_at=None)
    too_large = await made.product(owner, bank.institution, min_fen=10**11)
    for wrong in (
        {"product_id": other.product},
        {"product_id": stale},
        {"product_id": unapproved},
        {"product_id": too_large},
        {"product_version": 2},
        {"card_version": 4},
        {"officer_id": None},
        {"officer_id": await made.officer(owner, other.outlet)},
    ):
        assert not await grab(owner, bank, fr, **mine | wrong)
        assert len(await attempts(owner)) == 1, wrong
    today = "UPDATE hall.quota SET claims_that_day = 1, day = hall.today() - $2::integer WHERE owner = $1"
    for table, id_ in (("institution", bank.institution), ("outlet", bank.outlet), ("officer", officer)):
        await owner.execute(f"UPDATE hall.{table} SET hold_cap = 1 WHERE id = $1", id_)
        await owner.execute("UPDATE hall.quota SET held = 1 WHERE owner = $1", id_)
        assert not await grab(owner, bank, fr, **mine)
        assert len(await attempts(owner)) == 1, table
        await owner.execute("UPDATE hall.quota SET held = 0 WHERE owner = $1", id_)
    await owner.execute("UPDATE hall.institution SET daily_claim_cap = 1 WHERE id = $1", bank.institution)
    await owner.execute(today, bank.institution, 0)
    assert not await grab(owner, bank, fr, **mine)
    assert len(await attempts(owner)) == 1, "the day's cap"
    await owner.execute(today, bank.institution, 1)
    assert not await grab(owner, bank, fr, **mine)
    assert [outlet for _, outlet, _ in await attempts(owner)] == [winner.outlet, bank.outlet], "that was yesterday"


async def now(owner: asyncpg.Connection) -> Any:
    return await owner.fetchval("SELECT hall.hall_now()")


async def test_the_connection_is_the_quickest_by_which_the_client_was_handed_the_card(
    owner: asyncpg.Connection,
) -> None:
    kept = {
        "stream": [("stream", "", 0), ("poll", "", 0)],
        "poll": [("poll", "", 0), ("snapshot", "", 0), ("stream", "", 600)],
        "snapshot": [("snapshot", "own", 0), ("stream", "sister", 0)],
        "none": [("stream", "", 600)],
    }
    banks = {means: await made.bank(owner) for means in kept}
    for means, places in kept.items():
        for by, outlet, seconds_before in places:
            await owner.execute(
                "INSERT INTO hall.read_position VALUES ($1, $2, $3, 1, hall.hall_now() - make_interval(secs => $4))",
                banks[means].client, {"own": banks[means].outlet}.get(outlet, outlet), by, seconds_before,
            )  # fmt: skip
    (fr,) = await requests(owner, 1)
    for bank in banks.values():
        await grab(owner, bank, fr)
    assert await attempts(owner) == [(fr, bank.outlet, means) for means, bank in banks.items()]


async def test_an_institution_counts_once_and_wins_if_any_of_its_outlets_does(owner: asyncpg.Connection) -> None:
    mine, other = await made.bank(owner, size_class="state"), await made.bank(owner, size_class="rural")
    sister, no = await made.outlet(owner, mine.institution)
    sisters = made.Bank(mine.institution, sister, no, mine.product, mine.client)
    (fr,) = await requests(owner, 1)
    for bank in (other, mine, sisters):
        await grab(owner, bank, fr)
    rows = await owner.fetch("SELECT * FROM hall.attempts_between('-infinity', 'infinity')")
    assert {(row["institution_id"], row["size_class"], row["won"]) for row in rows} == {
        (mine.institution, "state", False), (other.institution, "rural", True),
    }  # fmt: skip
    (second,) = await requests(owner, 1)
    for bank in (sisters, mine, other):
        await grab(owner, bank, second)
    won = await owner.fetch("SELECT institution_id FROM hall.attempts_between('-infinity', 'infinity') "
        "WHERE fr_id = $1 AND won", second)  # fmt: skip
    assert [row["institution_id"] for row in won] == [mine.institution]
    assert await owner.fetch("SELECT 1 FROM hall.attempts_between('-infinity', '2020-01-01')") == []


async def raced(owner: asyncpg.Connection) -> str:
    """Forty rounds that six state and six rural banks try for and a state bank always wins; returns their month."""
    banks = [await made.bank(owner, size_class=size) for size in ("state",) * 6 + ("rural",) * 6]
    for number, fr in enumerate(await requests(owner, 40)):
        first = banks[number % 6]
        for bank in (first, *(one for one in banks if one is not first)):
            await grab(owner, bank, fr)
    return str(await owner.fetchval("SELECT to_char(hall.hall_now() AT TIME ZONE 'Asia/Shanghai', 'YYYY-MM')"))


async def test_the_month_of_a_race_is_told_by_http_to_the_auditor_and_the_operator_alone(
    database: str, home: Path, owner: asyncpg.Connection
) -> None:
    month = await raced(owner)
    async with serving(database, home) as hall:
        told = await asked(hall, "auditor", month=month)
        assert told.status_code == 200, told.text
        report = told.json()
        assert (report["month"], report["is_over"], report["contested_rounds"], report["level_bp"]) == (
            month, False, 40, 500,
        )  # fmt: skip
        groups = {(one["by"], one["group"]): one for one in report["groups"]}
        state = groups["size", "state"]
        assert (state["institutions"], state["wins"], state["rounds"]) == (6, 40, 40)
        assert (state["expected_hundredths"], state["p_millionths"]) == (2000, 1)
        assert state["verdict"] == "wins more than its share"
        assert groups["size", "rural"]["verdict"] == "wins less than its share"
        assert (await asked(hall, "operator", month=month)).status_code == 200
        before = await asked(hall, "auditor", month="2020-02")
        assert (before.json()["is_over"], before.json()["groups"]) == (True, [])
        for wrong in ("2026-13", "2026-1", "november", ""):
            assert (await asked(hall, "auditor", month=wrong)).status_code == 422
        for role in ("admin", "case-manager", "portal"):
            assert (await asked(hall, role, month=month)).json()["type"] == "/problems/scope-missing"
        bank = await hall.client("bank", institution=await hall.institution("a bank"))
        assert (await bank.get("/v1/stats/fairness", month=month)).status_code == 403


async def asked(hall: Hall, role: str, **query: Any) -> Any:
    return await (await hall.client(role)).get("/v1/stats/fairness", **query)


async def test_the_month_is_written_as_json_or_csv(owner: asyncpg.Connection, pool: Pool, tmp_path: Path) -> None:
    month = await raced(owner)
    assert await export_fairness(pool, tmp_path / "new" / "fairness.json", month) == 3
    report = await monthly(pool, month)
    written = orjson.loads((tmp_path / "new" / "fairness.json").read_bytes())
    assert written | {"read_at": ""} == report | {"read_at": ""}
    assert await export_fairness(pool, tmp_path / "fairness.csv", month) == 3
    lines = pl.read_csv(tmp_path / "fairness.csv").to_dicts()
    assert [{name: line[name] for name in report["groups"][0]} for line in lines] == report["groups"]
    assert {line["contested_rounds"] for line in lines} == {40}
    assert await export_fairness(pool, tmp_path / "empty.csv", "2020-02") == 0
    assert pl.read_csv(tmp_path / "empty.csv").columns == list(lines[0])
    with pytest.raises(UsageError, match=r"\.json or \.csv"):
        await export_fairness(pool, tmp_path / "fairness.xlsx", month)
