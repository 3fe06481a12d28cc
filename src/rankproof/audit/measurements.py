"""What an audit measures: each measurement is one figure, or a few of the same attacks, image by image."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rankproof.audit.controls import TRIALS
from rankproof.audit.protocol import Protocol
from rankproof.goals import Goal, Reorder
from rankproof.goals.order import VISIBLE
from rankproof.goals.registry import parse, standard_audit
from rankproof.methods import SPSA
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.defaults import audited, automatic, published, smallest, strong
from rankproof.methods.white_box.base import Method
from rankproof.methods.white_box.budget_search import BudgetSearch
from rankproof.threat import Threat

Kind = Literal["smallest", "at-eps", "black-box", "converged", "controls", "doubled"]

BLACK_BOX_K = (5, 10)
SUFFIXES = {
    "smallest": "",
    "at-eps": "@eps",
    "converged": "@converged",
    "controls": "@controls",
    "doubled": "@doubled",
}
CONTROLLED = TRIALS  # attacks that the controls of a goal are made on
OVERHEAD_PASSES = 5  # choosing targets and computing the figures cost about as much as so many passes
CONTROL_NAMES = {
    "controls": ("gradient", "noise", "png", "jpeg-90"),
    "doubled": ("best-iterate", "eps-1", "doubled"),
}
"""The controls that need the attack alone, and those that search again."""
CONTROL_SEARCHES = {"controls": 1, "doubled": 7}  # watched, without a limit, and two of doubled evaluations
TYPICAL = {"converged": 1 / 3}  # of the most evaluations of a method; of others it is all of them
FORWARD = 1 / 3  # of an evaluation with its gradient: a query has none


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured on the first images of an audit, as many as there is time for.

    Args:
        kind: the smallest budgets of a goal, a goal at the audited budget by searches of a fixed length
            ("at-eps") and by one that goes on until it has converged, its controls, those that search again
            ("doubled"), or a black box.
        goal: what is wanted.
        methods: how it is sought at the audited budget, the published method first; of "smallest" none, whose
            search goes with the goal.
        visible: N, how many results a black box shows; None in a white box.
        budget: Q, queries of each attack on a black box; None in a white box.
    """

    kind: Kind
    goal: Goal
    methods: tuple[Method | BlackBoxMethod, ...] = ()
    visible: int | None = None
    budget: int | None = None

    @cached_property
    def key(self) -> str:
        """How counts and the journal call it: "qa+", "qa+@eps", "qa+@converged", "black-box-5"."""
        if self.kind == "black-box":
            return f"black-box-{self.goal.parameters['k']}"
        return self.goal.spec.name + SUFFIXES[self.kind]

    @property
    def is_control(self) -> bool:
        """Whether it is about the search, and made in one unit."""
        return self.kind in CONTROL_SEARCHES

    @cached_property
    def label(self) -> str:
        """The key, with Q where one key has several."""
        return self.key if self.budget is None else f"{self.key}x{self.budget}"

    def evaluations(self, eps: float) -> float:
        """About how many evaluations with their gradient one attack costs."""
        if self.kind == "smallest":
            return float(_smallest(self.goal).evaluations + OVERHEAD_PASSES)
        if self.budget is not None:
            return len(self.methods) * (self.budget * FORWARD + OVERHEAD_PASSES)
        white = (each for each in self.methods if not isinstance(each, BlackBoxMethod))
        passes = sum((TYPICAL.get(each.name, 1.0) * each.passes(eps) for each in white), 0.0)
        if self.kind in CONTROL_SEARCHES:
            overhead = len(CONTROL_NAMES[self.kind]) * OVERHEAD_PASSES
            return CONTROL_SEARCHES[self.kind] * passes + overhead
        return passes + len(self.methods) * OVERHEAD_PASSES


def standard_goals(size: int) -> tuple[Goal, ...]:
    """Every goal of the standard audit at its default setting, as far as `size` others allow."""
    goals = []
    for spec in standard_audit():
        goal = parse(spec.name)
        most = {"k": size, "g": size - 2}  # beside g preserved items stand the query's copy and one chosen
        fitting = {
            letter: min(value, most[letter])
            for letter, value in goal.parameters.items()
            if letter in most and isinstance(value, int)
        }
        least = {"k": 2, "g": 1}  # one item has no order
        if all(value >= least[letter] for letter, value in fitting.items()):
            goals.append(parse(spec.name, **fitting))
    return tuple(goals)


def standard_measurements(size: int, eps: float) -> tuple[Measurement, ...]:
    """All that an audit measures beside the black box, the most telling first.

    Args:
        size: how many items can stand in a ranking.
        eps: the audited budget.
    """
    goals = standard_goals(size)
    return (
        *(Measurement(kind="smallest", goal=goal) for goal in goals if goal.spec.wish is not None),
        *(Measurement(kind="at-eps", goal=goal, methods=_of_fixed_length(goal.metric)) for goal in goals),
        *(Measurement(kind="converged", goal=goal, methods=(audited(goal.metric),)) for goal in goals),
        *(Measurement(kind="controls", goal=goal, methods=(strong(goal.metric),)) for goal in goals),
        *(Measurement(kind="doubled", goal=goal, methods=(audited(goal.metric),)) for goal in goals),
    )


def black_boxes(size: int, queries: int) -> tuple[Measurement, ...]:
    """The order attack where only the first results are seen, of five and of ten results.

    Args:
        size: how many items can stand in a ranking.
        queries: Q.
    """
    reference, method = SPSA(), automatic()
    methods: tuple[BlackBoxMethod, ...] = (method,) if method == reference else (reference, method)
    return tuple(
        Measurement(
            kind="black-box",
            goal=Reorder(k=k),
            methods=methods,
            visible=min(VISIBLE, size),
            budget=queries,
        )
        for k in sorted({min(k, size) for k in BLACK_BOX_K if min(k, size) >= 2})
    )


def _smallest(goal: Goal) -> BudgetSearch:
    """The search for the smallest budgets of a goal."""
    return smallest(goal.metric, goal.spec.direction, goal.spec.family, keeps=goal.spec.keeps)


def _of_fixed_length(metric: str) -> tuple[Method, ...]:
    """The published method, and our own of as many steps."""
    return published(metric), strong(metric)


def _at_eps(metric: str) -> tuple[Method, ...]:
    """All searches with gradients at the audited budget."""
    return *_of_fixed_length(metric), audited(metric)


def protocol_of(threat: Threat, first: int, seed: int, size: int) -> Protocol:
    """The protocol of an audit.

    Args:
        first: K, how many results count as the first ones.
        size: how many items can stand in a ranking; a small gallery has goals of fewer items.
    """
    goals = standard_goals(size)
    searches: list[tuple[Goal, tuple[Method | BlackBoxMethod | BudgetSearch, ...]]] = [
        (goal, (*((_smallest(goal),) if goal.spec.wish else ()), *_at_eps(goal.metric))) for goal in goals
    ]
    searches += [(box.goal, box.methods) for box in black_boxes(size, 1)]
    return Protocol(
        eps=threat.eps, first=first, seed=seed, searches=tuple(searches), visible=min(VISIBLE, size)
    )
