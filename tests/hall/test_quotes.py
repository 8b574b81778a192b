"""Limit quotes by HTTP: the decision of the officer's batch, stored whole, capped, and shown to banks by consent."""

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import polars as pl
import pytest

from api import facts, quotes
from api.engines import Engines
from api.problems import Problem
from data_contracts.uscc import made_up_code
from models.artefact import Model
from models.registry import promote
from models.sources.folder import read_folder
from tests.ground import ground
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.feeding import until
from tests.hall.test_facts import rows_of, sources_of


@pytest.fixture
async def hall(town_database: str) -> AsyncIterator[Hall]:
    async with serving(town_database, ground().home) as served:
        yield served


@pytest.fixture
async def portal(hall: Hall) -> Client:
    """The platform, which registered every enterprise of the park."""
    client = await hall.client("portal")
    await hall.owner.execute("UPDATE hall.enterprise SET portal = $1", client.client_id)
    return client


def best() -> dict[str, Any]:
    return ground().best


async def asked(client: Client, uscc: object, scheme: str = "torch-points", key: str | None = None) -> Any:
    return await client.post("/v1/limit-quotes", {"uscc": uscc, "scheme": scheme}, key=key)


async def test_a_quote_is_the_decision_that_jifen_score_makes(hall: Hall, portal: Client) -> None:
    for row in ground().limits.group_by("outcome").first().iter_rows(named=True):
        answered = await asked(portal, row["uscc"])
        assert answered.status_code == 201, answered.text
        quote = answered.json()
        assert {name: quote[name] for name in quote.keys() & row.keys() - {"reasons", "as_of"}} == {
            name: row[name] for name in quote.keys() & row.keys() - {"reasons", "as_of"}
        }
        assert quote["reasons"] == json.loads(row["reasons"])
        assert quote["as_of"] == row["as_of"].isoformat()
        assert "e" not in str(quote["limit_fen"])
        stored = await hall.owner.fetchrow("SELECT * FROM hall.decision WHERE id = $1", row["decision_id"])
        assert stored is not None
        assert stored["asked_by"] == portal.client_id
        limit = await hall.owner.fetchval("SELECT limit_fen FROM hall.exposure WHERE uscc = $1", row["uscc"])
        assert limit == row["limit_fen"]
        assert (await portal.get(f"/v1/limit-quotes/{quote['quote_id']}")).json() == quote


async def test_the_same_facts_on_the_same_day_are_one_quote_and_a_key_replays_its_bytes(
    hall: Hall, portal: Client
) -> None:
    key = secrets.token_hex(8)
    first, again, other = [await asked(portal, best()["uscc"], key=one) for one in (key, key, None)]
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    assert other.json()["quote_id"] == first.json()["quote_id"]
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.limit_quote") == 1
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.decision") == 1


async def test_a_new_fact_gives_a_new_decision_until_the_daily_cap_api6(hall: Hall, portal: Client) -> None:
    uscc = str(best()["uscc"])
    await hall.owner.execute("UPDATE hall.setting SET value = 2 WHERE name = 'quotes_per_day'")
    source = await hall.client("scoring")
    row = await _registry_row(hall, uscc)
    seen = []
    for employees in (None, 11, 12):
        if employees is not None:
            fresh = row | {"employees": employees, "known_on": "2026-07-01"}
            if employees == 12:
                fresh |= {"name": "改名公司", "known_on": "2026-06-30"}
            sent = await source.post(f"/v1/enterprises/{uscc}/facts", {"enterprises": [fresh]})
            assert sent.status_code == 200, sent.text
            assert sent.json()["good"] == {"enterprises": 1}
        seen.append(await asked(portal, uscc))
    assert [one.status_code for one in seen] == [201, 201, 429]
    assert seen[0].json()["decision_id"] != seen[1].json()["decision_id"]
    assert seen[2].json()["type"] == "/problems/quote-cap"
    assert 0 < int(seen[2].headers["Retry-After"]) <= 86_400


async def test_above_the_cap_what_was_decided_today_is_found_again_api6(hall: Hall, portal: Client) -> None:
    first = await asked(portal, best()["uscc"])
    await hall.owner.execute("UPDATE hall.setting SET value = 1 WHERE name = 'quotes_per_day'")
    again = await asked(portal, best()["uscc"])
    assert again.status_code == 201
    assert again.json()["decision_id"] == first.json()["decision_id"]


async def _registry_row(hall: Hall, uscc: str) -> dict[str, Any]:
    """The latest registry row of an enterprise as it is delivered."""
    known = (await sources_of(hall.service.pool, uscc)).enterprises
    mine = known.filter(pl.col("uscc") == uscc).sort("known_on").tail(1)
    return mine.with_columns(pl.col(pl.Date).cast(pl.String)).to_dicts()[0]


async def _overtaken(hall: Hall, uscc: str, monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Let news of the enterprise come after each of the next measures; the ids of the decisions as they are made."""
    measured, source, row = quotes.measured, await hall.client("scoring"), await _registry_row(hall, uscc)
    made: list[str] = []

    async def overtaken(*args: Any) -> quotes.Measured:
        found = await measured(*args)
        made.append(found.decision["answer"]["decision_id"])
        if len(made) <= times:
            news = row | {"employees": 10 + len(made), "known_on": "2026-07-01"}
            assert (await source.post(f"/v1/enterprises/{uscc}/facts", {"enterprises": [news]})).status_code == 200
        return found

    monkeypatch.setattr(quotes, "measured", overtaken)
    return made


async def test_a_decision_on_facts_that_changed_while_it_was_made_is_not_kept(
    hall: Hall, portal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept late, it would put the limit of the older facts above the one that the news has lowered."""
    uscc = str(best()["uscc"])
    made = await _overtaken(hall, uscc, monkeypatch, times=1)
    answered = await asked(portal, uscc)
    assert answered.status_code == 201, answered.text
    assert answered.json()["decision_id"] == made[1] != made[0]
    assert await hall.owner.fetchval("SELECT array_agg(decision_id) FROM hall.limit_quote") == [made[1]]
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.decision") == 1


async def test_facts_that_change_at_each_measure_are_an_overload(
    hall: Hall, portal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    uscc = str(best()["uscc"])
    made = await _overtaken(hall, uscc, monkeypatch, times=99)
    refused = await asked(portal, uscc)
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/overloaded")
    assert len(made) == 3
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.limit_quote") == 0


async def test_the_mark_of_facts_covers_what_the_features_read_and_no_more(hall: Hall) -> None:
    source = await hall.client("scoring")
    one, member, stranger = ground().limits["uscc"].sort()[:3].to_list()

    async def delivered(uscc: str, name: str, row: dict[str, Any]) -> bool:
        """Whether the mark of `one` is another after the delivery."""
        mark = "SELECT hall.facts_mark($1)"
        before = await hall.owner.fetchval(mark, one)
        sent = await source.post(f"/v1/enterprises/{uscc}/facts", {name: [row]})
        assert sent.status_code == 200, (row, sent.text)
        assert sent.json()["good"] == {name: 1}
        return await hall.owner.fetchval(mark, one) != before

    (rated,) = rows_of(await sources_of(hall.service.pool, one), "taxpayer_ratings", one, 1)
    rating = rated | {"known_on": "2026-06-30"}
    assert await delivered(one, "taxpayer_ratings", rating)
    assert not await delivered(stranger, "taxpayer_ratings", rating | {"uscc": stranger})
    for uscc in (one, member):
        joined = await _registry_row(hall, uscc) | {"group_id": "GNEW", "known_on": "2026-07-01"}
        assert await delivered(uscc, "enterprises", joined), "also the row by which another becomes a member"
    assert not await delivered(member, "taxpayer_ratings", rating | {"uscc": member})
    debt = read_folder(ground().park).sources.debts.head(1)
    (row,) = debt.with_columns(pl.col(pl.Date).cast(pl.String)).to_dicts()
    assert await delivered(member, "debts", row | {"uscc": member, "debt_id": "another"})


async def test_who_does_not_speak_for_the_enterprise_finds_nothing(hall: Hall, portal: Client) -> None:
    uscc = str(best()["uscc"])
    other = str(ground().limits.filter(pl.col("uscc") != uscc)["uscc"][0])
    stranger = await hall.client("enterprise", uscc=other)
    assert (await asked(stranger, uscc)).json()["type"] == "/problems/not-found"
    assert (await asked(await hall.client("portal"), uscc)).status_code == 404
    assert (await asked(portal, made_up_code(99_999_999))).status_code == 404
    mine = await asked(await hall.client("enterprise", uscc=uscc), uscc)
    assert mine.status_code == 201
    assert (await stranger.get(f"/v1/limit-quotes/{mine.json()['quote_id']}")).status_code == 404
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.decision") == 1


async def test_an_unknown_scheme_and_an_enterprise_without_registry_facts_are_named(hall: Hall, portal: Client) -> None:
    wrong = await asked(portal, best()["uscc"], "moon-points")
    assert wrong.status_code == 422
    assert wrong.json()["errors"] == [{"pointer": "/scheme", "rule": "unknown-scheme"}]
    unknown = made_up_code(77_777_777)
    await hall.owner.execute(
        "INSERT INTO hall.enterprise (uscc, name, portal) VALUES ($1, 'new', $2)", unknown, portal.client_id
    )
    bare = await asked(portal, unknown)
    assert bare.status_code == 422
    assert bare.json()["errors"][0]["rule"] == "registry-facts-missing"


async def test_without_a_champion_the_engine_is_unavailable_and_a_promotion_is_followed(
    town_database: str, tmp_path: Path
) -> None:
    town = ground().copy(tmp_path)
    async with serving(town_database, tmp_path / "nothing") as hall:
        portal = await hall.client("portal")
        await hall.owner.execute("UPDATE hall.enterprise SET portal = $1", portal.client_id)
        refused = await asked(portal, best()["uscc"])
        assert refused.status_code == 503
        assert refused.json()["type"] == "/problems/engine-unavailable"
        assert "Retry-After" in refused.headers
        hall.service.engines = Engines(town.home)
        first = (await asked(portal, best()["uscc"])).json()
        assert first["model_version"] == town.champion
        act = ground().limits["as_of"][0]
        minutes = "test minutes: it beats, does not beat, cannot tell, not compared"
        promote(town.home, town.challenger, minutes, at=datetime.combine(act, time(), UTC))
        second = (await asked(portal, best()["uscc"])).json()
        assert second["model_version"] == town.challenger
        assert second["quote_id"] != first["quote_id"]


async def test_a_registry_that_cannot_be_read_is_an_engine_that_is_unavailable(
    town_database: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    torn = ground().copy(tmp_path / "town")
    (torn.home / "registry.jsonl").unlink()
    (torn.home / "registry.jsonl").mkdir()
    async with serving(town_database, tmp_path / "nothing") as hall:
        portal = await hall.client("portal")
        await hall.owner.execute("UPDATE hall.enterprise SET portal = $1", portal.client_id)
        for home in (tmp_path / "file", torn.home):
            hall.service.engines = Engines(home)
            refused = await asked(portal, best()["uscc"])
            assert refused.status_code == 503, home
            assert refused.json()["type"] == "/problems/engine-unavailable"
            with pytest.raises(Problem) as told:
                await hall.service.engines.load(["torch-points"])
            assert told.value.code == "engine-unavailable", "the task that follows the registry goes on"


async def test_without_an_engine_a_submission_changes_nothing_and_may_be_sent_again(
    town_database: str, tmp_path: Path
) -> None:
    async with serving(town_database, tmp_path / "nothing") as hall:
        uscc = str(best()["uscc"])
        firm = await hall.client("enterprise", uscc=uscc)
        draft = await made.request(hall.owner, uscc, "draft")
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)  # the clock of this hall stands on the day of the facts
        consent = await made.consent(hall.owner, uscc, valid_from=long_ago, given_at=long_ago)
        body = {"version": 1, "consent_id": consent}
        path = f"/v1/financing-requests/{draft}/submit"
        refused = await firm.post(path, body, key="once")
        assert refused.json()["type"] == "/problems/engine-unavailable"
        assert int(refused.headers["Retry-After"]) > 0
        assert (await firm.get(f"/v1/financing-requests/{draft}")).json()["state"] == "draft"
        assert await hall.owner.fetchval("SELECT count(*) FROM hall.history WHERE subject_id = $1", draft) == 1
        hall.service.engines = Engines(ground().home)
        done = await firm.post(path, body, key="once")
        assert done.status_code == 200, done.text
        assert done.json()["state"] == "quoted"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
async def test_a_score_that_is_no_number_is_refused_api10(
    hall: Hall, portal: Client, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    monkeypatch.setattr(Model, "log_odds", lambda _, frame: np.full(frame.height, wrong))
    monkeypatch.setattr(Model, "bag_log_odds", lambda _, frame: np.full((frame.height, 50), wrong))
    refused = await asked(portal, best()["uscc"])
    assert refused.status_code == 503
    assert refused.json()["type"] == "/problems/engine-unavailable"
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.decision") == 0


async def test_a_decision_about_another_enterprise_is_refused_api10(hall: Hall, portal: Client) -> None:
    one, two = ground().limits["uscc"][:2].to_list()
    await asked(portal, one)
    made = await quotes.measured(hall.service, one, "torch-points")
    for decision, text in ((made.decision, made.text), (made.decision | {"answer": {"uscc": two}}, made.text)):
        with pytest.raises(asyncpg.DataError):
            await hall.owner.fetchval(
                "SELECT hall.keep_decision($1, $2, $3, 'x')", two, json.dumps(decision, default=str), text
            )


async def test_many_quotes_at_once_are_each_the_one_decision(hall: Hall, portal: Client) -> None:
    some = ground().limits.head(6)
    answers = await asyncio.gather(*(asked(portal, uscc) for uscc in [*some["uscc"]] * 2))
    assert [one.json()["decision_id"] for one in answers] == [*some["decision_id"]] * 2


async def test_the_engine_is_loaded_before_anybody_asks_for_a_quote(hall: Hall) -> None:
    policies = {row["policy"] for row in await hall.owner.fetch("SELECT policy FROM hall.scheme")}

    async def all_ready() -> bool:
        return set(hall.service.engines._ready) == policies

    await until(all_ready, 30)


async def test_facts_are_checked_beside_the_loop(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    together, threads = facts._together, set[int]()

    def seen(*args: Any) -> Any:
        threads.add(threading.get_ident())
        return together(*args)

    monkeypatch.setattr(facts, "_together", seen)
    assert (await sources_of(hall.service.pool, best()["uscc"])).enterprises.height
    assert threads
    assert threading.get_ident() not in threads


async def test_the_engine_that_gives_no_answer_in_time_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr("api.engines.MOST_SECONDS", 0.05)
    with pytest.raises(Problem) as refused:
        await Engines(ground().home).run(time.sleep, 0.5)
    assert refused.value.code == "engine-unavailable"


# ------------------------------------------------------------------------------------------------------ facts by HTTP


async def test_facts_are_stored_or_quarantined_and_nothing_is_lost(hall: Hall, portal: Client) -> None:
    uscc = str(best()["uscc"])
    sources = await sources_of(hall.service.pool, uscc)
    rows = rows_of(sources, "invoices", uscc)
    fresh = [row | {"invoice_no": f"9{n:019}", "known_on": "2026-06-30"} for n, row in enumerate(rows)]
    fresh[1] |= {"gross_fen": 7}
    sent = await portal.post(f"/v1/enterprises/{uscc}/facts", {"invoices": fresh})
    assert sent.status_code == 200, sent.text
    body = sent.json()
    assert (body["good"], body["quarantined"]) == ({"invoices": 2}, {"invoices": 1})
    assert body["errors"] == [{"pointer": "/invoices/1/gross_fen", "rule": "gross_not_net_plus_tax"}]
    kept = await hall.owner.fetchrow("SELECT * FROM hall.fact_quarantine")
    assert kept is not None
    assert json.loads(kept["row"]) == fresh[1]
    after = await sources_of(hall.service.pool, uscc)
    assert after.invoices.height == sources.invoices.height + 2
    assert after.doubts.height == sources.doubts.height + 1
    again = await portal.post(f"/v1/enterprises/{uscc}/facts", {"invoices": fresh})
    assert again.json() == body | {"delivered_before": True}
    assert (await sources_of(hall.service.pool, uscc)).invoices.height == after.invoices.height


async def test_an_enterprises_own_rows_are_the_applicants_word(hall: Hall) -> None:
    uscc = str(best()["uscc"])
    mine = await hall.client("enterprise", uscc=uscc)
    sources = await sources_of(hall.service.pool, uscc)
    (row,) = rows_of(sources, "innovation_indicators", uscc, 1)
    sent = await mine.post(
        f"/v1/enterprises/{uscc}/facts",
        {"innovation_indicators": [row | {"supplier": "authority", "known_on": "2026-06-30"}]},
    )
    assert sent.status_code == 200, sent.text
    stored = await hall.owner.fetchval(
        "SELECT supplier FROM hall.fact_innovation_indicators WHERE known_on = '2026-06-30' AND uscc = $1 "
        "ORDER BY batch_id DESC LIMIT 1",
        uscc,
    )
    assert stored == "applicant"


async def test_a_delivery_of_which_nothing_is_good_or_of_a_wrong_shape_is_refused_whole(
    hall: Hall, portal: Client
) -> None:
    uscc = str(best()["uscc"])
    path = f"/v1/enterprises/{uscc}/facts"
    bad = await portal.post(path, {"taxpayer_ratings": [{"year": 2025, "grade": "A"}]})
    assert bad.status_code == 422
    assert {one["pointer"] for one in bad.json()["errors"]} == {
        "/taxpayer_ratings/0/known_on",
        "/taxpayer_ratings/0/supplier",
    }
    shapeless = await portal.post(path, {"invoices": [{"net_fen": "1", "colour": "red"}], "moods": []})
    assert shapeless.status_code == 422
    assert {one["pointer"] for one in shapeless.json()["errors"]} == {
        "/invoices/0/net_fen",
        "/invoices/0/colour",
        "/moods",
    }
    assert (await portal.post(path, {})).status_code == 422
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.fact_batch") == 1
    stranger = await hall.client("portal")
    (row,) = rows_of(await sources_of(hall.service.pool, uscc), "taxpayer_ratings", uscc, 1)
    assert (await stranger.post(path, {"taxpayer_ratings": [row]})).status_code == 404


async def test_who_does_not_reach_the_firm_learns_it_before_its_delivery_is_parted(hall: Hall) -> None:
    """As with a quote: the work of seconds is not done for nothing, and 404 is the answer whatever the rows are."""
    uscc = str(ground().best["uscc"])
    other = str(ground().limits["uscc"].filter(ground().limits["uscc"] != uscc)[0])
    for who in (await hall.client("enterprise", uscc=other), await hall.client("clerk")):
        answer = await who.post(f"/v1/enterprises/{uscc}/facts", {"invoices": []})
        assert answer.status_code == 404, answer.text
