"""The place of events in the feed, and the gate (hall.md F1, V1, V2, V6; reliability.md I12, I13, M6)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import numpy as np
import orjson
import pytest

from api.sequencer import PASS_SECONDS, PORTION, sequenced
from api.service import running
from api.settings import Settings
from tests.hall import made
from tests.hall.feeding import announce, emit, feed_of, publish_all, published, until, value
from tests.hall.steps import order

Owner = asyncpg.Connection
NAIVE = "SELECT no, subject FROM hall.event WHERE no > $1 ORDER BY no"
"""The mutant: a cursor on a number that is given out before the commit."""


@asynccontextmanager
async def other(database: str) -> AsyncGenerator[Owner]:
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


async def subjects(owner: Owner) -> list[str]:
    return [row["subject"] for row in await feed_of(owner)]


async def test_v2_the_naive_cursor_loses_an_event_that_commits_late_and_the_feed_does_not(
    owner: Owner, database: str
) -> None:
    async with other(database) as slow, other(database) as quick:
        begun = slow.transaction()
        await begun.start()
        await emit(slow, "late/1")
        await emit(quick, "early/1")
        naive = await owner.fetch(NAIVE, 0)
        assert not (await sequenced(owner)).published, "what may still get a lower place is waited for"
        await begun.commit()
        naive += await owner.fetch(NAIVE, naive[-1]["no"])
    await publish_all(owner)
    assert [row["subject"] for row in naive] == ["early/1"]
    assert await subjects(owner) == ["late/1", "early/1"]


@pytest.mark.parametrize("most", [7, 1])
async def test_v2_no_event_is_lost_or_placed_twice_while_many_write(owner: Owner, database: str, most: int) -> None:
    """Writers of unequal length, some of which give up; readers follow by place while it goes on.

    most: events of a pass; 1 splits every transaction.
    """
    writers, each = 6, 25
    rng = np.random.default_rng(20261123)
    pauses = rng.exponential(0.004, (writers, each, 2))
    gives_up = rng.random((writers, each)) < 0.1
    done = asyncio.Event()

    async def write(number: int) -> None:
        async with other(database) as connection:
            for n in range(each):
                work = connection.transaction()
                await work.start()
                await emit(connection, f"writer/{number}")
                await asyncio.sleep(pauses[number, n, 0])
                await emit(connection, f"writer/{number}")
                await (work.rollback() if gives_up[number, n] else work.commit())
                await asyncio.sleep(pauses[number, n, 1])

    async def publish(connection: Owner) -> None:
        while not done.is_set():
            await sequenced(connection, limit=most, portion=most)
            await asyncio.sleep(0.002)

    async def read(connection: Owner) -> list[int]:
        seen: list[int] = []
        while not done.is_set():
            rows = await connection.fetch(
                "SELECT sequence FROM hall.feed WHERE sequence > $1 ORDER BY sequence", max(seen, default=0)
            )
            seen += [row["sequence"] for row in rows]
            await asyncio.sleep(0.001)
        return seen

    async with other(database) as first, other(database) as second, other(database) as reader:
        beside = [asyncio.create_task(work) for work in (publish(first), publish(second), read(reader))]
        await asyncio.gather(*(write(number) for number in range(writers)))
        await publish_all(owner)
        await asyncio.sleep(0.05)
        done.set()
        _, _, seen = await asyncio.gather(*beside)
    rows = await feed_of(owner)
    assert len(rows) == await value(owner, "SELECT count(*) FROM hall.event") > writers * each
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert seen == [row["sequence"] for row in rows], "a reader by place misses nothing and sees nothing out of turn"
    for number in range(writers):
        places = [orjson.loads(row["body"])["subjectsequence"] for row in rows if row["subject"] == f"writer/{number}"]
        assert [int(place) for place in places] == list(range(1, len(places) + 1))


async def test_v1_events_of_one_transaction_keep_their_order(owner: Owner) -> None:
    async with owner.transaction():
        for n in range(40):
            await emit(owner, f"test/{n % 3}")
    await publish_all(owner)
    placed = [(row["subject"], int(orjson.loads(row["body"])["subjectsequence"])) for row in await feed_of(owner)]
    assert placed == [(f"test/{n % 3}", n // 3 + 1) for n in range(40)]


async def test_v1_who_waited_for_a_lock_comes_after_the_one_it_waited_for(owner: Owner, database: str) -> None:
    """Its transaction is the older one, and below the xmin already; the other is not, because of a third."""
    async with other(database) as waits, other(database) as third, other(database) as first:
        begun = [waits.transaction(), third.transaction()]
        await begun[0].start()
        await emit(waits, "waits/1")
        await begun[1].start()
        await emit(third, "third/1")
        await emit(first, "contested/1")
        await emit(waits, "contested/1")
        await begun[0].commit()
        assert not (await sequenced(owner)).published
        await begun[1].commit()
    await publish_all(owner)
    placed = [orjson.loads(row["body"]) for row in await feed_of(owner)]
    assert [one["subjectsequence"] for one in placed if one["subject"] == "contested/1"] == ["1", "2"]
    assert len(placed) == 4


async def test_v2_a_batch_ends_between_transactions_and_the_rest_follows(owner: Owner) -> None:
    for size in (3, 12, 1, 4):
        async with owner.transaction():
            for _ in range(size):
                await emit(owner, f"size/{size}")
    heads = []
    async with asyncio.timeout(20):
        while not heads or heads[-1] < 20:
            done = await sequenced(owner, limit=5)
            heads += [done.head] if done.published else []
    assert heads == [3, 15, 20]
    assert await subjects(owner) == ["size/3"] * 3 + ["size/12"] * 12 + ["size/1"] + ["size/4"] * 4


BULK = """
INSERT INTO hall.event (subject, subject_sequence, type, at, actor_role, data)
SELECT 'bulk/' || n % 3000, 1 + n / 3000, 'fin.test.v1', hall.hall_now(), 'system', '{}'
FROM generate_series(0, $1 - 1) AS n
"""


async def test_v2_v4_a_huge_transaction_is_published_in_portions_and_whole_before_what_committed_after_it(
    owner: Owner, database: str
) -> None:
    """30,000 events. `between` took its numbers in between; `after` wrote to a subject of the huge one after it."""
    async with other(database) as huge, other(database) as between:
        begun, overlaps = huge.transaction(), between.transaction()
        await begun.start()
        await huge.execute(BULK, 15_000)
        await overlaps.start()
        await emit(between, "between/1")
        await huge.execute(BULK.replace("bulk/", "more/"), 15_000)
        await begun.commit()
        await until(lambda: _published(owner))
        await overlaps.commit()
    await emit(owner, "bulk/0")
    await emit(owner, "short/1")
    heads = [await value(owner, "SELECT head FROM hall.feed_state")]
    async with asyncio.timeout(60):
        while heads[-1] < 30_003:
            done = await sequenced(owner)
            heads += [done.head] if done.published and done.head else []
            assert done.waiting or heads[-1] == 30_003
    assert max(b - a for a, b in pairwise([0, *heads])) <= PORTION
    placed = await subjects(owner)
    assert placed[:30_000] == [f"{kind}/{n % 3000}" for kind in ("bulk", "more") for n in range(15_000)]
    assert placed[30_000:] == ["between/1", "bulk/0", "short/1"]
    out_of_order = """
        SELECT count(*) FROM (
            SELECT f.sequence - lag(f.sequence, 1, 0) OVER (ORDER BY f.sequence) AS step, e.subject_sequence
                - lag(e.subject_sequence, 1, 0) OVER (PARTITION BY e.subject ORDER BY f.sequence) AS own_step
            FROM hall.feed f JOIN hall.event e ON e.id = f.event_id) AS steps
        WHERE step <> 1 OR own_step <> 1
    """
    assert await value(owner, out_of_order) == 0
    state = await owner.fetchrow("SELECT unfinished, unfinished_after FROM hall.feed_state")
    assert state is not None
    assert list(state) == [None, None]


async def _published(owner: Owner) -> bool:
    return bool((await sequenced(owner)).published)


async def test_the_sequencer_has_a_time_out_of_its_own(owner: Owner, database: str, tmp_path: Path) -> None:
    """A pass that takes longer than a statement of the pool may is not cut off."""
    await owner.execute(
        """
        CREATE TABLE hall.noted (time_out interval);
        CREATE FUNCTION hall.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO hall.noted VALUES (current_setting('statement_timeout')::interval); RETURN new; END $$;
        CREATE TRIGGER note BEFORE INSERT ON hall.feed FOR EACH ROW EXECUTE FUNCTION hall.note()
        """
    )
    async with running(Settings(home=tmp_path), database, "http://hall"):
        await emit(owner)
        await published(owner, 1)
    time_out = await value(owner, "SELECT time_out FROM hall.noted")
    assert timedelta(seconds=10) < time_out < timedelta(seconds=PASS_SECONDS)


async def spoil(owner: Owner, fr: str, sqlstate: str = "22023") -> None:
    """Let the publication of this request's card fail: its gate cannot be opened."""
    await owner.execute(
        f"""
        CREATE FUNCTION hall.poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no "张三" of 91350200MA00000000' USING ERRCODE = '{sqlstate}'; END $$;
        CREATE TRIGGER a_poison BEFORE UPDATE ON hall.round FOR EACH ROW
            WHEN (new.fr_id = '{fr}' AND new.state = 'open') EXECUTE FUNCTION hall.poison()
        """
    )


async def test_v2_an_event_that_cannot_be_published_holds_no_other_up_and_leaves_no_gap(owner: Owner) -> None:
    bank = await made.bank(owner)
    uscc = await made.enterprise(owner)
    before = [await announce(owner, [bank.outlet_no]) for _ in range(2)]
    bad = await announce(owner, [bank.outlet_no], uscc=uscc)
    after = [await announce(owner, [bank.outlet_no]) for _ in range(3)]
    await emit(owner, "last/1")
    await spoil(owner, bad)
    done = [await sequenced(owner)]
    while done[-1].waiting:
        done.append(await sequenced(owner))
    assert sum(one.unpublishable for one in done) == 1
    rows = await feed_of(owner)
    assert len(rows) == await value(owner, "SELECT count(*) FROM hall.event")
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["subject"] == "last/1"
    assert {(await round_of(owner, fr))["state"] for fr in before + after} == {"open"}
    row = next(row for row in rows if (row["type"], row["subject"]) == ("fin.request.broadcast.v1", f"fr/{bad}"))
    body = orjson.loads(row["body"])
    assert (row["uscc"], row["audience"], row["institution_id"]) == (uscc, None, None)
    assert "data" not in body
    assert int(body["sequence"]) == row["sequence"]
    kept = await owner.fetchrow("SELECT sqlstate, message FROM hall.unpublishable")
    assert tuple(kept or ()) == ("22023", 'no "…" of …'), "nothing of a row is kept"


async def test_a_round_whose_card_cannot_be_published_is_closed_and_its_request_goes_to_a_person(owner: Owner) -> None:
    bad = await announce(owner, [(await made.bank(owner)).outlet_no])
    await spoil(owner, bad)
    await publish_all(owner)
    assert (await round_of(owner, bad))["state"] == "announced"
    assert await value(owner, "SELECT hall.sweep()") == "event unpublishable"
    assert await value(owner, "SELECT hall.sweep()") is None
    assert (await round_of(owner, bad))["state"] == "closed"
    assert await value(owner, "SELECT state FROM hall.financing_request WHERE id = $1", bad) == "assisted"
    event = await value(owner, "SELECT event_id FROM hall.unpublishable")
    cases = await owner.fetch("SELECT kind, subject FROM hall.hall_case WHERE closed_at IS NULL ORDER BY kind")
    assert [tuple(one) for one in cases] == [("assisted", f"fr/{bad}"), ("event-unpublishable", f"event/{event}")]
    await publish_all(owner)
    last = (await feed_of(owner))[-1]
    assert (last["subject"], "data" in orjson.loads(last["body"])) == (f"fr/{bad}", True), "what follows is told"


@pytest.mark.parametrize("sqlstate", ["40001", "53200", "55P03"])
async def test_a_fault_that_waiting_cures_is_no_event_s_own(owner: Owner, sqlstate: str) -> None:
    bad = await announce(owner)
    await spoil(owner, bad, sqlstate)
    with pytest.raises(asyncpg.PostgresError) as raised:
        await publish_all(owner)
    assert raised.value.as_dict()["sqlstate"] == sqlstate
    assert await feed_of(owner) == []
    await owner.execute("DROP TRIGGER a_poison ON hall.round")
    await publish_all(owner)
    assert (await round_of(owner, bad))["state"] == "open"


async def test_only_one_leads_and_another_takes_over_when_it_is_gone(
    owner: Owner, database: str, tmp_path: Path
) -> None:
    async with other(database) as stuck, running(Settings(home=tmp_path), database, "http://hall"):
        begun = stuck.transaction()
        await begun.start()

        async def leads() -> bool:
            return (await sequenced(stuck)).leads

        await until(leads)
        await emit(owner)
        await asyncio.sleep(0.5)
        assert await feed_of(owner) == []
        assert not (await sequenced(owner)).leads
        killed = asyncio.get_running_loop().time()
        await owner.execute("SELECT pg_terminate_backend($1)", stuck.get_server_pid())
        await published(owner, 1)
        assert asyncio.get_running_loop().time() - killed < 5


async def test_the_sequencer_goes_on_after_its_connection_broke(owner: Owner, database: str, tmp_path: Path) -> None:
    async with running(Settings(home=tmp_path), database, "http://hall"):
        for n in range(1, 3):
            await emit(owner)
            await published(owner, n)
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


async def test_a_copy_of_the_database_in_another_cluster_begins_an_epoch_and_loses_nothing(owner: Owner) -> None:
    """There, transaction ids begin anew: those of the old events are higher than any that comes."""
    await emit(owner, "published/1")
    await publish_all(owner)
    await owner.execute(
        "INSERT INTO hall.event (subject, subject_sequence, type, at, actor_role, data, transaction_id) "
        "VALUES ('pending/1', 1, 'fin.test.v1', now(), 'bank', '{}', '900000000000')"
    )
    await owner.execute("UPDATE hall.feed_state SET published_below = '800000000000'")
    await emit(owner, "new/1")
    await publish_all(owner)
    await emit(owner, "new/2")
    done = await publish_all(owner)
    assert done.epoch == 2
    rows = await feed_of(owner)
    assert [(row["epoch"], row["sequence"]) for row in rows] == [(1, 1), (2, 2), (2, 3), (2, 4)]
    assert sorted(row["subject"] for row in rows) == ["new/1", "new/2", "pending/1", "published/1"]


async def test_an_idle_pass_writes_nothing(owner: Owner) -> None:
    state = await owner.fetchrow("SELECT xmin, * FROM hall.feed_state")
    assert not (await sequenced(owner)).published
    assert await owner.fetchrow("SELECT xmin, * FROM hall.feed_state") == state


async def test_what_was_published_is_never_changed(owner: Owner) -> None:
    await emit(owner)
    await publish_all(owner)
    for statement in ("UPDATE hall.feed SET body = '{}'", "DELETE FROM hall.feed", "TRUNCATE hall.feed"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(statement)


async def test_the_envelope_is_a_cloudevent_with_its_place(owner: Owner) -> None:
    institution = await made.institution(owner)
    made_id = await emit(owner, "claim/cl_1", "fin.claim.held.v1", institution=institution)
    await publish_all(owner)
    (row,) = await feed_of(owner)
    body = orjson.loads(row["body"])
    assert "\n" not in row["body"]
    assert datetime.fromisoformat(body.pop("time")).tzinfo is not None
    assert body == {
        "specversion": "1.0", "id": made_id, "source": "/tenants/default", "type": "fin.claim.held.v1",
        "subject": "claim/cl_1", "datacontenttype": "application/json", "dataschema": "/schemas/fin.claim.held.v1",
        "stream": "hall", "epoch": "1", "sequence": "00000000000000000001", "subjectsequence": "1", "actor": "system",
        "data": {},
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- gate


async def round_of(owner: Owner, fr: str) -> asyncpg.Record:
    row = await owner.fetchrow("SELECT * FROM hall.round WHERE fr_id = $1 ORDER BY n DESC", fr)
    assert row is not None
    return row


async def always_at_work(owner: Owner) -> None:
    await owner.execute("UPDATE hall.setting SET value = 0 WHERE name = 'gate_waits_for_working_time'")


async def card_event(owner: Owner, fr: str) -> tuple[asyncpg.Record, dict[str, object]]:
    row = await owner.fetchrow(
        "SELECT * FROM hall.feed WHERE subject = $1 AND type = 'fin.request.broadcast.v1'", f"fr/{fr}"
    )
    assert row is not None
    return row, orjson.loads(row["body"])["data"]


async def test_f1_the_gate_opens_so_long_after_the_card_is_published(owner: Owner) -> None:
    await always_at_work(owner)
    bank = await made.bank(owner)
    fr = await announce(owner, [bank.outlet_no])
    announced = await round_of(owner, fr)
    assert (announced["state"], announced["opens_at"]) == ("announced", None)
    await publish_all(owner)
    shown = await round_of(owner, fr)
    assert shown["state"] == "open"
    assert shown["opens_at"] - shown["published_at"] == timedelta(milliseconds=2000)
    minutes = await value(owner, "SELECT hall.setting('round_minutes')")
    assert shown["closes_at"] == await value(
        owner, "SELECT hall.add_working_minutes($1, $2)", shown["opens_at"], minutes
    )
    row, data = await card_event(owner, fr)
    assert row["audience"] == [bank.outlet_no]
    assert datetime.fromisoformat(str(data["opens_at"])) - shown["opens_at"] < timedelta(milliseconds=1)
    assert {"fr_id", "round", "card", "card_version", "opens_at", "closes_at"} == data.keys()


async def test_f1_a_request_of_the_night_waits_for_the_morning(owner: Owner) -> None:
    beijing = ZoneInfo("Asia/Shanghai")
    night = datetime(2026, 11, 23, 22, 30, tzinfo=beijing)
    await owner.execute("INSERT INTO hall.clock_offset VALUES ('default', $1)", night - datetime.now(beijing))
    requests = [await announce(owner) for _ in range(5)]
    await publish_all(owner)
    opens = [(await round_of(owner, fr))["opens_at"] for fr in requests]
    nine = datetime(2026, 11, 24, 9, tzinfo=beijing)
    assert all(nine <= one <= nine + timedelta(seconds=60) for one in opens)
    assert len(set(opens)) == 5, "rounds of one night neither open nor close at one instant"
    closes = [(await round_of(owner, fr))["closes_at"] for fr in requests]
    assert [one - timedelta(hours=4) for one in closes] == opens
    await owner.execute("UPDATE hall.setting SET value = 0 WHERE name = 'gate_spread_ms'")
    fr = await announce(owner)
    await publish_all(owner)
    assert (await round_of(owner, fr))["opens_at"] == nine


async def test_f1_a_request_withdrawn_before_its_card_was_out_shows_it_to_nobody(owner: Owner) -> None:
    bank = await made.bank(owner)
    uscc = await made.enterprise(owner)
    fr = await announce(owner, [bank.outlet_no], uscc=uscc)
    version = await value(owner, "SELECT version FROM hall.financing_request WHERE id = $1", fr)
    await made.act(owner, made.enterprise_actor(uscc), "withdraw_request", fr_id=fr, version=version, note="no")
    await publish_all(owner)
    row, data = await card_event(owner, fr)
    assert (row["audience"], row["uscc"]) == (None, uscc)
    assert "opens_at" not in data
    assert ((await round_of(owner, fr))["state"], (await round_of(owner, fr))["opens_at"]) == ("closed", None)
    assert [one["type"] for one in await feed_of(owner) if one["audience"]] == [], "nor that it is gone"


async def test_t21_nobody_is_told_that_a_card_is_hidden_or_gone_who_was_not_shown_it(owner: Owner) -> None:
    await always_at_work(owner)
    bank = await made.bank(owner)
    uscc = await made.enterprise(owner)
    fr = await announce(owner, [bank.outlet_no], uscc=uscc)
    heard = "SELECT array_agg(type ORDER BY sequence) FROM hall.feed WHERE audience = $1"
    await order(owner, fr, "suspend")
    await publish_all(owner)
    assert await value(owner, heard, [bank.outlet_no]) is None
    await order(owner, fr, "resume")
    await publish_all(owner)
    for kind in ("suspend", "resume", "suspend"):
        await order(owner, fr, kind)
    await publish_all(owner)
    names = ["resumed", "suspended", "resumed"]
    assert await value(owner, heard, [bank.outlet_no]) == [f"fin.request.{name}.v1" for name in names[:2]]
    own = await value(
        owner, "SELECT count(*) FROM hall.feed WHERE uscc = $1 AND type = 'fin.request.suspended.v1'", uscc
    )
    assert own == 3, "the enterprise hears of each"


async def test_t21_a_suspended_request_keeps_its_card_until_it_is_resumed(owner: Owner) -> None:
    await always_at_work(owner)
    bank = await made.bank(owner)
    fr = await announce(owner, [bank.outlet_no])

    async def order(kind: str) -> None:
        asked = await made.act(owner, made.actor("admin", "one"), "propose_order", fr_id=fr, kind=kind, order_no="1",
                               note="by order")  # fmt: skip
        await made.act(owner, made.actor("admin", "two"), "approve_order", approval_id=asked["approval_id"])

    await order("suspend")
    await publish_all(owner)
    assert (await card_event(owner, fr))[0]["audience"] is None
    assert (await round_of(owner, fr))["state"] == "announced"
    await order("resume")
    await publish_all(owner)
    shown = await round_of(owner, fr)
    assert shown["state"] == "open"
    last = (await feed_of(owner))[-1]
    assert (last["type"], last["audience"]) == ("fin.request.resumed.v1", [bank.outlet_no])
    assert orjson.loads(last["body"])["data"]["card"] == orjson.loads(shown["card"])


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.soak)])
async def test_v2_a_long_write_holds_the_feed_back_and_treats_nobody_unfairly(
    owner: Owner, database: str, tmp_path: Path, seconds: float
) -> None:
    """What commits behind it is published after it, in order, soon; and no gate opens before its card is out."""
    await always_at_work(owner)
    bank = await made.bank(owner)
    async with other(database) as slow, running(Settings(home=tmp_path), database, "http://hall") as service:
        await publish_all(owner)
        before = len(await feed_of(owner))
        begun = slow.transaction()
        await begun.start()
        await emit(slow, "slow/1")
        requests = [await announce(owner, [bank.outlet_no]) for _ in range(3)]
        await asyncio.sleep(seconds)
        assert len(await feed_of(owner)) == before
        assert {(await round_of(owner, fr))["state"] for fr in requests} == {"announced"}
        with pytest.raises(made.Refused) as early:
            await made.act(owner, bank.actor, "grab", fr_id=requests[0], round=1, outlet_id=bank.outlet, card_version=5,
                           product_id=bank.product, product_version=1)  # fmt: skip
        assert early.value.code == "gate-not-open"
        await begun.commit()
        ended = await value(owner, "SELECT hall.hall_now()")
        assert await service.hub.reached(await value(owner, "SELECT count(*) FROM hall.event"), 10)
        heard = await value(owner, "SELECT hall.hall_now()")
    rows = (await feed_of(owner))[before:]
    assert rows[0]["subject"] == "slow/1"
    cards = [row["subject"] for row in rows if row["type"] == "fin.request.broadcast.v1"]
    assert cards == [f"fr/{fr}" for fr in requests]
    for fr in requests:
        shown = await round_of(owner, fr)
        assert ended - timedelta(seconds=0.1) <= shown["published_at"] <= heard
        assert shown["opens_at"] >= shown["published_at"] + timedelta(seconds=2) > heard
    assert all(one["sequence"] + 1 == two["sequence"] for one, two in pairwise(rows))
