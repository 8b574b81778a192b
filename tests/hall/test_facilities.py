"""The facility's machine, T15 to T17, and who may report, ask and see, over real HTTP."""

import secrets
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.feeding import until, value
from tests.hall.steps import order

FIRST = {"first_loan": True, "evidence_sha256": made.HASH}


@pytest.fixture
async def hall(database: str, home: Path) -> AsyncIterator[Hall]:
    async with serving(database, home) as serves:
        yield serves


@pytest.fixture
async def today(hall: Hall) -> Any:
    return await hall.owner.fetchval("SELECT hall.today()")


def reference() -> str:
    return secrets.token_hex(6)


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").removeprefix("/problems/")


async def state(hall: Hall, fr: str) -> Any:
    return await hall.owner.fetchval("SELECT state FROM hall.financing_request WHERE id = $1", fr)


async def report(client: Client, facility: str, today: date, **said: Any) -> Any:
    body = {"as_of": str(today), "days_past_due": 0, "five_class": "normal"} | said
    return await client.post(f"/v1/facilities/{facility}/status", body)


async def test_t15_to_t17_a_loan_from_its_signing_to_its_end(hall: Hall, today: date) -> None:
    """T15, K8, F1, L4, F2, T16, F9, T17 in order, each by its own party."""
    uscc = await made.enterprise(hall.owner, limit_fen=100_000)
    bank = await made.bank(hall.owner)
    claim = await made.claim(hall.owner, await made.request(hall.owner, uscc, amount_fen=60_000), bank, "accepted")
    teller = await hall.client("bank", institution=bank.institution)
    firm = await hall.client("enterprise", uscc=uscc)
    signing = {"claim_id": claim.id, "contract_no": "闽农银2026字第001号", "document_sha256": made.HASH,
               "signed_on": str(today), "line_ends_on": str(today + timedelta(days=360))}  # fmt: skip
    assert code(await teller.post("/v1/facilities", signing)) == (428, "precondition-required")
    teller.headers["Claim-Fence"] = str(claim.fence + 1)
    assert code(await teller.post("/v1/facilities", signing)) == (412, "stale-fence")
    teller.headers["Claim-Fence"] = str(claim.fence)
    signed = await teller.post("/v1/facilities", signing)
    assert signed.status_code == 201, signed.text
    facility = signed.json()["facility_id"]
    way = f"/v1/facilities/{facility}"
    assert (await state(hall, claim.fr), signed.json()["committed_fen"]) == ("signed", 60_000)

    asked = await firm.post(f"{way}/drawdowns", {"amount_fen": 40_000})
    assert (asked.status_code, asked.json()["state"]) == (201, "asked")
    assert code(await firm.post(f"{way}/drawdowns", {"amount_fen": 20_001})) == (422, "over-facility")
    paid = {"bank_ref": reference(), "drawn_on": str(today)}
    confirm = f"{way}/drawdowns/{asked.json()['drawdown_id']}/confirm"
    silent = await teller.post(confirm, paid)
    assert [one["pointer"] for one in silent.json()["errors"]] == ["/first_loan", "/evidence_sha256"]
    assert (await teller.post(confirm, paid | FIRST)).status_code == 200
    assert await state(hall, claim.fr) == "active"
    assert await hall.owner.fetchval("SELECT facility_id FROM hall.first_loan WHERE uscc = $1", uscc) == facility

    back = {"amount_fen": 40_000, "bank_ref": paid["bank_ref"], "repaid_on": str(today)}
    assert code(await teller.post(f"{way}/repayments", back)) == (422, "bank-ref-reused")
    assert code(await report(teller, facility, today, state="settled")) == (409, "illegal-transition")
    assert (await teller.post(f"{way}/repayments", back | {"bank_ref": reference()})).status_code == 201
    assert (await report(teller, facility, today, state="settled")).status_code == 200
    assert await state(hall, claim.fr) == "CLOSED"
    seen = (await firm.get(way)).json()
    assert (seen["state"], seen["outstanding_fen"], seen["committed_fen"], len(seen["drawdowns"])) == (
        "settled",
        0,
        0,
        1,
    )


class Signed:
    """A facility of 50,000 fen, drawn to 20,000, with the clients of both sides."""

    def __init__(self, hall: Hall, today: date) -> None:
        self.hall = hall
        self.today = today

    async def begin(self) -> "Signed":
        owner = self.hall.owner
        self.uscc = await made.enterprise(owner, limit_fen=100_000)
        self.bank = await made.bank(owner)
        self.facility = await made.facility(owner, self.uscc, self.bank, 50_000)
        self.teller = await self.hall.client("bank", institution=self.bank.institution)
        self.firm = await self.hall.client("enterprise", uscc=self.uscc)
        drawn = {"amount_fen": 20_000, "bank_ref": reference(), "drawn_on": str(self.today)} | FIRST
        assert (await self.teller.post(f"/v1/facilities/{self.facility}/drawdowns", drawn)).status_code == 201
        return self


@pytest.fixture
async def line(hall: Hall, today: date) -> Signed:
    return await Signed(hall, today).begin()


async def test_api10_a_report_that_cannot_be_true_is_refused_without_effect(line: Signed) -> None:
    for wrong, pointer in (
        ({"amount_fen": 0}, "/amount_fen"),
        ({"amount_fen": -5}, "/amount_fen"),
        ({"amount_fen": 10**18}, "/amount_fen"),
        ({"amount_fen": 1.5}, "/amount_fen"),
        ({"bank_ref": "=cmd()"}, "/bank_ref"),
        ({"bank_ref": "<b>"}, "/bank_ref"),
        ({"repaid_on": "2999-01-01"}, "/repaid_on"),
        ({"repaid_on": "2001-01-01"}, "/repaid_on"),
        ({"status": "settled"}, "/status"),
    ):
        body = {"amount_fen": 5, "bank_ref": reference(), "repaid_on": str(line.today)} | wrong
        answer = await line.teller.post(f"/v1/facilities/{line.facility}/repayments", body)
        assert code(answer) == (422, "validation")
        assert {one["pointer"] for one in answer.json()["errors"]} == {pointer}
    assert await line.hall.owner.fetchval("SELECT count(*) FROM hall.repayment") == 0


async def test_api1_another_banks_facility_does_not_exist(line: Signed) -> None:
    stranger = await line.hall.client("bank", institution=await line.hall.institution("别行"))
    other_firm = await line.hall.client("enterprise", uscc=await made.enterprise(line.hall.owner))
    way = f"/v1/facilities/{line.facility}"
    for who in (stranger, other_firm):
        assert (await who.get(way)).status_code == 404
    back = {"amount_fen": 5, "bank_ref": reference(), "repaid_on": str(line.today)}
    assert (await stranger.post(f"{way}/repayments", back)).status_code == 404
    assert (await report(stranger, line.facility, line.today, state="frozen")).status_code == 404
    assert code(await other_firm.post(f"{way}/drawdowns", {"amount_fen": 5})) == (404, "not-found")
    assert code(await line.firm.post(f"{way}/repayments", back)) == (403, "scope-missing")


async def test_p11_exposure_is_itemised_for_the_firm_totals_for_the_holder_and_nothing_for_others(line: Signed) -> None:
    """hall.md §11, row "other institutions' exposure"."""
    way = f"/v1/enterprises/{line.uscc}/exposure"
    own = (await line.firm.get(way)).json()
    assert [one["institution_id"] for one in own["institutions"]] == [line.bank.institution]
    assert (own["limit_fen"], own["available_fen"], own["guard"]) == (100_000, 50_000, "refuses")
    holder = await made.bank(line.hall.owner)
    fr = await made.request(line.hall.owner, line.uscc, amount_fen=10_000, purpose="other")
    client = await line.hall.client("bank", institution=holder.institution)
    assert (await client.get(way)).status_code == 404
    await made.claim(line.hall.owner, fr, holder)
    seen = await client.get(way)
    assert (seen.json()["drawn_fen"], seen.json()["pending_fen"]) == (20_000, 10_000)
    assert line.bank.institution not in seen.text
    assert not {"institutions", "facilities", "reservations", "limit_fen"} & set(seen.json())
    assert (await line.teller.get(way)).status_code == 404, "a claim that is done is no live claim"


async def test_f_states_move_along_their_edges_and_frozen_lines_lend_nothing(line: Signed) -> None:
    way = f"/v1/facilities/{line.facility}"
    assert (await report(line.teller, line.facility, line.today, state="frozen")).json()["state"] == "frozen"
    assert code(await line.firm.post(f"{way}/drawdowns", {"amount_fen": 5})) == (409, "illegal-transition")
    late = await report(
        line.teller, line.facility, line.today, state="overdue", days_past_due=91, five_class="substandard"
    )
    assert late.json()["state"] == "overdue"
    cut = await report(line.teller, line.facility, line.today, state="reduced", line_fen=10_000)
    assert (cut.json()["state"], cut.json()["committed_fen"], cut.json()["over_limit_fen"]) == ("reduced", 0, 0)
    whole = await report(line.teller, line.facility, line.today, state="active")
    assert (whole.json()["line_fen"], whole.json()["committed_fen"]) == (50_000, 30_000)
    lost = await report(line.teller, line.facility, line.today, state="written_off", written_off_fen=20_000)
    assert (lost.json()["state"], lost.json()["outstanding_fen"]) == ("written_off", 20_000)
    assert code(await report(line.teller, line.facility, line.today, state="active")) == (409, "illegal-transition")
    made_good = await report(
        line.teller, line.facility, line.today, state="compensated", compensated_fen=20_000, bank_ref=reference()
    )
    assert (made_good.json()["state"], made_good.json()["outstanding_fen"]) == ("compensated", 0)
    assert await state(line.hall, made_good.json()["fr_id"]) == "CLOSED"


async def test_a_status_report_names_every_broken_rule_at_once(line: Signed) -> None:
    wrong = await report(line.teller, line.facility, line.today + timedelta(days=9), state="active", days_past_due=3,
                         written_off_fen=5, bank_ref="x1")  # fmt: skip
    assert [one["pointer"] for one in wrong.json()["errors"]] == ["/as_of", "/state", "/written_off_fen", "/bank_ref"]


async def test_f8_a_renewal_makes_room_for_the_new_facility_and_the_old_one_ends_when_repaid(line: Signed) -> None:
    owner = line.hall.owner
    fr = await made.request(owner, line.uscc, amount_fen=45_000, purpose="other")
    claim = await made.claim(owner, fr, line.bank, "accepted")
    signed = await made.sign(owner, claim, renewed_from=line.facility)
    assert signed["renewed_from"] == line.facility
    old = (await line.firm.get(f"/v1/facilities/{line.facility}")).json()
    assert (old["state"], old["committed_fen"], old["outstanding_fen"]) == ("renewed", 0, 20_000)
    back = {"amount_fen": 20_000, "bank_ref": reference(), "repaid_on": str(line.today)}
    answer = await line.teller.post(f"/v1/facilities/{line.facility}/repayments", back)
    assert answer.json()["facility"]["state"] == "settled"
    assert await state(line.hall, old["fr_id"]) == "CLOSED"


async def test_f8_a_facility_is_renewed_once_and_renews_one(line: Signed) -> None:
    """Nor again when it went overdue after its renewal; and what a facility renews is not named anew."""
    owner = line.hall.owner
    numbers = iter("abc")

    async def accepted() -> made.Claim:
        fr = await made.request(owner, line.uscc, amount_fen=1_000, quote_fen=1_000, purpose=next(numbers))
        return await made.claim(owner, fr, line.bank, "accepted")

    new = (await made.sign(owner, await accepted(), renewed_from=line.facility))["facility_id"]
    late = await report(line.teller, line.facility, line.today, state="overdue", days_past_due=9)
    assert late.json()["state"] == "overdue"
    with pytest.raises(made.Refused, match="validation") as refused:
        await made.sign(owner, await accepted(), renewed_from=line.facility)
    assert [one["pointer"] for one in refused.value.members["errors"]] == ["/renewed_from"]
    third = (await made.sign(owner, await accepted()))["facility_id"]
    for facility, named in ((third, line.facility), (new, third)):
        drawn = {"amount_fen": 5, "bank_ref": reference(), "drawn_on": str(line.today)} | FIRST
        assert (await line.teller.post(f"/v1/facilities/{facility}/drawdowns", drawn)).status_code == 201
        again = await report(line.teller, facility, line.today, state="active", renewed_from=named)
        assert code(again) == (422, "validation"), again.text
        assert [one["pointer"] for one in again.json()["errors"]] == ["/renewed_from"]
    same = await report(line.teller, new, line.today, state="active", renewed_from=line.facility)
    assert (same.status_code, same.json()["renewed_from"]) == (200, line.facility)


async def test_f10_f11_a_renewed_facility_may_default_and_the_rest_after_a_compensation_be_written_off(
    line: Signed,
) -> None:
    owner, at = line.hall.owner, f"/v1/facilities/{line.facility}"
    fr = await made.request(owner, line.uscc, amount_fen=1_000, quote_fen=1_000, purpose="renewal")
    await made.sign(owner, await made.claim(owner, fr, line.bank, "accepted"), renewed_from=line.facility)
    said = {"as_of": str(line.today), "five_class": "doubtful", "restructured": False}
    overdue = said | {"state": "overdue", "days_past_due": 91}
    assert (await line.teller.post(f"{at}/status", overdue)).json()["state"] == "overdue"
    paid = said | {"state": "compensated", "days_past_due": 91, "compensated_fen": 12_000, "bank_ref": reference()}
    assert (await line.teller.post(f"{at}/status", paid)).json()["outstanding_fen"] == 8_000
    assert await owner.fetchval("SELECT deadline FROM hall.facility WHERE id = $1", line.facility) is not None
    lost = said | {"state": "written_off", "days_past_due": 91, "five_class": "loss", "written_off_fen": 8_000}
    assert (await line.teller.post(f"{at}/status", lost)).json()["state"] == "written_off"
    back = {"amount_fen": 8_000, "bank_ref": reference(), "repaid_on": str(line.today)}
    await line.teller.post(f"{at}/repayments", back)
    old = (await line.firm.get(at)).json()
    assert (old["outstanding_fen"], old["deadline"]) == (0, None)
    assert await state(line.hall, old["fr_id"]) == "CLOSED"


async def test_f9_a_bank_may_end_a_line_that_nobody_drew_on(hall: Hall, today: date) -> None:
    uscc = await made.enterprise(hall.owner, limit_fen=100_000)
    bank = await made.bank(hall.owner)
    facility = await made.facility(hall.owner, uscc, bank, 60_000)
    teller = await hall.client("bank", institution=bank.institution)
    said = {"state": "settled", "as_of": str(today), "days_past_due": 0, "five_class": "normal", "restructured": False}
    assert (await teller.post(f"/v1/facilities/{facility}/status", said)).json()["state"] == "settled"
    assert await hall.owner.fetchval("SELECT hall.available($1)", uscc) == 100_000
    assert await hall.owner.fetchval("SELECT state FROM hall.financing_request") == "CLOSED"


async def test_i23_a_first_loan_is_counted_once(line: Signed) -> None:
    bank = await made.bank(line.hall.owner)
    second = await made.facility(line.hall.owner, line.uscc, bank, 10_000)
    client = await line.hall.client("bank", institution=bank.institution)
    drawn = {"amount_fen": 5, "bank_ref": reference(), "drawn_on": str(line.today)} | FIRST
    assert (await client.post(f"/v1/facilities/{second}/drawdowns", drawn)).status_code == 201
    assert await line.hall.owner.fetchval("SELECT count(*) FROM hall.first_loan") == 1
    keeper = await line.hall.client("case-manager")
    cases = (await keeper.get("/v1/cases")).json()["items"]
    assert [(one["kind"], one["subject"]) for one in cases] == [("first-loan-stated-twice", f"facility/{second}")]
    closed = await keeper.post(f"/v1/cases/{cases[0]['case_id']}/close", {"note": "两行已核对"})
    assert closed.status_code == 200
    assert (await keeper.get("/v1/cases")).json()["items"] == []
    assert len((await keeper.get("/v1/cases", state="closed")).json()["items"]) == 1


async def test_l5_a_first_loan_that_never_was_counts_no_longer_and_the_others_statement_takes_its_place(
    line: Signed,
) -> None:
    owner = line.hall.owner
    bank = await made.bank(owner)
    second = await made.facility(owner, line.uscc, bank, 10_000)
    client = await line.hall.client("bank", institution=bank.institution)
    drawn = {"amount_fen": 5, "bank_ref": reference(), "drawn_on": str(line.today)} | FIRST
    await client.post(f"/v1/facilities/{second}/drawdowns", drawn)
    counted = "SELECT array_agg(facility_id) FROM hall.first_loan WHERE withdrawn_at IS NULL"
    assert await owner.fetchval(counted) == [line.facility]
    ours = await owner.fetchval("SELECT bank_ref FROM hall.drawdown WHERE facility_id = $1", line.facility)

    async def correct(amount: int) -> None:
        body = {"corrects": ours, "bank_ref": reference(), "amount_fen": amount, "note": "another firm's money"}
        assert (await line.teller.post(f"/v1/facilities/{line.facility}/corrections", body)).status_code == 201

    await correct(0)
    assert await owner.fetchval(counted) == [second]
    assert await owner.fetchval("SELECT count(*) FROM hall.hall_case WHERE closed_at IS NULL") == 0
    await correct(20_000)
    assert await owner.fetchval(counted) == [second]
    cases = await owner.fetch("SELECT subject FROM hall.hall_case WHERE closed_at IS NULL")
    assert [one["subject"] for one in cases] == [f"facility/{line.facility}"]
    told = await owner.fetch("SELECT subject, type FROM hall.event WHERE type LIKE 'fin.first-loan.%' ORDER BY no")
    assert [tuple(one) for one in told] == [
        (f"facility/{line.facility}", "fin.first-loan.counted.v1"),
        (f"facility/{line.facility}", "fin.first-loan.withdrawn.v1"),
        (f"facility/{second}", "fin.first-loan.counted.v1"),
    ]
    for statement in (
        "UPDATE hall.first_loan SET uscc = uscc",
        "DELETE FROM hall.first_loan",
        "TRUNCATE hall.first_loan",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(statement)


async def open_cases(owner: Any) -> list[str]:
    return [one["kind"] for one in await owner.fetch("SELECT kind FROM hall.hall_case WHERE closed_at IS NULL")]


async def is_open(owner: Any, kind: str) -> bool:
    """The service's own sweeper opens it."""
    return kind in await open_cases(owner)


@pytest.mark.parametrize("answer", ["confirm", "refuse"])
async def test_p4_the_case_of_an_unanswered_drawdown_ends_with_the_answer(line: Signed, answer: str) -> None:
    owner, at = line.hall.owner, f"/v1/facilities/{line.facility}/drawdowns"
    asked = (await line.firm.post(at, {"amount_fen": 5})).json()["drawdown_id"]
    await owner.execute("UPDATE hall.drawdown SET due_at = hall.hall_now() WHERE state = 'asked'")
    await until(lambda: is_open(owner, "drawdown-unanswered"))
    said = {"reason": "over-branch-limit"} if answer == "refuse" else {
        "bank_ref": reference(), "drawn_on": str(line.today)}  # fmt: skip
    done = await line.teller.post(f"{at}/{asked}/{answer}", said)
    assert done.status_code == 200, done.text
    assert await open_cases(owner) == []


async def test_l4_the_enterprise_takes_a_drawdown_back_and_may_ask_for_its_amount_again(line: Signed) -> None:
    owner, at = line.hall.owner, f"/v1/facilities/{line.facility}/drawdowns"
    asked = (await line.firm.post(at, {"amount_fen": 30_000})).json()["drawdown_id"]
    await owner.execute("UPDATE hall.drawdown SET due_at = hall.hall_now() WHERE state = 'asked'")
    await until(lambda: is_open(owner, "drawdown-unanswered"))
    assert code(await line.firm.post(at, {"amount_fen": 1})) == (422, "over-facility")
    assert code(await line.teller.post(f"{at}/{asked}/withdraw")) == (403, "scope-missing")
    neighbour = await line.hall.client("enterprise", uscc=await made.enterprise(owner))
    assert code(await neighbour.post(f"{at}/{asked}/withdraw")) == (404, "not-found")
    back = await line.firm.post(f"{at}/{asked}/withdraw")
    assert (back.status_code, back.json()["state"], back.json()["due_at"]) == (200, "withdrawn", None)
    assert await open_cases(owner) == []
    paid = {"bank_ref": reference(), "drawn_on": str(line.today)}
    assert code(await line.teller.post(f"{at}/{asked}/confirm", paid)) == (409, "illegal-transition")
    assert code(await line.firm.post(f"{at}/{asked}/withdraw")) == (409, "illegal-transition")
    assert (await line.firm.post(at, {"amount_fen": 30_000})).status_code == 201
    told = "SELECT count(*) FROM hall.event WHERE type = 'fin.drawdown.withdrawn.v1' AND institution_id = $1"
    assert await owner.fetchval(told, line.bank.institution) == 1


@pytest.mark.parametrize("ended_by", ["its last day", "settlement", "order"])
async def test_l4_a_drawdown_that_was_asked_ends_with_its_line(hall: Hall, today: date, ended_by: str) -> None:
    owner, uscc, bank = hall.owner, await made.enterprise(hall.owner, limit_fen=100_000), await made.bank(hall.owner)
    facility = await made.facility(owner, uscc, bank, 60_000)
    firm, teller = await hall.client("enterprise", uscc=uscc), await hall.client("bank", institution=bank.institution)
    assert (await firm.post(f"/v1/facilities/{facility}/drawdowns", {"amount_fen": 5})).status_code == 201
    if ended_by == "its last day":
        await owner.execute("INSERT INTO hall.clock_offset VALUES ('default', interval '363 days')")
    elif ended_by == "order":
        fr: Any = await owner.fetchval("SELECT fr_id FROM hall.facility")
        await order(owner, fr, "cancel")
    else:
        assert (await report(teller, facility, today, state="settled", restructured=False)).status_code == 200
    await until(lambda: value(owner, "SELECT state <> 'asked' FROM hall.drawdown"))
    (seen,) = (await firm.get(f"/v1/facilities/{facility}")).json()["drawdowns"]
    assert (seen["state"], seen["due_at"]) == ("lapsed", None)
    assert "drawdown-unanswered" not in await open_cases(owner)
    told = "SELECT count(*) FROM hall.event WHERE type = 'fin.drawdown.lapsed.v1' AND uscc = $1"
    assert await owner.fetchval(told, uscc) == 1


async def test_l5_the_case_of_money_owed_after_the_end_ends_when_it_is_repaid(line: Signed) -> None:
    owner, at = line.hall.owner, f"/v1/facilities/{line.facility}"
    back = {"amount_fen": 20_000, "bank_ref": reference(), "repaid_on": str(line.today)}
    assert (await line.teller.post(f"{at}/repayments", back)).status_code == 201
    assert (await report(line.teller, line.facility, line.today, state="settled")).status_code == 200
    wrong = {"corrects": back["bank_ref"], "bank_ref": reference(), "amount_fen": 15_000, "note": "typing error"}
    assert (await line.teller.post(f"{at}/corrections", wrong)).status_code == 201
    assert "owed-after-the-end" in await open_cases(owner)
    rest = {"amount_fen": 5_000, "bank_ref": reference(), "repaid_on": str(line.today)}
    assert (await line.teller.post(f"{at}/repayments", rest)).json()["facility"]["outstanding_fen"] == 0
    assert "owed-after-the-end" not in await open_cases(owner)


async def test_f9_the_case_of_a_missing_report_ends_with_the_facility(line: Signed) -> None:
    owner = line.hall.owner
    await owner.execute("INSERT INTO hall.clock_offset VALUES ('default', interval '363 days')")
    await until(lambda: value(owner, "SELECT is_line_over FROM hall.facility"))
    await owner.execute("UPDATE hall.facility SET deadline = hall.hall_now()")
    await until(lambda: is_open(owner, "status-overdue"))
    today = str(await owner.fetchval("SELECT hall.today()"))
    back = {"amount_fen": 20_000, "bank_ref": reference(), "repaid_on": today}
    paid = await line.teller.post(f"/v1/facilities/{line.facility}/repayments", back)
    assert paid.json()["facility"]["state"] == "settled"
    assert await open_cases(owner) == []


async def test_l7_every_difference_is_classified_and_is_a_case_until_a_later_list_agrees(line: Signed) -> None:
    contract, ours = await line.hall.owner.fetchrow(
        "SELECT f.contract_no, d.bank_ref FROM hall.facility f JOIN hall.drawdown d ON d.facility_id = f.id"
    )  # pyright: ignore[reportGeneralTypeIssues]
    back = {"amount_fen": 700, "bank_ref": reference(), "repaid_on": str(line.today)}
    await line.teller.post(f"/v1/facilities/{line.facility}/repayments", back)
    first = {"bank_ref": ours, "kind": "drawdown", "contract_no": contract, "amount_fen": 19_000}
    unknown = {"bank_ref": "B-9", "kind": "drawdown", "contract_no": contract, "amount_fen": 1}
    days = {"from": str(line.today), "to": str(line.today)}
    found = (await line.teller.post("/v1/reconciliations", days | {"lines": [first, unknown]})).json()
    results = {one["bank_ref"]: one["result"] for one in found["lines"]}
    assert results == {ours: "amount-differs", "B-9": "missing-here", back["bank_ref"]: "missing-there"}
    assert all(one["case_id"] for one in found["lines"])
    returned = {"bank_ref": back["bank_ref"], "kind": "repayment", "contract_no": contract, "amount_fen": 700}
    whole = [first | {"amount_fen": 20_000}, returned]
    again = (await line.teller.post("/v1/reconciliations", days | {"lines": whole})).json()
    assert again["differences"] == 0
    still = await line.hall.owner.fetch("SELECT subject FROM hall.hall_case WHERE closed_at IS NULL")
    assert [row["subject"] for row in still] == [f"bank-ref/{line.bank.institution}/B-9"]


async def test_l7_a_line_shows_both_sides_and_so_does_its_case(line: Signed) -> None:
    owner = line.hall.owner
    contract, ours = await owner.fetchrow(
        "SELECT f.contract_no, d.bank_ref FROM hall.facility f JOIN hall.drawdown d ON d.facility_id = f.id"
    )  # pyright: ignore[reportGeneralTypeIssues]
    back = {"amount_fen": 700, "bank_ref": reference(), "repaid_on": str(line.today)}
    await line.teller.post(f"/v1/facilities/{line.facility}/repayments", back)
    listed = [
        {"bank_ref": ours, "kind": "repayment", "contract_no": "C-OTHER", "amount_fen": 20_000},
        {"bank_ref": "B-9", "kind": "drawdown", "contract_no": "C-NEW", "amount_fen": 1},
    ]
    days = {"from": str(line.today), "to": str(line.today)}
    found = (await line.teller.post("/v1/reconciliations", days | {"lines": listed})).json()
    lines = {one["bank_ref"]: one for one in found["lines"]}
    cases = {ref: one.pop("case_id") for ref, one in lines.items()}
    mine = {"ours_contract_no": contract, "ours_kind": "drawdown", "ours_fen": 20_000}
    alone = {"ours_contract_no": contract, "ours_kind": "repayment", "ours_fen": 700}
    none = dict.fromkeys(mine)
    theirs = [{name: value for name, value in one.items() if name != "amount_fen"} for one in listed]
    assert lines == {
        ours: theirs[0] | mine | {"theirs_fen": 20_000, "result": "record-differs"},
        "B-9": theirs[1] | none | {"theirs_fen": 1, "result": "missing-here"},
        back["bank_ref"]: alone
        | {"bank_ref": back["bank_ref"], "contract_no": contract, "kind": "repayment"}
        | {"theirs_fen": None, "result": "missing-there"},
    }
    kept = await owner.fetch(
        "SELECT bank_ref, contract_no, kind, ours_contract_no, ours_kind FROM hall.reconciliation_line"
    )
    assert {row["bank_ref"]: dict(row) for row in kept} == {
        ref: {name: one[name] for name in ("bank_ref", "contract_no", "kind", "ours_contract_no", "ours_kind")}
        for ref, one in lines.items()
    }
    notes = dict(await owner.fetch("SELECT id, note FROM hall.hall_case"))
    assert notes[cases[ours]] == (
        "record-differs; theirs: repayment of 20000 fen, contract C-OTHER; "
        f"ours: drawdown of 20000 fen, contract {contract}"
    )
    assert notes[cases["B-9"]] == "missing-here; theirs: drawdown of 1 fen, contract C-NEW"
    assert notes[cases[back["bank_ref"]]] == f"missing-there; ours: repayment of 700 fen, contract {contract}"


async def test_l7_the_parts_of_a_list_find_together_what_the_whole_list_would(line: Signed) -> None:
    """What is missing there is looked for behind the last reference of the part before, up to the last of this one."""
    ours = ["B-1", "B-3", "B-5", "b-7"]
    for ref in ours:
        back = {"amount_fen": 700, "bank_ref": ref, "repaid_on": str(line.today)}
        answer = await line.teller.post(f"/v1/facilities/{line.facility}/repayments", back)
        assert answer.status_code == 201, answer.text
    contract, drawn = await line.hall.owner.fetchrow(
        "SELECT f.contract_no, d.bank_ref FROM hall.facility f JOIN hall.drawdown d ON d.facility_id = f.id"
    )  # pyright: ignore[reportGeneralTypeIssues]

    async def compared(refs: list[str], **part: str) -> dict[str, str]:
        lines = [{"bank_ref": ref, "kind": "repayment", "contract_no": contract, "amount_fen": 700} for ref in refs]
        body = {"from": str(line.today), "to": str(line.today), "lines": lines} | part
        answer = await line.teller.post("/v1/reconciliations", body)
        assert answer.status_code == 201, answer.text
        return {one["bank_ref"]: one["result"] for one in answer.json()["lines"]}

    first = await compared(["B-1", "B-2"], through_ref="B-3")
    assert first == {"B-1": "equal", "B-2": "missing-here", "B-3": "missing-there"} | (
        {drawn: "missing-there"} if drawn <= "B-3" else {}
    )
    second = await compared([], after_ref="B-3", through_ref="Z")
    third = await compared(["b-7"], after_ref="Z")
    assert second["B-5"] == "missing-there"
    assert third["b-7"] == "equal"
    assert first | second | third == await compared(["B-1", "B-2", "b-7"])
    assert {*first} | {*second} | {*third} == {*ours, "B-2", drawn}
    listed = [{"bank_ref": "B-9", "kind": "repayment", "contract_no": contract, "amount_fen": 700}]
    body = {"from": str(line.today), "to": str(line.today), "lines": listed}
    for part in ({"through_ref": "B-8"}, {"after_ref": "B-9"}, {"after_ref": "C", "through_ref": "B"}):
        assert (await line.teller.post("/v1/reconciliations", body | part)).status_code == 422, part


async def test_l7_the_longest_list_asks_for_no_more_statements_than_a_short_one(line: Signed) -> None:
    """One due time and whole sets: the feed waits for the transaction, so its work must not grow line by line."""
    owner = line.hall.owner
    await owner.execute("SET track_functions = 'all'")

    async def calls(lines: int) -> dict[str, int]:
        counted = "SELECT funcname, calls FROM pg_stat_user_functions"
        await owner.execute("SELECT pg_stat_reset()")
        listed = [{"bank_ref": f"B{lines}-{i}", "kind": "drawdown", "contract_no": "C", "amount_fen": 1}
                  for i in range(lines)]  # fmt: skip
        days = {"from": str(line.today), "to": str(line.today)}
        answer = await made.act(owner, line.bank.actor, "reconcile", **days, lines=listed)
        assert answer["differences"] == lines + 1, "and the drawdown of ours"
        await owner.execute("SELECT pg_stat_force_next_flush()")
        await owner.execute("SELECT pg_stat_clear_snapshot()")
        # Ids and notes are of each line; they read no table.
        return {name: count for name, count in await owner.fetch(counted)
                if name not in ("uuid7", "new_id", "told_difference")}  # fmt: skip

    few, many = await calls(3), await calls(1000)
    assert few["add_working_minutes"] == 1
    assert many == few


async def test_l7_a_part_with_more_records_of_ours_than_a_call_takes_is_refused(line: Signed) -> None:
    owner = line.hall.owner
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")
        await owner.execute(
            """
            INSERT INTO hall.repayment (id, facility_id, institution_id, amount_fen, paid_by, bank_ref, repaid_on, at,
                reported_by)
            SELECT 'rp_' || i, $1, $2, 700, 'enterprise', 'M-' || i, hall.today(), hall.hall_now(), 'made'
            FROM generate_series(1001, 2001) AS i
            """,
            line.facility,
            line.bank.institution,
        )
    days = {"from": str(line.today), "to": str(line.today), "lines": []}
    refused = await line.teller.post("/v1/reconciliations", days)
    assert refused.status_code == 422, refused.text[:500]
    assert [one["pointer"] for one in refused.json()["errors"]] == ["/through_ref"]
    assert await owner.fetchval("SELECT count(*) FROM hall.hall_case") == 0
    for part in ({"through_ref": "M-1500"}, {"after_ref": "M-1500"}):
        assert (await line.teller.post("/v1/reconciliations", days | part)).status_code == 201
    assert await owner.fetchval("SELECT count(*) FROM hall.hall_case WHERE subject LIKE '%/M-%'") == 1001


async def test_l5_a_correction_points_to_the_entry_that_was_wrong(line: Signed) -> None:
    ours = await line.hall.owner.fetchval("SELECT bank_ref FROM hall.drawdown")
    body = {"corrects": ours, "bank_ref": reference(), "amount_fen": 2_000, "note": "多报一个零"}
    answer = await line.teller.post(f"/v1/facilities/{line.facility}/corrections", body)
    assert answer.json()["facility"]["outstanding_fen"] == 2_000
    chain = await line.hall.owner.fetchrow(
        "SELECT w.reference FROM hall.journal j JOIN hall.journal w ON w.id = j.corrects WHERE j.reference = $1",
        body["bank_ref"],
    )
    assert chain is not None
    assert chain["reference"] == ours


async def test_the_line_ends_by_itself_and_what_is_undrawn_goes_back_to_the_limit(line: Signed) -> None:
    """F9 by the system, one day after the last day of the line, so that reports of that day still find it open."""
    owner = line.hall.owner
    await owner.execute("INSERT INTO hall.clock_offset VALUES ('default', interval '361 days')")
    before = await owner.fetchval("SELECT hall.sweep_facility()")
    await owner.execute("UPDATE hall.clock_offset SET \"offset\" = interval '363 days'")
    swept = [before]
    while swept[-1] is not None or len(swept) == 1:
        swept.append(await owner.fetchval("SELECT hall.sweep_facility()"))
    assert "line ended" in swept
    assert swept.index("line ended") > 0
    found = await owner.fetchrow("SELECT * FROM hall.facility WHERE id = $1", line.facility)
    assert found is not None
    assert (found["state"], found["committed_fen"], found["drawn_fen"]) == ("active", 0, 20_000)
