"""The figures of an audit from its finished units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from rankproof.attacks.budget_summary import BudgetSummary, median_interval
from rankproof.attacks.result import AttackResult
from rankproof.attacks.smallest_budget import impossible, summarise
from rankproof.attacks.summary import AttackSummary
from rankproof.audit.controls import control_flags
from rankproof.audit.diagnostics import (
    ENOUGH,
    AttackFigures,
    check_attack,
    check_baseline,
    check_knowledge,
    check_reference,
)
from rankproof.audit.job import Job
from rankproof.audit.journal import Unit
from rankproof.audit.measurements import Measurement
from rankproof.audit.records import Attacks
from rankproof.audit.united import same_attacks, united
from rankproof.goals.base import Goal
from rankproof.report.findings import ClassBudget, Control
from rankproof.report.page import Flag
from rankproof.threat import format_eps

CLASS_LEAST = 2  # attacks of a class before it has a figure
CLASS_GOALS = ("wrong-first", "qa+")
LOWERED = 1.1  # a budget that another attack lowers by more was not the smallest
MANY = 0.1  # of attacks whose budgets were lowered
METHODS = "the strong method", "plain PGD"
CONVERGED_METHODS = "the search that goes on until it has converged", "the strong method"
BLACK_BOX_METHODS = "the search of this audit", "SPSA"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measurement with its attacks on the first images.

    Args:
        measurement: which.
        attacks: those of each method, the published one first; none of controls.
        controls: what was found of the search itself.
    """

    measurement: Measurement
    attacks: tuple[Attacks, ...] = ()
    controls: tuple[Control, ...] = ()

    @classmethod
    def of(cls, measurement: Measurement, units: Sequence[Unit]) -> "Measured":
        """The measurement from its units, of which there is at least one."""
        return cls(
            measurement=measurement,
            attacks=tuple(map(Attacks.concat, zip(*(unit.parts for unit in units), strict=True))),
            controls=tuple(each for unit in units for each in unit.controls),
        )

    @property
    def goal(self) -> Goal:
        """What is wanted."""
        return self.measurement.goal

    @property
    def main(self) -> Attacks:
        """The attacks of the last method, behind the published one: the figure of the measurement."""
        return self.attacks[-1]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the report shows of attacks, and the reasons to doubt it."""

    smallest: tuple[BudgetSummary, ...]
    cells: tuple[AttackSummary, ...]
    classes: tuple[ClassBudget, ...]
    flags: tuple[Flag, ...]


def figures(job: Job, measured: Sequence[Measured], classes: Sequence[str]) -> Figures:
    """All figures of the measurements of an audit.

    Args:
        classes: the names of the gallery's labels, or none.
    """
    smallest, at_eps, converged, looks = (
        [each for each in measured if each.measurement.kind == kind]
        for kind in ("smallest", "at-eps", "converged", "black-box")
    )
    cells: list[AttackSummary] = []
    flags = control_flags([control for each in measured for control in each.controls])
    for each in at_eps:
        long = _elsewhere(each, converged)
        tried = [*each.attacks, *long, *_elsewhere(each, [*smallest, *looks])]
        worst = united(tried, job.threat.eps)
        cells += [_cell(job, attacks.result) for attacks in (*each.attacks, *long)]
        cells.append(_cell(job, worst))
        flags += _doubts(job, each, long)
    for each in looks:
        cells += [_cell(job, attacks.result) for attacks in each.attacks]
        flags += _black_box_doubts(job, each, [*converged, *at_eps])
    budgets: list[BudgetSummary] = []
    by_class: list[ClassBudget] = []
    for each in smallest:
        least = least_budgets(each, [*at_eps, *converged, *looks], job.threat.eps)
        summary, doubts = _smallest(each, least)
        if text := impossible(each.goal, summary.places, job.size):
            doubts = [*doubts, Flag(kind="impossible", cell=each.goal.spec.name, text=text)]
        budgets.append(summary)
        flags += doubts
        by_class += _classes(job, each, least, classes)
    return Figures(smallest=tuple(budgets), cells=tuple(cells), classes=tuple(by_class), flags=tuple(flags))


def least_budgets(smallest: Measured, others: Sequence[Measured], eps: float) -> list[float]:
    """The smallest budget of each attack, lowered where another attack got there with less; NaN is none."""
    (attacks,) = smallest.attacks
    least = attacks.size.tolist()
    for other in _elsewhere(smallest, others):
        if other.reached is None:
            continue
        for row in same_attacks(other, attacks.result, eps).tolist():
            size = float(other.size[row])
            if bool(other.reached[row]) and least[row] != 0 and not least[row] <= size:
                least[row] = size
    return least


def _elsewhere(measured: Measured, others: Sequence[Measured]) -> list[Attacks]:
    """The attacks that other measurements made for the same goal."""
    return [
        attacks
        for other in others
        if other is not measured and other.goal == measured.goal
        for attacks in other.attacks
    ]


def _cell(job: Job, result: AttackResult) -> AttackSummary:
    return replace(result, examination=job.gallery.ranker.examination).summary


def _smallest(measured: Measured, least: Sequence[float]) -> tuple[BudgetSummary, list[Flag]]:
    """The smallest budgets of a goal, and whether its search is to be doubted."""
    (attacks,) = measured.attacks
    assert attacks.smallest is not None
    summary = summarise(attacks.smallest, least)
    lowered = sum(
        bool(found > LOWERED * now) or (math.isnan(found) and math.isfinite(now))
        for found, now in zip(attacks.size.tolist(), least, strict=True)
    )
    if not lowered:
        return summary, []
    note = f"{lowered} of {len(least)} budgets are those of attacks at the audited eps, which found less"
    if lowered <= MANY * len(least):
        return replace(summary, notes=(*summary.notes, note)), []
    text = (
        "attacks at the audited eps often succeed with less than the smallest budget found: it is too large"
    )
    flag = Flag(kind="budget-search-loses", cell=measured.goal.spec.name, text=text)
    return replace(summary, notes=(*summary.notes, note)), [flag]


def _classes(job: Job, measured: Measured, least: Sequence[float], names: Sequence[str]) -> list[ClassBudget]:
    """The smallest budgets by class, the lowest median first."""
    labels, ids = job.gallery.labels, job.gallery_ids
    name = measured.goal.spec.name
    if labels is None or ids is None or not names or name not in CLASS_GOALS:
        return []
    values: dict[int, list[float]] = {}
    for label, eps in zip(
        labels[ids[job.order[: len(least)]].to(labels.device)].tolist(), least, strict=True
    ):
        if eps != 0:
            values.setdefault(label, []).append(math.inf if math.isnan(eps) else eps)
    found = [
        ClassBudget(goal=name, label=names[label], trials=len(paid), eps_star=median_interval(paid)[0])
        for label, paid in values.items()
        if len(paid) >= CLASS_LEAST
    ]
    return sorted(found, key=lambda each: (math.inf if each.eps_star is None else each.eps_star, each.label))


# -- reasons to doubt ------------------------------------------------------------------------------


def _doubts(job: Job, measured: Measured, converged: Sequence[Attacks]) -> list[Flag]:
    """Reasons to doubt the figures of a goal at the audited budget.

    Args:
        converged: the attacks of the search that goes on until it has converged, if any.
    """
    *reference, main = measured.attacks
    label = f"{measured.goal.spec.name} at {format_eps(job.threat.eps)}"
    clean, spec = main.result.headline(after=False), measured.goal.spec
    flags = check_attack(main.result, label, headline=True)
    flags += check_baseline(clean, spec, label, len(job.gallery))
    own = AttackFigures.of(main.result)
    for other in reference:
        note = f"{label} ({other.result.method})"
        flags += check_attack(other.result, note, headline=False)
        flags += check_reference(own, AttackFigures.of(other.result), spec, label, METHODS)
    for each in converged:
        count = min(len(each.result), len(main.result))
        long, short = (AttackFigures.of(part.result[:count]) for part in (each, main))
        flags += check_reference(long, short, spec, label, CONVERGED_METHODS)
    return flags


def _black_box_doubts(job: Job, measured: Measured, white_boxes: Sequence[Measured]) -> list[Flag]:
    """Reasons to doubt the figures of a black box.

    Args:
        white_boxes: the first with enough attacks of the same goal is the one it is compared with.
    """
    *reference, main = measured.attacks
    goal, budget = measured.goal, measured.measurement.budget
    setting = f"k = {goal.parameters['k']}, N = {measured.measurement.visible}, Q = {budget:,}"
    label = f"{goal.spec.name} {setting} at {format_eps(job.threat.eps)}"
    own = AttackFigures.of(main.result)
    flags = check_attack(main.result, label, headline=True)
    for other in reference:
        flags += check_reference(own, AttackFigures.of(other.result), goal.spec, label, BLACK_BOX_METHODS)
    same = [white for white in white_boxes if white.goal == goal and len(white.main) >= ENOUGH]
    for white in same[:1]:
        flags += check_knowledge(own, AttackFigures.of(white.main.result), label)
    return flags


def octaves(measured: Measured) -> list[float]:
    """What the interval of a measurement is taken of: octaves of eps, or headline figures."""
    main = measured.main
    if main.smallest is None:
        return main.result.headline().tolist()
    paid = main.size[main.size != 0]
    return torch.nan_to_num(paid, nan=1.0).clamp(1e-6, 1.0).log2().tolist()
