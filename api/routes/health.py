"""Whether the process lives, whether it can work, what it measures, and what its problems mean."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.calls import answer, found
from api.metrics import exposed
from api.migrating import missing
from api.problems import language_of, problems
from api.reference import problem_types
from data_contracts.errors import JifenError

router = APIRouter(tags=["service"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Ready(BaseModel):
    """Whether calls can be taken, and for each part what is wrong with it, or ok."""

    status: Literal["ok", "not ready"]
    parts: dict[str, str]


class Meaning(BaseModel):
    """What a problem means and what to do."""

    type: str
    status: int
    title: str
    means: str
    do: str


@router.get("/healthz", summary="Does the process live?", response_model=Alive)
async def is_alive() -> Response:
    """Restart the process when this does not answer."""
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Can it take calls?",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "not now"}},
)
async def is_ready(request: Request) -> Response:
    """Send no calls here while this is not 200."""
    parts = await _parts(request)
    is_well = all(state == "ok" for state in parts.values())
    return answer({"status": "ok" if is_well else "not ready", "parts": parts}, 200 if is_well else 503)


async def _parts(request: Request) -> dict[str, str]:
    service = request.app.state.service
    if service.closing.is_set():
        return {"process": "ending"}
    try:
        async with service.pool.acquire(timeout=2) as connection:
            left = await missing(connection)
            known = dict(await connection.fetch("SELECT code, status FROM hall.problem_type", timeout=2))
    except JifenError as error:
        return {"database": "ok", "migrations": error.sentence}
    except Exception as error:  # noqa: BLE001  (whatever it is, calls cannot be taken)
        return {"database": type(error).__name__}
    is_in_line = known == {code: one.status for code, one in problem_types().items()}
    return {
        "database": "ok",
        "migrations": f"missing {', '.join(left)}" if left else "ok",
        "reference": "ok" if is_in_line else "not brought in line",
    }


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
async def measure(request: Request) -> Response:
    """In Prometheus' text format. Keep it from the outside at the balancer."""
    return exposed(request.app.state.service)


@router.get("/problems/{code}", summary="What a problem means", response_model=Meaning, responses=problems("not-found"))
async def explain_problem(code: str, request: Request) -> Response:
    """The page that a problem's `type` points to."""
    one = found(problem_types().get(code))
    language = language_of(request.headers.get("accept-language", ""))
    words = {name: getattr(getattr(one, name), language) for name in ("title", "means", "do")}
    return answer({"type": f"/problems/{code}", "status": one.status, **words}, headers={"Content-Language": language})
