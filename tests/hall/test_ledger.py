"""The exposure ledger L1 to L8 against an independent oracle, and under many hands at once."""

import asyncio
import secrets
from typing import Any

import asyncpg
import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from api.invariants import violated
from tests.hall import made
from tests.hall.ledger_oracle import Ledger, Line

MONEY = ("I5", "I6", "I7", "I8", "I10", "I26")
AMOUNTS = st.integers(1, 60)
COLUMNS = (
    "limit_fen",
    "pending_fen",
    "committed_fen",
    "drawn_fen",
    "over_limit_fen",
    "unbound_committed_fen",
    "unbound_drawn_fen",
)


async def balances(connection: Any, uscc: str) -> dict[str, int]:
    row = await connection.fetchrow("SELECT * FROM hall.exposure WHERE uscc = $1", uscc)
    return {name: row[name] for name in COLUMNS}


async def limits(connection: Any, uscc: str) -> tuple[int, int | None]:
    return tuple(
        await connection.fetchrow("SELECT limit_fen, limit_target_fen FROM hall.exposure WHERE uscc = $1", uscc)
    )


async def broken_money(connection: Any) -> dict[str, Any]:
    """The rows that break the invariants of money."""
    return {name: rows for name, rows in (await violated(connection)).items() if rows and name in MONEY}


async def report(owner: Any, bank: made.Bank, name: str, facility: str, amount: int, **more: Any) -> Any:
    """Report a drawdown or repayment of today under a new reference."""
    today = str(await owner.fetchval("SELECT hall.today()"))
    day = (
        {"drawn_on": today, "first_loan": False, "evidence_sha256": made.HASH}
        if "draw" in name
        else {"repaid_on": today}
    )
    args = {"facility_id": facility, "amount_fen": amount, "bank_ref": secrets.token_hex(8)} | day | more
    return await made.act(owner, bank.actor, name, **args)


SCHEMES = ("torch-points", "second")


class LedgerMachine(RuleBasedStateMachine):
    """Any order of quotes, claims, signings, money and corrections: one enterprise, two schemes, three banks."""

    database: str
    facilities = Bundle("facilities")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.owner: Any = self.does(asyncpg.connect(self.database))
        self.banks = [self.does(made.bank(self.owner)) for _ in range(3)]
        self.uscc = ""
        self.oracle = Ledger(0)

    def does(self, work: Any) -> Any:
        async def done() -> Any:
            return await work

        return self.runner.run(done())

    @initialize(target=facilities, limit=st.integers(60, 100), revolving=st.booleans())
    def begins(self, limit: int, revolving: bool) -> str:
        self.uscc = self.does(made.enterprise(self.owner))
        self.a_new_quote(limit, SCHEMES[0])
        return self.signed(*self.claimed(0, 30, SCHEMES[0], True, revolving))

    def claimed(self, bank: int, amount: int, scheme: str, binds: bool, revolving: bool) -> tuple[made.Claim, Line]:
        columns = {"amount_fen": amount, "quote_fen": amount, "quote_binds": binds, "scheme": scheme,
                   "purpose": secrets.token_hex(4)}  # fmt: skip
        fr = self.does(made.request(self.owner, self.uscc, **columns))
        accepted = self.does(made.claim(self.owner, fr, self.banks[bank], "accepted", is_revolving=revolving))
        if binds:
            self.oracle.pending[fr] = amount
        return accepted, Line(bank, amount, revolving, binds, amount)

    def signed(self, accepted: made.Claim, line: Line) -> str:
        facility = self.does(made.sign(self.owner, accepted))["facility_id"]
        self.oracle.pending.pop(accepted.fr, None)
        self.oracle.lines[facility] = line
        return facility

    @rule(limit=st.integers(0, 120), scheme=st.sampled_from(SCHEMES))
    def a_new_quote(self, limit: int, scheme: str) -> None:
        self.does(made.limit(self.owner, self.uscc, limit, scheme=scheme))
        self.oracle.set_limit(scheme, limit)

    @rule(target=claims, bank=st.integers(0, 2), amount=AMOUNTS, scheme=st.sampled_from(SCHEMES), binds=st.booleans(),
          revolving=st.booleans())  # fmt: skip
    def a_claim(self, bank: int, amount: int, scheme: str, binds: bool, revolving: bool) -> Any:
        if not binds or amount <= self.oracle.available(scheme):
            return self.claimed(bank, amount, scheme, binds, revolving)
        with pytest.raises(asyncpg.PostgresError, match="over-limit"):
            self.claimed(bank, amount, scheme, binds, revolving)
        return multiple()

    @rule(given=consumes(claims))
    def it_ends(self, given: tuple[made.Claim, Line]) -> None:
        """L3: the reservation is given back once, however often that is asked."""
        for _ in range(2):
            self.does(self.owner.execute("SELECT hall.void_reservation($1)", given[0].fr))
        self.oracle.pending.pop(given[0].fr, None)
        self.oracle.settle()

    @rule(target=facilities, given=consumes(claims))
    def it_is_signed(self, given: tuple[made.Claim, Line]) -> str:
        return self.signed(*given)

    @rule(facility=facilities, amount=AMOUNTS, kind=st.sampled_from(["drawdown", "drawdown", "repayment"]))
    def money_moves(self, facility: str, amount: int, kind: str) -> None:
        line = self.oracle.lines[facility]
        answer = self.does(report(self.owner, self.banks[line.bank], f"report_{kind}", facility, amount))
        line.draw(amount) if kind == "drawdown" else line.repay(amount)
        line.moved.append((kind, amount))
        self.oracle.settle()
        assert answer["facility"]["outstanding_fen"] == line.drawn + line.beyond

    @rule(facility=facilities, asked=AMOUNTS)
    def the_enterprise_draws(self, facility: str, asked: int) -> None:
        """L4: what it asks is refused beyond the facility, else paid."""
        line, side = self.oracle.lines[facility], made.enterprise_actor(self.uscc)
        ask = made.act(self.owner, side, "ask_drawdown", facility_id=facility, amount_fen=asked)
        if asked > line.undrawn:
            with pytest.raises(made.Refused) as refused:
                self.does(ask)
            assert (refused.value.code, refused.value.members) == ("over-facility", {"available_fen": line.undrawn})
            return
        drawdown = self.does(ask)["drawdown_id"]
        self.does(report(self.owner, self.banks[line.bank], "confirm_drawdown", facility, asked, drawdown_id=drawdown))
        line.draw(asked)
        line.moved.append(("drawdown", asked))
        self.oracle.settle()

    @rule(facility=facilities, which=st.integers(0, 20), amount=st.integers(0, 60))
    def a_bank_corrects(self, facility: str, which: int, amount: int) -> None:
        """L5, on revolving lines: as if the right amount had been reported in the first place."""
        line = self.oracle.lines[facility]
        if not line.moved or not line.revolving:
            return
        place = which % len(line.moved)
        references = self.does(
            self.owner.fetch(
                "SELECT bank_ref FROM hall.bank_reference WHERE facility_id = $1 AND kind <> 'correction' ORDER BY at",
                facility,
            )
        )
        correction = {
            "corrects": references[place]["bank_ref"],
            "bank_ref": secrets.token_hex(8),
            "note": "typing error",
        }
        bank = self.banks[line.bank].actor
        self.does(made.act(self.owner, bank, "correct", facility_id=facility, amount_fen=amount, **correction))
        line.moved[place] = (line.moved[place][0], amount)
        self.oracle.lines[facility] = line.replayed()
        self.oracle.settle()

    @invariant()
    def l1_l2_the_ledger_is_the_oracle(self) -> None:
        if not self.uscc:
            return
        row = self.does(
            self.owner.fetchrow(
                "SELECT *, hall.available(uscc) AS available_fen FROM hall.exposure WHERE uscc = $1", self.uscc
            )
        )
        assert tuple(row[name] for name in COLUMNS) == self.oracle.balances()
        available = max(self.oracle.available(scheme) for scheme in SCHEMES)
        assert (row["limit_target_fen"], row["available_fen"]) == (self.oracle.target, available)

    def teardown(self) -> None:
        broken = self.does(broken_money(self.owner))
        self.does(self.owner.close())
        self.runner.close()
        assert broken == {}


def test_l1_to_l8_the_ledger_agrees_with_plain_arithmetic(database: str) -> None:
    examples = max(10, (settings.default or settings()).max_examples // 4)
    machine = type("Machine", (LedgerMachine,), {"database": database})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=30, phases=[Phase.generate])
    )


# --------------------------------------------------------------------------------------------------- many hands at once


async def test_l4_200_concurrent_draws_over_several_institutions_never_pass_the_limit(
    owner: Any, database: str
) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    lines = [(bank, await made.facility(owner, uscc, bank, 25)) for bank in [await made.bank(owner) for _ in range(4)]]
    side = made.enterprise_actor(uscc)
    async with asyncpg.create_pool(database, min_size=16, max_size=16) as pool:

        async def draw(number: int) -> bool:
            bank, facility = lines[number % 4]
            async with pool.acquire() as connection:
                try:
                    asked = await made.act(connection, side, "ask_drawdown", facility_id=facility, amount_fen=1)
                except made.Refused:
                    return False
                await report(connection, bank, "confirm_drawdown", facility, 1, drawdown_id=asked["drawdown_id"])
                return True

        drawn = await asyncio.gather(*(draw(number) for number in range(200)))
    assert sum(drawn) == 100
    assert (await balances(owner, uscc))["drawn_fen"] == 100
    assert await broken_money(owner) == {}


async def test_l3_concurrent_claims_reserve_no_more_than_the_limit(owner: Any, database: str) -> None:
    """Who is refused at the grab holds no claim yet and learns no amount."""
    uscc = await made.enterprise(owner, limit_fen=100)
    requests = [
        await made.request(owner, uscc, amount_fen=30, quote_fen=30, purpose=f"purpose-{number}")
        for number in range(12)
    ]
    said: set[tuple[str, str]] = set()
    async with asyncpg.create_pool(database, min_size=12, max_size=12) as pool:

        async def reserve(fr: str) -> bool:
            try:
                await pool.execute("SELECT hall.reserve(f, 1) FROM hall.financing_request f WHERE id = $1", fr)
            except asyncpg.PostgresError as error:
                said.add((error.as_dict()["message"], error.as_dict()["detail"]))
                return False
            return True

        assert sum(await asyncio.gather(*(reserve(fr) for fr in requests))) == 3
    assert said == {("over-limit", "{}")}
    assert (await balances(owner, uscc))["pending_fen"] == 90


# ------------------------------------------------------------------------------------------------------- single rules


async def test_l6_a_limit_below_the_sum_waits_and_refuses_new_reservations_until_it_fits(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 80, revolving=False)
    await report(owner, bank, "report_drawdown", facility, 80)
    await made.limit(owner, uscc, 50)
    assert await limits(owner, uscc) == (100, 50)
    fr = await made.request(owner, uscc, amount_fen=1, quote_fen=1, purpose="other")
    with pytest.raises(asyncpg.PostgresError, match="over-limit"):
        await made.claim(owner, fr, bank)
    await report(owner, bank, "report_repayment", facility, 29)
    assert await limits(owner, uscc) == (100, 50)
    await report(owner, bank, "report_repayment", facility, 2)
    assert await limits(owner, uscc) == (50, None)
    assert await owner.fetchval("SELECT hall.available($1)", uscc) == 1


async def test_l1_each_scheme_lends_within_its_own_limit_and_no_scheme_lifts_another(owner: Any) -> None:
    """A larger or an ordinary quote raises nothing that a smaller one binds, and a quote of nothing locks no other."""
    uscc = await made.enterprise(owner, limit_fen=100)
    await made.limit(owner, uscc, 30, scheme="second")
    bank = await made.bank(owner)
    small = await made.request(owner, uscc, amount_fen=31, quote_fen=31, scheme="second", purpose="a")
    with pytest.raises(asyncpg.PostgresError, match="over-limit"):
        await made.claim(owner, small, bank)
    fits = await made.request(owner, uscc, amount_fen=30, quote_fen=30, scheme="second", purpose="b")
    await made.claim(owner, fits, bank)
    await made.limit(owner, uscc, 0, scheme="second")
    assert await limits(owner, uscc) == (100, None)
    rest = await made.request(owner, uscc, amount_fen=70, quote_fen=70, purpose="c")
    await made.claim(owner, rest, bank)
    assert (await balances(owner, uscc))["pending_fen"] == 100
    assert await owner.fetchval("SELECT hall.available($1)", uscc) == 0


async def test_l1_the_quote_of_a_scheme_that_does_not_bind_is_no_limit(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    for number, (scheme, limit) in enumerate((("ordinary", 900), ("torch-points", 50), ("ordinary", 0))):
        decision = f"d{number:024x}"
        await owner.execute(
            """
            INSERT INTO hall.rulebook VALUES ('p', 'p', NULL, 's') ON CONFLICT DO NOTHING
            """
        )
        await owner.execute(
            """
            INSERT INTO hall.decision (id, uscc, as_of, outcome, limit_fen, model_version, policy_version, input_hash,
                asked_by, decided_at, content, text)
            VALUES ($1, $2, '2026-11-01', 'eligible', $3, 'm', 'p', repeat('0', 64), 'made', now(), '{}', '{}')
            """,
            decision, uscc, limit,
        )  # fmt: skip
        await owner.execute(
            "SELECT hall.keep_quote($1, $2, $3, 'eligible', $4, hall.hall_now() + interval '30 days')",
            uscc, scheme, decision, limit,
        )  # fmt: skip
    assert await limits(owner, uscc) == (50, None)
    assert await owner.fetch("SELECT scheme, limit_fen FROM hall.scheme_limit") == [("torch-points", 50)]


async def test_l1_an_expired_limit_stops_new_reservations_and_nothing_else(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 40)
    await owner.execute("INSERT INTO hall.clock_offset VALUES ('default', interval '31 days')")
    assert await owner.fetchval("SELECT hall.available($1)", uscc) == 0
    await report(owner, bank, "report_drawdown", facility, 40)
    assert (await balances(owner, uscc))["drawn_fen"] == 40


@pytest.mark.parametrize(("is_revolving", "left"), [(True, 50), (False, 0)])
async def test_l4_repaid_money_may_be_drawn_again_on_a_revolving_line_only(
    owner: Any, is_revolving: bool, left: int
) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 50, revolving=is_revolving)
    await report(owner, bank, "report_drawdown", facility, 50)
    answer = await report(owner, bank, "report_repayment", facility, 50)
    assert (answer["facility"]["committed_fen"], answer["facility"]["drawn_fen"]) == (left, 0)


async def test_l4b_money_reported_beyond_the_facility_stands_in_over_limit_with_a_red_case(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 100)
    answer = await report(owner, bank, "report_drawdown", facility, 10**15)
    assert answer["facility"]["over_limit_fen"] == 10**15 - 100
    assert (await balances(owner, uscc))["drawn_fen"] == 100
    cases = await owner.fetch("SELECT kind, lamp FROM hall.hall_case WHERE closed_at IS NULL")
    assert [tuple(case) for case in cases] == [("over-limit", "red")]
    assert await broken_money(owner) == {}


async def test_l4_a_repayment_reported_before_its_drawdown_waits_in_a_case_that_the_drawdown_closes(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 100)
    await report(owner, bank, "report_repayment", facility, 30)
    still_open = "SELECT kind FROM hall.hall_case WHERE closed_at IS NULL"
    assert await owner.fetchval(still_open) == "repaid-more-than-due"
    answer = await report(owner, bank, "report_drawdown", facility, 80)
    assert (answer["facility"]["drawn_fen"], answer["facility"]["committed_fen"]) == (50, 50)
    assert await owner.fetch(still_open) == []


async def test_i26_a_repayment_dated_before_its_drawdown_is_a_case_until_the_days_are_in_order(owner: Any) -> None:
    """Its amount is covered, so no other case says it; a correction takes it away, and it is reported anew."""
    uscc = await made.enterprise(owner, limit_fen=100)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 100)
    early = await owner.fetchval("SELECT hall.today()")
    await owner.execute("INSERT INTO hall.clock_offset VALUES ('default', interval '9 days')")
    await report(owner, bank, "report_drawdown", facility, 80)
    wrong = await report(owner, bank, "report_repayment", facility, 30, repaid_on=str(early))
    still_open = "SELECT kind, lamp, subject FROM hall.hall_case WHERE closed_at IS NULL"
    assert await owner.fetch(still_open) == [("repaid-before-drawn", "yellow", f"facility/{facility}")]
    assert await broken_money(owner) == {}
    await owner.execute("DELETE FROM hall.hall_case")
    assert list(await broken_money(owner)) == ["I26"]
    undo = {"corrects": wrong["bank_ref"], "bank_ref": secrets.token_hex(8), "note": "another day"}
    await report(owner, bank, "report_repayment", facility, 20)
    assert await owner.fetch(still_open) == [("repaid-before-drawn", "yellow", f"facility/{facility}")]
    await made.act(owner, bank.actor, "correct", facility_id=facility, amount_fen=0, **undo)
    assert await owner.fetch(still_open) == []
    assert await broken_money(owner) == {}


async def status(owner: Any, bank: made.Bank, facility: str, state: str, line: int | None = None) -> Any:
    """Report how a facility stands today."""
    args = {"state": state, "days_past_due": 0, "five_class": "normal", "restructured": False, "line_fen": line,
            "as_of": str(await owner.fetchval("SELECT hall.today()"))}  # fmt: skip
    return await made.act(owner, bank.actor, "report_status", facility_id=facility, **args)


@pytest.mark.parametrize(
    "held_by", ["money beyond another line", "an unbound facility", "a smaller limit of its scheme"]
)
async def test_l4_a_restored_line_takes_no_room_that_stands_elsewhere(owner: Any, held_by: str) -> None:
    uscc = await made.enterprise(owner, limit_fen=100_000)
    cut, other = await made.bank(owner), await made.bank(owner)
    facility = await made.facility(owner, uscc, cut, 60_000)
    await report(owner, cut, "report_drawdown", facility, 1_000)
    await status(owner, cut, facility, "reduced", 1_000)
    if held_by == "money beyond another line":
        beside = await made.facility(owner, uscc, other, 40_000)
        await report(owner, other, "report_drawdown", beside, 95_000)
        left = 4_000
    elif held_by == "an unbound facility":
        await made.facility(owner, uscc, other, 90_000, quote_binds=False)
        left = 9_000
    else:
        await made.limit(owner, uscc, 100_000, scheme="second")
        await made.limit(owner, uscc, 10_000)
        left = 9_000
    await status(owner, cut, facility, "active")
    row = await owner.fetchrow("SELECT committed_fen, drawn_fen FROM hall.facility WHERE id = $1", facility)
    assert tuple(row) == (left, 1_000)
    assert await broken_money(owner) == {}


@pytest.mark.parametrize("between", [None, "frozen"])
async def test_a_cut_line_stays_cut_until_the_bank_opens_it(owner: Any, between: str | None) -> None:
    uscc, bank = await made.enterprise(owner, limit_fen=100), await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 60)
    await report(owner, bank, "report_drawdown", facility, 10)
    await status(owner, bank, facility, "reduced", 20)
    if between is not None:
        await status(owner, bank, facility, between)
    whole = await status(owner, bank, facility, "active")
    assert (whole["line_fen"], whole["committed_fen"]) == ((60, 50) if between is None else (20, 10))
    if between is not None:
        opened = await status(owner, bank, facility, "active", 60)
        assert (opened["line_fen"], opened["committed_fen"]) == (60, 50)


async def test_l8_a_guard_that_only_informs_lets_it_pass_outside_the_limit_and_says_so(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=10)
    await owner.execute("UPDATE hall.setting SET value = 1 WHERE name = 'guard_informs_only'")
    await made.facility(owner, uscc, await made.bank(owner), 40)
    held = await balances(owner, uscc)
    assert (held["committed_fen"], held["unbound_committed_fen"]) == (0, 40)
    view = "SELECT hall.look_at_exposure($1::text::jsonb, $2) ->> 'guard'"
    assert await owner.fetchval(view, made.json_of(made.enterprise_actor(uscc)), uscc) == "informs-only"


async def test_l8_amounts_that_do_not_bind_reduce_what_binding_products_may_reserve(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    await made.facility(owner, uscc, await made.bank(owner), 70, quote_binds=False)
    assert await owner.fetchval("SELECT hall.available($1)", uscc) == 30
    fr = await made.request(owner, uscc, amount_fen=31, quote_fen=31, purpose="other")
    with pytest.raises(asyncpg.PostgresError, match="over-limit"):
        await made.claim(owner, fr, await made.bank(owner))


async def test_l3_a_smaller_offer_gives_back_the_rest_of_the_reservation(owner: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    fr = await made.request(owner, uscc, amount_fen=60, quote_fen=60)
    await made.claim(owner, fr, await made.bank(owner), "accepted", amount_fen=45)
    assert (await balances(owner, uscc))["pending_fen"] == 45


async def test_l5_nothing_that_was_booked_is_edited_not_even_by_the_owner(owner: Any) -> None:
    for statement in (
        "UPDATE hall.journal SET amount_fen = 1",
        "DELETE FROM hall.journal",
        "TRUNCATE hall.journal CASCADE",
        "DELETE FROM hall.bank_reference",
        "UPDATE hall.correction SET amount_fen = 1",
    ):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await owner.execute(statement)


async def test_the_service_cannot_write_a_balance_itself(owner: Any, pool: Any) -> None:
    uscc = await made.enterprise(owner, limit_fen=100)
    for statement in (
        "UPDATE hall.exposure SET limit_fen = 10000 WHERE uscc = $1",
        "SELECT hall.set_limit($1, 'torch-points', 10000, now())",
        "INSERT INTO hall.first_loan SELECT '-', 1, $1, '-', '-', now()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(statement, uscc)
