"""A row whose deadline cannot be fired holds no other up (P4, S3): it is kept, shown to a person and tried again."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from api.database import Connection, Pool
from api.invariants import violated
from api.metrics import REGISTRY
from api.sweeper import TURNS, swept
from tests.hall import made
from tests.hall.callers import serving
from tests.hall.feeding import until
from tests.hall.made import Refused, act
from tests.hall.steps import CASE_MANAGER, FIRST, SECOND, pass_time, revoke, sweep, told

Made = tuple[str, str]
"""A row's table and its subject."""


async def a_claim(owner: Connection) -> Made:
    bank = await made.bank(owner)
    fr = await made.request(owner, await made.enterprise(owner, limit_fen=60_000_000), "broadcast")
    return "claim", f"claim/{(await made.claim(owner, fr, bank)).id}"


async def a_round(owner: Connection) -> Made:
    fr = await made.request(owner, await made.enterprise(owner), "broadcast")
    return "round", f"round/{fr}/1"


async def a_request(owner: Connection) -> Made:
    return "financing_request", f"fr/{await made.request(owner, await made.enterprise(owner), 'quoted')}"


async def a_facility(owner: Connection) -> Made:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    return "facility", f"facility/{await made.facility(owner, uscc, await made.bank(owner), 50_000_000)}"


async def a_drawdown(owner: Connection) -> Made:
    _, subject = await a_facility(owner)
    facility = subject.removeprefix("facility/")
    uscc = await told(owner, "SELECT uscc FROM hall.facility WHERE id = $1", facility)
    asked = await made.act(
        owner, made.enterprise_actor(uscc), "ask_drawdown", facility_id=facility, amount_fen=1_000_000
    )
    return "drawdown", f"drawdown/{asked['drawdown_id']}"


async def a_revocation(owner: Connection) -> Made:
    uscc, bank = await made.enterprise(owner), await made.bank(owner)
    consent = await made.consent(owner, uscc, recipients=[bank.institution])
    await revoke(owner, uscc, consent)
    return "awaited_acknowledgement", f"revocation/{consent}"


async def a_case(owner: Connection) -> Made:
    case = await told(owner, "SELECT hall.open_case('test', $1, 'a note', hall.hall_now(), 'yellow')", made.new("fr"))
    return "hall_case", f"case/{case}"


DUE = {"drawdown": "due_at", "round": "closes_at", "awaited_acknowledgement": "due_at", "hall_case": "due_at"}
KEY = {"round": "fr_id", "awaited_acknowledgement": "consent_id"}
FIRED = {
    "claim": "claim lapsed",
    "round": "round closed",
    "financing_request": "request expired",
    "facility": "status overdue",
    "drawdown": "drawdown unanswered",
    "awaited_acknowledgement": "revocation unacknowledged",
    "hall_case": "case overdue",
}
Maker = Callable[[Connection], Awaitable[Made]]
each_kind = pytest.mark.parametrize(
    "maker", [a_claim, a_round, a_request, a_facility, a_drawdown, a_revocation, a_case]
)


async def late(owner: Connection, row: Made, seconds: int) -> None:
    """Let a row be due since so many seconds."""
    table, subject = row
    key = KEY.get(table, "id")
    past = {
        "round": "opens_at = hall.hall_now() - interval '1 hour',",
        "financing_request": "quote_expires_at = hall.hall_now() - $2::interval,",
    }.get(table, "")
    due = DUE.get(table, "deadline")
    await owner.execute(
        f"UPDATE hall.{table} SET {past} {due} = hall.hall_now() - $2::interval WHERE {key} = $1",
        subject.split("/")[1],
        timedelta(seconds=seconds),
    )


async def poison(owner: Connection, row: Made, sqlstate: str = "22023") -> None:
    """Let every change of this row fail."""
    table, subject = row
    key = KEY.get(table, "id")
    await owner.execute(
        f"""
        CREATE FUNCTION hall.poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no "张三" of 91350200MA00000000' USING ERRCODE = '{sqlstate}'; END $$;
        CREATE TRIGGER a_poison BEFORE UPDATE OR DELETE ON hall.{table} FOR EACH ROW
            WHEN (old.{key} = '{subject.split("/")[1]}') EXECUTE FUNCTION hall.poison()
        """
    )


async def stuck(owner: Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in await owner.fetch("SELECT * FROM hall.stuck_deadline")]


async def cases(owner: Connection, subject: str) -> list[tuple[bool, str]]:
    found = await owner.fetch("SELECT * FROM hall.hall_case WHERE kind = 'deadline-stuck' AND subject = $1", subject)
    return [(row["closed_at"] is not None, row["closing_note"]) for row in found]


async def an_idle_claim(owner: Connection) -> Made:
    _, subject = await a_claim(owner)
    ago = "hall.hall_now() - interval '9 seconds'"
    await owner.execute(f"UPDATE hall.outlet SET is_closed = true, closed_at = {ago}")
    await owner.execute(f"UPDATE hall.claim SET claimed_at = {ago}, deadline_from = NULL")
    return "outlet", f"idle-{subject}"


async def an_event(owner: Connection) -> Made:
    fr = await made.request(owner, await made.enterprise(owner), "broadcast")
    event: Any = await owner.fetchval(
        "SELECT id FROM hall.event WHERE subject = $1 AND type = 'fin.request.broadcast.v1'", f"fr/{fr}"
    )
    await owner.execute(
        "INSERT INTO hall.unpublishable VALUES ($1, '22023', 'x', hall.hall_now() - interval '9 seconds')", event
    )
    return "unpublishable", f"event/{event}"


@pytest.mark.parametrize(
    "maker", [a_claim, a_round, a_request, a_facility, a_drawdown, a_revocation, a_case, an_idle_claim, an_event]
)
async def test_i15_sees_every_kind_that_is_overdue(owner: Connection, maker: Maker) -> None:
    row = await maker(owner)
    if row[0] not in ("outlet", "unpublishable"):
        assert (await violated(owner))["I15"] == []
        await late(owner, row, 9)
    assert [tuple(one) for one in (await violated(owner))["I15"]] == [(row[1],)]
    await sweep(owner)
    assert (await violated(owner))["I15"] == []


@each_kind
async def test_a_row_that_cannot_be_fired_holds_no_later_one_up(owner: Connection, maker: Maker) -> None:
    wrong, right = await maker(owner), await maker(owner)
    await late(owner, wrong, 9)
    await late(owner, right, 8)
    await poison(owner, wrong)
    fired = FIRED[wrong[0]]
    assert await sweep(owner) == [f"stuck {wrong[1]} 22023", fired], "the earliest first, and the next all the same"
    (kept,) = await stuck(owner)
    assert (kept["subject"], kept["attempts"], kept["sqlstate"]) == (wrong[1], 1, "22023")
    assert kept["message"] == 'no "…" of …', "nothing of a row is kept"
    assert await cases(owner, wrong[1]) == [(False, None)]
    assert await sweep(owner) == [], "it is not tried again at once"
    await owner.execute(f"DROP TRIGGER a_poison ON hall.{wrong[0]}")
    await pass_time(owner, seconds=6)
    assert await sweep(owner) == [fired]
    assert await stuck(owner) == []
    assert await cases(owner, wrong[1]) == [(True, f"swept: {fired}")]


async def test_s3_many_of_one_kind_let_the_others_have_their_turn(owner: Connection, pool: Pool) -> None:
    """A burst of claims that are due at once holds no round up until it is over."""
    for row in [await a_claim(owner) for _ in range(9)] + [await a_round(owner)]:
        await late(owner, row, 9)
    fired = [what async for what in swept(pool)]
    assert sorted(fired) == ["claim lapsed"] * 9 + ["round closed"]
    assert "round closed" in fired[:3]


async def test_tries_follow_each_other_ever_more_slowly_and_never_more_than_an_hour_apart(owner: Connection) -> None:
    row = await a_request(owner)
    await late(owner, row, 9)
    await poison(owner, row)
    waits: list[timedelta] = []
    for _ in range(12):
        assert await sweep(owner) == [f"stuck {row[1]} 22023"]
        waits.append(await told(owner, "SELECT retry_at - hall.hall_now() FROM hall.stuck_deadline"))
        await pass_time(owner, seconds=waits[-1].total_seconds())
    assert [round(wait.total_seconds()) for wait in waits[:4]] == [5, 10, 20, 40]
    assert [round(wait.total_seconds()) for wait in waits[-2:]] == [3600, 3600]
    assert await told(owner, "SELECT attempts FROM hall.stuck_deadline") == 12
    assert await cases(owner, row[1]) == [(False, None)], "one case, however many tries"


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53200", "55P03", "57P01", "08006"])
async def test_a_fault_that_waiting_cures_goes_up_as_it_came(owner: Connection, sqlstate: str) -> None:
    row = await a_request(owner)
    await late(owner, row, 9)
    await poison(owner, row, sqlstate)
    with pytest.raises(asyncpg.PostgresError) as raised:
        await sweep(owner)
    assert raised.value.as_dict()["sqlstate"] == sqlstate
    assert await stuck(owner) == []


async def test_what_a_fault_had_changed_is_undone(owner: Connection) -> None:
    """The claim lapses first and its request moves then: the fault of the second undoes the first."""
    row = await a_claim(owner)
    await late(owner, row, 9)
    fr = await told(owner, "SELECT fr_id FROM hall.claim")
    await poison(owner, ("financing_request", f"fr/{fr}"))
    before = await told(owner, "SELECT count(*) FROM hall.event")
    assert await sweep(owner) == [f"stuck {row[1]} 22023"]
    assert await told(owner, "SELECT state FROM hall.claim") == "held"
    assert await told(owner, "SELECT count(*) FROM hall.event") == before


@each_kind
async def test_a_stuck_deadline_that_an_act_makes_void_is_forgotten(owner: Connection, maker: Maker) -> None:
    row = await maker(owner)
    await late(owner, row, 9)
    await poison(owner, row)
    assert await sweep(owner) == [f"stuck {row[1]} 22023"]
    await owner.execute(f"DROP TRIGGER a_poison ON hall.{row[0]}")
    await late(owner, row, -3600)
    await pass_time(owner, seconds=6)
    assert await sweep(owner) == ["due no longer"]
    assert await stuck(owner) == []
    assert await cases(owner, row[1]) == [(True, "due no longer")]


async def test_p4_a_revocation_that_nobody_acknowledges_in_time_is_a_yellow_case_until_all_have(
    owner: Connection,
) -> None:
    uscc, (first, second) = await made.enterprise(owner), [await made.bank(owner) for _ in range(2)]
    consent = await made.consent(owner, uscc, recipients=[first.institution, second.institution])
    await revoke(owner, uscc, consent)
    await act(owner, first.actor, "acknowledge_revocation", consent_id=consent)
    await pass_time(owner, minutes=await told(owner, "SELECT hall.setting('consent_ack_minutes')") - 1)
    assert await sweep(owner) == []
    await pass_time(owner, minutes=1)
    assert await sweep(owner) == ["revocation unacknowledged"]
    found = await owner.fetchrow("SELECT * FROM hall.hall_case WHERE subject = $1", f"consent/{consent}")
    assert found is not None
    assert (found["kind"], found["lamp"], found["closed_at"]) == ("revocation-unacknowledged", "yellow", None)
    assert found["note"].endswith(f"by {second.institution}")
    assert await sweep(owner) == [], "once"
    await act(owner, second.actor, "acknowledge_revocation", consent_id=consent)
    closed = await owner.fetchrow("SELECT closed_by, closing_note FROM hall.hall_case WHERE id = $1", found["id"])
    assert closed is not None
    assert tuple(closed) == (second.client, "acknowledged by all")


async def test_p4_a_revocation_that_all_acknowledge_in_time_or_that_nobody_is_told_of_is_no_case(
    owner: Connection,
) -> None:
    uscc, bank = await made.enterprise(owner), await made.bank(owner)
    named = await made.consent(owner, uscc, recipients=[bank.institution])
    for consent in (named, await made.consent(owner, uscc)):
        await revoke(owner, uscc, consent)
    await act(owner, bank.actor, "acknowledge_revocation", consent_id=named)
    await pass_time(owner, days=2)
    assert await sweep(owner) == []
    assert await told(owner, "SELECT count(*) FROM hall.hall_case") == 0


@pytest.mark.parametrize(("kind", "ended_by"), [("deadline-stuck", "deadline"), ("reconciliation", "reconciliation")])
async def test_l7_a_case_that_tells_of_a_state_is_closed_by_what_ends_the_state_alone(
    owner: Connection, kind: str, ended_by: str
) -> None:
    case = await told(owner, "SELECT hall.open_case($1, 'fr/x', 'n', hall.hall_now())", kind)
    with pytest.raises(Refused) as refused:
        await act(owner, CASE_MANAGER, "close_case", case_id=case, note="n")
    assert (refused.value.code, refused.value.members) == (
        "illegal-transition",
        {"state": "open", "ended_by": ended_by},
    )
    assert await told(owner, "SELECT closed_at IS NULL FROM hall.hall_case WHERE id = $1", case)


async def test_p4_a_case_that_nobody_closes_in_time_turns_red_and_is_the_supervisors(
    owner: Connection, database: str, home: Path
) -> None:
    _, subject = await a_case(owner)
    _, other = await a_case(owner)
    closed = {"case_id": other.removeprefix("case/"), "note": "settled"}
    await act(owner, CASE_MANAGER, "close_case", **closed)
    await pass_time(owner, days=40)
    assert await sweep(owner) == ["case overdue"]
    assert await sweep(owner) == [], "once"
    async with serving(database, home) as hall:
        operator = await hall.client("operator")
        (shown,) = (await operator.get("/v1/cases", state="overdue")).json()["items"]
        assert (shown["case_id"], shown["lamp"]) == (subject.removeprefix("case/"), "red")
        assert shown["overdue_at"] >= shown["due_at"]
        assert len((await operator.get("/v1/cases", state="all")).json()["items"]) == 2


async def test_p4_a_proposal_expires_and_is_approved_no_more(owner: Connection) -> None:
    fr = await made.request(owner, await made.enterprise(owner), "quoted")
    given = {"fr_id": fr, "kind": "suspend", "order_no": "1", "note": "by order"}
    old, fresh = [await act(owner, FIRST, "propose_order", **given) for _ in range(2)]
    days = await told(owner, "SELECT hall.setting('approval_days')")
    await pass_time(owner, days=days, minutes=-1)
    assert (await act(owner, SECOND, "approve_order", approval_id=fresh["approval_id"]))["kind"] == "suspend"
    await pass_time(owner, minutes=1)
    with pytest.raises(Refused, match="approval-expired") as refused:
        await act(owner, SECOND, "approve_order", approval_id=old["approval_id"])
    assert refused.value.members["expires_at"] == old["expires_at"]


async def test_the_events_of_one_deadline_share_a_trace_of_their_own(owner: Connection) -> None:
    """But for the one that tells a round's audience: nobody who reads it learns what it has in common with another."""
    first, second = await a_claim(owner), await a_claim(owner)
    before = await told(owner, "SELECT max(no) FROM hall.event")
    await late(owner, first, 9)
    await late(owner, second, 8)
    assert await sweep(owner) == ["claim lapsed", "claim lapsed"]
    rows = await owner.fetch("SELECT * FROM hall.event WHERE no > $1 ORDER BY no", before)
    traces = [row["traceparent"] for row in rows if row["audience_fr"] is None]
    assert len(traces) >= 4
    assert len(set(traces[: len(traces) // 2])) == len(set(traces[len(traces) // 2 :])) == 1
    assert len(set(traces)) == 2
    shown = [row for row in rows if row["audience_fr"] is not None]
    assert shown
    assert all(row["traceparent"] is None for row in shown)


async def test_a_case_that_was_closed_too_early_is_opened_again(owner: Connection) -> None:
    row = await a_request(owner)
    await late(owner, row, 9)
    await poison(owner, row)
    await sweep(owner)
    await owner.execute("UPDATE hall.hall_case SET closed_at = hall.hall_now(), closed_by = 'x', closing_note = 'done'")
    await pass_time(owner, seconds=6)
    await sweep(owner)
    assert sorted(await cases(owner, row[1]), key=str) == [(False, None), (True, "done")]


async def test_the_sweeper_tells_of_stuck_deadlines_and_outlives_a_pass_that_fails(
    owner: Connection, database: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, right = await a_request(owner), await a_request(owner)
    await late(owner, wrong, 1)
    await poison(owner, wrong)

    def figure(name: str) -> float:
        return REGISTRY.get_sample_value(name) or 0.0

    async with serving(database, home):
        faults = figure("jifen_sweeper_faults_total")
        await until(lambda: _so(figure("jifen_deadlines_stuck") == 1))
        said = capsys.readouterr().out
        assert "a deadline cannot be fired" in said
        assert wrong[1] in said
        await owner.execute("ALTER FUNCTION hall.sweep(integer) RENAME TO sweep_away")
        await until(lambda: _so(figure("jifen_sweeper_faults_total") >= faults + 3), seconds=5)
        await owner.execute("ALTER FUNCTION hall.sweep_away(integer) RENAME TO sweep")
        await late(owner, right, 0)
        state = "SELECT state = 'EXPIRED' FROM hall.financing_request WHERE id = $1"
        await until(lambda: told(owner, state, right[1][3:]), seconds=2)
        said = capsys.readouterr().out
        assert "a pass of the sweeper failed" in said
        assert "UndefinedFunctionError" in said


async def _so(fact: bool) -> bool:
    return fact


async def test_the_service_takes_as_many_turns_as_the_database_has_kinds(owner: Connection) -> None:
    source: Any = await owner.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'sweep'")
    assert f"kinds constant integer := {TURNS};" in source
    assert len(re.findall(r"when \d+ then fired :=", source)) == TURNS
