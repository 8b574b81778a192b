"""G3: rate limits count by institution, each process its share, and say when to come back."""

from contextlib import suppress
from pathlib import Path

import pytest
from starlette.requests import Request

from api.app import routers
from api.limits import CALLS, CLAIMS, LOOKS, MOST_CALLERS, PACES, Limits, Pace
from api.problems import Problem
from data_contracts.uscc import made_up_code
from tests.hall.callers import serving


def request() -> Request:
    return Request({"type": "http", "state": {}, "headers": []})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def passed(limits: Limits, pace: Pace, who: str, times: int) -> int:
    count = 0
    for _ in range(times):
        with suppress(Problem):
            limits.count(request(), pace, who)
            count += 1
    return count


def test_g3_five_claims_a_second_with_a_burst_of_twenty() -> None:
    clock = Clock()
    limits = Limits(clock=clock)
    assert (CLAIMS.per_second, CLAIMS.burst) == (5, 20)
    assert passed(limits, CLAIMS, "a", 100) == 20
    for _ in range(10):
        clock.now += 1
        assert passed(limits, CLAIMS, "a", 100) == 5
    clock.now += 60
    assert passed(limits, CLAIMS, "a", 100) == 20, "what is not used does not add up beyond the burst"


def test_g3_callers_and_paces_do_not_touch_each_other() -> None:
    limits = Limits(clock=Clock())
    assert passed(limits, CLAIMS, "a", 21) == 20
    assert passed(limits, CLAIMS, "b", 21) == 20
    assert passed(limits, CALLS, "a", 51) == 50


def test_g3_three_processes_do_not_triple_the_limit() -> None:
    clock = Clock()
    three = [Limits(3, clock=clock) for _ in range(3)]
    assert sum(passed(one, CLAIMS, "a", 100) for one in three) == 21
    clock.now += 3
    assert sum(passed(one, CLAIMS, "a", 100) for one in three) == 15


def test_g3_a_refusal_says_how_long_to_wait_and_that_is_enough() -> None:
    clock = Clock()
    limits = Limits(clock=clock)
    slow = Pace("slow", 0.25, 1)
    limits.count(request(), slow, "a")
    with pytest.raises(Problem) as caught:
        limits.count(request(), slow, "a")
    assert (caught.value.code, caught.value.members) == ("rate-limited", {"retry_after_seconds": 4})
    clock.now += 4
    limits.count(request(), slow, "a")


def test_g3_what_is_worth_more_than_the_share_passes_once_and_is_paid_for() -> None:
    """With three processes a share is 667: a full query passes when all is regained, and the pace holds over time."""
    clock = Clock()
    limits = Limits(3, clock=clock)
    assert (LOOKS.per_second, LOOKS.burst) == (200, 2000)
    limits.count(request(), LOOKS, "a", 1000)
    for many in (1, 1000):
        with pytest.raises(Problem):
            limits.count(request(), LOOKS, "a", many)
    clock.now += 15  # 1,000 at a third of 200 a second
    asked = 0
    for _ in range(600):
        clock.now += 0.5
        with suppress(Problem):
            limits.count(request(), LOOKS, "a", 1000)
            asked += 1000
    assert 300 * 200 / 3 - 1000 <= asked <= 300 * 200 / 3 + 1000
    whole = Limits(clock=clock)
    whole.count(request(), LOOKS, "a", 1000)
    whole.count(request(), LOOKS, "a", 1000)
    clock.now += 0.5
    seen = request()
    with pytest.raises(Problem) as refused:
        whole.count(seen, LOOKS, "a", 500)
    assert refused.value.members == {"retry_after_seconds": 2}  # 400 more of 200 a second
    assert seen.scope["state"]["rate"]["RateLimit"] == '"looks";r=100;t=10', "what a smaller query may still ask"
    clock.now += 2
    whole.count(request(), LOOKS, "a", 500)


async def test_looks_at_limits_are_paced_by_the_enterprises_asked_for(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, rate_limits=True) as hall:
        bank = await hall.institution("a bank")
        first, second = [await hall.client("bank", institution=bank) for _ in range(2)]
        hall.service.limits = Limits(clock=lambda: 0.0)
        codes = [made_up_code(number) for number in range(1000)]
        path, asked = "/v1/limits/query", {"usccs": codes, "purpose": "financing"}
        answers = [await client.post(path, asked) for client in (first, second)]
        assert [one.status_code for one in answers] == [200, 200], "2,000 at once"
        assert answers[0].headers["ratelimit-policy"] == '"looks";q=2000;w=10'
        assert [one.headers["ratelimit"] for one in answers] == ['"looks";r=1000;t=5', '"looks";r=0;t=10']
        logged = await hall.owner.fetchval("SELECT count(*) FROM hall.access_log")
        one_more = await first.get(f"/v1/enterprises/{codes[0]}/limit", purpose="financing")
        many_more = await second.post(path, asked)
        for refused, seconds in ((one_more, "1"), (many_more, "5")):
            assert (refused.status_code, refused.json()["type"]) == (429, "/problems/rate-limited")
            assert refused.headers["retry-after"] == seconds
            assert refused.headers["ratelimit"].startswith('"looks";r=0')
        assert await hall.owner.fetchval("SELECT count(*) FROM hall.access_log") == logged
        other = await hall.client("bank", institution=await hall.institution("another"))
        assert (await other.post(path, asked)).status_code == 200, "its own pace"


def test_a_stream_of_new_callers_does_not_fill_the_memory() -> None:
    clock = Clock()
    limits = Limits(clock=clock)
    for number in range(MOST_CALLERS + 100):
        clock.now += 0.1
        limits.count(request(), CALLS, str(number))
    assert len(limits._regained_at) <= MOST_CALLERS + 1


def test_a_pace_of_its_own_belongs_to_an_operation_that_exists() -> None:
    known = {
        (method, route.path)  # pyright: ignore[reportAttributeAccessIssue]
        for router in routers()
        for route in router.routes
        for method in route.methods  # pyright: ignore[reportAttributeAccessIssue]
    }
    assert set(PACES) <= known


async def test_g3_the_fifty_first_call_of_a_second_is_429_and_every_answer_tells_what_is_left(
    database: str, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, rate_limits=True) as hall:
        admin = await hall.client("admin")
        answers = [await admin.get("/v1/institutions", limit=1) for _ in range(2)]
        assert [one.status_code for one in answers] == [200, 200]
        assert answers[0].headers["ratelimit-policy"] == '"calls";q=50;w=1'
        assert answers[0].headers["ratelimit"] == '"calls";r=49;t=1'
        slower = Limits(clock=lambda: 0.0)
        hall.service.limits = slower
        assert passed(slower, CALLS, admin.client_id, 50) == 50
        refused = await admin.get("/v1/institutions")
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/rate-limited")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["ratelimit"].startswith('"calls";r=0')


async def test_g3_clients_of_one_institution_share_its_limit(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, rate_limits=True) as hall:
        bank = await hall.institution("a bank")
        first, second = [await hall.client("bank", institution=bank) for _ in range(2)]
        left = []
        for one in (first, second):
            answer = await one.get("/v1/institutions")
            left.append(answer.headers["ratelimit"].split(";")[1])
        assert ("calls", bank) in hall.service.limits._regained_at
        assert ("calls", first.client_id) not in hall.service.limits._regained_at
        assert left[0] == "r=49"
