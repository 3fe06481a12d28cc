"""The lab: a service that attacks itself on demand, to be watched.

Its searches are the service's own, but no quota counts them; so it is for the owner, not for callers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from string import ascii_uppercase
from threading import Lock
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as InPath
from jaxtyping import UInt8
from torch import Tensor

from rankproof.service.app import BODY, NO_KEY, PICTURE, UPLOADS, Found, Here, Key, picture_in
from rankproof.service.attempt import Attempt, Told, Wish
from rankproof.service.keys import NAME
from rankproof.service.lab_strip import strip_of
from rankproof.service.problems import problems
from rankproof.service.refusal import RefusedError
from rankproof.service.service import Service, as_png

AT_ONCE = 2  # attacks that run at the same time
KEPT = 20  # attacks that are remembered
MOST_WANTED = len(ascii_uppercase)  # results are told apart by letters
MOST_QUERIES = 10_000
DRAWN: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {"schema": PICTURE}}}}
WAIT = 10  # seconds after which a place may be free


class Lab:
    """The attempts of one service."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}
        self._lock = Lock()

    def start(self, service: Service, picture: UInt8[Tensor, "c h w"], wish: Wish) -> Attempt:
        """A new attempt, which is running already.

        Raises:
            RefusedError: as many run as may.
        """
        with self._lock:
            if sum(attempt.state == "running" for attempt in self._attempts.values()) >= AT_ONCE:
                raise RefusedError(
                    429, "rate", f"{AT_ONCE} attacks are running already; stop one or wait for it", WAIT
                )
            attempt = Attempt(service, picture, wish)
            self._attempts[attempt.name] = attempt
            ended = [name for name, known in self._attempts.items() if known.state != "running"]
            for name in ended[: max(0, len(self._attempts) - KEPT)]:
                del self._attempts[name]
            return attempt

    def find(self, name: str) -> Attempt:
        """The attempt of that id.

        Raises:
            RefusedError: there is none.
        """
        with self._lock:
            if name not in self._attempts:
                raise RefusedError(404, "item", "there is no attack of this id, or no longer")
            return self._attempts[name]

    def close(self) -> None:
        """Stop what runs, and wait for it."""
        with self._lock:
            for attempt in self._attempts.values():
                attempt.stop()
            for attempt in self._attempts.values():
                attempt.wait()


@asynccontextmanager
async def _open(app: FastAPI) -> AsyncIterator[dict[str, Lab]]:
    lab = Lab()
    yield {"lab": lab}
    await run_sync(lab.close)


router = APIRouter(prefix="/lab", tags=["lab"], lifespan=_open)


def _lab(request: Request) -> Lab:
    lab: Lab = request.state.lab
    return lab


InLab = Annotated[Lab, Depends(_lab)]
RunId = Annotated[str, InPath(pattern=r"^[\w-]{1,64}$", description="The id of an attack.")]
ItemIds = Annotated[
    list[Annotated[str, Query(pattern=f"^{NAME.pattern}$")]],
    Query(
        min_length=2,
        max_length=MOST_WANTED,
        description="Ids of different items in wanted order.",
        json_schema_extra={"uniqueItems": True},
    ),
]


@router.post("/search", responses=problems(*UPLOADS), openapi_extra={**BODY, "security": [NO_KEY]})
async def search(request: Request, here: Here, key: Key) -> Found:
    """Search as `POST /search` does, beside all quotas."""
    service = here.service
    await run_sync(service.caller, key)
    return Found(ids=await here.batch(await picture_in(request, here)), visible=service.limits.visible)


@router.post(
    "/runs",
    status_code=201,
    responses=problems(*UPLOADS, 429),
    openapi_extra={**BODY, "security": [NO_KEY]},
)
async def start(
    request: Request,
    here: Here,
    lab: InLab,
    key: Key,
    wanted: ItemIds,
    eps: Annotated[float, Query(ge=0, le=1, description="Largest change of a pixel.")] = 4 / 255,
    budget: Annotated[int, Query(ge=2, le=MOST_QUERIES, description="Q, the clean query included.")] = 100,
    seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Told:
    """Begin to attack a picture, so that it brings some results in the wanted order."""
    service = here.service
    await run_sync(service.caller, key)
    if len(set(wanted)) < len(wanted):
        raise RefusedError(422, "request", "wanted: an item is named twice; each may stand there once")
    if len(wanted) > service.limits.visible:
        raise RefusedError(422, "request", f"wanted: only {service.limits.visible} results are shown")
    picture = await picture_in(request, here)
    wish = Wish(wanted=tuple(wanted), eps=eps, budget=budget, seed=seed)
    return (await run_sync(lab.start, service, picture, wish)).told()


@router.get("/runs/{name}", responses=problems(404, 422))
async def told(name: RunId, lab: InLab) -> Told:
    """How far an attack is; at its end the same is its result."""
    return lab.find(name).told()


@router.delete("/runs/{name}", status_code=204, responses=problems(404, 422))
async def stop(name: RunId, lab: InLab) -> None:
    """Stop an attack before its next round of queries; what it found stays."""
    lab.find(name).stop()


@router.get("/runs/{name}/query.png", responses={**DRAWN, **problems(404, 422)}, response_class=Response)
async def original(name: RunId, lab: InLab) -> Response:
    """The attacked picture as the service takes it in."""
    return Response(as_png(lab.find(name).picture), media_type="image/png")


@router.get(
    "/runs/{name}/adversarial.png", responses={**DRAWN, **problems(404, 422)}, response_class=Response
)
async def adversarial(name: RunId, lab: InLab) -> Response:
    """The best picture so far."""
    return Response(as_png(lab.find(name).best.picture), media_type="image/png")


@router.get(
    "/runs/{name}/report.png", responses={**DRAWN, **problems(404, 422, 503)}, response_class=Response
)
async def report(name: RunId, here: Here, lab: InLab) -> Response:
    """The best so far as a strip: the picture, the change, and the results before, as wanted and after."""
    from rankproof.figures import strip_png

    attempt = lab.find(name)
    return Response(
        await run_sync(lambda: strip_png(strip_of(attempt, here.service))), media_type="image/png"
    )
