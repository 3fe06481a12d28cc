"""An attack that the service makes on itself, by its own search, while others look on."""

import secrets
import time
from dataclasses import dataclass
from threading import Event, Lock, Thread

import torch
from jaxtyping import UInt8
from torch import Tensor

from rankproof.attack import attack
from rankproof.errors import RankproofError
from rankproof.goals import Reorder
from rankproof.methods.presets import automatic
from rankproof.oracle import ListOracle
from rankproof.ranking.metrics import short_range_tau
from rankproof.service.service import Service
from rankproof.threat import LEVELS, Threat
from rankproof.types import Images
from rankproof.versions import versions

NOTE = "made in the lab of the service: its queries are the service's own searches, which no quota counts"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted, and what may be done for it.

    Args:
        wanted: k ids in wanted order.
        eps: largest change of a pixel, in [0, 1].
        budget: Q, queries, the clean one included.
        seed: all random numbers come from it.
    """

    wanted: tuple[str, ...]
    eps: float
    budget: int
    seed: int


@dataclass(frozen=True)
class Best:
    """The best picture so far.

    Args:
        picture: (c, h, w) as it was sent.
        ids: what was answered; nothing before the first answer.
        tau: tau_S of that.
    """

    picture: UInt8[Tensor, "c h w"]
    ids: list[str]
    tau: float


@dataclass(frozen=True, kw_only=True)
class Told:
    """How far an attempt is; at its end its result. The names are those of `rankproof attack --json`.

    Args:
        id: of the attempt.
        state: "running", "done", "stopped" or "failed".
        error: why it failed.
        queries_spent: the clean one included.
        tau_before, tau: tau_S of the clean picture and of the best one; None before the first answer.
        scores: tau_S of every query in its order.
        wanted, before, after: ids in wanted order, of the clean answer, of the best picture's answer.
        seconds: from the beginning to the last answer.
    """

    id: str
    state: str
    error: str | None
    goal: str
    method: str
    eps: float
    k: int
    visible: int
    budget: int
    queries_spent: int
    seed: int
    tau_before: float | None
    tau: float | None
    scores: list[float]
    wanted: list[str]
    before: list[str]
    after: list[str]
    seconds: float
    versions: dict[str, str]
    notes: list[str]


class Attempt:
    """One attack on one picture, in a thread of its own; it begins at once.

    Args:
        service: what is attacked.
        picture: (c, h, w) the query.
        wish: what is wanted.
    """

    def __init__(self, service: Service, picture: UInt8[Tensor, "c h w"], wish: Wish) -> None:
        self.name, self.picture, self.wish = secrets.token_urlsafe(12), picture, wish
        self.scores: list[float] = []  # tau_S of every query in its order
        self.before: list[str] = []  # the ids of the clean answer
        self.best = Best(picture, [], -1.0)
        self.error: str | None = "the attack broke off"  # unless it ends or tells why
        self.seconds = 0.0
        self._service, self._begin = service, time.perf_counter()
        self._lock, self._stop = Lock(), Event()
        self._thread = Thread(target=self._work, name=f"lab {self.name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """ "running", "done", "stopped" or "failed"."""
        if self._thread.is_alive():
            return "running"
        if self.error is None:
            return "done"
        return "stopped" if self._stop.is_set() else "failed"

    def stop(self) -> None:
        """End before the next round of queries; what was found stays."""
        self._stop.set()

    def wait(self) -> None:
        """Until it has ended."""
        self._thread.join()

    def told(self) -> Told:
        """All there is to say now."""
        wish, state = self.wish, self.state  # first: what has ended says no more
        with self._lock:
            scores = list(self.scores)
            return Told(
                id=self.name,
                state=state,
                error=self.error if state == "failed" else None,
                goal="oa",
                method=automatic().name,
                eps=wish.eps,
                k=len(wish.wanted),
                visible=self._service.limits.visible,
                budget=wish.budget,
                queries_spent=len(scores),
                seed=wish.seed,
                tau_before=scores[0] if scores else None,
                tau=self.best.tau if scores else None,
                scores=scores,
                wanted=list(wish.wanted),
                before=self.before,
                after=self.best.ids,
                seconds=self.seconds,
                versions=versions(),
                notes=[NOTE],
            )

    def _work(self) -> None:
        wish, visible = self.wish, self._service.limits.visible
        oracle = ListOracle(self._search, visible)
        try:
            attack(
                oracle,
                self.picture[None] / LEVELS,
                Reorder(k=len(wish.wanted)),
                Threat(wish.eps, grid=True),
                budget=wish.budget,
                seed=wish.seed,
                targets=torch.tensor([[oracle.number(name) for name in wish.wanted]]),
            )
        except RankproofError as error:
            self.error = str(error)
        else:
            self.error = None

    def _search(self, images: Images) -> list[list[str]]:
        """What a caller would be answered, as many pictures at once as callers get."""
        if self._stop.is_set():
            raise RankproofError("stopped")
        found = []
        for pictures in images.mul(LEVELS).round().to(torch.uint8).split(self._service.limits.batch):
            lists = self._service.search(pictures)
            self._note(pictures, lists)
            found += lists
        return found

    def _note(self, pictures: UInt8[Tensor, "b c h w"], lists: list[list[str]]) -> None:
        with self._lock:
            for picture, ids in zip(pictures, lists, strict=True):
                self.before = self.before or ids
                tau = self._tau(ids)
                self.scores.append(tau)
                if tau > self.best.tau or not self.best.ids:
                    self.best = Best(picture, ids, tau)
            self.seconds = time.perf_counter() - self._begin

    def _tau(self, ids: list[str]) -> float:
        visible = self._service.limits.visible
        places = [ids.index(name) if name in ids else visible for name in self.wish.wanted]
        return float(short_range_tau(torch.tensor(places), visible))
