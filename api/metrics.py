"""What the service measures of itself, for Prometheus; by route template, never by path.

With several processes on one socket JIFEN's parent sets PROMETHEUS_MULTIPROC_DIR, and any of them tells for all.
"""

import os
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response

if TYPE_CHECKING:
    from api.service import Service

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})

REGISTRY = CollectorRegistry()
_CALLS = Counter("jifen_calls", "Answered calls", ["method", "route", "status"], registry=REGISTRY)
_SECONDS = Histogram(
    "jifen_call_seconds", "From the first byte of a call to the last of its answer", ["method", "route"],
    buckets=_BUCKETS, registry=REGISTRY,
)  # fmt: skip
DEADLINES = Counter("jifen_deadlines_fired", "Deadlines that this process fired", ["what"], registry=REGISTRY)
_POOL = Gauge("jifen_pool_connections", "Connections to the database", ["state"], registry=REGISTRY,
    multiprocess_mode="livesum")  # fmt: skip


def counted(method: str, route: str, status: int, seconds: float) -> None:
    """Count one call; status 0: the client left before an answer."""
    known = method if method in _METHODS else "other"
    _CALLS.labels(known, route, str(status)).inc()
    _SECONDS.labels(known, route).observe(seconds)


def exposed(service: "Service") -> Response:
    """The figures in Prometheus' text format."""
    _POOL.labels("used").set(service.pool.get_size() - service.pool.get_idle_size())
    _POOL.labels("idle").set(service.pool.get_idle_size())
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
