"""Ratings 评价: who gave one is known to who gave it; everybody else sees sums of several enterprises' alone."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from api.database import Connection
from tests.hall import made
from tests.hall.callers import serving
from tests.hall.made import Bank, Refused, act, enterprise_actor
from tests.hall.steps import RICH, held, pass_time, publish, told
from tests.hall.test_appeals import tables_with
from tests.hall.test_security_objects import problem


async def rate(owner: Connection, claim: made.Claim, stars: int = 4, **given: Any) -> dict[str, Any]:
    args = {"claim_id": claim.id, "stars": stars, "reasons": []} | given
    return await act(owner, enterprise_actor(claim.uscc), "rate_claim", **args)


async def contacted(owner: Connection, bank: Bank, uscc: str | None = None) -> made.Claim:
    uscc = uscc or await made.enterprise(owner, limit_fen=RICH)
    fr = await made.request(owner, uscc, audience=[bank.outlet_no], purpose=made.new("p"), quote_binds=False)
    return await made.claim(owner, fr, bank, "contacted")


async def rated(owner: Connection, bank: Bank, *stars: int, uscc: str | None = None, **given: Any) -> None:
    """Ratings of so many firms, or of the one."""
    for one in stars:
        await rate(owner, await contacted(owner, bank, uscc), one, **given)


async def at_day(owner: Connection, day: int) -> None:
    """Let it be noon of a day of the month after next, when no month but whole ones has passed."""
    await owner.execute(
        """
        INSERT INTO hall.clock_offset AS o (tenant, "offset")
            SELECT 'default', (date_trunc('month', hall.today()::timestamp) + interval '2 months'
                + make_interval(days => $1 - 1, hours => 12)) AT TIME ZONE 'Asia/Shanghai' - hall.hall_now()
        ON CONFLICT (tenant) DO UPDATE SET "offset" = o."offset" + excluded."offset"
        """,
        day,
    )


async def month_ends(owner: Connection) -> None:
    """Let it be a minute and a second after the end of the month in China."""
    until: Any = await told(
        owner,
        "SELECT (date_trunc('month', hall.today()::timestamp) + interval '1 month') AT TIME ZONE 'Asia/Shanghai' "
        "- hall.hall_now()",
    )
    await pass_time(owner, seconds=until.total_seconds() + 61)


async def groups(owner: Connection, institution: str) -> list[tuple[str | None, int]]:
    """What is shown of an institution: of which outlet, and how many ratings."""
    rows = await owner.fetch("SELECT outlet_id, members FROM hall.rating_groups($1)", institution)
    return [(row["outlet_id"], len(row["members"])) for row in rows]


# ------------------------------------------------------------------------------------------------------------- giving


async def test_a_claim_that_was_contacted_is_rated_once_and_for_good(owner: Connection, database: str) -> None:
    claim = await held(owner, "contacted")
    rating = await rate(owner, claim, 2, reasons=["slow-contact", "extra-fees", "slow-contact"])
    assert (rating["stars"], rating["reasons"]) == (2, ["extra-fees", "slow-contact"])
    assert (rating["institution_id"], rating["outlet_id"]) == (claim.bank.institution, claim.bank.outlet)
    with pytest.raises(Refused, match="already-exists"):
        await rate(owner, claim, 5)
    for change in ("UPDATE hall.rating SET stars = 5", "DELETE FROM hall.rating"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(change)
    another = await held(owner, "offered")
    racers = [await asyncpg.connect(database) for _ in range(3)]
    outcomes = await asyncio.gather(*(rate(one, another) for one in racers), return_exceptions=True)
    for one in racers:
        await one.close()
    assert [one.code for one in outcomes if isinstance(one, Refused)] == ["already-exists"] * 2


async def test_a_claim_that_has_ended_is_rated_and_one_without_a_contact_is_not(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    await act(
        owner, claim.bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to="declined", reason="no"
    )
    assert (await rate(owner, claim, 1))["stars"] == 1
    silent = await held(owner)
    with pytest.raises(Refused, match="illegal-transition") as refused:
        await rate(owner, silent)
    assert refused.value.members == {"state": "held"}


async def test_api1_nobody_rates_for_another(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    stranger = enterprise_actor(await made.enterprise(owner))
    for who in (stranger, claim.bank.actor, made.actor("portal", "a-portal")):
        with pytest.raises(Refused, match="not-found"):
            await act(owner, who, "rate_claim", claim_id=claim.id, stars=5, reasons=[])
    await owner.execute("UPDATE hall.enterprise SET portal = 'a-portal' WHERE uscc = $1", claim.uscc)
    await act(owner, made.actor("portal", "a-portal"), "rate_claim", claim_id=claim.id, stars=5, reasons=[])


async def test_every_unknown_reason_is_named(owner: Connection) -> None:
    with pytest.raises(Refused, match="validation") as refused:
        await rate(owner, await held(owner, "contacted"), reasons=["dear", "rude", "fair-price", "张三"])
    assert [one["pointer"] for one in refused.value.members["errors"]] == ["/reasons/1", "/reasons/3"]


async def test_a_rating_is_told_to_its_enterprise_alone_and_without_its_stars(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    rating = await rate(owner, claim)
    row = await owner.fetchrow("SELECT * FROM hall.event WHERE type = 'fin.rating.given.v1'")
    assert row is not None
    assert (row["uscc"], row["institution_id"], row["audience_fr"]) == (claim.uscc, None, None)
    assert row["data"] == f'{{"claim_id": "{claim.id}", "rating_id": "{rating["rating_id"]}"}}'
    await publish(owner)
    assert await tables_with(owner, rating["rating_id"]) == {"rating", "event", "feed", "idempotency"}


# ------------------------------------------------------------------------------------------------------ what is shown


async def test_ratings_are_shown_when_their_month_is_over_and_only_from_five_firms_on(owner: Connection) -> None:
    await at_day(owner, 3)
    few, enough = await made.bank(owner), await made.bank(owner)
    await rated(owner, few, 1, 2, 3, 4)
    await rated(owner, enough, 1, 2, 3, 4, 5)
    assert await groups(owner, enough.institution) == [], "the next one would be told from the sums before and after it"
    await month_ends(owner)
    assert await groups(owner, few.institution) == []
    assert await groups(owner, enough.institution) == [(enough.outlet, 5)]


async def test_many_ratings_of_one_firm_do_not_make_five_firms(owner: Connection) -> None:
    await at_day(owner, 3)
    bank = await made.bank(owner)
    one = await made.enterprise(owner, limit_fen=10**10)
    await rated(owner, bank, 1, 1, 1, 1, 1, 1, uscc=one)
    await month_ends(owner)
    assert await groups(owner, bank.institution) == []
    await rated(owner, bank, 5, 5, 5, 5)
    await month_ends(owner)
    assert await groups(owner, bank.institution) == [(None, 10)]


async def test_small_months_of_outlets_are_shown_together_once_they_are_enough(owner: Connection) -> None:
    await at_day(owner, 3)
    bank = await made.bank(owner)
    sister, no = await made.outlet(owner, bank.institution)
    other = Bank(bank.institution, sister, no, bank.product, bank.client)
    await rated(owner, bank, 5, 5, 5, 5, 5)
    await rated(owner, other, 1, 2)
    await month_ends(owner)
    assert await groups(owner, bank.institution) == [(bank.outlet, 5)]
    await rated(owner, other, 3)
    await rated(owner, bank, 1, 2)
    await month_ends(owner)
    assert await groups(owner, bank.institution) == [(bank.outlet, 5), (None, 5)]


async def test_whatever_is_rated_every_difference_of_what_is_shown_is_of_five_firms_or_none(owner: Connection) -> None:
    """By chance, over many months: a group once shown stays as it is, and no rating is in two."""
    await owner.execute("ALTER TABLE hall.rating DROP CONSTRAINT rating_claim_id_fkey")
    drawn = np.random.default_rng(20_261_128)
    bank = await made.bank(owner)
    outlets = [bank.outlet] + [(await made.outlet(owner, bank.institution))[0] for _ in range(3)]
    firms = [await made.enterprise(owner) for _ in range(12)]
    start = datetime(2040, 1, 1, tzinfo=UTC)
    offset: Any = (
        "INSERT INTO hall.clock_offset VALUES ('default', $1) ON CONFLICT (tenant) DO UPDATE SET \"offset\" = $1"
    )
    shown: list[frozenset[str]] = []
    given: dict[str, str] = {}
    for month in range(24):
        for place in outlets:
            for _ in range(drawn.choice([0, 0, 1, 2, 4, 5, 9])):
                at = start + timedelta(days=31 * month + int(drawn.integers(26)))
                rating = made.new("rt")
                given[rating] = firms[drawn.integers(len(firms))]
                await owner.execute(
                    "INSERT INTO hall.rating (id, claim_id, uscc, institution_id, outlet_id, stars, reasons, rated_by, "
                    "rated_at) VALUES ($1, $1, $2, $3, $4, 3, '{}', 'made', $5)",
                    rating, given[rating], bank.institution, place, at,
                )  # fmt: skip
        await owner.execute(offset, start + timedelta(days=31 * (month + 1)) - datetime.now(UTC))
        rows = await owner.fetch("SELECT outlet_id, month, members FROM hall.rating_groups($1)", bank.institution)
        found = [frozenset(row["members"]) for row in rows]
        assert [one for one in found if one in shown] == shown, "what was shown stays"
        shown = found
        assert sum(map(len, shown)) == len(frozenset().union(*shown)), "no rating is in two groups"
        assert all(len({given[rating] for rating in one}) >= 5 for one in shown)
    assert len(shown) > 20
    assert sum(map(len, shown)) > 0.8 * len(given), "and most of what is rated is shown in the end"


async def test_by_http_each_side_sees_its_part(owner: Connection, database: str, home: Path) -> None:
    await at_day(owner, 3)
    bank, rival = await made.bank(owner), await made.bank(owner)
    await rated(owner, bank, 5, 4, 4, 4, reasons=["quick-contact"])
    claim = await contacted(owner, bank)
    async with serving(database, home) as hall:
        firm = await hall.client("enterprise", uscc=claim.uscc)
        neighbour = await hall.client("enterprise", uscc=await made.enterprise(owner))
        own = await hall.client("bank", institution=bank.institution)
        sister = await hall.client("bank", institution=bank.institution)
        other = await hall.client("institution-manager", institution=rival.institution)
        bound, _ = await made.outlet(owner, bank.institution)
        await owner.execute("UPDATE hall.client SET outlet_id = $2 WHERE id = $1", sister.client_id, bound)

        for wrong in (
            {"stars": 0},
            {"stars": 6},
            {"stars": 4.0},
            {"stars": True},
            {"text": "x"},
            {"reasons": ["a"] * 6},
        ):
            body = {"claim_id": claim.id, "stars": 3, "reasons": []} | wrong
            assert problem(await firm.post("/v1/ratings", body)) == (422, "validation"), wrong
        body = {"claim_id": claim.id, "stars": 3, "reasons": ["dear"]}
        assert problem(await own.post("/v1/ratings", body)) == (403, "scope-missing")
        assert problem(await neighbour.post("/v1/ratings", body)) == (404, "not-found")
        given = await firm.post("/v1/ratings", body, key="k")
        assert given.status_code == 201, given.text
        assert (await firm.post("/v1/ratings", body, key="k")).headers["Idempotent-Replayed"] == "true"
        assert problem(await firm.post("/v1/ratings", body)) == (409, "already-exists")
        assert [one["rating_id"] for one in (await firm.get("/v1/ratings")).json()["items"]] == [
            given.json()["rating_id"]
        ]
        assert (await neighbour.get("/v1/ratings")).json()["items"] == []
        assert problem(await own.get("/v1/ratings")) == (403, "scope-missing")
        assert (await hall.http.get("/v1/ratings/totals")).json()["items"] == []

        await month_ends(owner)
        totals = {"ratings": 5, "stars_hundredths": 400, "reasons": {"quick-contact": 4, "dear": 1}}
        (row,) = (await hall.http.get("/v1/ratings/totals")).json()["items"]
        name = await told(owner, "SELECT name FROM hall.institution WHERE id = $1", bank.institution)
        assert row == {"institution_id": bank.institution, "institution": name} | totals
        asked = {"institution_id": rival.institution}
        assert (await hall.http.get("/v1/ratings/totals", params=asked)).json()["items"] == []
        (mine,) = (await own.get("/v1/ratings/outlets")).json()["items"]
        assert mine.pop("place") == f"{mine.pop('month')}/{bank.outlet}"
        assert mine == {"outlet_id": bank.outlet} | totals
        for stranger in (other, sister):
            assert (await stranger.get("/v1/ratings/outlets")).json()["items"] == []
        assert problem(await firm.get("/v1/ratings/outlets")) == (403, "scope-missing")


async def test_a_bank_gets_no_byte_that_tells_who_rated_it(owner: Connection, database: str, home: Path) -> None:
    await at_day(owner, 3)
    bank = await made.bank(owner)
    # Before anybody sweeps: by the clock of this hall the rounds that a test makes are over at once.
    claims = [await contacted(owner, bank) for _ in range(6)]
    async with serving(database, home) as hall:
        client = await hall.client("bank", institution=bank.institution)
        # A client polls what is published since it exists.
        await owner.execute("UPDATE hall.client SET created_at = created_at - interval '1 hour'")
        ratings = [await rate(owner, one, 1, reasons=["dear"]) for one in claims]
        last: Any = await told(
            owner, "SELECT id FROM hall.event WHERE type LIKE 'fin.rating%' ORDER BY no DESC LIMIT 1"
        )
        async with asyncio.timeout(10):
            while not await told(owner, "SELECT count(*) FROM hall.feed WHERE event_id = $1", last):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        polled = await client.http.post("/v1/events/poll", json={"max": 200}, headers=client.headers)
        assert b"fin.claim.contacted.v1" in polled.content
        await month_ends(owner)
        answers = [await client.get(path) for path in ("/v1/ratings/outlets", "/v1/ratings/totals")]
        answers += [await client.get(f"/v1/claims/{one.id}") for one in claims]
        answers.append(polled)
        assert answers[0].json()["items"][0]["ratings"] == 6
        for answer in answers:
            assert answer.status_code == 200
            assert not [one for one in ratings if one["rating_id"].encode() in answer.content]
            assert b"fin.rating" not in answer.content
        for answer in answers[:2]:
            assert not [
                one for one in claims if one.uscc.encode() in answer.content or one.id.encode() in answer.content
            ]


async def test_api4_the_league_table_costs_an_address_ten_calls(database: str, home: Path) -> None:
    """It reads every rating there is, for whoever asks; so many of other calls would all pass."""
    async with serving(database, home, rate_limits=True) as hall:
        answers = await asyncio.gather(*(hall.http.get("/v1/ratings/totals") for _ in range(30)))
    statuses = [one.status_code for one in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 5
