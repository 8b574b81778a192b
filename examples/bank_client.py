# ruff: noqa: INP001  (a program to copy, in no package)
"""What a bank's engineer starts from: a program that stands for one outlet in the hall.

    python bank_client.py bank.json            works until Ctrl-C
    python bank_client.py bank.json --once     ends after the first signing that it reports
    python bank_client.py bank.json --token    prints an access token for ten minutes

It needs httpx2 and PyJWT with cryptography, and nothing of the hall's own code. `bank.json` holds `url`, `client`,
`kid`, `key` (path of the private key, PEM), `outlet`, `product` (pr_...@version), the `officer` who holds the claims
where the outlet has officers and, where the hall's name differs from its address, `issuer`. Beside it lies
`bank.json.state`: how far the stream was read, which cards wait for their gate, which contracts for their report, and
every act under its Idempotency-Key, written down before it is sent. Kill the program whenever you like: started again
it reads on where it stood, and repeats what it cannot know the answer of with the same key, which the hall does once.

What a bank decides for itself stands in three functions at the end: `wanted`, `offered` and `contract_of`.
"""

import argparse
import heapq
import json
import os
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import jwt

Json = dict[str, Any]

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
RENEW_SECONDS = 60
SILENCE_SECONDS = 45.0
"""The hall sends a sign of life every 15 s; a stream silent for three of them is dead."""

RACERS = 8
"""So many calls at once: cards of one gate do not wait for each other."""

MOST_KEPT = 2000
LINE_MONTHS = 12
BAND_UNIT_FEN = 1_000_000
"""Bands of cards are told in units of 10,000 CNY."""

REPEATED = {"overloaded", "maintenance", "internal", "idempotency-in-flight", "rate-limited", "engine-unavailable"}
"""After these the same act may be sent again with the same key, and nothing happens twice."""

LATER = {"request-suspended", "institution-suspended", "token-invalid", "client-assertion-invalid", "scope-missing"}
"""These say nothing about the act itself: somebody lifts the order or mends the client, and it is sent again then."""
LATER_SECONDS = 10.0


class Refused(Exception):
    """The hall said no: a problem (RFC 9457). `code` is what a program branches on."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(f"{status} {problem.get('type')}: {problem.get('title')}")
        self.code = _code_of(problem)
        self.status = status
        self.problem = problem


class NotNow(Refused):
    """The act stays as it was kept, and is to be tried again later."""


class NoAnswer(Exception):
    """What came back is no word of the hall, such as the page of a balancer before it."""


UNANSWERED = (httpx2.TransportError, NoAnswer)


class State:
    """What outlives the program: written whole to a file beside the old one, which is then replaced.

    Whoever changes it holds `lock`: the stream is read in one thread while others race.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lock = threading.RLock()
        known: Json = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.cursor: str | None = known.get("cursor")
        self.last: str | None = known.get("last")
        self.seen: list[str] = known.get("seen", [])
        self.acts: dict[str, Json] = known.get("acts", {})
        self.cards: dict[str, Json] = known.get("cards", {})
        """By request: what waits for its gate, or is being raced for and not done with."""
        self.signings: dict[str, Json] = known.get("signings", {})
        """By claim: what an enterprise accepted and whose signing is not reported yet."""

    def save(self) -> None:
        """Keep it, so that a crash at any moment leaves the old state or the new one."""
        with self.lock:
            self.seen = self.seen[-MOST_KEPT:]
            for oldest in list(self.acts)[:-MOST_KEPT]:
                del self.acts[oldest]
            kept = {"cursor": self.cursor, "last": self.last, "seen": self.seen, "acts": self.acts, "cards": self.cards,
                "signings": self.signings}  # fmt: skip
            beside = self._path.with_name(self._path.name + ".part")
            with beside.open("w", encoding="utf-8") as file:
                json.dump(kept, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)


class Hall:
    """Calls to the hall as one client: a token that renews itself, and acts that happen once."""

    def __init__(self, config: Json, state: State) -> None:
        self._config = config
        self._key = Path(config["key"]).read_text(encoding="ascii")
        self._state = state
        self._http = httpx2.Client(base_url=config["url"], timeout=30)
        self._token = ""
        self._renew_at = 0.0
        self._renewing = threading.Lock()

    def token(self) -> str:
        """An access token; a new one is fetched a minute before the old one ends."""
        with self._renewing:
            if time.monotonic() >= self._renew_at:
                now = int(time.time())
                client = self._config["client"]
                claims = {"iss": client, "sub": client, "aud": self._config.get("issuer", self._config["url"]),
                    "jti": secrets.token_hex(16), "iat": now, "exp": now + 120}  # fmt: skip
                algorithm = self._config.get("algorithm", "EdDSA")
                form = {
                    "grant_type": "client_credentials",
                    "client_assertion_type": ASSERTION_TYPE,
                    "client_assertion": jwt.encode(claims, self._key, algorithm, headers={"kid": self._config["kid"]}),
                }
                granted = _body(self._http.post("/oauth/token", data=form))
                self._token = granted["access_token"]
                self._renew_at = time.monotonic() + granted["expires_in"] - RENEW_SECONDS
            return self._token

    def forget_token(self) -> None:
        """Fetch a new token before the next call."""
        self._renew_at = 0.0

    def get(self, path: str, **query: str) -> Json:
        """Read."""
        return _body(self._http.get(path, params=query, headers=self._headers()))

    def read(self, path: str, **query: str) -> Json:
        """As `get`, for the work on a claim: a refusal that will pass, or no token, is NotNow."""
        try:
            return self.get(path, **query)
        except Refused as refused:
            if refused.code in LATER | REPEATED | {"token-expired"}:
                self.forget_token()
                raise NotNow(refused.status, refused.problem) from None
            raise

    def pages(self, path: str, **query: str) -> Iterator[Json]:
        """Read a list to its end, page by page."""
        response = self._http.get(path, params=query, headers=self._headers())
        while True:
            yield _body(response)
            if "next" not in response.links:
                return
            response = self._http.get(response.links["next"]["url"], headers=self._headers())

    def act(self, name: str, path: str, body: Json, fence: int | None = None) -> Json:
        """Act once. `name` says what the act is to us: under it the key and the answer are kept.

        The key is kept before anything is sent. After a crash the same name sends the same body with the same key, and
        the hall answers what it answered the first time. An act whose answer is known is not sent again.

        Raises:
            Refused: for good; as NotNow: not for good, and nothing is known of the act.
        """
        with self._state.lock:
            kept = self._state.acts.get(name)
            if kept is None:
                kept = {"key": secrets.token_hex(16), "body": body, "status": None, "answer": None}
                self._state.acts[name] = kept
                self._state.save()
        if kept["status"] is None:
            status, said = self._sent(path, kept, fence)
            with self._state.lock:
                kept["status"], kept["answer"] = status, said
                self._state.save()
        if kept["status"] >= 400:
            raise Refused(kept["status"], kept["answer"])
        return kept["answer"]

    def _sent(self, path: str, kept: Json, fence: int | None) -> tuple[int, Json]:
        """Status and answer of an act, sent as often as it takes to get one that says what became of it."""
        pause = 0.1
        while True:
            try:
                headers = self._headers() | {"Idempotency-Key": kept["key"]}
                if fence is not None:
                    headers["Claim-Fence"] = str(fence)
                response = self._http.post(path, json=kept["body"], headers=headers)
                said = _said(response)
            except UNANSWERED as error:
                print(f"no answer ({type(error).__name__} {error}); the same act again", file=sys.stderr)
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
                continue
            except Refused as refused:  # no token
                if refused.code not in REPEATED:
                    raise NotNow(refused.status, refused.problem) from None
                time.sleep(1)
                continue
            code = "" if response.status_code < 400 else _code_of(said)
            if code == "gate-not-open":
                time.sleep(said["retry_after_ms"] / 1000)
            elif code == "token-expired":
                self.forget_token()
            elif code in REPEATED:
                time.sleep(float(response.headers.get("retry-after", 1)))
            elif code in LATER:
                self.forget_token()
                raise NotNow(response.status_code, said)
            else:
                return response.status_code, said

    def stream(self, after: str | None, outlet: str) -> Iterator[httpx2.ServerSentEvent]:
        """The outlet's events behind a place, as they come, until the connection ends."""
        headers = self._headers() | {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        with self._http.stream(
            "GET", "/v1/hall/stream", params={"outlet_id": outlet}, headers=headers,
            timeout=httpx2.Timeout(30, read=SILENCE_SECONDS),
        ) as response:  # fmt: skip
            if response.status_code != 200:
                response.read()
                _body(response)
            yield from httpx2.EventSource(response)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token()}", "Accept-Language": "en"}


def _said(response: httpx2.Response) -> Json:
    """What the hall says: it speaks JSON alone."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in {"application/json", "application/problem+json"}:
        raise NoAnswer(f"{response.status_code} with {kind or 'nothing'}")
    try:
        return response.json()
    except ValueError:
        raise NoAnswer(f"{response.status_code} with broken JSON") from None


def _body(response: httpx2.Response) -> Json:
    said = _said(response)
    if response.status_code >= 400:
        raise Refused(response.status_code, said)
    return said


def _code_of(problem: Json) -> str:
    return str(problem.get("type", "")).rsplit("/", 1)[-1]


class Gates:
    """Cards that wait for their gate, the earliest first, in a thread of its own: the stream is read on meanwhile.

    Args:
        now: the hall's time.
        opened: called with each card whose gate has opened.
    """

    def __init__(self, now: Callable[[], datetime], opened: Callable[[Json], object]) -> None:
        self._now, self._opened = now, opened
        self._heap: list[tuple[datetime, int, Json]] = []
        self._count = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, card: Json) -> None:
        """Let a card wait."""
        with self._changed:
            self._count += 1  # of two with the same gate the first one goes first
            heapq.heappush(self._heap, (datetime.fromisoformat(card["opens_at"]), self._count, card))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                seconds = (self._heap[0][0] - self._now()).total_seconds() if self._heap else SILENCE_SECONDS
                if seconds > 0:
                    # Not over the whole weekend in one: somebody may set a clock.
                    self._changed.wait(min(seconds, SILENCE_SECONDS))
                    continue
                card = heapq.heappop(self._heap)[2]
            self._opened(card)


class Outlet:
    """One outlet at work: it follows the hall and does what each event asks for."""

    def __init__(self, config: Json, state: State, *, once: bool) -> None:
        self.config = config
        self.state = state
        self.hall = Hall(config, state)
        self.once = once
        self.signed = False
        self.clock = timedelta(0)
        self.known: Json | None = None
        self.waiting = list(state.cards.values())
        self.signings = list(state.signings.values())
        self.racers = ThreadPoolExecutor(RACERS)
        self.gates = Gates(self.now, lambda card: self.begin(self.race, card))

    def now(self) -> datetime:
        """The hall's time."""
        return datetime.now(UTC) + self.clock

    def begin(self, errand: Callable[..., None], *args: object) -> None:
        """Do it in one of the racers' threads, in the order in which errands came."""
        with suppress(RuntimeError):  # the program ends; what is left stands in the state
            self.racers.submit(errand, *args).add_done_callback(_tell_fault)

    def later(self, errand: Callable[..., None], *args: object) -> None:
        """Do it after a while; what it is about stands in the state until it is done."""
        timer = threading.Timer(LATER_SECONDS, self.begin, (errand, *args))
        timer.daemon = True
        timer.start()

    def product(self) -> Json:
        """The version of the product that the outlet claims with; a version never changes, so it is read once."""
        if self.known is None:
            name, version = self.config["product"].split("@")
            self.known = self.hall.read(f"/v1/products/{name}", version=version)
        return self.known

    def work(self) -> None:
        """Follow the hall for ever: after each end of the stream, whatever its reason, a new one where it stood."""
        while not (self.once and self.signed):
            try:
                if self.state.cursor is None:
                    self.read_snapshot()
                self.follow()
            except UNANSWERED as error:
                print(f"the stream broke ({type(error).__name__} {error})", file=sys.stderr)
            except Refused as refused:
                if refused.code not in REPEATED | {"token-expired", "token-invalid"}:
                    raise
                self.hall.forget_token()
                print(refused, file=sys.stderr)
            if not (self.once and self.signed):
                # Unequal, so that not every bank comes back in the same instant.
                time.sleep(0.5 + secrets.randbelow(1500) / 1000)

    def begin_what_waits(self) -> None:
        """Once, when the hall's time is known: go on with what waited, or was under way, when the program ended."""
        for card in self.waiting:
            self.gates.add(card)
        for accepted in self.signings:
            self.begin(self.sign, accepted)
        self.waiting = self.signings = []

    def read_snapshot(self) -> None:
        """All open cards at one instant, and the place of the stream that belongs to it."""
        place = None
        for page in self.hall.pages("/v1/hall", outlet_id=self.config["outlet"], limit="200"):
            if place is None:  # what changes while the other pages are read stands behind it in the stream
                place = page["as_of"]
                self.set_clock(page["read_at"])
            for card in page["items"]:
                self.expect(card)
        self.state.cursor, self.state.last = place, None
        self.state.save()

    def set_clock(self, hall_time: str) -> None:
        """How far the hall's clock is ahead of ours; deadlines and days are kept by the hall's."""
        self.clock = datetime.fromisoformat(hall_time) - datetime.now(UTC)

    def follow(self) -> None:
        """Read the stream until it ends, and do what each event asks for."""
        for event in self.hall.stream(self.state.cursor, self.config["outlet"]):
            if event.event == "reset":
                # Our place means nothing any more: too long ago, or the hall was restored from a backup.
                self.state.cursor = self.state.last = None
                self.state.save()
                return
            if event.event in {"bye", "lagged", "reauth"}:
                return
            epoch, sequence, prev = event.id.split(".")
            if event.event == "hello":
                self.set_clock(json.loads(event.data)["server_time"])
                self.begin_what_waits()
                print(f"following the hall from {epoch}.{sequence}", flush=True)
                self.state.last = self.state.last or prev
                continue
            if self.state.last is not None and prev != self.state.last:
                print(f"an event is missing between {self.state.last} and {prev}: from the snapshot", file=sys.stderr)
                self.state.cursor = self.state.last = None
                self.state.save()
                return
            envelope = json.loads(event.data)
            if envelope["id"] not in self.state.seen:
                self.handle(envelope)
                with self.state.lock:
                    self.state.seen.append(envelope["id"])
            # Only now: what was not finished comes again after a crash.
            with self.state.lock:
                self.state.cursor, self.state.last = f"{epoch}.{sequence}", sequence
                self.state.save()
            if self.once and self.signed:
                return

    def handle(self, envelope: Json) -> None:
        """Do what an event asks for; done a second time it changes nothing."""
        told = envelope["data"]
        match envelope["type"]:
            case "fin.request.broadcast.v1" | "fin.request.resumed.v1" if "opens_at" in told:
                self.expect(told)
            case "fin.round.taken.v1" | "fin.round.closed.v1" | "fin.request.suspended.v1":
                self.forget(told["fr_id"])
            case "fin.claim.accepted.v1":
                with self.state.lock:
                    self.state.signings[told["claim_id"]] = told
                    self.state.save()
                self.sign(told)
            case "fin.claim.lapsed.v1" | "fin.claim.rejected.v1" | "fin.claim.superseded.v1" as ended:
                print(f"{ended}: {told['claim_id']} is ours no more; its dossier must not be used", flush=True)
            case _:
                pass

    def expect(self, card: Json) -> None:
        """Wait for the gate of a card that we want; the stream is read on meanwhile."""
        if wanted(card["card"], self.product()):
            with self.state.lock:
                self.state.cards[card["fr_id"]] = card
                self.state.save()
            self.gates.add(card)

    def forget(self, fr: str) -> None:
        """The card is gone, or hidden until it is resumed. What we began to grab is ended by the hall's answer."""
        with self.state.lock:
            card = self.state.cards.get(fr)
            if card is not None and grab_of(card) not in self.state.acts:
                self.done_with(card)

    def done_with(self, card: Json) -> None:
        """Nothing more is to be done for a card; a newer one of the same request waits on."""
        with self.state.lock:
            if self.state.cards.get(card["fr_id"]) == card:
                del self.state.cards[card["fr_id"]]
                self.state.save()

    def race(self, card: Json) -> None:
        """Grab a card whose gate is open. What follows comes behind the other grabs of the same gate."""
        if self.state.cards.get(card["fr_id"]) != card:
            return
        fr = card["fr_id"]
        body = {"round": card["round"], "outlet_id": self.config["outlet"], "product_id": self.config["product"],
            "card_version": card["card_version"], "officer_id": self.config.get("officer")}  # fmt: skip
        try:
            won = self.hall.act(grab_of(card), f"/v1/financing-requests/{fr}/claims", body)
        except NotNow as refused:
            print(f"{fr} is tried for later: {refused}", file=sys.stderr)
            self.later(self.race, card)  # its round goes on for hours, and an answer that was lost may have been a yes
            return
        except Refused as refused:
            print(f"not ours: {refused.code}", flush=True)
            self.done_with(card)
            return
        print(f"grabbed {fr} as {won['claim_id']}, fence {won['fence']}, until {won['lease_until']}", flush=True)
        self.begin(self.work_on, card, won)

    def work_on(self, card: Json, won: Json) -> None:
        """Go on from a claim to its offer."""
        try:
            self.make_offer(won["claim_id"], won["fence"])
        except NotNow as refused:
            print(f"claim {won['claim_id']} waits: {refused}", file=sys.stderr)
            self.later(self.work_on, card, won)
            return
        except Refused as refused:
            # Such as stale-fence: the lease is over, and whatever we do under it is refused from now on.
            print(f"claim {won['claim_id']}: {refused}", file=sys.stderr)
        except UNANSWERED as error:
            print(f"claim {won['claim_id']}: no answer ({type(error).__name__} {error}); once more", file=sys.stderr)
            self.later(self.work_on, card, won)
            return
        self.done_with(card)

    def make_offer(self, claim: str, fence: int) -> None:
        """Contact the enterprise, read its dossier and make the offer."""
        proof = {"method": "call", "proof_sha256": sha256(f"call {claim}".encode()).hexdigest()}
        self.hall.act(f"contact {claim}", f"/v1/claims/{claim}/contact", proof, fence)
        try:
            dossier = self.hall.read(f"/v1/claims/{claim}/dossier")
        except NotNow:
            raise
        except Refused as refused:
            if refused.code not in {"consent-missing", "consent-revoked"}:
                raise
            self.hall.act(f"decline {claim}", f"/v1/claims/{claim}/decline", {"reason": refused.code}, fence)
            return
        offer = offered(dossier, self.product())
        if offer is None:
            self.hall.act(f"decline {claim}", f"/v1/claims/{claim}/decline", {"reason": "outside-appetite"}, fence)
            return
        made = self.hall.act(f"offer {claim}", f"/v1/claims/{claim}/offers", offer, fence)
        print(f"offered {made['amount_fen'] / 100:,.0f} CNY, {made['annual_cost_bp'] / 100:.2f}% a year", flush=True)

    def sign(self, told: Json) -> None:
        """Report that the contract is signed, by the day of the hall's clock in Beijing."""
        today = (self.now() + timedelta(hours=8)).date()
        try:
            report = contract_of(told["claim_id"], today, self.product())
            facility = self.hall.act(f"sign {told['claim_id']}", "/v1/facilities", report, told["fence"])
        except (NotNow, *UNANSWERED) as refused:
            print(f"claim {told['claim_id']} is signed later: {refused}", file=sys.stderr)
            self.later(self.sign, told)
            return
        except Refused as refused:
            print(f"claim {told['claim_id']} cannot be signed: {refused}", file=sys.stderr)
            self.signed_off(told)
            return
        self.signed_off(told)
        self.signed = True
        print(f"signed {facility['ceiling_fen'] / 100:,.0f} CNY as {facility['facility_id']}", flush=True)

    def signed_off(self, told: Json) -> None:
        """Nothing more is to be reported of an acceptance."""
        with self.state.lock:
            self.state.signings.pop(told["claim_id"], None)
            self.state.save()


def grab_of(card: Json) -> str:
    """The name of the act. A card that was hidden and is shown again has another gate, and is another grab."""
    return f"grab {card['fr_id']} {card['round']} {card['opens_at']}"


def _tell_fault(ended: Future[None]) -> None:
    if not ended.cancelled() and (fault := ended.exception()) is not None:
        traceback.print_exception(fault)


# ------------------------------------------------------------------------------------------- what a bank decides itself


def wanted(card: Json, product: Json) -> bool:
    """Whether to race for a card, which shows neither name nor exact amount. The product must be able to serve it."""
    low, high = card["amount_band"].split("-")
    return (
        high != "up"
        and product["max_fen"] >= int(low) * BAND_UNIT_FEN
        and product["min_fen"] < int(high) * BAND_UNIT_FEN
        and card["term_months"] <= product["terms"]["line_months"]
    )


def offered(dossier: Json, product: Json) -> Json | None:
    """The offer on a dossier, within the product; None: decline. Here what was asked, up to the reference limit."""
    amount = min(dossier["amount_fen"], dossier["quote_fen"] or dossier["amount_fen"] // 2, product["max_fen"])
    if amount < max(5_000_000, product["min_fen"]):
        return None
    is_above = amount > (dossier["quote_fen"] or 0)
    terms = product["terms"]
    rate_bp = min(max(365, terms["rate"]["from_bp"]), terms["rate"]["to_bp"])
    return {
        "amount_fen": amount,
        "rate_basis": terms["rate"]["basis"],
        "basis_bp": 300,
        "spread_bp": rate_bp - 300,
        "line_months": min(terms["line_months"], LINE_MONTHS),
        "draw_months": min(terms["draw_months"], LINE_MONTHS),
        "repayment": terms["repayments"][0],
        "revolving": terms["is_revolving"],
        "fees": [],  # the product's fee for repaying early is added by the hall
        "cleared": dossier["conditions"],  # a bank clears them first: it reads the credit report, asks for the papers
        "conditions": [],
        "above_quote_reason": "own-assessment" if is_above else None,
    }


def contract_of(claim: str, today: date, product: Json) -> Json:
    """What is reported of a signed contract; the document itself stays with the bank."""
    return {
        "claim_id": claim,
        "contract_no": f"C-{claim[-12:]}",
        "document_sha256": sha256(f"contract {claim}".encode()).hexdigest(),
        "signed_on": today.isoformat(),
        "line_ends_on": (today + timedelta(days=30 * min(product["terms"]["line_months"], LINE_MONTHS))).isoformat(),
    }


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("config", type=Path, help="JSON file: url, client, kid, key, outlet, product")
    parser.add_argument("--once", action="store_true", help="end after the first signing that it reports")
    parser.add_argument("--token", action="store_true", help="print an access token and end")
    asked = parser.parse_args()
    config = json.loads(asked.config.read_text(encoding="utf-8"))
    state = State(asked.config.with_name(asked.config.name + ".state"))
    if asked.token:
        print(Hall(config, state).token())
        return
    outlet = Outlet(config, state, once=asked.once)
    try:
        outlet.work()
    except KeyboardInterrupt:
        print("ended; started again it reads on where it stood", file=sys.stderr)
    finally:
        outlet.racers.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    main()
