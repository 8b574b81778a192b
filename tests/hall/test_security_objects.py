"""What belongs to others does not exist (reliability.md §6, API1): by path, inside bodies, by guessing, at the end."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from api.limits import CALLS
from data_contracts.uscc import made_up_code
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.conftest import _database, on
from tests.hall.residents import Town, town

CONTACT = {"method": "call", "proof_sha256": made.HASH}
OFFER = {
    "amount_fen": 40_000_000, "rate_basis": "LPR1Y", "basis_bp": 300, "spread_bp": 50, "line_months": 12,
    "draw_months": 12, "repayment": "bullet", "revolving": True, "fees": [], "cleared": [],
    "conditions": [],
}  # fmt: skip


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


NOT_FOUND = (404, "not-found")


async def tried(client: Client, method: str, path: str, body: Any = None, fence: int = 1) -> httpx2.Response:
    headers = client.headers | {"Idempotency-Key": secrets.token_hex(8), "Claim-Fence": str(fence)}
    return await client.http.request(method, path, json=body, headers=headers)


def ways(here: Town) -> dict[str, list[tuple[str, str, Any]]]:
    """Every way to something of `mine` and of the firm, by the kind of stranger who must not find it."""
    there = here.things
    claim, offer, facility = (there[name] for name in ("claim_id", "offer_id", "facility_id"))
    uscc, consent, drawdown = here.firm, there["consent_id"], there["drawdown_id"]
    paid = {"bank_ref": secrets.token_hex(6), "drawn_on": there["today"]} | {"first_loan": True}
    money = {"amount_fen": 5, "bank_ref": secrets.token_hex(6)}
    giving = {
        "signer": "A", "method": "paper", "evidence_sha256": made.HASH, "purpose": "financing", "data_sets": ["limit"],
        "recipients": ["claiming-institution"], "to": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    held = here.claims["held"].fr
    return {
        "other bank": [
            ("GET", f"/v1/claims/{claim}", None),
            ("GET", f"/v1/claims/{claim}/dossier", None),
            ("POST", f"/v1/claims/{claim}/contact", CONTACT),
            ("POST", f"/v1/claims/{claim}/release", {"reason": "mine-now"}),
            ("POST", f"/v1/claims/{claim}/decline", {"reason": "mine-now"}),
            ("POST", f"/v1/claims/{claim}/offers", OFFER),
            ("GET", f"/v1/offers/{offer}", None),
            ("GET", f"/v1/facilities/{facility}", None),
            ("POST", f"/v1/facilities/{facility}/drawdowns", paid | {"amount_fen": 5}),
            ("POST", f"/v1/facilities/{facility}/drawdowns/{drawdown}/confirm", paid),
            ("POST", f"/v1/facilities/{facility}/drawdowns/{drawdown}/refuse", {"reason": "not-mine"}),
            ("POST", f"/v1/facilities/{facility}/repayments", money | {"repaid_on": there["today"]}),
            ("POST", f"/v1/facilities/{facility}/corrections", money | {"corrects": "first", "note": "n"}),
            ("POST", f"/v1/facilities/{facility}/status", {"as_of": there["today"], "state": "settled",
                "days_past_due": 0, "five_class": "normal"}),
            ("GET", f"/v1/enterprises/{uscc}/exposure", None),
            ("GET", f"/v1/financing-requests/{there['quoted']}", None),
            ("GET", f"/v1/financing-requests/{there['draft']}", None),
            ("POST", f"/v1/enterprises/{uscc}/consents/{consent}/acknowledge", None),
            ("GET", f"/v1/institutions/{here.mine.institution}/outlets", None),
            ("GET", f"/v1/institutions/{here.mine.institution}/products", None),
            ("GET", f"/v1/hall?outlet_id={here.mine.outlet}", None),
            ("GET", f"/v1/hall/stream?outlet_id={here.mine.outlet}", None),
            ("GET", f"/v1/hall/subscriptions/{here.mine.outlet}", None),
        ],
        # Of the same institution, but its client is bound to an outlet that holds nothing.
        "sister bank": [
            ("GET", f"/v1/claims/{claim}", None),
            ("GET", f"/v1/claims/{claim}/dossier", None),
            ("POST", f"/v1/claims/{claim}/release", {"reason": "mine-now"}),
            ("POST", f"/v1/claims/{claim}/offers", OFFER),
            ("GET", f"/v1/offers/{offer}", None),
            ("GET", f"/v1/facilities/{facility}", None),
            ("POST", f"/v1/facilities/{facility}/repayments", money | {"repaid_on": there["today"]}),
            ("GET", f"/v1/enterprises/{uscc}/exposure", None),
            ("GET", f"/v1/hall?outlet_id={here.mine.outlet}", None),
            ("GET", f"/v1/hall/subscriptions/{here.mine.outlet}", None),
        ],
        "neighbour": [
            ("GET", f"/v1/financing-requests/{held}", None),
            ("GET", f"/v1/financing-requests/{held}/history", None),
            ("GET", f"/v1/financing-requests/{held}/offers", None),
            ("POST", f"/v1/financing-requests/{held}/withdraw", {"version": 6}),
            ("POST", f"/v1/financing-requests/{there['quoted']}/broadcast", {"version": 4, "amount_fen": 100}),
            ("POST", f"/v1/financing-requests/{there['draft']}/submit", {"version": 1, "consent_id": consent}),
            ("GET", f"/v1/offers/{offer}", None),
            ("POST", f"/v1/offers/{offer}/accept", {"version": 7, "sha256": made.HASH}),
            ("POST", f"/v1/claims/{claim}/reject", {"reason": "not-them"}),
            ("POST", f"/v1/claims/{claim}/extension", None),
            ("GET", f"/v1/enterprises/{uscc}", None),
            ("GET", f"/v1/enterprises/{uscc}/exposure", None),
            ("GET", f"/v1/enterprises/{uscc}/consents", None),
            ("GET", f"/v1/enterprises/{uscc}/consents/{consent}", None),
            ("POST", f"/v1/enterprises/{uscc}/consents", giving),
            ("POST", f"/v1/enterprises/{uscc}/consents/{consent}/revoke", None),
            # Under a firm of the caller's own, another's consent is not there either.
            ("GET", f"/v1/enterprises/{here.neighbour}/consents/{consent}", None),
            ("POST", f"/v1/enterprises/{here.neighbour}/consents/{consent}/revoke", None),
            ("GET", f"/v1/enterprises/{uscc}/accesses", None),
            ("GET", f"/v1/facilities/{facility}", None),
            ("POST", f"/v1/facilities/{facility}/drawdowns", {"amount_fen": 5}),
            ("POST", f"/v1/facilities/{facility}/drawdowns/{drawdown}/withdraw", None),
            ("GET", f"/v1/limit-quotes/{there['quote_id']}", None),
            ("POST", "/v1/credit-reports", {"quote_id": there["quote_id"]}),
            ("GET", f"/v1/credit-reports/{there['report_id']}", None),
            ("POST", "/v1/limit-quotes", {"uscc": uscc, "scheme": "ordinary"}),
            ("GET", f"/v1/appeals/{there['appeal_id']}", None),
            ("POST", "/v1/appeals", {"claim_id": there["declined"], "reason": "other", "text": "x"}),
            ("POST", "/v1/ratings", {"claim_id": claim, "stars": 1, "reasons": []}),
        ],
    }  # fmt: skip


@pytest.mark.parametrize("who", ["other bank", "sister bank", "neighbour"])
async def test_api1_every_way_to_what_is_anothers_is_404_and_has_no_effect(here: Town, who: str) -> None:
    """As if it did not exist: the same answer as for an id that nobody has, but for the trace."""
    before = await states(here)
    wrong = []
    for method, path, body in ways(here)[who]:
        answer = await tried(here[who], method, path, body, here.claims["contacted"].fence)
        if problem(answer) != NOT_FOUND or set(answer.json()) != {"type", "title", "status", "instance", "trace_id"}:
            wrong.append((method, path, answer.status_code, answer.text))
    assert wrong == []
    assert await states(here) == before


async def test_the_ways_lead_somewhere_for_those_who_may(here: Town) -> None:
    """The control: what a stranger does not find, its owner reads."""
    owners = {"other bank": "bank", "sister bank": "bank", "neighbour": "enterprise"}
    for stranger, owner in owners.items():
        for method, path, body in ways(here)[stranger]:
            own_only = here.neighbour in path or "draft" in path or here.things["quote_id"] in path
            if method == "GET" and not own_only and "stream" not in path and "subscriptions" not in path:
                found = await tried(here[owner], method, path, body)
                of_bank = ("financing-requests" in path and stranger == "other bank") or "/products" in path
                assert found.status_code == 200 or of_bank, (owner, path, found.text)


async def states(here: Town) -> list[tuple[Any, ...]]:
    """Every state and version of every machine, the money, and what was looked at."""
    rows = await here.hall.owner.fetch(
        """
        SELECT id, state, version FROM hall.financing_request UNION ALL SELECT id, state, version FROM hall.claim
        UNION ALL SELECT id, state, version FROM hall.facility UNION ALL SELECT id, state, 0 FROM hall.drawdown
        UNION ALL SELECT 'journal', '', count(*)::int FROM hall.journal
        UNION ALL SELECT 'consents', '', count(*)::int FROM hall.consent
        UNION ALL SELECT 'revoked', '', count(*)::int FROM hall.consent_revocation
        UNION ALL SELECT 'looks', '', count(*)::int FROM hall.access_log
        UNION ALL SELECT 'appeals', '', count(*)::int FROM hall.appeal
        UNION ALL SELECT 'ratings', '', count(*)::int FROM hall.rating
        ORDER BY 1
        """
    )
    return [tuple(row.values()) for row in rows]


async def test_api1_ids_of_others_inside_a_body_are_refused(here: Town) -> None:
    """The outlet, officer, product, claim, facility, consent or institution that a body names must be the caller's."""
    owner = here.hall.owner
    officer = await made.officer(owner, here.mine.outlet)
    rivals = await made.officer(owner, here.other.outlet)
    grab = {"round": 1, "outlet_id": here.other.outlet, "product_id": f"{here.other.product}@1", "card_version": 5}
    fr = await here.request()
    path = f"/v1/financing-requests/{fr}/claims"
    tries = [
        (grab | {"outlet_id": here.mine.outlet}, NOT_FOUND),
        (grab | {"product_id": f"{here.mine.product}@1"}, (422, "validation")),
        (grab | {"officer_id": officer}, (422, "validation")),
        (grab | {"officer_id": made.new("oc")}, (422, "validation")),
    ]
    for body, expected in tries:
        assert problem(await here["other bank"].post(path, body)) == expected, body
    assert await owner.fetchval("SELECT count(*) FROM hall.claim WHERE fr_id = $1", fr) == 0
    assert await owner.fetchval("SELECT sum(held) FROM hall.quota WHERE owner = ANY ($1)", [officer, rivals]) == 0
    won = await here["other bank"].post(path, grab | {"officer_id": rivals})
    assert won.status_code == 201, won.text

    neighbours = await made.consent(owner, here.neighbour)
    draft = await here.request("draft")
    submitted = await here["enterprise"].post(
        f"/v1/financing-requests/{draft}/submit", {"version": 1, "consent_id": neighbours}
    )
    assert submitted.status_code in (403, 404, 503), submitted.text
    assert await owner.fetchval("SELECT state FROM hall.financing_request WHERE id = $1", draft) == "draft"

    asked = await here["neighbour"].post("/v1/financing-requests", {
        "uscc": here.firm, "scheme": "ordinary", "amount_fen": 5, "term_months": 1, "purpose": "other",
        "channel": "portal", "channel_ref": "1"})  # fmt: skip
    assert problem(asked) == NOT_FOUND
    renamed = {"uscc": here.firm, "name": "mine now", "district": "350211", "industry_section": "I"}
    assert problem(await here["neighbour"].post("/v1/enterprises", renamed)) == NOT_FOUND
    assert problem(await here["other portal"].post("/v1/enterprises", renamed)) == (409, "already-exists")


async def test_api1_a_bank_signs_and_corrects_only_what_is_its_own(here: Town) -> None:
    there = here.things
    accepted = await here.claim("accepted")
    signing = {"claim_id": accepted.id, "contract_no": "1", "document_sha256": made.HASH, "signed_on": there["today"],
               "line_ends_on": there["in a year"], "renewed_from": None}  # fmt: skip
    assert problem(await tried(here["other bank"], "POST", "/v1/facilities", signing, accepted.fence)) == NOT_FOUND
    assert problem(await tried(here["sister bank"], "POST", "/v1/facilities", signing, accepted.fence)) == NOT_FOUND
    foreign = await made.facility(here.hall.owner, here.neighbour, here.other, 5_000)
    renewing = signing | {"renewed_from": foreign}
    refused = await tried(here["bank"], "POST", "/v1/facilities", renewing, accepted.fence)
    assert problem(refused) == (422, "validation")
    assert refused.json()["errors"][0]["pointer"] == "/renewed_from"
    # A reference of another facility is none of this one.
    own = await made.facility(here.hall.owner, here.firm, here.mine, 5_000)
    fix = {"corrects": "first", "bank_ref": "r-9", "amount_fen": 0, "note": "n"}
    assert problem(await here["bank"].post(f"/v1/facilities/{own}/corrections", fix)) == NOT_FOUND
    wrong_place = f"/v1/facilities/{own}/drawdowns/{there['drawdown_id']}/refuse"
    assert problem(await here["bank"].post(wrong_place, {"reason": "no"})) == NOT_FOUND


async def test_api1_the_loser_and_the_one_who_gave_up_read_no_dossier(here: Town) -> None:
    """X2: access ends with the claim, in the same transaction; a sister outlet inherits nothing."""
    claim = await here.claim("contacted")
    path = f"/v1/claims/{claim.id}/dossier"
    assert (await here["bank"].get(path)).status_code == 200
    released = await tried(here["bank"], "POST", f"/v1/claims/{claim.id}/release", {"reason": "no"}, claim.fence)
    assert released.status_code == 200
    for who in ("bank", "sister bank", "other bank"):
        assert problem(await here[who].get(path)) == NOT_FOUND
    exposed = await made.request(here.hall.owner, here.neighbour, purpose="orders")
    theirs = await made.claim(here.hall.owner, exposed, here.other)
    assert problem(await here["bank"].get(f"/v1/claims/{theirs.id}/dossier")) == NOT_FOUND
    seen = (await here["bank"].get(f"/v1/financing-requests/{exposed}")).json()
    assert seen["round"]["state"] == "taken"
    assert {name for name, value in seen.items() if value is not None} == {"fr_id", "reach", "round"}


async def test_api1_a_bank_does_not_learn_whether_a_firm_is_known(here: Town) -> None:
    """Without a consent the answer about a firm of the hall is the one about a code that nobody has."""
    answers = []
    known = await made.enterprise(here.hall.owner, limit_fen=10**9)
    for code in (known, made_up_code(987_654)):
        answer = await here["other bank"].get(f"/v1/enterprises/{code}/limit", purpose="financing")
        answers.append(answer.json() | {"trace_id": "", "instance": ""})
        assert problem(await here["other bank"].get(f"/v1/enterprises/{code}/exposure")) == NOT_FOUND
        line = (await here["other bank"].http.post("/v1/limits/query", headers=here["other bank"].headers,
            json={"usccs": [code], "purpose": "financing"})).json()["lines"][0]  # fmt: skip
        assert {name: value for name, value in line.items() if value is not None} == {
            "uscc": code, "withheld": "consent-missing"
        }  # fmt: skip
    assert answers[0] == answers[1]


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


async def test_api1_guessed_ids_hit_nothing_and_the_guesser_is_slowed_down(paced: Hall) -> None:
    """Ids have 74 random bits; each guess costs a call of the institution's pace (G3)."""
    stranger = await paced.client("bank", institution=await paced.institution("a bank"))
    guesses = [f"/v1/claims/{made.new('cl')}/dossier" for _ in range(4 * CALLS.burst)]
    answers = await asyncio.gather(*(stranger.get(path) for path in guesses))
    counted = Counter(one.status_code for one in answers)
    assert set(counted) == {404, 429}
    assert counted[404] >= CALLS.burst
