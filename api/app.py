"""The application: `create_app` is the only place that wires the routes, the door and the answers to faults."""

from functools import partial
from importlib import import_module
from importlib.resources import files

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.changes import headers_of, parse_changes, shipped
from api.door import Door
from api.openapi import document
from api.problems import answer_of, problem_of
from api.settings import Settings

DESCRIPTION = """Financing requests of small firms are broadcast, and banks race to grab them (抢单).

Amounts are whole fen (0.01 CNY), rates basis points per year, times RFC 3339 in UTC with milliseconds. Every POST that
creates or acts carries an `Idempotency-Key`: whatever became of the answer, repeating it with the same key is safe."""


def create_app(settings: Settings, changes: str | None = None) -> FastAPI:
    """The application of one process; whoever serves it puts the running service at `app.state.service`.

    Args:
        settings: of the process.
        changes: text of a file of changes (G2) instead of the program's own.

    Raises:
        PolicyError: the file of changes is wrong.
    """
    told = parse_changes(shipped() if changes is None else changes, _operation_ids())
    app = FastAPI(
        title="jifen hall",
        version="1",
        description=DESCRIPTION,
        docs_url="/docs" if settings.debug else None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    for router in routers():
        app.include_router(router)
    app.add_exception_handler(HTTPException, _answered)
    app.add_exception_handler(RequestValidationError, _answered)
    app.state.changes = told
    deprecated = {name: headers_of(change) for name, change in told.deprecated().items()}
    app.add_middleware(Door, behind_tls=settings.behind_tls, forms=frozenset({"/oauth/token"}), deprecated=deprecated)
    app.openapi = partial(document, app)
    return app


def routers() -> list[APIRouter]:
    """The `router` of every module in api/routes, by name of the module."""
    folder = files("api") / "routes"
    names = sorted(one.name.removesuffix(".py") for one in folder.iterdir() if one.name.endswith(".py"))
    return [import_module(f"api.routes.{name}").router for name in names if name != "__init__"]


async def _answered(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request)
    if problem.code == "method-not-allowed":
        # The router names the methods of the first route of the path alone.
        problem.headers["Allow"] = ", ".join(sorted(_methods(request.scope["path"])))
    return answer_of(problem, request)


def _methods(path: str) -> set[str]:
    routes = [route for router in routers() for route in router.routes if isinstance(route, APIRoute)]
    return {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}


def _operation_ids() -> set[str]:
    return {_operation_id(route) for router in routers() for route in router.routes if isinstance(route, APIRoute)}


def _operation_id(route: APIRoute) -> str:
    return route.name
