"""Every byte that a bank gets before its claim, and every line of the log, searched for what it must not hold (§11).

`jifen serve` runs as a program of its own, and banks call it by HTTP. The firms have names, codes, contacts, telephone
numbers and amounts that occur nowhere else, so whatever form one of them takes in an answer, it is found.
"""

import asyncio
import base64
import binascii
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import asyncpg
import httpx2
import pytest

from api.access import Card
from api.scopes import ROLES
from data_contracts.uscc import made_up_code
from tests.hall import made
from tests.hall.processes import Serving

FIRMS = 30
CARD = frozenset(Card.model_fields)
TOLD = frozenset(
    {
        "amount_band", "term_months", "purpose", "scheme", "quote_binds", "industry_section", "district", "first_loan",
    }
)  # fmt: skip
"""Stage 1 of §11: nothing else stands on a card. A member added to the code is added here after a look at §11."""


@dataclass(frozen=True)
class Firm:
    """A firm and its need; each value is a word or a number that nothing else here holds."""

    number: int

    @property
    def uscc(self) -> str:
        return made_up_code(7_000_000 + self.number)

    @property
    def name(self) -> str:
        return f"鼎峰{chr(0x9F98 - self.number)}Zanzibar{self.number:02}精密"

    @property
    def contact(self) -> str:
        return f"欧阳{chr(0x9F50 - self.number)}Quixote{self.number:02}"

    @property
    def phone(self) -> str:
        return f"1397{self.number:02}46813"

    @property
    def amount_fen(self) -> int:
        return 1_000_000_000 + self.number * 7_310_219 + 83_947_261

    @property
    def quote_fen(self) -> int:
        return self.amount_fen + 31_415_927

    @property
    def limit_fen(self) -> int:
        return self.amount_fen + 97_932_384

    def secrets(self) -> Iterable[str]:
        """What must not be seen: words, and each amount in fen and yuan, plain and grouped."""
        yield from (self.uscc, self.uscc[2:17], self.name, f"Zanzibar{self.number:02}", self.contact)
        yield from (f"Quixote{self.number:02}", self.phone, self.phone[3:], f"{self.phone[:3]} {self.phone[3:7]}")
        yield f"{self.phone[:3]}-{self.phone[3:7]}"
        for fen in (self.amount_fen, self.quote_fen, self.limit_fen):
            yuan, rest = divmod(fen, 100)
            yield from (str(fen), f"{fen:,}", f"{yuan}", f"{yuan:,}", f"{yuan}.{rest:02}", f"{yuan / 10_000:.4f}")
            yield f"{float(fen):.6e}"


TOWN = tuple(Firm(n) for n in range(FIRMS))


# ------------------------------------------------------------------------------------------------------- the scanner


def readings(seen: bytes) -> Iterable[str]:
    """The bytes as text, and as what they would say once unescaped, decoded or unwrapped."""
    text = seen.decode("utf-8", "replace")
    yield text
    yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    yield unquote_to_bytes(seen).decode("utf-8", "replace")
    for wrapped in re.findall(rb"[A-Za-z0-9+/_-]{16,}={0,2}", seen):
        with suppress(binascii.Error, ValueError):
            plain = base64.urlsafe_b64decode(wrapped.translate(bytes.maketrans(b"+/", b"-_")).rstrip(b"=") + b"==")
            yield plain.decode("utf-8", "replace")


def found_in(seen: bytes, firms: Iterable[Firm] = TOWN) -> list[str]:
    """What of the firms' is in the bytes, in whatever form."""
    folded = "\n".join(readings(seen)).casefold()
    return [secret for firm in firms for secret in firm.secrets() if secret.casefold() in folded]


@pytest.mark.parametrize("form", [
    lambda one: one.name.encode(), lambda one: one.uscc.lower().encode(), lambda one: one.phone[3:].encode(),
    lambda one: ascii(one.contact).encode(), lambda one: b'{"a": %d}' % one.amount_fen,
    lambda one: f"CNY {one.quote_fen / 100:,.2f}".encode(), lambda one: b"limit=%d.%02d" % divmod(one.limit_fen, 100),
    lambda one: base64.urlsafe_b64encode(f"x{one.uscc}y{one.name}".encode()).rstrip(b"="),
    lambda one: httpx2.QueryParams({"q": one.name}).__str__().encode(),
])  # fmt: skip
def test_the_scanner_finds_what_is_hidden_in_any_of_the_usual_forms(form: Any) -> None:
    assert found_in(b'{"status": 200, "x": "' + form(TOWN[3]) + b'"}')


def test_the_scanner_finds_nothing_where_there_is_nothing() -> None:
    harmless = b'{"fr_id": "fr_%s", "amount_band": "10m+", "at": "2026-11-24T00:00:00.000Z"}' % (
        b"0123456789abcdef" * 2
    )
    assert found_in(harmless * 1000) == []


# ---------------------------------------------------------------------------------------------------------- the stage


@dataclass
class Ear:
    """A client and all the bytes that came to it, heads and bodies, with what it had asked."""

    http: httpx2.AsyncClient
    token: str
    bank: made.Bank | None = None
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        own = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": secrets.token_hex(8), "Claim-Fence": "1"}
        answer = await self.http.request(method, path, json=body, headers=own | headers)
        head = b"\r\n".join(b": ".join(pair) for pair in answer.headers.raw)
        self.heard.append((f"{method} {path} {answer.status_code}", head + b"\r\n\r\n" + answer.content))
        return answer

    async def listen(self) -> None:
        """Hear the stream until it is cancelled; one that the hall ends is opened again, as every client does."""
        headers = {"Authorization": f"Bearer {self.token}"}
        while True:
            async with self.http.stream("GET", "/v1/hall/stream", headers=headers, timeout=None) as answer:
                async for part in answer.aiter_raw():
                    self.heard.append(("stream", part))
            await asyncio.sleep(0.2)

    def leaks(self) -> list[str]:
        """What was heard that must not be, and where; the stream is read as one."""
        streamed = b"".join(seen for what, seen in self.heard if what == "stream")
        heard = [(what, seen) for what, seen in self.heard if what != "stream"] + [("stream", streamed)]
        return [f"{what}: {secret}" for what, seen in heard for secret in found_in(seen)]


@dataclass
class Stage:
    owner: asyncpg.Connection
    http: httpx2.AsyncClient
    log: Path

    async def ear(self, role: str, **belongs: Any) -> Ear:
        client = await made.client(self.owner, role, sorted(ROLES[role]), **belongs)
        token = secrets.token_urlsafe(32)
        await self.owner.execute("INSERT INTO hall.client_key (client_id, kid, jwk) VALUES ($1, 'k', '{}')", client)
        await self.owner.execute(
            "INSERT INTO hall.access_token (token_sha256, client_id, kid, scopes, expires_at) "
            "VALUES ($1, $2, 'k', $3, clock_timestamp() + interval '1 hour')",
            sha256(token.encode()).digest(), client, sorted(ROLES[role]),
        )  # fmt: skip
        return Ear(self.http, token)

    async def bank(self) -> Ear:
        bank = await made.bank(self.owner)
        ear = await self.ear("bank", institution_id=bank.institution)
        ear.bank = bank
        await self.owner.execute(
            "INSERT INTO hall.subscription (outlet_id, updated_at, updated_by) VALUES ($1, hall.hall_now(), 'made')",
            bank.outlet,
        )
        return ear


@pytest.fixture
async def stage(database: str, home: Path) -> AsyncIterator[Stage]:
    with Serving(database, home) as program:
        owner = await asyncpg.connect(database)
        async with httpx2.AsyncClient(base_url=program.address, timeout=30) as http:
            yield Stage(owner, http, home / "serve.log")
        await owner.close()


@asynccontextmanager
async def hearing(*ears: Ear) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(one.listen()) for one in ears]
    async with asyncio.timeout(20):
        while not all(any(b"event: hello" in seen for _, seen in one.heard) for one in ears):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def broadcast(stage: Stage, portal: Ear, firm: Firm) -> str:
    """The firm's need from its registration to the hall, by HTTP; only the engine's answer is written beside it."""
    registered = await portal.call("POST", "/v1/enterprises", {
        "uscc": firm.uscc, "name": firm.name, "contact_name": firm.contact, "contact_phone": firm.phone,
        "industry_section": "I", "district": "350211"})  # fmt: skip
    assert registered.status_code == 201, registered.text
    consent = await portal.call("POST", f"/v1/enterprises/{firm.uscc}/consents", {
        "signer": firm.contact, "method": "ca-signature", "evidence_sha256": made.HASH, "purpose": "financing",
        "data_sets": ["limit", "report"], "recipients": ["claiming-institution"], "to": "2036-01-01T00:00:00Z",
        })  # fmt: skip
    assert consent.status_code == 201, consent.text
    drafted = await portal.call("POST", "/v1/financing-requests", {
        "uscc": firm.uscc, "scheme": "torch-points", "amount_fen": firm.amount_fen, "term_months": 12,
        "purpose": "working-capital", "channel": "portal", "channel_ref": f"{firm.name} {firm.phone}"})  # fmt: skip
    assert drafted.status_code == 201, drafted.text
    fr = drafted.json()["fr_id"]
    await made.limit(stage.owner, firm.uscc, firm.limit_fen)
    await stage.owner.execute(
        "UPDATE hall.financing_request SET consent_id = $2, quote_fen = $3, "
        "quote_expires_at = now() + interval '30 days' WHERE id = $1", fr, consent.json()["consent_id"], firm.quote_fen,
    )  # fmt: skip
    for edge, state in (("T2", "submitted"), ("T4", "screened"), ("T6", "quoted")):
        await stage.owner.execute("SELECT hall.move_request($1, $2, $3, 'engine', hall.hall_now())", fr, edge, state)
    sent = await portal.call("POST", f"/v1/financing-requests/{fr}/broadcast", {
        "version": 4, "amount_fen": firm.amount_fen, "wishes": []})  # fmt: skip
    assert sent.status_code == 200, sent.text
    return fr


async def opened(ear: Ear, count: int) -> list[dict[str, Any]]:
    """The cards of the hall, once so many are there."""
    async with asyncio.timeout(20):
        while len(cards := (await ear.call("GET", "/v1/hall?limit=200")).json()["items"]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return cards


def grabbing(ear: Ear, card: dict[str, Any], **other: Any) -> dict[str, Any]:
    assert ear.bank is not None
    return {"round": card["round"], "outlet_id": ear.bank.outlet, "product_id": f"{ear.bank.product}@1",
            "card_version": card["card_version"]} | other  # fmt: skip


async def knock(ear: Ear, card: dict[str, Any], firm: Firm) -> None:
    """Everything that a bank may try at a request that it does not hold, wrong ways among them."""
    fr = card["fr_id"]
    at = f"/v1/financing-requests/{fr}"
    for path in ("", "/history", "/offers"):
        await ear.call("GET", at + path)
    await ear.call("POST", f"{at}/claims", grabbing(ear, card, round=99))
    await ear.call("POST", f"{at}/claims", grabbing(ear, card, card_version=1))
    await ear.call("POST", f"{at}/claims", grabbing(ear, card, product_id="pr_x@1"))
    await ear.call("POST", f"{at}/claims", {"surplus": 1})
    await ear.call("POST", f"{at}/withdraw", {"version": 5})
    await ear.call("GET", f"/v1/claims/{made.new('cl')}/dossier")
    await ear.call("POST", "/v1/events/poll", {"max": 200, "wait_seconds": 0})
    # Who asks by the code knows it; what comes back beside it is nothing.
    for path in (f"/v1/enterprises/{firm.uscc}/exposure", f"/v1/enterprises/{firm.uscc}/limit?purpose=financing"):
        answer = await ear.call("GET", path)
        ear.heard[-1] = ("GET by code", ear.heard[-1][1].replace(firm.uscc.encode(), b""))
        assert answer.status_code in (403, 404)


# ---------------------------------------------------------------------------------------------------------- the rule


async def test_s11_before_its_claim_a_bank_gets_no_byte_that_names_a_firm_or_its_amount(stage: Stage) -> None:
    """Cards by snapshot, stream and poll, errors, heads, logs of thirty requests; after the claim the dossier alone."""
    portal = await stage.ear("portal")
    winner, loser, polling = [await stage.bank() for _ in range(3)]
    operator = await stage.ear("operator")
    async with hearing(winner, loser):
        by_fr = {await broadcast(stage, portal, firm): firm for firm in TOWN}
        cards = await opened(loser, FIRMS)
        assert {one["fr_id"] for one in cards} == set(by_fr)
        assert all(set(one["card"]) == TOLD == CARD for one in cards)
        for card in cards[:6]:
            await knock(loser, card, by_fr[card["fr_id"]])
        await opened(winner, FIRMS)
        assert winner.leaks() == []

        won: dict[str, dict[str, Any]] = {}
        for card in cards:
            claim = await winner.call("POST", f"/v1/financing-requests/{card['fr_id']}/claims", grabbing(winner, card))
            assert claim.status_code == 201, claim.text
            won[card["fr_id"]] = claim.json()
        for card in cards[:10]:
            lost = await loser.call("POST", f"/v1/financing-requests/{card['fr_id']}/claims", grabbing(loser, card))
            assert lost.json()["type"] == "/problems/grab-lost"
            await loser.call("GET", f"/v1/financing-requests/{card['fr_id']}")
            await loser.call("GET", f"/v1/claims/{won[card['fr_id']]['claim_id']}/dossier")
        await polled(polling)
        receipts = await operator.call("GET", f"/v1/financing-requests/{cards[0]['fr_id']}/rounds/1/receipts")
        assert receipts.status_code == 200
        await asyncio.sleep(0.5)

    assert sum(len(seen) for what, seen in loser.heard if what == "stream") > 10_000
    # The winner too: a claim tells nothing by itself, so that every look at a firm is one at its dossier.
    for ear in (winner, loser, polling, operator):
        assert ear.leaks() == []
    for fr, firm in list(by_fr.items())[:3]:
        shown = await winner.call("GET", f"/v1/claims/{won[fr]['claim_id']}/dossier")
        assert shown.status_code == 200
        seen = found_in(shown.content)
        assert {firm.uscc, firm.name, firm.contact, firm.phone, str(firm.amount_fen), str(firm.quote_fen)} <= set(seen)
        assert found_in(shown.content, [one for one in TOWN if one is not firm]) == []
    log = stage.log.read_bytes()
    assert log.count(b'"event": "call"') > 100
    assert found_in(log) == []


async def polled(ear: Ear) -> None:
    """All events to their end, by poll."""
    taken: list[str] = []
    while True:
        answer = (await ear.call("POST", "/v1/events/poll", {"max": 200, "ack": taken})).json()
        taken = [one["event"]["id"] for one in answer["events"]]
        if not taken:
            break
    assert len(ear.heard) > 1


async def test_a_member_too_many_on_the_card_is_found_in_snapshot_stream_and_poll(stage: Stage) -> None:
    """The control: the same scan, after somebody added the contact and the amount to the card."""
    written: Any = await stage.owner.fetchval("SELECT pg_get_functiondef('hall.card_of'::regproc)")
    spoiled = written.replace(
        "'first_loan', fr.is_first_loan)",
        "'first_loan', fr.is_first_loan, 'asked', fr.amount_fen, "
        "'hint', (SELECT e.contact_phone FROM hall.enterprise e WHERE e.uscc = fr.uscc))",
    )
    assert spoiled != written
    await stage.owner.execute(spoiled)
    portal, bank = await stage.ear("portal"), await stage.bank()
    async with hearing(bank):
        fr = await broadcast(stage, portal, TOWN[0])
        card = (await opened(bank, 1))[0]
        assert set(card["card"]) != TOLD
        await bank.call("GET", f"/v1/financing-requests/{fr}")
        await bank.call("POST", "/v1/events/poll", {"max": 200})
        await asyncio.sleep(0.5)
    leaks = bank.leaks()
    for where in (
        "GET /v1/hall?limit=200 200",
        f"GET /v1/financing-requests/{fr} 200",
        "POST /v1/events/poll 200",
        "stream",
    ):
        assert f"{where}: {TOWN[0].phone}" in leaks
        assert f"{where}: {TOWN[0].amount_fen}" in leaks
