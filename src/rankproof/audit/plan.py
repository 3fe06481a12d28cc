"""What a standard audit runs, and how long that will take."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import torch

from rankproof.attacks import attack
from rankproof.attacks.black_box import BUDGET
from rankproof.attacks.cost import bare_seconds
from rankproof.errors import RankproofError
from rankproof.goals import (
    CandidateLower,
    CandidateRaise,
    Goal,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
    Sum,
)
from rankproof.goals.order import VISIBLE
from rankproof.goals.registry import goal_name
from rankproof.methods import SPSA
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.defaults import automatic, published, strong
from rankproof.methods.white_box.base import Method
from rankproof.oracles import LocalOracle
from rankproof.ranking.gallery import Gallery
from rankproof.threat import Threat, format_eps

CURVE = tuple(level / 255 for level in (0, 1, 2, 4, 8, 16))
CURVE_SHARE = 5  # a point of a curve gets one attack for every five of a headline figure
CURVE_LEAST = 100
DEFAULT_TRIALS, LEAST_TRIALS = 1000, 20
SEEN_SHARE = 10  # a black-box attack looks a thousand times: one for every ten of a headline figure
SEEN_K = (5, 10)
VERDICT_PASSES = 5  # choosing targets and taking the verdict cost about as much as so many passes
OVERHEAD = 1.2
SAMPLE, QUERIES, REPEATS = 4, 101, 3  # attacks, queries of each and repeats that a query is timed with


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a model is here: seconds of one evaluation with its gradient, and of one query."""

    evaluation: float
    query: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of an audit.

    Args:
        goal: what is wanted.
        eps: budget in [0, 1].
        method: how it is sought.
        trials: attacks.
        yardstick: whether it is there to measure another method by.
        visible: N, how many results a black box shows; None in a white box.
        budget: Q, queries of each attack on a black box; None in a white box.
    """

    goal: Goal | Sum
    eps: float
    method: Method | BlackBoxMethod
    trials: int
    reference_method: bool = False
    visible: int | None = None
    budget: int | None = None

    @property
    def label(self) -> str:
        """How flags and progress call it: "sp-qa+ at 8/255 (pgd)", "oa k = 5, N = 50, Q = 1,000 at 8/255"."""
        setting = ""
        if self.budget is not None and isinstance(self.goal, Reorder):
            setting = f" k = {self.goal.k}, N = {self.visible}, Q = {self.budget:,}"
        note = f" ({self.method.name})" if self.reference_method else ""
        return f"{goal_name(self.goal)}{setting} at {format_eps(self.eps)}{note}"

    @property
    def passes(self) -> int:
        """Forward and gradient evaluations of each attack, queries where it is a black box."""
        if self.eps == 0:
            return 0
        if isinstance(self.method, BlackBoxMethod):
            return self.budget or 0
        return self.method.passes(self.eps)

    def target(self, gallery: Gallery) -> Gallery | LocalOracle:
        """What is attacked: the gallery itself, or the first results it shows."""
        return gallery if self.budget is None else LocalOracle(gallery, self.visible)

    def threat(self, audited: Threat) -> Threat:
        """What may be changed; a method that searches among 8-bit images stays there."""
        grid = audited.grid or (isinstance(self.method, BlackBoxMethod) and self.method.grid)
        return replace(audited, eps=self.eps, grid=grid)

    def seconds(self, pace: Pace) -> float:
        """An estimate of the whole cell: its attacks, the choice of targets and the verdict."""
        one = pace.evaluation if self.budget is None else pace.query
        return OVERHEAD * self.trials * (self.passes * one + VERDICT_PASSES * pace.evaluation)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cells of an audit with what is known of the time they take."""

    cells: tuple[Cell, ...]
    trials: int
    pace: Pace

    @property
    def seconds(self) -> float:
        """An estimate of the whole audit."""
        return sum(cell.seconds(self.pace) for cell in self.cells)


def standard_goals(size: int) -> tuple[Goal | Sum, ...]:
    """Every white-box way of the two papers, at their headline setting, as far as the gallery allows."""
    k, g = min(5, size), min(5, size - 2)
    goals: list[Goal | Sum] = [CandidateRaise(), CandidateLower(), QueryRaise(), QueryLower()]
    if g >= 1:
        goals += [QueryRaise() + 1.0 * Preserve(g=g), QueryLower() + 100.0 * Preserve(g=g)]
    return (*goals, Reorder(k=k), MaxShift())


def standard_cells(size: int, threat: Threat, trials: int) -> tuple[Cell, ...]:
    """Every goal at the audited eps, strong with plain PGD as yardstick; the curves; then the black box."""
    cells = []
    few = min(trials, max(CURVE_LEAST, trials // CURVE_SHARE))
    goals = standard_goals(size)
    for goal in goals:
        whole = Cell(goal=goal, eps=threat.eps, method=strong(goal.metric), trials=trials)
        cells += [replace(whole, method=published(goal.metric), reference_method=True), whole]
    others = [eps for eps in CURVE if abs(eps - threat.eps) > 1e-9]
    cells += [
        Cell(goal=goal, eps=eps, method=strong(goal.metric), trials=few) for goal in goals for eps in others
    ]
    return (*cells, *seen_cells(size, threat, trials))


def seen_cells(size: int, threat: Threat, trials: int) -> Iterator[Cell]:
    """The order attack where only the first results are seen: our own search with SPSA as yardstick."""
    few = min(trials, max(LEAST_TRIALS, trials // SEEN_SHARE))
    visible, plain, own = min(VISIBLE, size), SPSA(), automatic()
    for k in sorted({min(k, size) for k in SEEN_K}):
        whole = Cell(
            goal=Reorder(k=k), eps=threat.eps, method=own, trials=few, visible=visible, budget=BUDGET
        )
        if own != plain:
            yield replace(whole, method=plain, reference_method=True)
        yield whole


def plan(
    gallery: Gallery,
    images: torch.Tensor,
    threat: Threat,
    *,
    trials: int | None = None,
    time_limit: float | None = None,
) -> Plan:
    """Decide what to run; one pass and a few queries are timed for the estimate.

    Args:
        images: (b, c, h, w) the images that may be attacked, floats in [0, 1] or 8-bit values.
        trials: attacks for each headline figure; None is 1,000, or what `time_limit` allows.
        time_limit: seconds the audit may take; picks the trials.
    Raises:
        RankproofError: both are given, or the time is too short for any figure.
    """
    if trials is not None and time_limit is not None:
        raise RankproofError("give --trials or --time, not both")
    if trials is not None and trials < 1:
        raise RankproofError(f"trials must be at least 1, got {trials}")
    pace = Pace(
        evaluation=_seconds_per_evaluation(gallery, images),
        query=_seconds_per_query(gallery, images, threat),
    )

    def with_trials(count: int) -> Plan:
        return Plan(cells=standard_cells(len(gallery), threat, count), trials=count, pace=pace)

    if time_limit is None:
        return with_trials(min(len(images), trials or DEFAULT_TRIALS))
    todo = with_trials(len(images))
    while todo.trials > LEAST_TRIALS and todo.seconds > time_limit:
        todo = with_trials(max(LEAST_TRIALS, int(todo.trials * 0.9)))
    if todo.seconds > time_limit:
        raise RankproofError(
            f"--time: {todo.trials} trials would take {ceil(todo.seconds)} s; give more time"
        )
    return todo


def _seconds_per_evaluation(gallery: Gallery, images: torch.Tensor) -> float:
    """Time of one pass of one image, the product with the gallery included."""
    sample = gallery.ranker.as_input(images[: gallery.ranker.chunk])
    return bare_seconds(gallery, sample, 1, whole_gallery=True) / len(sample)


def _seconds_per_query(gallery: Gallery, images: torch.Tensor, threat: Threat) -> float:
    """Time of one query: its forward pass, its ranking and what the search itself adds."""
    if threat.eps == 0:
        return 0.0  # none is sent
    *_, cell = seen_cells(len(gallery), threat, LEAST_TRIALS)
    assert isinstance(cell.method, BlackBoxMethod)
    target, images = cell.target(gallery), images[:SAMPLE]
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        result = attack(target, images, cell.goal, cell.threat(threat), method=cell.method, budget=QUERIES)
        assert result.queries is not None
        times.append((time.perf_counter() - begin) / int(result.queries.sum()))
    return min(times)
