"""The web application: routes, error responses, security headers and the static pages."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import torch
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.io import versions
from rankproof.service.batching import Batcher
from rankproof.service.errors import DatabaseUnavailableError, RefusedError
from rankproof.service.metrics import Metrics, RequestMetrics
from rankproof.service.routes import AppState, Problem, router
from rankproof.service.search_service import SearchService

PAGE = Path(__file__).parent / "page"
DECODERS = 2  # uploads decoded at once, which bounds the memory that decoded pixels take
DATABASE_RETRY = 5  # seconds to wait while the database is unavailable
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def create_app(service: SearchService, extra: Sequence[APIRouter] = ()) -> FastAPI:
    """The web application of a service; shutting it down closes the service.

    Args:
        service: answers the requests.
        extra: further routes; `GET /health` lists their tags.
    """
    limits, metrics = service.limits, Metrics()
    batcher: Batcher[Tensor, list[str]] = Batcher(
        lambda images: service.search(torch.stack(images)),
        limits.window,
        limits.batch,
        service.batch_multiple,
        metrics.batches.observe,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()
        service.close()

    app = FastAPI(
        title="rankproof search by image",
        version=versions()["rankproof"],
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
        lifespan=lifespan,
    )
    features = [str(tag) for routes in extra for tag in routes.tags]
    app.state.shared = AppState(service, metrics, batcher, anyio.CapacityLimiter(DECODERS), features)
    _add_error_handlers(app, metrics)
    for routes in (router, *extra):
        app.include_router(routes)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_middleware(HeadRequests)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetrics, metrics=metrics)
    return app


class SecurityHeaders:
    """Middleware that adds security headers to every response.

    Browsers then trust the declared content type and load nothing from other hosts.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request and add the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HeadRequests:
    """Middleware that answers HEAD as GET without the body, which the routes of FastAPI do not.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # A copy, because the server goes by the method, too: it expects no body after HEAD.
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send_without_body)
        finally:
            scope["route"] = as_get.get("route")  # for the metrics


def _add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Answer every error with a `Problem`."""

    def respond(error: RefusedError) -> JSONResponse:
        metrics.refusals.labels(error.reason).inc()
        problem = Problem(detail=error.detail, reason=error.reason)
        wait = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        key = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return JSONResponse(problem.model_dump(), error.status, {**wait, **key})

    @app.exception_handler(RefusedError)
    def refused(request: Request, error: RefusedError) -> JSONResponse:
        return respond(error)

    @app.exception_handler(DatabaseUnavailableError)
    def database_unavailable(request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        detail = "the database is unavailable; try again"
        return respond(RefusedError(503, "database", detail, DATABASE_RETRY))

    @app.exception_handler(RankproofError)
    def invalid_image(request: Request, error: RankproofError) -> JSONResponse:
        return respond(RefusedError(422, "picture", str(error)))

    @app.exception_handler(RequestValidationError)
    def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return respond(RefusedError(422, "request", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> JSONResponse:
        response = respond(RefusedError(error.status_code, "request", str(error.detail)))
        response.headers.update(error.headers or {})
        return response
