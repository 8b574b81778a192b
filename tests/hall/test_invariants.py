"""Every invariant holds on a hall that worked, and each is seen to find what breaks it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.invariants import INVARIANTS, violated
from api.migrating import migrate
from api.postgres import Postgres
from api.settings import Settings
from tests.hall import made
from tests.hall.steps import order, pass_time, publish, sweep
from tests.hall.test_ledger import report

SAME_CAUSE = "UPDATE hall.claim SET cause = '00000000-0000-0000-0000-000000000001'"
NEGATIVE = "ALTER DOMAIN hall.fen DROP CONSTRAINT fen_is_not_negative"
# What faults leave behind, with the guards before them out of the way: for each part of an invariant one at least.
FAULTS: dict[str, Sequence[Sequence[str]]] = {
    "I1": [("ALTER TABLE hall.claim DROP CONSTRAINT one_winner_a_slot", "CALL copied_claim(0)")],
    "I2": [("UPDATE hall.round SET taken = 0",)],
    "I3": [("UPDATE hall.round SET opens_at = hall.hall_now()",)],
    "I4": [
        ("ALTER TABLE hall.claim DROP CONSTRAINT fences_are_not_reused", "CALL copied_claim(1, 0)"),
        ("INSERT INTO hall.fenced_write (claim_id, fence, act, at) SELECT id, 9, 'x', claimed_at FROM hall.claim",),
    ],
    "I5": [
        (NEGATIVE, "UPDATE hall.exposure SET pending_fen = -1"),
        (
            "ALTER TABLE hall.exposure DROP CONSTRAINT never_over_lend",
            "UPDATE hall.exposure SET drawn_fen = limit_fen + 1",
        ),
        (NEGATIVE, "UPDATE hall.exposure_share SET unbound_drawn_fen = -1"),
        ("DELETE FROM hall.hall_case",),
    ],
    "I6": [("UPDATE hall.exposure SET unbound_drawn_fen = 7",), ("UPDATE hall.facility SET over_limit_fen = 9",)],
    "I7": [
        ("UPDATE hall.exposure_share SET drawn_fen = drawn_fen - 1 WHERE drawn_fen > 0",),
        ("UPDATE hall.facility SET over_limit_fen = over_limit_fen + 1",),
    ],
    "I8": [
        ("UPDATE hall.claim SET ended_at = claimed_at, state = 'lapsed', deadline = NULL",),
        (
            """
            INSERT INTO hall.journal
                (uscc, kind, from_account, to_account, to_institution, amount_fen, reservation_id, at)
            SELECT uscc, kind, from_account, to_account, to_institution, amount_fen, reservation_id, at
            FROM hall.journal WHERE kind = 'commit' AND to_account = 'committed'
            """,
        ),
        ("UPDATE hall.exposure SET pending_fen = pending_fen + 1",),
    ],
    "I9": [
        ("UPDATE hall.idempotency SET status = NULL",),
        (
            "ALTER TABLE hall.idempotency DROP CONSTRAINT idempotency_client_id_method_path_key_key",
            "UPDATE hall.idempotency SET client_id = 'same', path = 'same', key = 'same'",
        ),
        (SAME_CAUSE,),
    ],
    "I10": [
        (
            "ALTER TABLE hall.repayment DROP CONSTRAINT repayment_institution_id_bank_ref_key",
            "UPDATE hall.repayment SET bank_ref = 'same', institution_id = 'same'",
        ),
        (
            "ALTER TABLE hall.facility DROP CONSTRAINT contract_number_is_used_once",
            "UPDATE hall.facility SET contract_no = 'same', institution_id = 'same'",
        ),
    ],
    "I11": [
        ("UPDATE hall.history SET from_state = 'draft' WHERE to_state = 'claimed'",),
        ("UPDATE hall.history SET seq = seq + 900",),
        ("UPDATE hall.claim SET version = version + 1",),
    ],
    "I12": [
        ("UPDATE hall.event SET subject_sequence = subject_sequence + 900 WHERE subject_sequence = 1",),
        ("UPDATE hall.event SET subject = 'claim/' || id WHERE subject LIKE 'fr/%'",),
    ],
    "I13": [
        ("DELETE FROM hall.feed WHERE sequence = 2",),
        ("UPDATE hall.event SET subject_sequence = subject_sequence + 900 WHERE subject_sequence = 1",),
        ("DELETE FROM hall.feed", "INSERT INTO hall.clock_offset VALUES ('default', interval '6 s')"),
    ],
    "I14": [("UPDATE hall.claim SET hold_cap = 0",)],
    "I15": [
        ("INSERT INTO hall.clock_offset VALUES ('default', interval '900 days')",),
        ("""UPDATE hall.history SET reason = '{"due": "2999-01-01T00:00:00Z"}' WHERE seq = 1""",),
    ],
    "I16": [("UPDATE hall.claim SET state = 'lapsed', deadline = NULL, ended_at = claimed_at", "CALL copied_claim(1)")],
    "I17": [
        (
            """
            INSERT INTO hall.access_log (at, client_id, institution_id, uscc, what, purpose, consent_id)
            SELECT hall.hall_now() - interval '9 days', 'x', c.institution_id, k.uscc, 'dossier', 'financing', k.id
            FROM hall.claim c, hall.consent k LIMIT 1
            """,
        ),
    ],
    "I23": [
        ("DROP INDEX hall.one_open_request", "UPDATE hall.financing_request SET purpose = 'same', state = 'quoted'"),
        (
            "DROP INDEX hall.a_first_loan_is_counted_once",
            """
            INSERT INTO hall.first_loan (facility_id, no, uscc, institution_id, evidence_sha256, counted_at)
            SELECT id, n, uscc, institution_id, document_sha256, hall.hall_now()
            FROM hall.facility, generate_series(1, 2) AS n
            """,
        ),
    ],
    "I26": [
        ("UPDATE hall.drawdown SET drawn_on = drawn_on - 90",),
        ("UPDATE hall.repayment SET repaid_on = repaid_on - 90",),
        ("UPDATE hall.drawdown SET drawn_on = drawn_on + 1",),
        ("UPDATE hall.facility SET signed_on = signed_on + 30",),
    ],
    "I27": [
        ("UPDATE hall.financing_request SET is_under_appeal = true",),
        (
            """
            INSERT INTO hall.appeal (id, uscc, fr_id, concerns, reason, text, contact_minutes, opinion_minutes, case_id,
                opened_by, opened_at)
            SELECT 'al', uscc, id, '{}', 'other', 'x', 1, 1, 'none', 'x', hall.hall_now()
            FROM hall.financing_request LIMIT 1
            """,
            "INSERT INTO hall.appeal_opinion VALUES ('al', 'upheld', 'x', 'x', hall.hall_now())",
        ),
        (
            """
            INSERT INTO hall.rating (id, claim_id, uscc, institution_id, outlet_id, stars, reasons, rated_by, rated_at)
            SELECT 'rt', id, '91350200MA00000001', institution_id, outlet_id, 5, '{}', 'x', hall.hall_now()
            FROM hall.claim LIMIT 1
            """,
        ),
    ],
}
ALWAYS_ON = """
SELECT t.tgrelid::regclass::text AS name, t.tgname
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE t.tgenabled = 'A' AND c.relnamespace = 'hall'::regnamespace
"""
COPIED = """
CREATE PROCEDURE copied_claim(p_round integer, p_fence bigint DEFAULT 1000) LANGUAGE plpgsql AS $$
DECLARE one hall.claim;
BEGIN
    SELECT * INTO one FROM hall.claim LIMIT 1;
    one.id := 'copy'; one.round := one.round + p_round; one.fence := one.fence + p_fence;
    INSERT INTO hall.claim VALUES (one.*);
END $$
"""


async def worked(owner: Any) -> None:
    """A hall in which two loans were made, one of them drawn beyond its line."""
    bank = await made.bank(owner)
    for _ in range(2):
        uscc = await made.enterprise(owner, limit_fen=100)
        facility = await made.facility(owner, uscc, await made.bank(owner), 50)
        row = await owner.fetchrow("SELECT institution_id, moved_by FROM hall.facility WHERE id = $1", facility)
        lender = made.Bank(row["institution_id"], "", 0, "", row["moved_by"])
        await report(owner, lender, "report_drawdown", facility, 60)
        await report(owner, lender, "report_repayment", facility, 5)
        await made.claim(owner, await made.request(owner, uscc, amount_fen=20, purpose="other"), bank)


async def test_all_hold_on_a_hall_that_worked(owner: Any) -> None:
    await worked(owner)
    assert {name: rows for name, rows in (await violated(owner)).items() if rows} == {}


def test_every_invariant_of_the_tables_is_there() -> None:
    assert [one.name for one in INVARIANTS] == [*(f"I{n}" for n in range(1, 18)), "I23", "I26", "I27"]
    assert sorted(FAULTS) == sorted(one.name for one in INVARIANTS)


def parts(sql: str) -> list[str]:
    """The queries that an invariant's own UNION ALL joins, each with what stands WITH them."""
    depth, starts = 0, [0]
    first = -1
    for found in re.finditer(r"[()]|\bSELECT\b|\bUNION ALL\b", sql):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth == 0 and found[0] == "SELECT" and first < 0:
            first = found.start()
        if depth == 0 and found[0] == "UNION ALL":
            starts.append(found.end())
    ends = [*(start - len("UNION ALL") for start in starts[1:]), len(sql)]
    return [sql[:first] + sql[max(start, first) : end] for start, end in zip(starts, ends, strict=True)]


async def test_each_part_of_each_finds_what_breaks_it(owner: Any) -> None:
    """Every fault is made in a transaction that is taken back, with the database's own guards switched off."""
    await worked(owner)
    await publish(owner)
    missed = []
    for one in INVARIANTS:
        unseen = set(parts(one.sql))
        for no, fault in enumerate(FAULTS[one.name]):
            block = owner.transaction()
            await block.start()
            await owner.execute(COPIED)
            await owner.execute("SET LOCAL session_replication_role = replica")
            for table in await owner.fetch(ALWAYS_ON):
                await owner.execute(f"ALTER TABLE {table['name']} DISABLE TRIGGER {table['tgname']}")
            for statement in fault:
                await owner.execute(statement)
            found = {part for part in parts(one.sql) if await owner.fetch(part)}
            unseen -= found
            if not found:
                missed.append((one.name, no))
            await block.rollback()
        missed += [(one.name, part) for part in unseen]
    assert missed == []


@pytest.mark.parametrize("how", ["by a sister outlet", "after the lease, unswept", "after the lease, swept late"])
async def test_i17_sees_a_limit_shown_under_a_claim_that_was_not_the_readers_any_more(owner: Any, how: str) -> None:
    (i17,) = [one for one in INVARIANTS if one.name == "I17"]
    bank = await made.bank(owner)
    fr = await made.request(owner, await made.enterprise(owner, limit_fen=100), amount_fen=20)
    claim = await made.claim(owner, fr, bank)
    sister, _ = await made.outlet(owner, bank.institution)
    outlet = sister if how == "by a sister outlet" else bank.outlet
    reader = await made.client(owner, "bank", institution_id=bank.institution, outlet_id=outlet)
    look = """
        INSERT INTO hall.access_log (at, client_id, institution_id, uscc, what, purpose, consent_id)
        SELECT c.claimed_at + $2::interval, $1, c.institution_id, f.uscc, 'limit', 'financing', f.consent_id
        FROM hall.claim c JOIN hall.financing_request f ON f.id = c.fr_id
    """
    if how != "by a sister outlet":
        await owner.execute(look, reader, timedelta(minutes=1))
        assert await owner.fetch(i17.sql) == []
    await owner.execute(look, reader, timedelta(minutes=1 if outlet == sister else 30))
    assert len(await owner.fetch(i17.sql)) == (outlet == sister)
    if outlet == sister:
        return
    await owner.execute("UPDATE hall.claim SET deadline = claimed_at + interval '20 min' WHERE id = $1", claim.id)
    if how.endswith("swept late"):
        await pass_time(owner, hours=1)
        assert "claim lapsed" in await sweep(owner)
    assert len(await owner.fetch(i17.sql)) == 1


async def test_i17_knows_the_end_of_a_lease_to_the_microsecond(owner: Any) -> None:
    """The move of a lapsed claim keeps the whole instant, or a look in its last millisecond would seem too late."""
    (i17,) = [one for one in INVARIANTS if one.name == "I17"]
    bank = await made.bank(owner)
    fr = await made.request(owner, await made.enterprise(owner, limit_fen=100), amount_fen=20)
    claim = await made.claim(owner, fr, bank)
    ends = await owner.fetchval(
        "UPDATE hall.claim SET deadline = date_trunc('second', claimed_at) + interval '60.000999 s' RETURNING deadline"
    )
    await pass_time(owner, hours=1)
    assert "claim lapsed" in await sweep(owner)
    for at, is_seen in ((ends - timedelta(microseconds=1), False), (ends, True)):
        await owner.execute(
            """
            INSERT INTO hall.access_log (at, client_id, institution_id, uscc, what, purpose, consent_id)
            SELECT $2, $3, $4, uscc, 'limit', 'financing', consent_id FROM hall.financing_request WHERE id = $1
            """,
            fr,
            at,
            await made.client(owner, "bank", institution_id=bank.institution, outlet_id=bank.outlet),
            bank.institution,
        )
        assert bool(await owner.fetch(i17.sql)) == is_seen, (claim.id, at)


async def test_i17_allows_a_look_while_an_order_stops_the_claims_clock(owner: Any) -> None:
    """X2: the claim lives by the clock as it stood, during the order and when it is looked back at."""
    (i17,) = [one for one in INVARIANTS if one.name == "I17"]
    bank = await made.bank(owner)
    fr = await made.request(owner, await made.enterprise(owner, limit_fen=100), amount_fen=20)
    claim = await made.claim(owner, fr, bank)
    look = "SELECT hall.look_at_dossier($1::text::jsonb, $2) ->> 'uscc'"
    await order(owner, fr, "suspend")
    await pass_time(owner, days=9)
    assert await owner.fetchval(look, made.json_of(bank.actor), claim.id) == claim.uscc
    assert await owner.fetch(i17.sql) == []
    await order(owner, fr, "resume")
    assert await owner.fetch(i17.sql) == []
    await order(owner, fr, "suspend")
    await owner.execute("UPDATE hall.claim SET deadline = claimed_at + interval '1 hour'")
    assert await owner.fetchval(look, made.json_of(bank.actor), claim.id) is None
    assert len(await owner.fetch(i17.sql)) == 1, "a claim that was over when the order came"


async def test_jifen_invariants_prints_each_and_exits_1_when_one_is_broken(
    owner: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asyncio import to_thread

    monkeypatch.setenv("JIFEN_DATABASE_URL", database)
    monkeypatch.setenv("COLUMNS", "200")
    fine = await to_thread(CliRunner().invoke, app, ["invariants"])
    assert fine.exit_code == 0, fine.output
    assert all(one.name in fine.output for one in INVARIANTS)
    await worked(owner)
    await owner.execute("DELETE FROM hall.hall_case")
    broken = await to_thread(CliRunner().invoke, app, ["invariants", "--watch", "1"])
    assert broken.exit_code == 1, broken.output


def test_a_database_that_goes_away_breaks_no_invariant(
    made_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch goes on after a fast shutdown, and ends with 1 at a row alone; a single look ends with 2."""
    monkeypatch.setenv("COLUMNS", "200")
    with Postgres(made_home, Settings().postgres_bin, {"fsync": "off"}) as postgres:
        address = {"JIFEN_DATABASE_URL": postgres.url()}
        said = tmp_path / "said"
        asyncio.run(migrate(postgres.url()))
        with said.open("w") as out:
            watching = subprocess.Popen(
                [sys.executable, "-c", "from api.cli import app; app()", "invariants", "--watch", "0.2"],
                env=os.environ | address,
                stdout=out,
                stderr=out,
            )
            try:
                waited(lambda: "I27" in said.read_text())
                server = postgres.pid()
                assert server is not None
                os.kill(server, signal.SIGINT)  # what `pg_ctl stop -m fast` sends
                waited(lambda: "the database does not answer" in said.read_text())
                time.sleep(1)
                assert watching.poll() is None, said.read_text()
                assert "Traceback" not in said.read_text()
                once = CliRunner().invoke(app, ["invariants"], env=address)
                assert once.exit_code == 2, once.output
                assert once.output.startswith("overloaded:")
            finally:
                watching.kill()
                watching.wait()


def waited(seen: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < until
        time.sleep(0.1)
