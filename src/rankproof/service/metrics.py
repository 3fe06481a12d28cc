"""What Prometheus is told."""

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankproof.service.extras import extra

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        client: Any = extra("prometheus_client", "service")
        self.registry = client.CollectorRegistry()
        here = {"registry": self.registry, "namespace": "rankproof"}
        self.requests = client.Counter("requests", "Answered requests.", ("route", "status"), **here)
        self.seconds = client.Histogram(
            "request_seconds", "Until the answer.", ("route",), buckets=SECONDS, **here
        )
        self.batches = client.Histogram(
            "batch_pictures", "Pictures embedded together.", buckets=SIZES, **here
        )
        self.queue = client.Gauge("queue_pictures", "Pictures that wait for the encoder.", **here)
        self.refusals = client.Counter("refusals", "Refused requests.", ("reason",), **here)
        self._text = client.generate_latest

    def text(self) -> bytes:
        """All of them in the format of Prometheus."""
        text: bytes = self._text(self.registry)
        return text


class Measured:
    """Counts and times the requests of an application.

    Args:
        app: the application.
        metrics: where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; its status is that of the first message back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # never the path itself: strangers choose it
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - begin)
