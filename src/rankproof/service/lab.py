"""The lab: routes on which the service attacks itself while somebody watches.

Its searches use the service's own search but no quota counts them. So it is meant for the owner of a service,
not for callers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from string import ascii_uppercase
from threading import Lock
from typing import Annotated

import torch
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from jaxtyping import Float, UInt8
from torch import Tensor

from rankproof.data.images import decode
from rankproof.io import encode_png
from rankproof.report.strip import Strip, Tile
from rankproof.service.auth import IDENTIFIER
from rankproof.service.errors import RefusedError
from rankproof.service.lab_attack import AttackSettings, LabAttack, LabResult
from rankproof.service.routes import (
    PNG_RESPONSE,
    UPLOAD_STATUSES,
    UPLOAD_WITHOUT_KEY,
    Key,
    SearchResults,
    State,
    problems,
    read_image,
)
from rankproof.service.search_service import SearchService
from rankproof.threat import LEVELS

MAX_RUNNING = 2  # attacks at the same time
MAX_REMEMBERED = 20  # attacks, the running ones included
MAX_WANTED = len(ascii_uppercase)  # results are labelled by letters
MAX_QUERIES = 10_000
RETRY = 10  # seconds after which one of the running attacks may have ended


class Lab:
    """The attacks of one service."""

    def __init__(self) -> None:
        self._attacks: dict[str, LabAttack] = {}
        self._lock = Lock()

    def start(
        self, service: SearchService, image: UInt8[Tensor, "c h w"], settings: AttackSettings
    ) -> LabAttack:
        """Start an attack.

        Raises:
            RefusedError: `MAX_RUNNING` attacks are running.
        """
        with self._lock:
            if sum(attack.state == "running" for attack in self._attacks.values()) >= MAX_RUNNING:
                detail = f"{MAX_RUNNING} attacks are running already; stop one or wait for it"
                raise RefusedError(429, "rate", detail, RETRY)
            attack = LabAttack(service, image, settings)
            self._attacks[attack.id] = attack
            ended = [run_id for run_id, other in self._attacks.items() if other.state != "running"]
            for run_id in ended[: max(0, len(self._attacks) - MAX_REMEMBERED)]:
                del self._attacks[run_id]
            return attack

    def find(self, run_id: str) -> LabAttack:
        """The attack with this id.

        Raises:
            RefusedError: there is none.
        """
        with self._lock:
            if run_id not in self._attacks:
                raise RefusedError(
                    404, "item", "there is no attack with this id, or it is no longer remembered"
                )
            return self._attacks[run_id]

    def close(self) -> None:
        """Stop all running attacks and wait for them."""
        with self._lock:
            for attack in self._attacks.values():
                attack.stop()
            for attack in self._attacks.values():
                attack.wait()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Lab]]:
    lab = Lab()
    yield {"lab": lab}
    await run_sync(lab.close)


def _lab(request: Request) -> Lab:
    lab: Lab = request.state.lab
    return lab


router = APIRouter(prefix="/lab", tags=["lab"], lifespan=_lifespan)
LabState = Annotated[Lab, Depends(_lab)]
RunId = Annotated[str, Path(pattern=r"^[\w-]{1,64}$", description="The id of an attack.")]
WantedIds = Annotated[
    list[Annotated[str, Query(pattern=f"^{IDENTIFIER.pattern}$")]],
    Query(
        min_length=2,
        max_length=MAX_WANTED,
        description="Ids of different items in the wanted order.",
        json_schema_extra={"uniqueItems": True},
    ),
]
PNG_OF_RUN = {**PNG_RESPONSE, **problems(404, 422)}


@router.post("/search", responses=problems(*UPLOAD_STATUSES), openapi_extra=UPLOAD_WITHOUT_KEY)
async def search(request: Request, state: State, key: Key) -> SearchResults:
    """Search as `POST /search` does, without counting against any quota."""
    service = state.service
    await run_sync(service.authenticate, key)
    ids = await state.batcher(await read_image(request, state))
    return SearchResults(ids=ids, visible=service.limits.visible)


@router.post(
    "/runs",
    status_code=201,
    responses=problems(*UPLOAD_STATUSES, 429),
    openapi_extra=UPLOAD_WITHOUT_KEY,
)
async def start(
    request: Request,
    state: State,
    lab: LabState,
    key: Key,
    wanted: WantedIds,
    eps: Annotated[float, Query(ge=0, le=1, description="Largest change of a pixel.")] = 4 / 255,
    budget: Annotated[int, Query(ge=2, le=MAX_QUERIES, description="Q, the clean query included.")] = 100,
    seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> LabResult:
    """Start an attack that brings results of an image into a wanted order."""
    service = state.service
    await run_sync(service.authenticate, key)
    if len(set(wanted)) < len(wanted):
        raise RefusedError(422, "request", "wanted: an item is named twice")
    if len(wanted) > service.limits.visible:
        raise RefusedError(422, "request", f"wanted: only {service.limits.visible} results are shown")
    image = await read_image(request, state)
    settings = AttackSettings(wanted=tuple(wanted), eps=eps, budget=budget, seed=seed)
    return (await run_sync(lab.start, service, image, settings)).result()


@router.get("/runs/{name}", responses=problems(404, 422))
async def result(name: RunId, lab: LabState) -> LabResult:
    """The progress of an attack, and its result at the end."""
    return lab.find(name).result()


@router.delete("/runs/{name}", status_code=204, responses=problems(404, 422))
async def stop(name: RunId, lab: LabState) -> None:
    """Stop an attack before its next round of queries; the best image so far remains."""
    lab.find(name).stop()


@router.get("/runs/{name}/query.png", responses=PNG_OF_RUN, response_class=Response)
async def original(name: RunId, lab: LabState) -> Response:
    """The attacked image, as the service decoded it."""
    return Response(encode_png(lab.find(name).image), media_type="image/png")


@router.get("/runs/{name}/adversarial.png", responses=PNG_OF_RUN, response_class=Response)
async def adversarial(name: RunId, lab: LabState) -> Response:
    """The best adversarial image so far."""
    return Response(encode_png(lab.find(name).best.image), media_type="image/png")


@router.get(
    "/runs/{name}/report.png",
    responses={**PNG_RESPONSE, **problems(404, 422, 503)},
    response_class=Response,
)
async def report(name: RunId, state: State, lab: LabState) -> Response:
    """A strip of the best image so far: image, change, and the results before, as wanted and after."""
    from rankproof.report.strip_drawing import strip_png

    attack = lab.find(name)
    png = await run_sync(lambda: strip_png(_strip(attack, state.service)))
    return Response(png, media_type="image/png")


def _strip(attack: LabAttack, service: SearchService) -> Strip:
    """The best image of an attack so far as a strip.

    Raises:
        RefusedError: one of the wanted items is no longer in the gallery.
    """
    settings, best, visible = attack.settings, attack.best, service.limits.visible
    tiles = [
        Tile(image=_item_image(service, item_id), rank=place, chosen=True, mark=letter)
        for place, (item_id, letter) in enumerate(zip(settings.wanted, ascii_uppercase, strict=False))
    ]

    def ranked(ids: list[str]) -> tuple[Tile, ...]:
        moved = [
            replace(tile, rank=place, unseen=place == visible)
            for tile, place in zip(tiles, attack.positions(ids), strict=True)
        ]
        return tuple(sorted(moved, key=lambda tile: tile.rank))

    return Strip(
        goal="oa",
        eps=settings.eps,
        original=attack.image / LEVELS,
        adversarial=best.image / LEVELS,
        query=None,
        before=ranked(attack.before),
        after=ranked(best.ids),
        wanted=f"The attacker wanted these {len(tiles)} results in another order.",
        order=tuple(tiles),
        visible=visible,
        budget=settings.budget,
    )


def _item_image(service: SearchService, item_id: str) -> Float[Tensor, "c h w"]:
    """The image of an item, in [0, 1]."""
    return torch.from_numpy(decode(service.image(item_id), f"item {item_id}", service.form)) / LEVELS
