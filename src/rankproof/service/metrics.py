"""Metrics of the service for Prometheus."""

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankproof.errors import import_extra

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        client: Any = import_extra("prometheus_client", "service")
        self.registry = client.CollectorRegistry()
        common = {"registry": self.registry, "namespace": "rankproof"}
        self.requests = client.Counter("requests", "Answered requests.", ("route", "status"), **common)
        self.seconds = client.Histogram(
            "request_seconds", "Time to answer a request.", ("route",), buckets=SECONDS_BUCKETS, **common
        )
        self.batches = client.Histogram(
            "batch_pictures", "Images embedded in one batch.", buckets=BATCH_BUCKETS, **common
        )
        self.queue = client.Gauge("queue_pictures", "Images waiting for the encoder.", **common)
        self.refusals = client.Counter("refusals", "Refused requests.", ("reason",), **common)
        self._text = client.generate_latest

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        text: bytes = self._text(self.registry)
        return text


class RequestMetrics:
    """Middleware that counts and times requests.

    Args:
        app: the application.
        metrics: where they are recorded.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request and record its route, status and duration."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin = 500, time.perf_counter()

        async def recording_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, recording_send)
        finally:
            route = getattr(
                scope.get("route"), "path", "other"
            )  # not the path: callers could create labels without limit
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - begin)
