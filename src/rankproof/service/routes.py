"""The routes of the HTTP API: search, items, quota, health and metrics."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from torch import Tensor

from rankproof.io import versions
from rankproof.service.auth import IDENTIFIER
from rankproof.service.batching import Batcher
from rankproof.service.errors import REASONS, DatabaseUnavailableError
from rankproof.service.limits import MAX_VISIBLE
from rankproof.service.metrics import Metrics
from rankproof.service.search_service import SearchService
from rankproof.service.uploads import FIELD, MEDIA_TYPES, MULTIPART, read_upload

PAGE_SIZE = 100  # ids in one answer at most
UPLOAD_STATUSES = (400, 401, 408, 413, 415, 422, 503)
MEANINGS = {
    400: "The request cannot be parsed.",
    401: "The key is missing or unknown.",
    403: "The key is not an admin key.",
    404: "There is no such item.",
    408: "The upload takes too long.",
    413: "The file or the image is too large.",
    415: "The file is not a PNG, JPEG or WebP image, or not of the declared type.",
    422: "The image is damaged, too small, animated, or followed by other data; or a parameter is invalid.",
    429: "The calls of the day (quota) or of this second (rate) are used up.",
    503: "The database is unavailable.",
}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
}

# OpenAPI fragments
IMAGE_FILE = {"type": "string", "format": "binary"}
Responses = dict[int | str, dict[str, Any]]
PNG_RESPONSE: Responses = {200: {"content": {"image/png": {"schema": IMAGE_FILE}}}}
UPLOAD_FORM = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: IMAGE_FILE},
    "additionalProperties": False,
}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            **{media_type: {"schema": IMAGE_FILE} for media_type in MEDIA_TYPES},
            MULTIPART: {"schema": UPLOAD_FORM},
        },
    }
}
NO_KEY: dict[str, list[str]] = {}  # a security requirement that is met without a key
UPLOAD_WITHOUT_KEY = {**UPLOAD_BODY, "security": [NO_KEY]}

router = APIRouter()


@dataclass
class AppState:
    """What the routes share.

    Args:
        service: answers the requests.
        metrics: records them.
        batcher: collects images into batches and searches with them.
        decoders: bounds how many uploads are decoded at once.
        extra: the names of additional features, such as "lab".
    """

    service: SearchService
    metrics: Metrics
    batcher: Batcher[Tensor, list[str]]
    decoders: anyio.CapacityLimiter
    extra: list[str]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One sentence for people.")
    reason: str = Field(description="One word for programs.", json_schema_extra={"enum": list(REASONS)})


class SearchResults(BaseModel):
    """The first N results of a search."""

    ids: list[str] = Field(description="Ids of items, nearest first.", max_length=MAX_VISIBLE)
    visible: int = Field(description="N, the number of results that are shown.", ge=1, le=MAX_VISIBLE)


class ItemPage(BaseModel):
    """A page of items."""

    ids: list[str] = Field(description="Ids of items in gallery order.", max_length=PAGE_SIZE)
    items: int = Field(description="The number of items in the gallery.", ge=0)


class RemainingCalls(BaseModel):
    """How many calls a caller has left."""

    left: int = Field(description="Calls left today (UTC).", ge=0)
    per_day: int = Field(description="Calls allowed per day.", ge=1)


class ServiceStatus(BaseModel):
    """That the service answers, and what it serves."""

    status: str
    items: int
    visible: int
    version: str
    extra: list[str] = Field(description="Features beside searching, such as 'lab'.")


def problems(*statuses: int) -> Responses:
    """The OpenAPI description of the refusals of a route."""
    return {
        status: {
            "model": Problem,
            "description": MEANINGS[status],
            **({"headers": RETRY_AFTER} if status in (429, 503) else {}),
        }
        for status in statuses
    }


# These two are asynchronous because FastAPI would run each in a thread otherwise, for every request.
async def _state(request: Request) -> AppState:
    state: AppState = request.app.state.shared
    return state


async def _key(
    header: Annotated[str | None, Depends(APIKeyHeader(name="X-Api-Key", auto_error=False))],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> str | None:
    return bearer.credentials if header is None and bearer is not None else header


State = Annotated[AppState, Depends(_state)]
Key = Annotated[str | None, Depends(_key)]
ItemId = Annotated[str, Path(pattern=f"^{IDENTIFIER.pattern}$", description="The id of an item.")]


async def read_image(request: Request, state: AppState) -> Tensor:
    """Read and decode the image in a request."""
    raw, declared = await read_upload(request, state.service.limits)
    return await run_sync(state.service.decode, raw, declared, limiter=state.decoders)


@router.post("/search", responses=problems(*UPLOAD_STATUSES, 429), openapi_extra=UPLOAD_WITHOUT_KEY)
async def search(request: Request, state: State, key: Key) -> SearchResults:
    """Rank the gallery by its distance to an image.

    Only calls that are answered count.
    """
    service = state.service
    caller = await run_sync(service.authenticate, key)
    raw, declared = await read_upload(request, service.limits)
    image = await run_sync(service.decode_query, caller, raw, declared, limiter=state.decoders)
    try:
        ids = await state.batcher(image)
    except Exception:
        with suppress(DatabaseUnavailableError):
            await run_sync(service.quota.refund, caller.name)
        raise
    return SearchResults(ids=ids, visible=service.limits.visible)


@router.get("/quota", responses=problems(401, 503), openapi_extra={"security": [NO_KEY]})
async def quota(state: State, key: Key) -> RemainingCalls:
    """How many calls are left today; this request does not count."""
    service = state.service
    caller = await run_sync(service.authenticate, key)
    per_day, spent = service.limits.per_day, await run_sync(service.quota.spent, caller.name)
    return RemainingCalls(left=max(0, per_day - spent), per_day=per_day)


@router.get("/items", responses=problems(422, 503))
async def items(
    state: State,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE_SIZE)] = 24,
) -> ItemPage:
    """The ids of a page of items."""
    table = state.service.items
    return ItemPage(ids=await run_sync(table.page, offset, limit), items=await run_sync(len, table))


@router.get(
    "/items/{name}/image", responses={**PNG_RESPONSE, **problems(404, 422, 503)}, response_class=Response
)
async def image(name: ItemId, state: State) -> Response:
    """The image of an item."""
    return Response(await run_sync(state.service.image, name), media_type="image/png")


@router.put(
    "/items/{name}", status_code=204, responses=problems(*UPLOAD_STATUSES, 403), openapi_extra=UPLOAD_BODY
)
async def put(name: ItemId, request: Request, state: State, key: Key) -> None:
    """Add an item, or replace the item with this id. Needs an admin key."""
    await run_sync(state.service.require_admin, key)
    await run_sync(state.service.put, name, await read_image(request, state))


@router.delete("/items/{name}", status_code=204, responses=problems(401, 403, 404, 422, 503))
async def delete(name: ItemId, state: State, key: Key) -> None:
    """Remove an item. Needs an admin key."""
    await run_sync(state.service.require_admin, key)
    await run_sync(state.service.remove, name)


@router.get("/health", responses=problems(503))
async def health(state: State) -> ServiceStatus:
    """Whether the service can answer, and what it serves."""
    return ServiceStatus(
        status="ok",
        items=await run_sync(len, state.service.items),
        visible=state.service.limits.visible,
        version=versions()["rankproof"],
        extra=state.extra,
    )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(state: State) -> Response:
    """Metrics in the text format of Prometheus."""
    state.metrics.queue.set(len(state.batcher))
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4")
