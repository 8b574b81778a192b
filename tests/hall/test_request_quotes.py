"""A request under newer quotes: taken free, and never broadcast where nobody could win it (T3, T8, T10, T20)."""

import pytest

from api.database import Connection
from tests.hall import made
from tests.hall.made import Refused, act, enterprise_actor
from tests.hall.steps import (
    CASE_MANAGER,
    drafted,
    pass_time,
    quote,
    state,
    submit,
    subscribe,
    sweep,
    told,
)


async def test_t3_t8_a_new_quote_is_taken_by_the_request_that_waits_for_its_confirmation(owner: Connection) -> None:
    """Refreshed free: neither does the request expire with the old quote, nor is it bound to it."""
    uscc = await made.enterprise(owner)
    await made.bank(owner)
    fr = await drafted(owner, uscc)
    await submit(owner, uscc, fr, limit_fen=20_000_000)
    await pass_time(owner, days=20)
    await quote(owner, uscc, 50_000_000)
    await pass_time(owner, days=11)
    assert await sweep(owner) == ["quote renewed"]
    shown = "SELECT (hall.look_at_request($1::text::jsonb, $2) ->> 'quote_fen')::bigint"
    assert await told(owner, shown, made.json_of(enterprise_actor(uscc)), fr) == 50_000_000
    said = await act(owner, enterprise_actor(uscc), "broadcast_request", fr_id=fr, version=4, amount_fen=50_000_000,
                     wishes=[])  # fmt: skip
    assert said["state"] == "broadcast"


async def test_t20_a_request_that_nobody_could_win_is_not_broadcast_and_says_why(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    await made.bank(owner)
    fr = await drafted(owner, uscc)
    await submit(owner, uscc, fr, outcome="refer", limit_fen=0)
    once_more = {"fr_id": fr, "version": 4, "to": "broadcast", "note": "facts came in"}
    with pytest.raises(Refused, match="over-limit") as refused:
        await act(owner, CASE_MANAGER, "assist_request", **once_more)
    assert refused.value.members["quote_fen"] == 0
    await quote(owner, uscc, 40_000_000)
    with pytest.raises(Refused, match="over-limit"):
        await act(owner, CASE_MANAGER, "assist_request", **once_more)
    with pytest.raises(Refused, match="validation"):
        await act(owner, CASE_MANAGER, "assist_request", amount_fen=50_000_001, **once_more)
    await pass_time(owner, days=31)
    with pytest.raises(Refused, match="quote-expired"):
        await act(owner, CASE_MANAGER, "assist_request", amount_fen=40_000_000, **once_more)
    await quote(owner, uscc, 40_000_000)
    said = await act(owner, CASE_MANAGER, "assist_request", amount_fen=40_000_000, **once_more)
    assert said["state"] == "broadcast"
    assert await told(owner, "SELECT amount_fen FROM hall.financing_request WHERE id = $1", fr) == 40_000_000


async def test_t10_a_binding_request_above_a_newer_quote_goes_to_a_person_after_its_round(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    await subscribe(owner, bank.outlet)
    fr = await made.request(owner, uscc, "broadcast")
    await quote(owner, uscc, 40_000_000)
    with pytest.raises(Refused, match="over-limit"):
        await act(owner, bank.actor, "grab", fr_id=fr, round=1, outlet_id=bank.outlet, product_id=bank.product,
                  product_version=1, card_version=5, officer_id=None)  # fmt: skip
    await pass_time(owner, days=1)
    await sweep(owner)
    assert await state(owner, fr) == "assisted"


async def test_t10_a_request_whose_limit_another_holds_is_not_broadcast_on(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    await subscribe(owner, bank.outlet)
    waits = await made.request(owner, uscc, "broadcast", purpose="a")
    await made.claim(owner, await made.request(owner, uscc, "broadcast", purpose="b"), bank, "accepted")
    await pass_time(owner, hours=9)
    await sweep(owner)
    assert await state(owner, waits) == "assisted"
    note = await told(owner, "SELECT note FROM hall.hall_case WHERE subject = $1", f"fr/{waits}")
    assert note == "no further round: over-limit"


@pytest.mark.parametrize("reached", ["held", "offered", "accepted"])
async def test_t13_a_request_that_comes_back_from_a_bank_takes_the_newer_quote(owner: Connection, reached: str) -> None:
    """No bank builds on the old one any more, which has expired meanwhile."""
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank, other = await made.bank(owner), await made.bank(owner)
    await subscribe(owner, other.outlet)
    fr = await made.request(owner, uscc, "broadcast")
    await made.claim(owner, fr, bank, reached)
    await pass_time(owner, days=40)
    await owner.execute("UPDATE hall.claim SET deadline = hall.hall_now() + interval '1 hour'")
    await quote(owner, uscc, 50_000_000)
    assert await told(owner, "SELECT quote_fen FROM hall.financing_request") == 50_000_000, "as made"
    await owner.execute("UPDATE hall.financing_request SET quote_fen = 49000000")
    await pass_time(owner, hours=2)
    assert await sweep(owner) == [f"claim {'expired' if reached == 'offered' else 'lapsed'}"]
    assert await state(owner, fr) == "broadcast"
    assert await told(owner, "SELECT quote_fen FROM hall.financing_request") == 50_000_000
