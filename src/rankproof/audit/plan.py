"""What a standard audit runs, and how long that will take."""

from dataclasses import dataclass
from math import ceil

import torch

from rankproof.cost import bare_seconds
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
from rankproof.goals.names import goal_name
from rankproof.methods.base import Method
from rankproof.methods.presets import published, strong
from rankproof.ranking.gallery import Gallery
from rankproof.threat import Threat, format_eps

CURVE = tuple(level / 255 for level in (0, 1, 2, 4, 8, 16))
CURVE_SHARE = 5  # a point of a curve gets one attack for every five of a headline figure
CURVE_LEAST = 100
DEFAULT_TRIALS, LEAST_TRIALS = 1000, 20
VERDICT_PASSES = 5  # choosing targets and taking the verdict cost about as much as so many passes
OVERHEAD = 1.2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of an audit.

    Args:
        goal: what is wanted.
        eps: budget in [0, 1].
        method: how it is sought.
        trials: attacks.
    """

    goal: Goal | Sum
    eps: float
    method: Method
    trials: int

    @property
    def label(self) -> str:
        """How flags and progress call it, such as "sp-qa+ at 8/255 (pgd)"."""
        note = "" if self.method.name == "strong" else f" ({self.method.name})"
        return f"{goal_name(self.goal)} at {format_eps(self.eps)}{note}"

    @property
    def passes(self) -> int:
        """Forward and gradient evaluations of each attack."""
        return self.method.passes(self.eps) if self.eps > 0 else 0

    @property
    def work(self) -> int:
        """The whole cell in evaluations: its attacks, the choice of targets and the verdict."""
        return self.trials * (self.passes + VERDICT_PASSES)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cells of an audit with an estimate of the time they take."""

    cells: tuple[Cell, ...]
    trials: int
    seconds: float


def standard_goals(size: int) -> tuple[Goal | Sum, ...]:
    """Every white-box way of the two papers, at their headline setting, as far as the gallery allows."""
    k, g = min(5, size), min(5, size - 2)
    goals: list[Goal | Sum] = [CandidateRaise(), CandidateLower(), QueryRaise(), QueryLower()]
    if g >= 1:
        goals += [QueryRaise() + 1.0 * Preserve(g=g), QueryLower() + 100.0 * Preserve(g=g)]
    return (*goals, Reorder(k=k), MaxShift())


def standard_cells(size: int, threat: Threat, trials: int) -> tuple[Cell, ...]:
    """The strong method on every goal at the audited eps with plain PGD as yardstick, then the curves."""
    cells = []
    few = min(trials, max(CURVE_LEAST, trials // CURVE_SHARE))
    goals = standard_goals(size)
    for goal in goals:
        for method in (published(goal.metric), strong(goal.metric)):
            cells.append(Cell(goal=goal, eps=threat.eps, method=method, trials=trials))
    others = [eps for eps in CURVE if abs(eps - threat.eps) > 1e-9]
    cells += [
        Cell(goal=goal, eps=eps, method=strong(goal.metric), trials=few) for goal in goals for eps in others
    ]
    return tuple(cells)


def plan(
    gallery: Gallery,
    images: torch.Tensor,
    threat: Threat,
    *,
    trials: int | None = None,
    time_limit: float | None = None,
) -> Plan:
    """Decide what to run; one pass is timed for the estimate.

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
    unit = _seconds_per_evaluation(gallery, images)
    largest = min(len(images), trials or DEFAULT_TRIALS) if time_limit is None else len(images)
    if time_limit is not None:
        while largest > LEAST_TRIALS and _seconds(gallery, threat, largest, unit) > time_limit:
            largest = max(LEAST_TRIALS, int(largest * 0.9))
        least = _seconds(gallery, threat, largest, unit)
        if least > time_limit:
            raise RankproofError(f"--time: {largest} trials would take {ceil(least)} s; give more time")
    cells = standard_cells(len(gallery), threat, largest)
    return Plan(cells=cells, trials=largest, seconds=_seconds(gallery, threat, largest, unit))


def _seconds(gallery: Gallery, threat: Threat, trials: int, unit: float) -> float:
    cells = standard_cells(len(gallery), threat, trials)
    return OVERHEAD * unit * sum(cell.work for cell in cells)


def _seconds_per_evaluation(gallery: Gallery, images: torch.Tensor) -> float:
    """Time of one pass of one image, the product with the gallery included."""
    sample = gallery.ranker.as_input(images[: gallery.ranker.chunk])
    return bare_seconds(gallery, sample, 1, whole_gallery=True) / len(sample)
