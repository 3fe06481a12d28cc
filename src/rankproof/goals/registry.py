"""Every goal by its name: what the command line, audits, recipes and results know of goals.

A new goal is a class with a `SPEC`, made known by one call of `register`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

from rankproof.errors import RankproofError
from rankproof.goals.base import DISTANCE, Goal, GoalSpec
from rankproof.goals.candidate import CandidateLower, CandidateRaise
from rankproof.goals.order import Reorder
from rankproof.goals.query import SP_QA, Preserve, QueryGoal, QueryLower, QueryRaise
from rankproof.goals.retrieval import LeaveTop, Mismatch, Misrank, NearestOther
from rankproof.goals.shift import MaxShift
from rankproof.goals.wrong_first import WrongFirst

Build = Callable[..., Goal]


@dataclass(frozen=True)
class _Entry:
    spec: GoalSpec
    build: Build


_entries: dict[str, _Entry] = {}


def register(goal: type[Goal], *, spec: GoalSpec | None = None, build: Build | None = None) -> None:
    """Make a goal known by the name in its spec.

    Args:
        goal: the class; its `SPEC` says everything.
        spec: that of a goal which is a sum of others, else the class's own.
        build: makes the goal from its parameters by name; the class itself where left out.
    Raises:
        RankproofError: another goal has the name.
    """
    made = spec or goal.SPEC
    if made.name in _entries:
        raise RankproofError(f"goal {made.name!r} is registered already; choose another name")
    _entries[made.name] = _Entry(made, build or goal)


def unregister(name: str) -> None:
    """Forget a goal, as a test does with its own."""
    del _entries[name]


def names() -> tuple[str, ...]:
    """The names of all goals, those of the papers first."""
    return tuple(_entries)


def spec(name: str) -> GoalSpec:
    """What a goal says about itself, by its name; that of a distance-based form ends in "-distance".

    Raises:
        RankproofError: there is no such goal, or it has no distance-based form.
    """
    base = name.removesuffix(DISTANCE)
    if base not in _entries or (base != name and "form" not in signature(_entries[base].build).parameters):
        raise RankproofError(f"goal {name!r} is unknown; known: {', '.join(names())}")
    plain = _entries[base].spec
    return plain if base == name else plain.distance_based()


def parse(name: str, **parameters: Any) -> Goal:
    """The goal of a name with its parameters; those left out, or None, have their defaults.

    Args:
        name: such as "sp-qa+" or "ca-"; "ca+-distance" is the distance-based form.
        parameters: by the letters of the papers (w, m, k, g, xi), and others the goal has.
    Raises:
        RankproofError: there is no such goal, or it has no such parameter.
    """
    allowed = spec(name).parameters
    chosen = {letter: value for letter, value in parameters.items() if value is not None}
    if unknown := [letter for letter in chosen if letter not in allowed]:
        letters = ", ".join(allowed) or "none"
        raise RankproofError(f"goal {name} has no parameter {unknown[0]}; it has: {letters}")
    base = name.removesuffix(DISTANCE)
    if base != name:
        chosen["form"] = "distance"
    return _entries[base].build(**chosen)


def standard_audit() -> tuple[GoalSpec, ...]:
    """The goals of a standard audit, in its order."""
    audited = [entry.spec for entry in _entries.values() if entry.spec.standard_audit]
    return tuple(sorted(audited, key=lambda spec: spec.standard_audit))


def order_of(name: str) -> int:
    """Where a goal stands in tables: those of the papers in their order, others behind."""
    places = {spec.name: spec.standard_audit for spec in standard_audit()}
    return places.get(name, len(_entries))


def _preserving(first: type[QueryRaise | QueryLower], xi: float) -> Build:
    """SP-QA: a query goal and the results it keeps, by the published weight of keeping them."""

    def build(m: int = 1, g: int = 5, xi: float = xi, form: Any = "inequality") -> QueryGoal:
        return first(m=m, form=form) + xi * Preserve(g=g, form=form)

    return build


def _reorder(k: int | None = None, order: tuple[int, ...] | None = None, **more: Any) -> Reorder:
    """OA; a given order says how many results it reorders."""
    size = k if k is not None else 5 if order is None else len(order)
    return Reorder(k=size, order=order, **more)


_plain: tuple[type[Goal], ...] = (CandidateRaise, CandidateLower, QueryRaise, QueryLower)
for _goal in _plain:
    register(_goal)
register(QueryRaise, spec=SP_QA[QueryRaise], build=_preserving(QueryRaise, 1.0))
register(QueryLower, spec=SP_QA[QueryLower], build=_preserving(QueryLower, 100.0))
register(Reorder, build=_reorder)
for _goal in (WrongFirst, MaxShift, Mismatch, Misrank, NearestOther, LeaveTop):
    register(_goal)
