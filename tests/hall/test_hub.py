"""The stream: nothing lost, nothing early, nothing of others, an end for everybody (hall.md V3, V5, V7 to V12)."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from api import streaming
from api.feed import Reader
from api.hub import MOST_QUEUED, Batch, Hub, Row, Subscriber
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.feeding import Stream, announce, broadcast, emit, feed_of, listening, publish_all, until, value


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


async def bank_of(hall: Hall) -> tuple[made.Bank, Client]:
    bank = await made.bank(hall.owner)
    return bank, await hall.client("bank", institution=bank.institution)


async def told(hall: Hall, *institutions: str) -> None:
    for one in institutions:
        await emit(hall.owner, institution=one)
    await publish_all(hall.owner)


async def read_up_to(hall: Hall, place: int) -> None:
    assert await hall.service.hub.reached(place, 10)


# ----------------------------------------------------------------------------------------------------- begin and resume


async def test_v8_the_first_frame_says_where_the_feed_stands(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    await told(hall, bank.institution, bank.institution)
    await read_up_to(hall, 2)
    async with listening(client) as stream:
        hello = await stream.next()
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert (hello.event, hello.id, hello.data["head"], hello.data["oldest"]) == ("hello", "1.2.2", "1.2", "1.1")
        assert "retry: 2000" in hello.raw
        assert hello.data["server_time"].endswith("Z")


async def test_v3_v7_a_resumed_stream_goes_on_with_each_event_and_the_one_before(hall: Hall) -> None:
    (mine, client), (other, _) = await bank_of(hall), await bank_of(hall)
    await told(hall, *[mine.institution, other.institution] * 4)
    async with listening(client, after="1.0") as stream:
        assert (await stream.next()).event == "hello"
        first = await stream.events(2)
    async with listening(client, last_event_id=first[1].id) as stream:
        assert (await stream.next()).id == "1.3.3", "the place, and the event before the next"
        frames = first + await stream.events(2)
        await told(hall, other.institution, mine.institution)
        frames += await stream.events(1)
    assert [(one.prev, one.sequence) for one in frames] == [(0, 1), (1, 3), (3, 5), (5, 7), (7, 10)]
    assert [int(one.data["sequence"]) for one in frames] == [1, 3, 5, 7, 10]
    async with listening(client, last_event_id="1.5.3", after="1.0") as stream:
        assert [one.sequence for one in await stream.events(2)][1] == 7, "Last-Event-ID goes before ?after="


async def test_v8_a_stream_from_the_snapshot_has_no_gap(hall: Hall) -> None:
    """Each card is in the snapshot or on the stream behind it."""
    bank, client = await bank_of(hall)
    await broadcast(hall.owner, [bank.outlet_no])
    cards = [await broadcast(hall.owner, [bank.outlet_no]) for _ in range(2)]

    async def goes_on() -> None:
        cards.extend([await broadcast(hall.owner, [bank.outlet_no]) for _ in range(6)])

    beside = asyncio.create_task(goes_on())
    await asyncio.sleep(0.1)
    snapshot = (await client.get("/v1/hall")).json()
    seen = {one["fr_id"] for one in snapshot["items"]}
    async with listening(client, after=snapshot["as_of"]) as stream:
        await beside
        async with asyncio.timeout(10):
            while not set(cards) <= seen:
                frame = await stream.next()
                seen |= {frame.data["data"]["fr_id"]} if frame.event == "fin.request.broadcast.v1" else set()
    assert snapshot["items"][0]["outlet_ids"] == [bank.outlet]


async def test_g1_pages_of_the_hall_keep_the_place_of_the_first(hall: Hall) -> None:
    (bank, client), (_, stranger) = await bank_of(hall), await bank_of(hall)
    cards = [await broadcast(hall.owner, [bank.outlet_no]) for _ in range(5)]
    shown: list[str] = []
    path, as_of = "/v1/hall?limit=2", None
    while path:
        page = await hall.http.get(path, headers=client.headers)
        as_of = as_of or page.json()["as_of"]
        assert page.json()["as_of"] == as_of
        shown += [one["fr_id"] for one in page.json()["items"]]
        link = page.headers.get("link", "")
        path = link.partition("<")[2].partition(">")[0]
        await emit(hall.owner)
        await publish_all(hall.owner)
        if path:
            assert (await hall.http.get(path, headers=stranger.headers)).json()["type"] == "/problems/bad-cursor"
    assert shown == cards


async def test_v5_a_card_on_the_stream_needs_no_second_call(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    async with listening(client) as stream:
        await stream.next()
        fr = await announce(hall.owner, [bank.outlet_no])
        frame = await stream.next()
    snapshot = (await client.get("/v1/hall")).json()["items"][0]
    told = frame.data["data"]
    assert frame.event == "fin.request.broadcast.v1"
    assert {name: told[name] for name in told} == {name: snapshot[name] for name in told}
    assert told["fr_id"] == fr


@pytest.mark.parametrize("place", ["2.1", "1.999", "1.1"], ids=["other epoch", "not yet given out", "too old"])
async def test_v9_a_place_that_means_nothing_is_answered_by_reset_and_the_end(
    hall: Hall, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BEHIND_SECONDS", 0.1)
    bank, client = await bank_of(hall)
    await told(hall, *[bank.institution] * 3)
    await hall.owner.execute("INSERT INTO hall.clock_offset VALUES ('default', interval '7 days 1 hour')")
    await told(hall, bank.institution)
    await read_up_to(hall, 4)
    async with listening(client, after=place) as stream:
        frame = await stream.next()
        assert (frame.event, frame.data["snapshot"]) == ("reset", "/v1/hall")
        with pytest.raises(StopAsyncIteration):
            await stream.next()
    async with listening(client, after="1.3") as stream:
        assert [(await stream.next()).event, (await stream.next()).sequence] == ["hello", 4]


async def test_v9_a_new_epoch_ends_streams_that_are_open(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    async with listening(client) as stream:
        await stream.next()
        await hall.owner.execute("SELECT hall.begin_epoch('default')")
        assert (await stream.next()).event == "reset"
    await told(hall, bank.institution)
    async with listening(client, after="2.0") as stream:
        assert [(await stream.next()).event, (await stream.next()).id] == ["hello", "2.1.0"]


@pytest.mark.parametrize("place", ["", "1", "0.1", "1.1.1.1", "1.-1", "a.b", "1.1 ", "9" * 30])
async def test_a_malformed_place_is_a_bad_cursor(hall: Hall, place: str) -> None:
    client = await hall.client("enterprise", uscc=await made.enterprise(hall.owner))
    answer = await client.get("/v1/hall/stream", after=place)
    assert answer.json()["type"] == "/problems/bad-cursor"


# ------------------------------------------------------------------------------------------------------ who gets what


async def test_each_stream_carries_what_its_client_may_have_and_no_more(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    second, second_no = await made.outlet(hall.owner, bank.institution)
    uscc, other = await made.enterprise(hall.owner), await made.enterprise(hall.owner)
    portal = await hall.client("portal")
    await hall.owner.execute("UPDATE hall.enterprise SET portal = $1 WHERE uscc = $2", portal.client_id, other)
    for one, audience in ((uscc, [bank.outlet_no]), (other, [second_no]), (other, [])):
        await broadcast(hall.owner, audience, uscc=one, purpose=f"p{len(audience)}{second_no in audience}")
    fr_of = {row["uscc"]: row["subject"] for row in await feed_of(hall.owner)}
    await read_up_to(hall, len(await feed_of(hall.owner)))

    async def cards(client: Client, **query: Any) -> list[str]:
        heard: list[str] = []
        async with listening(client, after="1.0", **query) as stream:
            await stream.next()
            try:
                while True:
                    frame = await stream.next(0.5)
                    heard += [frame.data["subject"]] if frame.event == "fin.request.broadcast.v1" else []
            except TimeoutError:
                return heard

    assert len(await cards(client)) == 2
    assert await cards(client, outlet_id=bank.outlet) == [fr_of[uscc]]
    assert len(await cards(client, outlet_id=second)) == 1
    assert await cards(await hall.client("enterprise", uscc=uscc)) == [fr_of[uscc]]
    assert len(await cards(portal)) == 2
    stranger, _ = await bank_of(hall)
    assert (await client.get("/v1/hall/stream", outlet_id=stranger.outlet)).status_code == 404
    assert (await (await hall.client("operator")).get("/v1/hall/stream")).status_code == 403


async def test_an_outlet_opened_while_the_stream_is_open_counts_at_once(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    await told(hall, bank.institution)
    async with listening(client, after="1.0") as stream:
        await stream.events(2)
        _, late = await made.outlet(hall.owner, bank.institution)
        fr = await broadcast(hall.owner, [late])
        assert (await stream.next()).data["subject"] == f"fr/{fr}"


# ------------------------------------------------------------------------------------------------------ loss and order


@pytest.mark.parametrize(
    ("subscribers", "events"), [(10, 300), pytest.param(50, 8000, marks=pytest.mark.soak)]
)  # 900 deliveries; the long form 104,000
async def test_i21_subscribers_who_come_and_go_get_each_of_their_events_once_and_in_order(
    hall: Hall, subscribers: int, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little is kept in memory, so that who comes back reads the table and then what is kept."""
    monkeypatch.setattr("api.hub.RING", 30)
    monkeypatch.setattr("api.streaming.PAGE", 7)
    banks = [await bank_of(hall) for _ in range(subscribers)]
    rng = np.random.default_rng(20261123)
    done = asyncio.Event()
    cuts = 0

    async def writes() -> None:
        """Half of the events concern one institution, half the audience of a round that half of them are in."""
        half = [bank.outlet_no for bank, _ in banks[::2]]
        fr = await announce(hall.owner, half)
        for n in range(events):
            if n % 2:
                await emit(hall.owner, institution=banks[rng.integers(subscribers)][0].institution)
            else:
                await emit(hall.owner, subject=f"fr/{fr}", fr=fr, round=1)
            if n % 20 == 0:
                await asyncio.sleep(0)
        await publish_all(hall.owner)
        await read_up_to(hall, await value(hall.owner, "SELECT head FROM hall.feed_state"))
        done.set()

    async def follows(client: Client, seed: int) -> list[tuple[int, int]]:
        nonlocal cuts
        own = np.random.default_rng(seed)
        heard: list[tuple[int, int]] = []
        place = "1.0"
        breaks = 0
        is_last = False
        while True:
            try:
                async with listening(client, last_event_id=place) as stream:
                    await stream.next()
                    for _ in range(int(own.integers(5, 60)) if not is_last else 10**9):
                        frame = await stream.next(2)
                        heard.append((frame.prev, frame.sequence))
                        place = frame.id
            except TimeoutError:
                if is_last:
                    return heard
            cuts += 1
            breaks += 1
            is_last = done.is_set() and breaks >= 2

    work = [asyncio.create_task(follows(client, seed)) for seed, (_, client) in enumerate(banks)]
    await writes()
    heard = await asyncio.gather(*work)
    rows = await feed_of(hall.owner)
    deliveries = sum(map(len, heard))
    print(f"{deliveries:,} deliveries over {cuts + subscribers:,} connections")
    assert deliveries >= subscribers // 2 * events // 2 + events // 2
    assert cuts > subscribers
    for (bank, _), got in zip(banks, heard, strict=True):
        due = [
            row["sequence"]
            for row in rows
            if row["institution_id"] == bank.institution or bank.outlet_no in (row["audience"] or ())
        ]
        assert [place for _, place in got] == due
        assert got == list(pairwise([0, *due])), "prev names the event before"


async def test_v12_one_listening_connection_serves_all_and_a_break_loses_nothing(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    listeners = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'hall.feed|LISTEN' "
        "AND pid <> pg_backend_pid() AND query !~ 'sequence_feed|keep_positions'"
    )
    async with listening(client) as one, listening(client) as two:
        assert (await one.next()).event == (await two.next()).event == "hello"
        assert await value(hall.owner, listeners) == 1
        await hall.owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await told(hall, bank.institution)
        assert [(await one.next()).sequence, (await two.next()).sequence] == [1, 1]


async def test_v12_no_notification_is_needed(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    text = await value(hall.owner, "SELECT pg_get_functiondef('hall.sequence_feed'::regproc)")
    assert text.count("perform pg_notify(") == 1
    await hall.owner.execute(text.replace("perform pg_notify(", "perform concat("))
    async with listening(client) as stream:
        await stream.next()
        await told(hall, bank.institution)
        assert (await stream.next(3)).sequence == 1


# ------------------------------------------------------------------------------------------------------------- the end


READER = Reader("client", "default", "in_1")


class Socket:
    """The server's side of a connection, as ASGI shows it; `stuck` takes no byte more until it is `freed`."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.stuck = False
        self.freed = asyncio.Event()
        self.fault: Exception | None = None
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.stuck:
            await self.freed.wait()
        if self.fault is not None:
            raise self.fault
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])


def opened(hub: Hub, socket: Socket, **own: float) -> asyncio.Task[None]:
    """A stream on a hub that knows no database: its feed is empty."""
    stream = streaming.Stream(hub, None, READER, **own)  # pyright: ignore[reportArgumentType]
    return asyncio.create_task(stream({"type": "http"}, socket.receive, socket.send))


def empty_hub() -> Hub:
    hub = Hub()
    hub.epoch = 1
    return hub


async def test_v10_a_silent_stream_beats() -> None:
    socket = Socket()
    task = opened(empty_hub(), socket, heartbeat_seconds=0.02)
    await asyncio.sleep(0.2)
    assert socket.sent[0].startswith(b"retry: 2000")
    assert 3 <= len(socket.sent[1:]) <= 10
    assert set(socket.sent[1:]) == {b":\n\n"}
    assert streaming.HEARTBEAT_SECONDS == 15
    socket.left.set()
    await task


async def test_v10_a_socket_without_progress_is_left() -> None:
    hub, socket = empty_hub(), Socket()
    task = opened(hub, socket, heartbeat_seconds=0.01, progress_seconds=0.1)
    await asyncio.sleep(0.05)
    socket.stuck = True
    async with asyncio.timeout(2):
        await task
    assert (len(hub.live), hub.opened, hub.closed) == (0, 1, 1)
    assert streaming.PROGRESS_SECONDS == 10


async def offered(hub: Hub, sequence: int) -> None:
    """A row as the hub takes it from the feed."""
    hub._take([Row(sequence, b"event: e\ndata: %d\n\n" % sequence, frozenset({READER.key}))])


async def idle(hub: Hub) -> None:
    """Until every stream stands ready for what comes."""

    async def is_idle() -> bool:
        return all(one.at_once is not None for one in hub.live)

    await until(is_idle)


async def test_v3_who_stands_idle_is_written_to_at_once_and_who_stood_alike_gets_the_same_bytes() -> None:
    hub, sockets = empty_hub(), [Socket() for _ in range(3)]
    work = [opened(hub, socket) for socket in sockets]
    await asyncio.sleep(0.05)
    await idle(hub)
    for place in (1, 2):
        await offered(hub, place)  # and no turn of the loop
    for socket in sockets:
        assert [data.split(b"\n")[0] for data in socket.sent[1:]] == [b"id: 1.1.0", b"id: 1.2.1"]
        assert all(mine is first for mine, first in zip(socket.sent[1:], sockets[0].sent[1:], strict=True))
        socket.left.set()
    assert hub.positions == {("client", "", "stream"): 2}
    await asyncio.gather(*work)


async def test_v4_v10_a_socket_that_takes_nothing_for_a_while_holds_up_nobody_and_gets_all_in_order() -> None:
    hub, slow, quick = empty_hub(), Socket(), Socket()
    work = [opened(hub, socket) for socket in (slow, quick)]
    await asyncio.sleep(0.05)
    await idle(hub)
    slow.stuck = True
    for place in range(1, 6):
        await offered(hub, place)
    assert (len(slow.sent), len(quick.sent)) == (1, 6)
    await asyncio.sleep(0.05)
    await offered(hub, 6)
    slow.stuck = False
    slow.freed.set()
    await idle(hub)
    await offered(hub, 7)
    for socket in (slow, quick):
        told = b"".join(socket.sent[1:])
        assert [line for line in told.split(b"\n") if line.startswith(b"id")] == [
            b"id: 1.%d.%d" % (place, place - 1) for place in range(1, 8)
        ]
        socket.left.set()
    await asyncio.gather(*work)


async def test_v4_what_is_too_long_to_be_written_at_once_goes_before_what_comes_after_it() -> None:
    hub, socket = empty_hub(), Socket()
    task = opened(hub, socket)
    await asyncio.sleep(0.05)
    await idle(hub)
    hub._take([Row(1, b"data: %b\n\n" % (b"x" * streaming.MOST_BYTES), frozenset({READER.key}))])
    await offered(hub, 2)
    await asyncio.sleep(0.05)
    assert [data.split(b"\n")[0] for data in socket.sent[1:]] == [b"id: 1.1.0", b"id: 1.2.1"]
    socket.left.set()
    await task


async def test_v10_a_socket_that_stays_stuck_as_the_hub_writes_is_left() -> None:
    hub, socket = empty_hub(), Socket()
    task = opened(hub, socket, progress_seconds=0.1)
    await asyncio.sleep(0.05)
    await idle(hub)
    socket.stuck = True
    await offered(hub, 1)
    async with asyncio.timeout(2):
        await task
    assert (len(hub.live), hub.positions) == (0, {})


async def test_a_fault_of_one_stream_is_not_the_hubs() -> None:
    hub, broken, sound = empty_hub(), Socket(), Socket()
    work = [opened(hub, socket) for socket in (broken, sound)]
    await asyncio.sleep(0.05)
    await idle(hub)
    broken.fault = ValueError("made")
    await offered(hub, 1)
    with pytest.raises(ValueError, match="made"):
        await work[0]
    assert (len(hub.live), len(sound.sent)) == (1, 2)
    sound.left.set()
    await work[1]


async def test_v11_a_place_does_not_grow_old_where_nothing_comes() -> None:
    hub, socket = empty_hub(), Socket()
    task = opened(hub, socket, heartbeat_seconds=0.02)
    await asyncio.sleep(0.01)
    hub._take([Row(1, b"", frozenset({"another"}))])
    await asyncio.sleep(0.1)
    hub.end_all("bye")
    await task
    assert b"\nid: 1.1.0\nevent: bye\n" in socket.sent[-1]


async def test_v10_more_than_256_queued_rows_end_the_stream_as_lagged() -> None:
    subscriber = Subscriber("institution in_1")
    batch = Batch([Row(1, b"", frozenset({subscriber.key}))])
    for _ in range(MOST_QUEUED):
        subscriber.offer(batch)
    assert subscriber.ending is None
    subscriber.offer(batch)
    assert (subscriber.ending, subscriber.take()) == ("lagged", [])


async def test_v10_who_lags_is_told_so_and_resumes_where_it_was(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.hub.MOST_QUEUED", 3)
    bank, client = await bank_of(hall)
    heard: list[int] = []
    place = "1.0"
    async with listening(client, after=place) as stream:
        await stream.next()
        # One batch: the hub offers all ten before the stream can write.
        async with hall.owner.transaction():
            for _ in range(10):
                await emit(hall.owner, institution=bank.institution)
        await publish_all(hall.owner)
        frame = await stream.next()
        assert frame.event == "lagged"
        place = frame.id
    async with listening(client, last_event_id=place) as stream:
        await stream.next()
        heard += [one.sequence for one in await stream.events(10)]
    assert heard == list(range(1, 11))


async def test_v11_open_streams_end_with_bye_within_two_seconds(database: str, tmp_path: Path) -> None:
    streams: list[Stream] = []
    async with serving(database, tmp_path) as hall:
        _, client = await bank_of(hall)

        async def follow() -> list[str]:
            async with listening(client) as stream:
                streams.append(stream)
                while True:
                    try:
                        await stream.next(20)
                    except StopAsyncIteration:
                        return [one.event for one in stream.heard]

        work = [asyncio.create_task(follow()) for _ in range(50)]

        async def all_greeted() -> bool:
            return sum(bool(one.heard) for one in streams) == 50

        await until(all_greeted)
        began = asyncio.get_running_loop().time()
        hall.service.closing.set()
        heard = await asyncio.gather(*work)
        assert asyncio.get_running_loop().time() - began < 2
    assert heard == [["hello", "bye"]] * 50


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE hall.access_token SET expires_at = clock_timestamp()",
        "UPDATE hall.client SET revoked_at = clock_timestamp()",
    ],
    ids=["expired", "revoked"],
)
async def test_v11_a_token_that_ends_closes_its_stream_with_reauth(
    hall: Hall, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.tokens.CACHE_SECONDS", 0.1)
    _, client = await bank_of(hall)
    async with listening(client) as stream:
        await stream.next()
        await hall.owner.execute(end)
        assert (await stream.next(5)).event == "reauth"
        with pytest.raises(StopAsyncIteration):
            await stream.next()
    assert (await client.get("/v1/hall/stream")).status_code == 401


async def test_300_streams_leave_nothing_behind(hall: Hall) -> None:
    """Half of them leave without a word, half are ended."""
    bank, client = await bank_of(hall)
    hub = hall.service.hub
    limits = httpx2.Limits(max_connections=400, max_keepalive_connections=0)
    async with httpx2.AsyncClient(base_url=hall.http.base_url, limits=limits) as http:
        caller = Client(client.client_id, http, client.headers)
        ready, leave = asyncio.Semaphore(0), asyncio.Event()

        async def follow(*, leaves: bool) -> int:
            async with listening(caller) as stream:
                await stream.next(30)
                ready.release()
                places = [frame.sequence for frame in await stream.events(1, 30)]
                await leave.wait()
                if not leaves:
                    assert (await stream.next(30)).event == "bye"
                return places[0]

        work = [asyncio.create_task(follow(leaves=n % 2 == 0)) for n in range(300)]
        for _ in work:
            await ready.acquire()
        assert (len(hub.live), hub.opened - hub.closed) == (300, 300)
        await told(hall, bank.institution)
        leave.set()

        async def left() -> bool:
            return len(hub.live) == 150

        async def empty() -> bool:
            return not hub.live

        await until(left, 20)
        hub.end_all("bye")
        assert await asyncio.gather(*work) == [1] * 300
        await until(empty)
    assert (hub.opened, hub.closed) == (300, 300)
    assert hub._waiting == {}


async def test_g3_a_reader_has_at_most_twenty_streams(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, rate_limits=True) as hall:
        bank, client = await bank_of(hall)

        async def has_begun() -> bool:
            return hall.service.hub.epoch == 1

        await until(has_begun)
        key = f"institution {bank.institution}"
        for _ in range(20):
            hall.service.hub.open(Subscriber(key))
        refused = await client.get("/v1/hall/stream")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
