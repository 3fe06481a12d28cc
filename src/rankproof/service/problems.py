"""Refusals and failures as answers in HTTP, and as OpenAPI tells of them."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from rankproof.errors import RankproofError
from rankproof.service.database import AwayError
from rankproof.service.metrics import Metrics
from rankproof.service.refusal import REASONS, RefusedError

AWAY = 5  # seconds to wait while the database is away
MEANINGS = {
    400: "The request cannot be read.",
    401: "The key is missing or unknown.",
    403: "The key is not an admin key.",
    404: "There is no such item.",
    408: "The upload takes too long.",
    413: "The file or the picture is too large.",
    415: "Not a PNG, JPEG or WebP picture, or not the kind it says.",
    422: "The picture is damaged, too small, animated, or two things at once; or the id is odd.",
    429: "The calls of the day (quota) or of this second (rate) are spent.",
    503: "The database is away.",
}
WAIT = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
WAITED = (429, 503)


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="One sentence for people.")
    reason: str = Field(description="One word for programs.", json_schema_extra={"enum": list(REASONS)})


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI tells of the refusals of a route."""
    return {
        status: {
            "model": Problem,
            "description": MEANINGS[status],
            **({"headers": WAIT} if status in WAITED else {}),
        }
        for status in statuses
    }


def add_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Turn whatever can go wrong for a caller's sake into a problem."""

    def answer(refusal: RefusedError) -> JSONResponse:
        metrics.refusals.labels(refusal.reason).inc()
        problem = Problem(detail=refusal.detail, reason=refusal.reason)
        wait = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        key = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
        return JSONResponse(problem.model_dump(), refusal.status, {**wait, **key})

    @app.exception_handler(RefusedError)
    def refused(request: Request, error: RefusedError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(AwayError)
    def away(request: Request, error: AwayError) -> JSONResponse:
        return answer(RefusedError(503, "database", "the database is away; try again", AWAY))

    @app.exception_handler(RankproofError)
    def odd_picture(request: Request, error: RankproofError) -> JSONResponse:
        return answer(RefusedError(422, "picture", str(error)))

    @app.exception_handler(RequestValidationError)
    def odd_request(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return answer(RefusedError(422, "request", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> JSONResponse:
        reply = answer(RefusedError(error.status_code, "request", str(error.detail)))
        reply.headers.update(error.headers or {})
        return reply
