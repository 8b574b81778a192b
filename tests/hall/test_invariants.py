"""Every invariant holds on a hall that worked, and each is seen to find what breaks it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.invariants import INVARIANTS, violated
from tests.hall import made
from tests.hall.steps import pass_time, sweep
from tests.hall.test_ledger import report

# What a fault would leave behind, with the guards that stand before it out of the way.
FAULTS: dict[str, Sequence[str]] = {
    "I1": ("ALTER TABLE hall.claim DROP CONSTRAINT one_winner_a_slot", "CALL copied_claim(0)"),
    "I2": ("UPDATE hall.round SET taken = 0",),
    "I3": ("UPDATE hall.round SET opens_at = hall.hall_now()",),
    "I4": ("INSERT INTO hall.fenced_write (claim_id, fence, act, at) SELECT id, 9, 'x', claimed_at FROM hall.claim",),
    "I5": ("DELETE FROM hall.hall_case",),
    "I6": ("UPDATE hall.exposure SET unbound_drawn_fen = 7",),
    "I7": ("UPDATE hall.exposure_share SET drawn_fen = drawn_fen - 1 WHERE drawn_fen > 0",),
    "I8": ("UPDATE hall.reservation SET state = 'pending', resolved_at = NULL",),
    "I9": ("UPDATE hall.idempotency SET status = NULL",),
    "I10": (
        "ALTER TABLE hall.facility DROP CONSTRAINT contract_number_is_used_once",
        "UPDATE hall.facility SET contract_no = 'same', institution_id = 'same'",
    ),
    "I11": ("UPDATE hall.history SET from_state = 'draft' WHERE to_state = 'claimed'",),
    "I12": ("UPDATE hall.event SET subject_sequence = subject_sequence + 900 WHERE subject_sequence = 1",),
    "I13": ("INSERT INTO hall.clock_offset VALUES ('default', interval '6 s')",),
    "I14": ("UPDATE hall.claim SET hold_cap = 0",),
    "I15": ("INSERT INTO hall.clock_offset VALUES ('default', interval '900 days')",),
    "I16": ("UPDATE hall.claim SET state = 'lapsed', deadline = NULL, ended_at = claimed_at", "CALL copied_claim(1)"),
    "I17": (
        """
        INSERT INTO hall.access_log (at, client_id, institution_id, uscc, what, purpose, consent_id)
        SELECT hall.hall_now() - interval '9 days', 'x', c.institution_id, k.uscc, 'dossier', 'financing', k.id
        FROM hall.claim c, hall.consent k LIMIT 1
        """,
    ),
    "I23": ("DROP INDEX hall.one_open_request", "UPDATE hall.financing_request SET purpose = 'same', state = 'quoted'"),
    "I26": ("UPDATE hall.drawdown SET drawn_on = drawn_on - 90",),
    "I27": ("UPDATE hall.financing_request SET is_under_appeal = true",),
}
ALWAYS_ON = """
SELECT t.tgrelid::regclass::text AS name, t.tgname
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE t.tgenabled = 'A' AND c.relnamespace = 'hall'::regnamespace
"""
COPIED = """
CREATE PROCEDURE copied_claim(p_round integer) LANGUAGE plpgsql AS $$
DECLARE one hall.claim;
BEGIN
    SELECT * INTO one FROM hall.claim LIMIT 1;
    one.id := 'copy'; one.round := one.round + p_round; one.fence := one.fence + 1000;
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


async def test_each_finds_what_breaks_it(owner: Any) -> None:
    """Every fault is made in a transaction that is taken back, with the database's own guards switched off."""
    await worked(owner)
    missed = []
    for one in INVARIANTS:
        block = owner.transaction()
        await block.start()
        await owner.execute(COPIED)
        await owner.execute("SET LOCAL session_replication_role = replica")
        for table in await owner.fetch(ALWAYS_ON):
            await owner.execute(f"ALTER TABLE {table['name']} DISABLE TRIGGER {table['tgname']}")
        for statement in FAULTS[one.name]:
            await owner.execute(statement)
        if not await owner.fetch(one.sql):
            missed.append(one.name)
        await block.rollback()
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
