"""Flows that pay to abuse (reliability.md §6, API6, business logic): storms, hoarding, and the order of acts."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from api.limits import CLAIMS
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.conftest import _database, on
from tests.hall.residents import Town, town


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    """One for all tests here: what a test changes it makes itself."""
    yield from _database(server, template)


@pytest.fixture(scope="module")
async def here(database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with serving(database, tmp_path_factory.mktemp("home")) as hall:
        yield await town(hall)


def problem(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").removeprefix("/problems/")


async def fenced(client: Client, path: str, body: Any, fence: int) -> httpx2.Response:
    headers = client.headers | {"Idempotency-Key": secrets.token_hex(8), "Claim-Fence": str(fence)}
    return await client.http.post(path, json=body, headers=headers)


def grab(bank: made.Bank, outlet: str | None = None, round_no: int = 1) -> dict[str, Any]:
    return {"round": round_no, "outlet_id": outlet or bank.outlet, "product_id": f"{bank.product}@1", "card_version": 5}


async def open_requests(hall: Hall, count: int) -> list[str]:
    uscc = await made.enterprise(hall.owner, limit_fen=10**12)
    consent = await made.consent(hall.owner, uscc)
    return [
        await made.request(hall.owner, uscc, amount_fen=1_000, quote_fen=1_000, purpose=f"p{n}", consent_id=consent)
        for n in range(count)
    ]


@pytest.fixture
async def paced(server: str, template: str, home: Path) -> AsyncIterator[Hall]:
    """A hall that counts calls."""
    name = f"jifen_test_{secrets.token_hex(6)}"
    owner = await asyncpg.connect(server)
    await owner.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    async with serving(on(server, name), home, rate_limits=True) as hall:
        yield hall
    await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await owner.close()


async def test_api6_a_storm_of_claims_is_capped_and_takes_nothing_from_others(paced: Hall) -> None:
    """One bank sends 120 claims at once for what it cannot have; another calls as if nothing were."""
    storming, calm = await made.bank(paced.owner), await made.bank(paced.owner)
    requests = await open_requests(paced, 3)
    storm = await paced.client("bank", institution=storming.institution)
    quiet = await paced.client("bank", institution=calm.institution)
    path = f"/v1/financing-requests/{made.new('fr')}/claims"
    clock = asyncio.get_running_loop().time
    began = clock()
    raging = [asyncio.create_task(storm.post(path, grab(storming))) for _ in range(120)]
    served = [(await quiet.post(f"/v1/financing-requests/{fr}/claims", grab(calm))).status_code for fr in requests]
    answers = Counter(problem(one) for one in await asyncio.gather(*raging))
    assert served == [201, 201, 201]
    assert set(answers) == {(404, "not-found"), (429, "rate-limited")}
    # The burst, and what was regained while the storm lasted.
    assert answers[404, "not-found"] <= CLAIMS.burst + 1 + CLAIMS.per_second * (clock() - began)


async def test_api6_h1_forty_outlets_of_one_institution_hold_no_more_than_it_may(here: Town) -> None:
    """Each outlet has room, the institution has not: its cap counts them all, also when they claim at once."""
    hall = here.hall
    bank = await made.bank(hall.owner, hold_cap=5)
    outlets = [bank.outlet, *[(await made.outlet(hall.owner, bank.institution, hold_cap=5))[0] for _ in range(39)]]
    requests = await open_requests(hall, 40)
    client = await hall.client("bank", institution=bank.institution)
    answers = await asyncio.gather(
        *(
            client.post(f"/v1/financing-requests/{fr}/claims", grab(bank, outlet))
            for fr, outlet in zip(requests, outlets, strict=True)
        )
    )
    counted = Counter(problem(one) for one in answers)
    assert counted == {(201, ""): 5, (409, "hold-cap-reached"): 35}
    assert await hall.owner.fetchval("SELECT held FROM hall.quota WHERE owner = $1", bank.institution) == 5


async def test_h5_a_sister_outlet_cannot_claim_what_the_institution_gave_up(here: Town) -> None:
    claim = await here.claim("held")
    away = await fenced(here["bank"], f"/v1/claims/{claim.id}/release", {"reason": "no"}, claim.fence)
    assert away.status_code == 200
    # The next round does not reach the institution; were its outlet in the audience, it would still cool down.
    n: Any = await here.hall.owner.fetchval("SELECT round_no FROM hall.financing_request WHERE id = $1", claim.fr)
    path = f"/v1/financing-requests/{claim.fr}/claims"
    again = grab(here.mine, here.sister, n)
    assert problem(await here["sister bank"].post(path, again))[1] in ("not-found", "cool-down")
    await here.hall.owner.execute(
        """
        UPDATE hall.round SET state = 'open', audience = (SELECT array_agg(no) FROM hall.outlet), published_at = now(),
            opens_at = now() - interval '1 minute', closes_at = now() + interval '1 day' WHERE fr_id = $1 AND n = $2
        """,
        claim.fr,
        n,
    )
    version: Any = await here.hall.owner.fetchval(
        "SELECT card_version FROM hall.round WHERE fr_id = $1 AND n = $2", claim.fr, n
    )
    again |= {"card_version": version}
    assert problem(await here["sister bank"].post(path, again)) == (409, "cool-down")


async def test_a_limit_is_not_found_out_by_claims(here: Town) -> None:
    """A claim that the firm's limit does not cover is refused without an amount (L3)."""
    owner = here.hall.owner
    uscc = await made.enterprise(owner, limit_fen=123_456)
    fr = await made.request(owner, uscc, amount_fen=123_457, quote_fen=123_457)
    refused = await here["bank"].post(f"/v1/financing-requests/{fr}/claims", grab(here.mine))
    assert problem(refused) == (422, "over-limit")
    assert set(refused.json()) == {"type", "title", "status", "instance", "trace_id"}


# ----------------------------------------------------------------------------------------------------- order of acts


async def test_an_expired_an_altered_and_anothers_offer_are_not_accepted(here: Town) -> None:
    offered, firm = await here.claim("offered"), here["enterprise"]
    path = f"/v1/offers/{offered.offer}/accept"
    version: Any = await here.hall.owner.fetchval(
        "SELECT version FROM hall.financing_request WHERE id = $1", offered.fr
    )
    good = {"version": version, "sha256": made.HASH}
    assert problem(await firm.post(path, good | {"sha256": "cd" * 32})) == (422, "hash-mismatch")
    assert problem(await firm.post(path, good | {"version": version - 1})) == (412, "stale-version")
    assert problem(await firm.post(f"/v1/offers/{made.new('of')}/accept", good)) == (404, "not-found")
    await here.hall.owner.execute(
        "UPDATE hall.claim SET deadline = hall.hall_now() - interval '1 second' WHERE id = $1", offered.id
    )
    assert problem(await firm.post(path, good))[1] in ("offer-expired", "stale-version")
    assert await here.hall.owner.fetchval("SELECT state FROM hall.claim WHERE id = $1", offered.id) != "accepted"


async def test_fifty_draws_at_once_take_no_more_than_the_facility(here: Town) -> None:
    facility = await made.facility(here.hall.owner, here.firm, here.mine, 1_000)
    path = f"/v1/facilities/{facility}/drawdowns"
    answers = await asyncio.gather(*(here["enterprise"].post(path, {"amount_fen": 100}) for _ in range(50)))
    assert Counter(problem(one) for one in answers) == {(201, ""): 10, (422, "over-facility"): 40}
    asked = "SELECT sum(amount_fen) FROM hall.drawdown WHERE facility_id = $1 AND state = 'asked'"
    assert await here.hall.owner.fetchval(asked, facility) == 1_000


async def test_more_repaid_than_due_is_kept_as_reported_and_owed_to_nobody(here: Town) -> None:
    """L4: money that moved is not refused, a person looks at it, and no line grows beyond what was signed."""
    facility = here.things["facility_id"]
    body = {"amount_fen": 500_000_000, "bank_ref": "too-much", "repaid_on": here.things["today"]}
    answer = await here["bank"].post(f"/v1/facilities/{facility}/repayments", body)
    assert answer.status_code == 201
    stands = answer.json()["facility"]
    assert (stands["drawn_fen"], stands["over_limit_fen"], stands["outstanding_fen"]) == (0, 0, 0)
    assert stands["committed_fen"] == 90_000_000
    cases = (await here["case-manager"].get("/v1/cases", kind="repaid-more-than-due")).json()["items"]
    assert [one["subject"] for one in cases] == [f"facility/{facility}"]
    again = await here["bank"].post(f"/v1/facilities/{facility}/repayments", body)
    assert problem(again) == (422, "bank-ref-reused")


async def test_a_consent_that_is_revoked_shows_nothing_from_then_on(here: Town) -> None:
    owner, bank = here.hall.owner, here["bank"]
    uscc = await made.enterprise(owner, limit_fen=10**9)
    firm, consent = await here.hall.client("enterprise", uscc=uscc), await made.consent(owner, uscc)
    claim = await made.claim(owner, await made.request(owner, uscc, consent_id=consent), here.mine, "contacted")
    quoted = await made.request(owner, uscc, "quoted", consent_id=consent, purpose="other")
    dossier, limit = f"/v1/claims/{claim.id}/dossier", f"/v1/enterprises/{uscc}/limit"
    assert (await bank.get(dossier)).status_code == 200
    assert (await bank.get(limit, purpose="financing")).status_code == 200
    assert (await firm.post(f"/v1/enterprises/{uscc}/consents/{consent}/revoke")).status_code == 200
    assert problem(await bank.get(dossier)) == (403, "consent-revoked")
    assert problem(await bank.get(limit, purpose="financing")) == (403, "consent-revoked")
    sent = await firm.post(f"/v1/financing-requests/{quoted}/broadcast", {"version": 4, "amount_fen": 100})
    assert problem(sent) == (403, "consent-revoked")
    looks = (await firm.get(f"/v1/enterprises/{uscc}/accesses")).json()["accesses"]
    assert [one["withheld"] for one in looks] == ["consent-revoked", "consent-revoked", None, None]


async def test_nothing_is_withdrawn_after_signing_and_nothing_signed_twice(here: Town) -> None:
    accepted = await here.claim("accepted")
    signing = {"claim_id": accepted.id, "contract_no": "c-1", "document_sha256": made.HASH,
               "signed_on": here.things["today"], "line_ends_on": here.things["in a year"]}  # fmt: skip
    both = await asyncio.gather(
        *(fenced(here["bank"], "/v1/facilities", signing | {"contract_no": f"c-{n}"}, accepted.fence) for n in range(2))
    )
    assert sorted(one.status_code for one in both) == [201, 412]
    version: Any = await here.hall.owner.fetchval(
        "SELECT version FROM hall.financing_request WHERE id = $1", accepted.fr
    )
    gone = await here["enterprise"].post(f"/v1/financing-requests/{accepted.fr}/withdraw", {"version": version})
    assert problem(gone) == (409, "illegal-transition")


async def test_fees_that_pass_the_loan_are_refused(here: Town) -> None:
    """Its yearly cost could be said by no number."""
    claim = await here.claim("contacted")
    offer = {
        "amount_fen": 1_000_000, "rate_basis": "LPR1Y", "basis_bp": 400, "spread_bp": 0, "line_months": 1,
        "draw_months": 1, "repayment": "bullet", "revolving": True, "cleared": [], "conditions": [],
        "fees": [{"name": "a", "amount_fen": 10**15}] * 20,
    }  # fmt: skip
    refused = await fenced(here["bank"], f"/v1/claims/{claim.id}/offers", offer, claim.fence)
    assert problem(refused) == (422, "validation")
    assert [one["pointer"] for one in refused.json()["errors"]] == ["/fees"]


async def test_an_order_needs_another_pair_of_eyes_and_counts_once(here: Town) -> None:
    path = f"/v1/orders/{here.things['approval_id']}/approve"
    assert problem(await here["second admin"].post(path)) == (403, "four-eyes-required")
    both = await asyncio.gather(*(here["admin"].post(path) for _ in range(2)))
    assert sorted(one.status_code for one in both) == [200, 409]


async def test_a_clerk_reaches_what_he_entered_until_it_is_submitted(here: Town) -> None:
    clerk = here["clerk"]
    need = {"uscc": here.firm, "scheme": "torch-points", "amount_fen": 5_000_000, "term_months": 6, "purpose": "other",
            "channel": "offline", "channel_ref": "7"}  # fmt: skip
    await here.hall.owner.execute(
        "UPDATE hall.financing_request SET purpose = 'moved' WHERE scheme = 'torch-points' AND purpose = 'other'"
    )
    drafted = await clerk.post("/v1/financing-requests", need)
    assert drafted.status_code == 201, drafted.text
    mine = f"/v1/financing-requests/{drafted.json()['fr_id']}"
    assert (await clerk.get(mine)).status_code == 200
    other = await here.hall.client("clerk")
    assert problem(await other.get(mine)) == (404, "not-found")
    assert problem(await clerk.get(f"/v1/financing-requests/{here.things['draft']}")) == (404, "not-found")
    await here.hall.owner.execute("SELECT hall.move_request($1, 'T2', 'submitted', 'made', hall.hall_now())",
        drafted.json()["fr_id"])  # fmt: skip
    assert problem(await clerk.get(mine)) == (404, "not-found")


async def test_a_lease_that_is_over_opens_nothing_before_the_sweeper_comes(here: Town) -> None:
    """X2, C3: what a claim opened is shut by the clock."""
    claim = await here.claim("contacted")
    await here.hall.owner.execute(
        "UPDATE hall.claim SET deadline = hall.hall_now() - interval '1 second' WHERE id = $1", claim.id
    )
    for path in (f"/v1/claims/{claim.id}/dossier", f"/v1/financing-requests/{claim.fr}"):
        answer = await here["bank"].get(path)
        assert answer.status_code == 404 or "uscc" not in {k for k, v in answer.json().items() if v is not None}
    contact = {"method": "call", "proof_sha256": made.HASH}
    late = await fenced(here["bank"], f"/v1/claims/{claim.id}/contact", contact, claim.fence)
    assert problem(late) == (412, "stale-fence")
