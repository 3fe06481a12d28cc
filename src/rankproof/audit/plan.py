"""What a standard audit runs, and how long that will take."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import torch

from rankproof.attacks import attack
from rankproof.attacks.black_box import BUDGET
from rankproof.attacks.cost import ENOUGH, bare_seconds
from rankproof.checks import check_images
from rankproof.errors import RankproofError
from rankproof.goals import Goal, Reorder
from rankproof.goals.order import VISIBLE
from rankproof.goals.registry import parse, standard_audit
from rankproof.methods import SPSA
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.defaults import automatic, published, strong
from rankproof.methods.white_box.base import Method
from rankproof.oracles import LocalOracle
from rankproof.parameters import AT_LEAST_ONE, Range, check_integer, check_number
from rankproof.ranking.gallery import Gallery
from rankproof.threat import Threat, format_eps
from rankproof.types import ImagesLike

CURVE = tuple(level / 255 for level in (0, 1, 2, 4, 8, 16))
SMALL = 2 / 255  # encoders that so little is audited for are lost long before 16/255: a finer curve
FINE_CURVE = tuple(level / 255 for level in (0, 0.25, 0.5, 1, 2, 4))
CURVE_SHARE = 5  # a point of a curve gets one attack for every five of a headline figure
CURVE_LEAST = 100
DEFAULT_TRIALS, LEAST_TRIALS = 1000, 10  # fewer say nothing: more time is needed
BLACK_BOX_SHARE = 10  # a black-box attack sends a thousand queries: one for every ten of a headline figure
BLACK_BOX_LEAST = 20
BLACK_BOX_K = (5, 10)
BLACK_BOX_MOST = 0.5  # of a time limit: attacks of fewer queries where a thousand would take longer
FEWER_QUERIES = (500, 200, 100)
OVERHEAD_PASSES = 5  # choosing targets and computing the figures cost about as much as so many passes
OVERHEAD = 1.2
TOLERANCE = 1e-9  # two budgets that differ by less are one
SAMPLE, QUERIES, REPEATS = 4, 101, 3  # attacks, queries of each and most repeats that a query is timed with


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast a model is here: seconds of one evaluation with its gradient, and of one query."""

    evaluation: float
    query: float


@dataclass(frozen=True, kw_only=True)
class AuditTask:
    """One attack of an audit, which gives one figure.

    Args:
        goal: what is wanted.
        eps: budget in [0, 1].
        method: how it is sought.
        trials: attacks.
        reference_method: whether it is there to compare another method with.
        visible: N, how many results a black box shows; None in a white box.
        budget: Q, queries of each attack on a black box; None in a white box.
    """

    goal: Goal
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
        if self.budget is not None:
            setting = f" k = {self.goal.parameters['k']}, N = {self.visible}, Q = {self.budget:,}"
        note = f" ({self.method.name})" if self.reference_method else ""
        return f"{self.goal.spec.name}{setting} at {format_eps(self.eps)}{note}"

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

    def seconds(self, timing: Timing) -> float:
        """An estimate of the whole task: its attacks, the choice of targets and the figures."""
        one = timing.evaluation if self.budget is None else timing.query
        return OVERHEAD * self.trials * (self.passes * one + OVERHEAD_PASSES * timing.evaluation)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The tasks of an audit with what is known of the time they take."""

    tasks: tuple[AuditTask, ...]
    trials: int
    timing: Timing

    @property
    def queries(self) -> int | None:
        """Q of each attack on a black box; None without such attacks."""
        return next((task.budget for task in self.tasks if task.budget is not None), None)

    @property
    def seconds(self) -> float:
        """An estimate of the whole audit."""
        return sum(task.seconds(self.timing) for task in self.tasks)


def standard_goals(size: int) -> tuple[Goal, ...]:
    """Every goal of the standard audit at its default setting, as far as a gallery of `size` allows."""
    goals = []
    for spec in standard_audit():
        goal = parse(spec.name)
        most = {"k": size, "g": size - 2}  # beside g preserved items stand the query's copy and one chosen
        fitting = {
            letter: min(value, most[letter])
            for letter, value in goal.parameters.items()
            if letter in most and isinstance(value, int)
        }
        if all(value >= 1 for value in fitting.values()):
            goals.append(parse(spec.name, **fitting))
    return tuple(goals)


def curve_of(eps: float) -> tuple[float, ...]:
    """The budgets of the curves around an audited eps."""
    return FINE_CURVE if 0 < eps <= SMALL + TOLERANCE else CURVE


def standard_tasks(
    size: int, threat: Threat, trials: int, queries: int | None = None
) -> tuple[AuditTask, ...]:
    """Every goal at the audited eps, by our method and by plain PGD; the curves; then the black box.

    Args:
        queries: Q of each black-box attack; None is 1,000.
    """
    tasks = []
    few = min(trials, max(CURVE_LEAST, trials // CURVE_SHARE))
    goals = standard_goals(size)
    for goal in goals:
        main = AuditTask(goal=goal, eps=threat.eps, method=strong(goal.metric), trials=trials)
        tasks += [replace(main, method=published(goal.metric), reference_method=True), main]
    others = [eps for eps in curve_of(threat.eps) if abs(eps - threat.eps) > TOLERANCE]
    tasks += [
        AuditTask(goal=goal, eps=eps, method=strong(goal.metric), trials=few)
        for goal in goals
        for eps in others
    ]
    return (*tasks, *black_box_tasks(size, threat, trials, queries))


def black_box_tasks(
    size: int, threat: Threat, trials: int, queries: int | None = None
) -> Iterator[AuditTask]:
    """The order attack where only the first results are seen: our search, compared with SPSA."""
    few = min(trials, max(BLACK_BOX_LEAST, trials // BLACK_BOX_SHARE))
    reference, method = SPSA(), automatic()
    for k in sorted({min(k, size) for k in BLACK_BOX_K}):
        main = AuditTask(
            goal=Reorder(k=k),
            eps=threat.eps,
            method=method,
            trials=few,
            visible=min(VISIBLE, size),
            budget=queries or BUDGET,
        )
        if method != reference:
            yield replace(main, method=reference, reference_method=True)
        yield main


def plan(
    gallery: Gallery,
    images: ImagesLike,
    threat: Threat,
    *,
    trials: int | None = None,
    time_limit: float | None = None,
    queries: int | None = None,
) -> Plan:
    """Decide what to run; one pass and a few queries are timed for the estimate.

    Args:
        images: (b, c, h, w) the images that may be attacked, floats in [0, 1] or 8-bit values.
        trials: attacks for each headline figure; None is 1,000, or what `time_limit` allows.
        time_limit: seconds the audit may take; picks the trials.
        queries: Q of each black-box attack; None is 1,000, or with `time_limit` the largest of 1,000, 500,
            200 and 100 with which the black box takes at most half of the time.
    Raises:
        RankproofError: both are given, or the time is too short for any figure.
    """
    if trials is not None and time_limit is not None:
        raise RankproofError("give --trials or --time, not both")
    if trials is not None:
        trials = check_integer("trials", trials, AT_LEAST_ONE)
    if time_limit is not None:
        check_number("time_limit", time_limit, Range(low=0.0))
    if queries is not None:
        queries = check_integer("queries", queries, AT_LEAST_ONE)
    images = check_images("images", images)
    gallery.ranker.begin(images)
    gallery.ranker.check_gradient()
    timing = Timing(
        evaluation=_seconds_per_evaluation(gallery, images),
        query=_seconds_per_query(gallery, images, threat),
    )

    if queries is None and time_limit is not None:
        queries = _affordable_queries(len(gallery), threat, timing, time_limit)

    def with_trials(count: int) -> Plan:
        return Plan(tasks=standard_tasks(len(gallery), threat, count, queries), trials=count, timing=timing)

    if time_limit is None:
        return with_trials(min(len(images), trials or DEFAULT_TRIALS))
    chosen = with_trials(len(images))
    while chosen.trials > LEAST_TRIALS and chosen.seconds > time_limit:
        chosen = with_trials(max(LEAST_TRIALS, int(chosen.trials * 0.9)))
    if chosen.seconds > time_limit:
        raise RankproofError(
            f"--time: {chosen.trials} trials would take {ceil(chosen.seconds)} s; give more time"
        )
    return chosen


def _affordable_queries(size: int, threat: Threat, timing: Timing, time_limit: float) -> int:
    """Q of the black-box attacks: as many as leave half of the time to the white box."""
    candidates = [BUDGET, *(queries for queries in FEWER_QUERIES if queries < BUDGET)]
    for queries in candidates:
        tasks = black_box_tasks(size, threat, BLACK_BOX_LEAST, queries)
        if sum(task.seconds(timing) for task in tasks) <= BLACK_BOX_MOST * time_limit:
            return queries
    return candidates[-1]


def _seconds_per_evaluation(gallery: Gallery, images: torch.Tensor) -> float:
    """Time of one pass of one image, the product with the gallery included."""
    sample = gallery.ranker.as_input(images[: gallery.ranker.chunk])
    return bare_seconds(gallery, sample, 1, whole_gallery=True) / len(sample)


def _seconds_per_query(gallery: Gallery, images: torch.Tensor, threat: Threat) -> float:
    """Time of one query: its forward pass, its ranking and what the search itself adds."""
    if threat.eps == 0:
        return 0.0  # none is sent
    *_, task = black_box_tasks(len(gallery), threat, LEAST_TRIALS)
    target, images = task.target(gallery), images[:SAMPLE]
    times: list[float] = []
    start = time.perf_counter()
    while not times or (len(times) < REPEATS and time.perf_counter() - start < ENOUGH):
        begin = time.perf_counter()
        result = attack(target, images, task.goal, task.threat(threat), method=task.method, budget=QUERIES)
        assert result.log is not None
        times.append((time.perf_counter() - begin) / int(result.log.spent.sum()))
    return min(times)
