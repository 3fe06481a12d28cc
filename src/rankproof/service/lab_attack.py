"""An attack of the lab: the service attacks itself through its own search, in a thread of its own."""

import secrets
import time
from dataclasses import dataclass
from threading import Event, Lock, Thread

import torch
from jaxtyping import UInt8
from torch import Tensor

from rankproof.attacks import AttackBatch, SearchOptions, attack_batch
from rankproof.errors import RankproofError
from rankproof.goals import Reorder
from rankproof.io import versions
from rankproof.methods.defaults import automatic
from rankproof.oracles import ListOracle
from rankproof.ranking.metrics import short_range_tau
from rankproof.service.search_service import SearchService
from rankproof.threat import LEVELS, Threat
from rankproof.types import Images

NOTE = "made in the lab of the service: its queries are searches of the service itself, which no quota counts"


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """The goal and the constraints of an attack.

    Args:
        wanted: k item ids in the order that the attack is to bring them into.
        eps: perturbation budget in [0, 1], the largest change of a pixel.
        budget: Q, queries, the clean one included.
        seed: of all random numbers.
    """

    wanted: tuple[str, ...]
    eps: float
    budget: int
    seed: int


@dataclass(frozen=True)
class BestQuery:
    """The most successful query so far.

    Args:
        image: (c, h, w) the image that was searched with.
        ids: its results; empty before the first answer.
        tau: tau_S of the results.
    """

    image: UInt8[Tensor, "c h w"]
    ids: list[str]
    tau: float


@dataclass(frozen=True, kw_only=True)
class LabResult:
    """The progress of an attack, and its result at the end; named as in `rankproof attack --json`.

    Args:
        id: of the attack.
        state: "running", "done", "stopped" or "failed".
        error: why it failed.
        queries_spent: the clean one included.
        tau_before, tau: tau_S of the clean image and of the best one; None before the first answer.
        scores: tau_S of every query in order.
        wanted, before, after: ids in wanted order, as ranked for the clean image, and for the best image.
        seconds: from the start to the last answer.
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


class LabAttack:
    """One attack on one image, which starts at once in a thread of its own.

    Args:
        service: what is attacked.
        image: (c, h, w) the query.
        settings: goal and constraints.
    """

    def __init__(
        self, service: SearchService, image: UInt8[Tensor, "c h w"], settings: AttackSettings
    ) -> None:
        self.id, self.image, self.settings = secrets.token_urlsafe(12), image, settings
        self.scores: list[float] = []  # tau_S of every query in order
        self.before: list[str] = []  # the results of the clean query
        self.best = BestQuery(image, [], -1.0)
        self.error: str | None = "the attack ended unexpectedly"  # replaced when it ends
        self.seconds = 0.0
        self._service, self._start = service, time.perf_counter()
        self._lock, self._stop = Lock(), Event()
        self._thread = Thread(target=self._run, name=f"lab {self.id}", daemon=True)
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
        """Stop before the next round of queries; the best image so far remains."""
        self._stop.set()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def result(self) -> LabResult:
        """The result so far."""
        settings, state = self.settings, self.state  # the state first: after the end nothing else changes
        with self._lock:
            scores = list(self.scores)
            return LabResult(
                id=self.id,
                state=state,
                error=self.error if state == "failed" else None,
                goal=Reorder.SPEC.name,
                method=automatic().name,
                eps=settings.eps,
                k=len(settings.wanted),
                visible=self._service.limits.visible,
                budget=settings.budget,
                queries_spent=len(scores),
                seed=settings.seed,
                tau_before=scores[0] if scores else None,
                tau=self.best.tau if scores else None,
                scores=scores,
                wanted=list(settings.wanted),
                before=self.before,
                after=self.best.ids,
                seconds=self.seconds,
                versions=versions(),
                notes=[NOTE],
            )

    def positions(self, ids: list[str]) -> list[int]:
        """The positions of the wanted items among results; N where an item is not shown."""
        visible = self._service.limits.visible
        return [ids.index(item_id) if item_id in ids else visible for item_id in self.settings.wanted]

    def _run(self) -> None:
        settings = self.settings
        oracle = ListOracle(self._search, self._service.limits.visible)
        try:
            attack_batch(
                oracle,
                AttackBatch(
                    images=self.image[None] / LEVELS,
                    rng_keys=torch.arange(1),
                    targets=torch.tensor([[oracle.number(item_id) for item_id in settings.wanted]]),
                ),
                Reorder(k=len(settings.wanted)),
                Threat(settings.eps, grid=True),
                # The encoder is at hand, and every search is shown as a query of the attack.
                search=SearchOptions(budget=settings.budget, repeat=False),
                seed=settings.seed,
            )
        except RankproofError as error:
            self.error = str(error)
        else:
            self.error = None

    def _search(self, images: Images) -> list[list[str]]:
        """The results that a caller would get, in batches as large as those of callers."""
        if self._stop.is_set():
            raise RankproofError("stopped")
        results = []
        for batch in images.mul(LEVELS).round().to(torch.uint8).split(self._service.limits.batch):
            rankings = self._service.search(batch)
            self._record(batch, rankings)
            results += rankings
        return results

    def _record(self, batch: UInt8[Tensor, "b c h w"], rankings: list[list[str]]) -> None:
        visible = self._service.limits.visible
        with self._lock:
            for image, ids in zip(batch, rankings, strict=True):
                self.before = self.before or ids
                tau = float(short_range_tau(torch.tensor(self.positions(ids)), visible))
                self.scores.append(tau)
                if tau > self.best.tau or not self.best.ids:
                    self.best = BestQuery(image, ids, tau)
            self.seconds = time.perf_counter() - self._start
