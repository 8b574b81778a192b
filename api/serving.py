"""Serving: one process, or several on one socket; the application object is handed over, never an import string."""

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from typing import Any

import structlog
import uvicorn

from api.app import create_app
from api.database import database_url
from api.logs import log_as_json
from api.migrating import prepare
from api.service import Service, running
from api.settings import Settings
from api.streaming import with_bare_send
from data_contracts.errors import JifenError

GRACE_SECONDS = 2
"""What calls that are under way get when the process is told to end; streams are told at once."""
END_SECONDS = 5
START_SECONDS = 30
RESTART_SECONDS = 1.0

log = structlog.get_logger()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone: they are for whoever runs the server."""
        yield


@asynccontextmanager
async def served(settings: Settings, url: str, listening: socket.socket) -> AsyncGenerator[Service]:
    """The hall, served on a socket while the block runs; then it ends within three seconds, streams and all.

    Args:
        settings: of this process.
        url: of a database that is prepared, as its owner.
        listening: bound and listening; closed at the end.
    """
    async with running(settings, url, address_of(listening)) as service:
        app = create_app(settings)
        app.state.service = service
        server = _Server(
            uvicorn.Config(
                with_bare_send(app),
                http="httptools" if _has("httptools") else "h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not task.done():  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        try:
            yield service
        finally:
            service.closing.set()
            server.should_exit = True
            await task


def listening_on(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any that is free.

    Raises:
        OSError: the address is taken, or not ours.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=2048)


def address_of(listening: socket.socket) -> str:
    """The socket's address as a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings, host: str, port: int, processes: int, say: Callable[[str], None]) -> None:
    """Serve the hall until a signal ends it: prepare the database (an embedded one is started), then take calls.

    Args:
        settings: of the service; each process takes its share of the rate limits.
        host: to listen at.
        port: to listen at; 0: any that is free.
        processes: how many share the socket; one that dies is started again.
        say: told the address once calls are taken, then where models and database are.
    """
    settings = settings.model_copy(update={"processes": max(processes, settings.processes)})
    log_as_json()
    listening = listening_on(host, port)
    work = _serve_alone(settings, listening, say) if processes == 1 else _serve_shared(
        settings, listening, processes, say
    )  # fmt: skip
    run(work)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on the loop that is quickest here."""
    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


async def _serve_alone(settings: Settings, listening: socket.socket, say: Callable[[str], None]) -> None:
    ended = _ended_by_signal()
    async with database_url(settings, lasting=True) as url:
        await prepare(url, settings.hall_policy)
        async with served(settings, url, listening):
            _keep_what_is_made()
            say(_opened(settings, address_of(listening)))
            await ended.wait()


def _opened(settings: Settings, hall: str) -> str:
    """That the hall is open, in the first line; then what it works with: two folders, unless JIFEN_HOME names one."""
    from models.registry import champion_version

    folder = settings.models_folder()
    try:
        champion = champion_version(folder)
        models = "no champion yet" if champion is None else f"champion {champion}"
    except (JifenError, OSError) as fault:
        models = f"not readable: {fault}"
    database = "as JIFEN_DATABASE_URL says" if settings.database_url else settings.data_folder().absolute() / "postgres"
    return f"the hall is open at {hall}\nmodels: {folder}, {models}\ndatabase: {database}"


def _ended_by_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT; the second one ends the process at once."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, end)
    return ended


def _keep_what_is_made() -> None:
    """Free the collector of what lives as long as the process: walking it stops all calls for a tenth of a second."""
    gc.collect()
    gc.freeze()


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


# --------------------------------------------------------------------------------------------------- several processes


async def _serve_shared(
    settings: Settings, listening: socket.socket, processes: int, say: Callable[[str], None]
) -> None:
    """Hold the database and the socket, and keep so many processes alive that serve on it."""
    ended = _ended_by_signal()
    with tempfile.TemporaryDirectory(prefix="jifen-metrics-") as figures:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = figures
        async with database_url(settings, lasting=True) as url:
            await prepare(url, settings.hall_policy)
            are_ready = [multiprocessing.get_context("spawn").Event() for _ in range(processes)]
            children = [_started(settings, url, listening, one) for one in are_ready]
            for one in are_ready:
                await asyncio.to_thread(one.wait, START_SECONDS)
            say(_opened(settings, f"{address_of(listening)}, {processes} processes"))
            while not ended.is_set():
                for place, child in enumerate(children):
                    if not child.is_alive():
                        log.warning("a serving process died and is started again", exit=child.exitcode)
                        _forget_figures(child)
                        children[place] = _started(settings, url, listening, are_ready[place])
                try:
                    await asyncio.wait_for(ended.wait(), RESTART_SECONDS)
                except TimeoutError:
                    continue
            await asyncio.to_thread(_end, children)


def _started(settings: Settings, url: str, listening: socket.socket, is_ready: Event) -> SpawnProcess:
    # A pipe, not arguments or the environment, carries the settings and the address with its password.
    child = multiprocessing.get_context("spawn").Process(
        target=_child, args=(settings, url, listening, is_ready), name="hall"
    )
    child.start()
    return child


def _end(children: list[SpawnProcess]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        child.join(END_SECONDS)
        if child.is_alive():
            child.kill()


def _forget_figures(child: SpawnProcess) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    if child.pid is not None:
        mark_process_dead(child.pid)


def _child(settings: Settings, url: str, listening: socket.socket, is_ready: Event) -> None:
    log_as_json()
    run(_serve_as_child(settings, url, listening, is_ready))


async def _serve_as_child(settings: Settings, url: str, listening: socket.socket, is_ready: Event) -> None:
    ended = _ended_by_signal()
    parent = multiprocessing.parent_process()
    assert parent is not None  # only a parent starts this
    loop = asyncio.get_running_loop()
    # A parent that was killed cannot tell its children.
    loop.add_reader(parent.sentinel, ended.set)
    async with served(settings, url, listening):
        _keep_what_is_made()
        is_ready.set()
        await ended.wait()
        loop.remove_reader(parent.sentinel)
