"""The HTTP of the service: search, items, health, metrics, and the page."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
import torch
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from torch import Tensor

from rankproof.service.batching import Batcher
from rankproof.service.database import AwayError
from rankproof.service.headers import Secured
from rankproof.service.keys import NAME
from rankproof.service.limits import MOST_VISIBLE
from rankproof.service.metrics import Measured, Metrics
from rankproof.service.problems import add_handlers, problems
from rankproof.service.service import Service
from rankproof.service.upload import FIELD, MEDIA, MULTIPART, read_upload
from rankproof.versions import versions

PAGE = Path(__file__).parent / "page"
DECODERS = 2  # uploads decoded at once: what bounds the memory of pixels
PICTURE = {"type": "string", "format": "binary"}
FORM = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: PICTURE},
    "additionalProperties": False,
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            **{media: {"schema": PICTURE} for media in MEDIA},
            MULTIPART: {"schema": FORM},
        },
    }
}
NO_KEY: dict[str, list[str]] = {}  # which is enough as long as there are no keys
LISTED = 100  # ids in one answer
UPLOADS = (400, 401, 408, 413, 415, 422, 503)

router = APIRouter()


@dataclass
class Serving:
    """What the routes share."""

    service: Service
    metrics: Metrics
    batch: Batcher[Tensor, list[str]]
    decoders: anyio.CapacityLimiter
    extra: list[str]


# Both are asynchronous because FastAPI would send them to another thread otherwise, for every request.
async def _serving(request: Request) -> Serving:
    here: Serving = request.app.state.serving
    return here


async def _key(
    given: Annotated[str | None, Depends(APIKeyHeader(name="X-Api-Key", auto_error=False))],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> str | None:
    return bearer.credentials if given is None and bearer is not None else given


Here = Annotated[Serving, Depends(_serving)]
Key = Annotated[str | None, Depends(_key)]
ItemId = Annotated[str, InPath(pattern=f"^{NAME.pattern}$", description="The id of an item.")]


class Found(BaseModel):
    """The first results."""

    ids: list[str] = Field(description="Ids of items, the nearest first.", max_length=MOST_VISIBLE)
    visible: int = Field(description="How many results are shown at most.", ge=1, le=MOST_VISIBLE)


class Listed(BaseModel):
    """Some of the items."""

    ids: list[str] = Field(description="Ids of items in gallery order.", max_length=LISTED)
    items: int = Field(description="How many items there are.", ge=0)


class Left(BaseModel):
    """What a caller may still do today."""

    left: int = Field(description="Calls left today (UTC).", ge=0)
    per_day: int = Field(description="Calls allowed on a day.", ge=1)


class Health(BaseModel):
    """That the service answers, and what it serves."""

    status: str
    items: int
    visible: int
    version: str
    extra: list[str] = Field(description="What it offers beside searching, such as 'lab'.")


async def picture_in(request: Request, here: Serving) -> Tensor:
    """The upload of a request, read and decoded."""
    raw, declared = await read_upload(request, here.service.limits)
    return await run_sync(here.service.take_in, raw, declared, limiter=here.decoders)


@router.post("/search", responses=problems(*UPLOADS, 429), openapi_extra={**BODY, "security": [NO_KEY]})
async def search(request: Request, here: Here, key: Key) -> Found:
    """Rank the gallery by its distance to a picture.

    Only calls that are answered count.
    """
    service = here.service
    caller = await run_sync(service.caller, key)
    raw, declared = await read_upload(request, service.limits)
    picture = await run_sync(service.admit, caller, raw, declared, limiter=here.decoders)
    try:
        ids = await here.batch(picture)
    except Exception:
        with suppress(AwayError):
            await run_sync(service.quota.give_back, caller.name)
        raise
    return Found(ids=ids, visible=service.limits.visible)


@router.get("/quota", responses=problems(401, 503), openapi_extra={"security": [NO_KEY]})
async def quota(here: Here, key: Key) -> Left:
    """How many calls are left today; asking does not count."""
    service = here.service
    caller = await run_sync(service.caller, key)
    per_day, spent = service.limits.per_day, await run_sync(service.quota.spent, caller.name)
    return Left(left=max(0, per_day - spent), per_day=per_day)


@router.get("/items", responses=problems(422, 503))
async def items(
    here: Here,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=LISTED)] = 24,
) -> Listed:
    """The ids of some items."""
    known = here.service.items
    return Listed(ids=await run_sync(known.page, offset, limit), items=await run_sync(len, known))


@router.get(
    "/items/{name}/image",
    responses={200: {"content": {"image/png": {"schema": PICTURE}}}, **problems(404, 422, 503)},
    response_class=Response,
)
async def image(name: ItemId, here: Here) -> Response:
    """The picture of an item."""
    return Response(await run_sync(here.service.image, name), media_type="image/png")


@router.put("/items/{name}", status_code=204, responses=problems(*UPLOADS, 403), openapi_extra=BODY)
async def put(name: ItemId, request: Request, here: Here, key: Key) -> None:
    """Add an item, or replace the one of that id; for admin keys."""
    await run_sync(here.service.demand_admin, key)
    await run_sync(here.service.put, name, await picture_in(request, here))


@router.delete("/items/{name}", status_code=204, responses=problems(401, 403, 404, 422, 503))
async def delete(name: ItemId, here: Here, key: Key) -> None:
    """Remove an item; for admin keys."""
    await run_sync(here.service.demand_admin, key)
    await run_sync(here.service.remove, name)


@router.get("/health", responses=problems(503))
async def health(here: Here) -> Health:
    """Whether the service can answer."""
    return Health(
        status="ok",
        items=await run_sync(len, here.service.items),
        visible=here.service.limits.visible,
        version=versions()["rankproof"],
        extra=here.extra,
    )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(here: Here) -> Response:
    """Figures for Prometheus."""
    here.metrics.queue.set(len(here.batch))
    return Response(here.metrics.text(), media_type="text/plain; version=0.0.4")


def create_app(service: Service, extra: Sequence[APIRouter] = ()) -> FastAPI:
    """The web application of a service, which is closed with it.

    Args:
        service: what answers.
        extra: more routes; their tags tell callers of them.
    """
    limits, counted = service.limits, Metrics()
    batch: Batcher[Tensor, list[str]] = Batcher(
        lambda pictures: service.search(torch.stack(pictures)),
        limits.window,
        limits.batch,
        service.step,
        counted.batches.observe,
    )

    @asynccontextmanager
    async def closing(app: FastAPI) -> AsyncIterator[None]:
        yield
        batch.close()
        service.close()

    app = FastAPI(
        title="rankproof search by image",
        version=versions()["rankproof"],
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=closing,
    )
    also = [str(tag) for routes in extra for tag in routes.tags]
    app.state.serving = Serving(service, counted, batch, anyio.CapacityLimiter(DECODERS), also)
    add_handlers(app, counted)
    for routes in (router, *extra):
        app.include_router(routes)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_middleware(Secured)
    app.add_middleware(Measured, metrics=counted)
    return app
