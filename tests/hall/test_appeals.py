"""Appeals 申诉: a decision is looked at by a person in time, and stands as it was written."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import orjson
import pytest

from api.appeals import State, appeals
from api.calls import Caller
from api.database import Connection
from api.invariants import violated as broken
from tests.hall import made
from tests.hall.callers import serving
from tests.hall.made import Refused, act, enterprise_actor
from tests.hall.processes import Serving
from tests.hall.steps import (
    CASE_MANAGER,
    drafted,
    held,
    order,
    pass_time,
    publish,
    quote,
    submit,
    sweep,
    told,
)
from tests.hall.test_security_objects import problem

WORDS = "我们的发票数据被重复计算Zanzibar"
NOTE = "数据更正后请重新测额Quixote"


@dataclass(frozen=True)
class Decision:
    """A decision about a firm: the member of an appeal that names it, the request it belongs to, the quote it is."""

    uscc: str
    named: dict[str, str]
    fr: str
    quote: str | None = None

    @property
    def subject(self) -> str:
        ((member, thing),) = {"quote_id": self.quote}.items() if self.quote else self.named.items()
        return f"{member.removesuffix('_id')}/{thing}"


async def a_decline(owner: Connection) -> Decision:
    claim = await held(owner, "contacted")
    await act(
        owner, claim.bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to="declined", reason="no"
    )
    return Decision(claim.uscc, {"claim_id": claim.id}, claim.fr)


async def submitted(owner: Connection, outcome: str, limit_fen: int) -> tuple[str, dict[str, Any]]:
    uscc = await made.enterprise(owner)
    return uscc, await submit(owner, uscc, await drafted(owner, uscc), outcome=outcome, limit_fen=limit_fen)


async def an_ineligible_request(owner: Connection) -> Decision:
    uscc, answer = await submitted(owner, "ineligible", 0)
    return Decision(uscc, {"fr_id": answer["fr_id"]}, answer["fr_id"], answer["quote_id"])


async def a_quote(owner: Connection) -> Decision:
    uscc, answer = await submitted(owner, "eligible", 60_000_000)
    return Decision(uscc, {"quote_id": answer["quote_id"]}, answer["fr_id"])


each_decision = pytest.mark.parametrize("decided", [a_decline, an_ineligible_request, a_quote])
Decided = Callable[[Connection], Awaitable[Decision]]


async def appeal(owner: Connection, about: Decision, **given: Any) -> dict[str, Any]:
    words = {"reason": "wrong-facts", "text": WORDS}
    return await act(owner, enterprise_actor(about.uscc), "open_appeal", **about.named | words | given)


async def opinion(owner: Connection, appealed: dict[str, Any], outcome: str = "upheld") -> dict[str, Any]:
    args = {"appeal_id": appealed["appeal_id"], "outcome": outcome, "note": NOTE}
    return await act(owner, CASE_MANAGER, "give_opinion", **args)


async def contact(owner: Connection, appealed: dict[str, Any]) -> dict[str, Any]:
    return await act(owner, CASE_MANAGER, "contact_appellant", appeal_id=appealed["appeal_id"], method="call")


async def is_under_appeal(owner: Connection, fr: str) -> bool:
    return await told(owner, "SELECT is_under_appeal FROM hall.financing_request WHERE id = $1", fr)


async def case_of(owner: Connection, appealed: dict[str, Any]) -> asyncpg.Record:
    row = await owner.fetchrow("SELECT * FROM hall.hall_case WHERE id = $1", appealed["case_id"])
    assert row is not None
    return row


async def case_clock(owner: Connection, appealed: dict[str, Any]) -> asyncpg.Record:
    row = await owner.fetchrow(
        "SELECT hall.iso(due_at), due_from FROM hall.hall_case WHERE id = $1", appealed["case_id"]
    )
    assert row is not None
    return row


async def open_morning(owner: Connection) -> None:
    """Let it be the opening of a working day whose next day is one too."""
    await owner.execute(
        """
        INSERT INTO hall.clock_offset AS o (tenant, "offset")
            SELECT 'default', (SELECT min(opening) FROM (
                SELECT hall.next_working_time(hall.start_of(hall.today() + n)) AS opening FROM generate_series(1, 30) n
            ) AS days WHERE hall.works((opening AT TIME ZONE 'Asia/Shanghai')::date + 1)) - hall.hall_now()
        ON CONFLICT (tenant) DO UPDATE SET "offset" = o."offset" + excluded."offset"
        """
    )


# ------------------------------------------------------------------------------------------------------- the decision


@each_decision
async def test_t5_an_appeal_marks_its_request_until_the_opinion_and_changes_no_decision(
    owner: Connection, decided: Decided
) -> None:
    about = await decided(owner)
    decision = """
        SELECT (SELECT to_jsonb(f) - 'is_under_appeal' FROM hall.financing_request f WHERE f.id = $1)::text,
            (SELECT jsonb_agg(c) FROM hall.claim c WHERE c.fr_id = $1)::text,
            (SELECT jsonb_agg(q ORDER BY q.id) FROM hall.limit_quote q WHERE q.uscc = $2)::text,
            (SELECT count(*) FROM hall.history)
    """
    before = await owner.fetchrow(decision, about.fr, about.uscc)
    appealed = await appeal(owner, about)
    assert (appealed["against"], appealed["state"], appealed["lamp"]) == (about.subject, "open", "green")
    assert await is_under_appeal(owner, about.fr)
    case = await case_of(owner, appealed)
    assert (case["kind"], case["subject"], case["closed_at"]) == ("appeal", about.subject, None)
    closed = await opinion(owner, appealed)
    assert (closed["state"], closed["outcome"]) == ("closed", "upheld")
    assert not await is_under_appeal(owner, about.fr)
    case = await case_of(owner, appealed)
    assert (case["closed_by"], case["closing_note"]) == (CASE_MANAGER["client"], "upheld")
    assert await owner.fetchrow(decision, about.fr, about.uscc) == before


async def test_after_an_appeal_that_is_upheld_the_enterprise_applies_anew(owner: Connection) -> None:
    about = await an_ineligible_request(owner)
    await opinion(owner, await appeal(owner, about))
    again = await drafted(owner, about.uscc)
    assert again != about.fr
    assert await told(owner, "SELECT state FROM hall.financing_request WHERE id = $1", about.fr) == "INELIGIBLE"


async def test_a_request_stays_under_appeal_until_the_last_one_that_concerns_it_has_an_opinion(
    owner: Connection,
) -> None:
    about = await a_decline(owner)
    await quote(owner, about.uscc, 60_000_000)
    quoted = await told(owner, "SELECT id FROM hall.limit_quote WHERE uscc = $1 ORDER BY id DESC LIMIT 1", about.uscc)
    await owner.execute("UPDATE hall.financing_request SET quote_id = $2 WHERE id = $1", about.fr, quoted)
    first = await appeal(owner, about)
    second = await appeal(owner, Decision(about.uscc, {"quote_id": quoted}, about.fr))
    await opinion(owner, first, "dismissed")
    assert await is_under_appeal(owner, about.fr)
    await opinion(owner, second, "partly")
    assert not await is_under_appeal(owner, about.fr)


async def test_an_ineligible_request_and_its_quote_are_one_decision(owner: Connection) -> None:
    about = await an_ineligible_request(owner)
    assert about.quote is not None
    by_quote = Decision(about.uscc, {"quote_id": about.quote}, about.fr)
    for first, second in ((about, by_quote), (by_quote, about)):
        opened = await appeal(owner, first)
        assert opened["against"] == f"quote/{about.quote}"
        assert await is_under_appeal(owner, about.fr)
        with pytest.raises(Refused, match="duplicate-request") as refused:
            await appeal(owner, second)
        assert refused.value.members == {"existing": opened["appeal_id"]}
        await opinion(owner, opened)
        assert not await is_under_appeal(owner, about.fr)


# ---------------------------------------------------------------------------------------------------------- the clocks


async def minutes_of(owner: Connection, name: str) -> int:
    return await told(owner, "SELECT hall.setting($1)", name)


async def test_p4_an_appeal_without_a_contact_turns_yellow_and_without_an_opinion_red(owner: Connection) -> None:
    await open_morning(owner)
    appealed = await appeal(owner, await a_decline(owner))
    for setting, due in (("appeal_contact_minutes", "contact_due"), ("appeal_opinion_minutes", "opinion_due")):
        minutes = await minutes_of(owner, setting)
        opened, expected = await told(owner, "SELECT opened_at FROM hall.appeal"), appealed[due]
        assert expected == await told(owner, "SELECT hall.iso(hall.add_working_minutes($1, $2))", opened, minutes)
    await pass_time(owner, minutes=119)
    assert await sweep(owner) == []
    await pass_time(owner, minutes=1)
    assert await sweep(owner) == ["appeal not contacted"]
    case = await case_of(owner, appealed)
    assert (case["lamp"], case["overdue_at"]) == ("yellow", None)
    assert (
        await told(owner, "SELECT hall.iso(due_at) FROM hall.hall_case WHERE id = $1", case["id"])
        == (appealed["opinion_due"])
    )
    await pass_time(owner, minutes=359)
    assert await sweep(owner) == []
    await pass_time(owner, hours=24)
    assert await sweep(owner) == ["case overdue"]
    case = await case_of(owner, appealed)
    assert case["lamp"] == "red"
    assert case["overdue_at"] >= case["due_at"]
    assert await sweep(owner) == [], "once"
    await opinion(owner, appealed, "dismissed")
    assert (await case_of(owner, appealed))["closed_at"] is not None


async def test_p4_a_contact_in_time_keeps_the_lamp_green_until_the_opinion_is_due(owner: Connection) -> None:
    await open_morning(owner)
    appealed = await appeal(owner, await a_decline(owner))
    await pass_time(owner, minutes=60)
    contacted = await contact(owner, appealed)
    assert (contacted["lamp"], [one["method"] for one in contacted["contacts"]]) == ("green", ["call"])
    await pass_time(owner, minutes=120)
    assert await sweep(owner) == []
    again = await contact(owner, appealed)
    assert len(again["contacts"]) == 2
    assert again["lamp"] == "green"
    await pass_time(owner, hours=24)
    assert await sweep(owner) == ["case overdue"]
    assert (await case_of(owner, appealed))["lamp"] == "red"
    assert (await contact(owner, appealed))["lamp"] == "red", "a contact comes too late for that"


async def test_p4_a_contact_that_is_late_shows_also_where_nobody_had_swept(owner: Connection) -> None:
    await open_morning(owner)
    appealed = await appeal(owner, await a_decline(owner))
    await pass_time(owner, minutes=121)
    assert (await contact(owner, appealed))["lamp"] == "yellow"


async def test_p4_an_order_on_the_request_stops_no_clock_of_an_appeal(owner: Connection) -> None:
    """Its promises are the hall's to the enterprise: case, appeal and contact tell the same time before and after."""
    await open_morning(owner)
    about = await a_decline(owner)
    appealed = await appeal(owner, about)
    await order(owner, about.fr, "suspend")
    await pass_time(owner, minutes=121)
    assert [row["subject"] for row in (await broken(owner))["I15"]] == [f"case/{appealed['case_id']}"], (
        "nobody has swept it"
    )
    assert await sweep(owner) == ["appeal not contacted"]
    assert tuple(await case_clock(owner, appealed)) == (appealed["opinion_due"], None)
    await order(owner, about.fr, "resume")
    assert tuple(await case_clock(owner, appealed)) == (appealed["opinion_due"], None)
    assert (await contact(owner, appealed))["opinion_due"] == appealed["opinion_due"]
    await pass_time(owner, hours=24)
    assert "case overdue" in await sweep(owner)
    assert (await case_of(owner, appealed))["lamp"] == "red"


async def test_an_appeal_of_the_evening_waits_for_working_time(owner: Connection) -> None:
    await open_morning(owner)
    await pass_time(owner, hours=10)
    appealed = await appeal(owner, await a_decline(owner))
    expected = await told(owner, "SELECT hall.iso(hall.next_working_time(hall.hall_now()) + interval '120 minutes')")
    assert appealed["contact_due"] == expected


async def test_s6_a_calendar_that_arrives_moves_both_promises(owner: Connection) -> None:
    await owner.execute("DELETE FROM hall.calendar_year; DELETE FROM hall.working_day")
    appealed = await appeal(owner, await a_decline(owner))
    assert appealed["due_is_provisional"]
    await contact(owner, appealed)
    await owner.execute(
        """
        INSERT INTO hall.working_day SELECT hall.today() + n, false FROM generate_series(0, 21) n;
        INSERT INTO hall.calendar_year SELECT generate_series(2025, 2100);
        SELECT hall.recompute_provisional();
        """
    )
    row = await owner.fetchrow(
        "SELECT hall.appeal_row(a)::jsonb ->> 'opinion_due' AS told, hall.iso(k.due_at) AS due, k.due_is_provisional "
        "FROM hall.appeal a JOIN hall.hall_case k ON k.id = a.case_id"
    )
    assert row is not None
    assert row["told"] == row["due"] > appealed["opinion_due"]
    assert not row["due_is_provisional"]


async def test_a_case_of_an_appeal_ends_by_its_opinion_alone(owner: Connection) -> None:
    appealed = await appeal(owner, await a_decline(owner))
    with pytest.raises(Refused, match="illegal-transition") as refused:
        await act(owner, CASE_MANAGER, "close_case", case_id=appealed["case_id"], note="n")
    assert refused.value.members == {"state": "open", "ended_by": "opinion"}
    assert (await case_of(owner, appealed))["closed_at"] is None


async def test_after_the_opinion_nothing_is_added(owner: Connection) -> None:
    appealed = await appeal(owner, await a_decline(owner))
    await opinion(owner, appealed, "dismissed")
    for late in (contact, opinion):
        with pytest.raises(Refused, match="illegal-transition"):
            await late(owner, appealed)
    assert await told(owner, "SELECT outcome FROM hall.appeal_opinion") == "dismissed"
    for table in ("appeal", "appeal_contact", "appeal_opinion"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(f"DELETE FROM hall.{table}")


# ------------------------------------------------------------------------------------------------------ one at a time


async def test_one_appeal_against_a_decision_is_open_at_a_time_and_another_may_follow(owner: Connection) -> None:
    about = await a_decline(owner)
    first = await appeal(owner, about)
    with pytest.raises(Refused, match="duplicate-request") as refused:
        await appeal(owner, about, reason="other")
    assert refused.value.members == {"existing": first["appeal_id"]}
    await opinion(owner, first)
    assert (await appeal(owner, about))["appeal_id"] != first["appeal_id"]
    assert await is_under_appeal(owner, about.fr)


@each_decision
async def test_of_appeals_that_are_opened_at_once_one_is(owner: Connection, database: str, decided: Decided) -> None:
    about = await decided(owner)
    racers = [await asyncpg.connect(database) for _ in range(4)]
    try:
        outcomes = await asyncio.gather(*(appeal(one, about) for one in racers), return_exceptions=True)
    finally:
        for one in racers:
            await one.close()
    refused = [one.code for one in outcomes if isinstance(one, Refused)]
    assert refused == ["duplicate-request"] * 3, outcomes
    assert await told(owner, "SELECT count(*) FROM hall.appeal") == 1


# ---------------------------------------------------------------------------------------------------------- who may not


@each_decision
async def test_api1_nobody_appeals_against_a_decision_about_another(owner: Connection, decided: Decided) -> None:
    about = await decided(owner)
    stranger = await made.enterprise(owner)
    for who in (enterprise_actor(stranger), made.actor("portal", "a-portal"), CASE_MANAGER):
        with pytest.raises(Refused, match="not-found"):
            await act(owner, who, "open_appeal", **about.named, reason="other", text="x")
    await owner.execute("UPDATE hall.enterprise SET portal = 'a-portal' WHERE uscc = $1", about.uscc)
    own = await act(owner, made.actor("portal", "a-portal"), "open_appeal", **about.named, reason="other", text="x")
    assert own["against"] == about.subject


async def test_what_is_no_decision_is_not_appealed_against(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    quoted = await a_quote(owner)
    await quote(owner, quoted.uscc, 70_000_000)
    running = Decision(quoted.uscc, {"fr_id": quoted.fr}, quoted.fr)
    live = Decision(claim.uscc, {"claim_id": claim.id}, claim.fr)
    for about, state in ((live, "contacted"), (running, "quoted"), (quoted, "superseded")):
        with pytest.raises(Refused, match="illegal-transition") as refused:
            await appeal(owner, about)
        assert refused.value.members == {"state": state}
    assert await told(owner, "SELECT count(*) FROM hall.hall_case WHERE kind = 'appeal'") == 0


async def test_an_unknown_reason_is_named(owner: Connection) -> None:
    with pytest.raises(Refused, match="validation") as refused:
        await appeal(owner, await a_decline(owner), reason="bad-mood")
    assert [one["pointer"] for one in refused.value.members["errors"]] == ["/reason"]


async def test_by_http_each_side_sees_its_part_and_strangers_nothing(
    owner: Connection, database: str, home: Path
) -> None:
    about = await a_decline(owner)
    async with serving(database, home) as hall:
        firm = await hall.client("enterprise", uscc=about.uscc)
        neighbour = await hall.client("enterprise", uscc=await made.enterprise(owner))
        manager = await hall.client("case-manager")
        body = about.named | {"reason": "unfair-treatment", "text": WORDS}
        for wrong in (
            body | {"text": "x" * 1001},
            body | {"text": "\x1b[2J"},
            body | {"fr_id": about.fr},
            body | {"state": "closed"},
            {"reason": "other", "text": "x"},
        ):
            assert problem(await firm.post("/v1/appeals", wrong)) == (422, "validation"), wrong
        made_ = await firm.post("/v1/appeals", body | {"text": "字" * 1000}, key="k")
        assert made_.status_code == 201, made_.text
        assert (await firm.post("/v1/appeals", body | {"text": "字" * 1000}, key="k")).content == made_.content
        path = f"/v1/appeals/{made_.json()['appeal_id']}"

        seen = (await firm.get(path)).json()
        assert (seen["uscc"], seen["text"]) == (about.uscc, "字" * 1000)
        assert {"appellant", "decision"} & set(seen) == set()
        shown = (await firm.get(f"/v1/financing-requests/{about.fr}")).json()
        assert shown["under_appeal"]
        assert problem(await neighbour.get(path)) == (404, "not-found")
        assert (await neighbour.get("/v1/appeals", state="all")).json()["items"] == []

        listed = (await manager.get("/v1/appeals")).json()["items"]
        assert [one["appeal_id"] for one in listed] == [seen["appeal_id"]]
        assert "uscc" not in listed[0]
        looked = (await manager.get(path)).json()
        assert looked["appellant"] == {"name": (await told(owner, "SELECT name FROM hall.enterprise WHERE uscc = $1",
            about.uscc)), "contact_name": "李四", "contact_phone": "13800000000"}  # fmt: skip
        assert looked["decision"]["claim"]["declined_for"] == "no"
        looks = (await firm.get(f"/v1/enterprises/{about.uscc}/accesses")).json()["accesses"]
        assert [(one["what"], one["purpose"], one["institution_id"]) for one in looks] == [
            ("appeal", "assistance", None)
        ]

        assert (await manager.post(f"{path}/contact", {"method": "call"})).json()["lamp"] == "green"
        ended = await manager.post(f"{path}/opinion", {"outcome": "partly", "note": NOTE})
        assert (ended.status_code, ended.json()["outcome"]) == (200, "partly")
        assert problem(await manager.get(path)) == (404, "not-found")
        assert (await manager.get("/v1/appeals", state="all")).json()["items"] == []
        assert (await firm.get(path)).json()["note"] == NOTE
        assert (await firm.get("/v1/appeals")).json()["items"] == []
        assert len((await firm.get("/v1/appeals", state="closed")).json()["items"]) == 1


async def test_a_portal_pages_through_the_appeals_of_its_firms(owner: Connection, database: str, home: Path) -> None:
    decisions = [await a_quote(owner) for _ in range(3)]
    opened = [(await appeal(owner, one))["appeal_id"] for one in decisions]
    async with serving(database, home) as hall:
        portal = await hall.client("portal")
        await owner.execute(
            "UPDATE hall.enterprise SET portal = $1 WHERE uscc = ANY ($2)",
            portal.client_id, [one.uscc for one in decisions[:2]],
        )  # fmt: skip
        first = await portal.get("/v1/appeals", limit=1)
        rest = await hall.http.get(first.links["next"]["url"], headers=portal.headers)
        assert [one["appeal_id"] for answer in (first, rest) for one in answer.json()["items"]] == opened[:2]
        assert [one["uscc"] for one in rest.json()["items"]] == [decisions[1].uscc]
        assert "next" not in rest.links


async def test_a_case_manager_finds_what_is_open_from_the_open_cases(owner: Connection) -> None:
    """Not from the appeals, of which most have ended: the index of open cases serves."""
    ended, standing = [await appeal(owner, await a_decline(owner)) for _ in range(2)]
    await opinion(owner, ended)
    manager = Caller("manager", "default", "case-manager", frozenset(), None, None, None)
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'one_open_case'"
    await owner.execute("SET enable_seqscan = off; SELECT pg_stat_force_next_flush()")
    before = await told(owner, scans)
    lists: dict[State | None, list[str]] = {
        "open": [standing["appeal_id"]],
        None: [standing["appeal_id"]],
        "closed": [],
    }
    for state, found in lists.items():
        shown = await appeals(owner, manager, state, "", 9)
        assert [orjson.loads(row["found"])["appeal_id"] for row in shown] == found
    await owner.execute("SELECT pg_stat_force_next_flush()")
    assert await told(owner, scans) == before + 2


# ----------------------------------------------------------------------------------------------------------- no words


async def tables_with(owner: Connection, secret: str) -> set[str]:
    """Every table of the hall that holds a text in any column."""
    names = [row["relname"] for row in await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'hall'::regnamespace AND relkind = 'r'")]  # fmt: skip
    held_in = {
        name: await told(owner, f"SELECT EXISTS (SELECT FROM hall.{name} AS t WHERE t::text LIKE $1)", f"%{secret}%")
        for name in names
    }
    return {name for name, has in held_in.items() if has}


async def test_the_words_of_an_appeal_stand_in_no_event_case_log_or_stored_answer(
    owner: Connection, database: str, home: Path
) -> None:
    about = await a_decline(owner)
    async with serving(database, home) as hall:
        firm, manager = await hall.client("enterprise", uscc=about.uscc), await hall.client("case-manager")
        tokens = [one.headers["Authorization"] for one in (firm, manager)]
    with Serving(database, home) as program:
        async with httpx2.AsyncClient(base_url=program.address, timeout=30) as http:

            async def said(token: str, path: str, body: dict[str, str]) -> dict[str, Any]:
                headers = {"Authorization": token, "Idempotency-Key": "k"}
                answer = await http.post(path, json=body, headers=headers)
                assert answer.is_success, answer.text
                return answer.json()

            opened = await said(tokens[0], "/v1/appeals", about.named | {"reason": "other", "text": WORDS})
            await said(tokens[1], f"/v1/appeals/{opened['appeal_id']}/contact", {"method": "call"})
            await said(tokens[1], f"/v1/appeals/{opened['appeal_id']}/opinion", {"outcome": "upheld", "note": NOTE})
    await publish(owner)
    assert await tables_with(owner, "Zanzibar") == {"appeal"}
    assert await tables_with(owner, "Quixote") == {"appeal_opinion"}
    log = (home / "serve.log").read_text(encoding="utf-8")
    assert "/v1/appeals" in log
    assert "Zanzibar" not in log
    assert "Quixote" not in log


async def test_an_appeal_is_told_to_its_enterprise_alone(owner: Connection) -> None:
    about = await a_decline(owner)
    appealed = await appeal(owner, about)
    await contact(owner, appealed)
    await opinion(owner, appealed)
    rows = await owner.fetch(
        "SELECT type, data::text, uscc, institution_id, audience_fr FROM hall.event WHERE subject = $1 ORDER BY no",
        f"appeal/{appealed['appeal_id']}",
    )
    assert [row["type"] for row in rows] == [f"fin.appeal.{what}.v1" for what in ("opened", "contacted", "closed")]
    assert {(row["uscc"], row["institution_id"], row["audience_fr"]) for row in rows} == {(about.uscc, None, None)}
    thin = f'{{"against": "{about.subject}", "outcome": "upheld", "appeal_id": "{appealed["appeal_id"]}"}}'
    assert rows[-1]["data"] == thin
