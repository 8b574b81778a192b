"""A request is in the hall only while a consent carries it (P5, T2, T13)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.database import Connection
from tests.hall import made
from tests.hall.made import Refused, act, enterprise_actor
from tests.hall.steps import (
    CASE_MANAGER,
    decided,
    drafted,
    revoke,
    state,
    told,
    version,
)


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ({"purpose": "marketing"}, "is for the purpose financing"),
        ({"one_time": True}, "is not used up by one look"),
        ({"data_sets": ["facts"]}, "allows the data set limit"),
        ({"valid_from": datetime.now(UTC) + timedelta(days=1)}, "has begun"),
        ({"valid_to": datetime.now(UTC)}, "is not over"),
    ],
)
async def test_t2_a_consent_that_cannot_carry_the_request_is_refused_with_what_it_lacks(
    owner: Connection, given: dict[str, Any], broken: str
) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    consent = await made.consent(owner, uscc, **given)
    with pytest.raises(Refused, match="consent-missing") as refused:
        await act(owner, enterprise_actor(uscc), "submit_request", fr_id=fr, version=1, consent_id=consent,
                  **decided(uscc))  # fmt: skip
    assert refused.value.members == {"broken": [broken]}


async def test_p5_a_request_whose_consent_is_revoked_leaves_the_hall_and_comes_back_under_a_new_one(
    owner: Connection,
) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    consent = await made.consent(owner, uscc)
    fr = await made.request(owner, uscc, "broadcast", consent_id=consent)
    await revoke(owner, uscc, consent)
    assert await state(owner, fr) == "assisted"
    assert await told(owner, "SELECT state FROM hall.round WHERE fr_id = $1", fr) == "closed"
    assert "consent-revoked" in await told(owner, "SELECT note FROM hall.hall_case WHERE subject = $1", f"fr/{fr}")
    once_more = {"fr_id": fr, "to": "broadcast", "note": "they changed their mind"}
    with pytest.raises(Refused, match="consent-revoked"):
        await act(owner, CASE_MANAGER, "assist_request", version=await version(owner, fr), **once_more)
    await made.consent(owner, uscc, recipients=[bank.institution])
    stranger = await made.bank(owner)
    said = await act(owner, CASE_MANAGER, "assist_request", version=await version(owner, fr), **once_more)
    assert said["state"] == "broadcast"
    audience = await told(owner, "SELECT audience FROM hall.round WHERE fr_id = $1 ORDER BY n DESC LIMIT 1", fr)
    assert audience == [bank.outlet_no], f"the consent does not name {stranger.institution}"


async def test_p5_a_second_consent_carries_the_request_on(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    consent, _ = await made.consent(owner, uscc), await made.consent(owner, uscc)
    fr = await made.request(owner, uscc, "broadcast", consent_id=consent)
    await revoke(owner, uscc, consent)
    assert await state(owner, fr) == "broadcast"


async def test_t13_without_a_consent_no_further_round_is_announced(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    consent = await made.consent(owner, uscc)
    fr = await made.request(owner, uscc, "broadcast", consent_id=consent)
    claim = await made.claim(owner, fr, bank)
    await revoke(owner, uscc, consent)
    assert await state(owner, fr) == "claimed"
    await act(owner, bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to="released", reason="busy")
    assert await state(owner, fr) == "assisted"
    reason = await told(owner, "SELECT reason ->> 'hindrance' FROM hall.financing_request WHERE id = $1", fr)
    assert reason == "consent-revoked"
