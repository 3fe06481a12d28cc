"""Which classes need the smallest budgets, as a report shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankproof.goals.base import GoalSpec
from rankproof.goals.registry import order_of, spec
from rankproof.report.findings import ClassBudget

WEAKEST, HARDEST = 6, 2  # classes shown of a goal


@dataclass(frozen=True, kw_only=True)
class ClassGroup:
    """The classes of one goal.

    Args:
        spec: the goal.
        shown: the weakest and the hardest classes; None where others are left out.
        hidden: how many are left out.
    """

    spec: GoalSpec
    shown: tuple[ClassBudget | None, ...]
    hidden: int


def breaking_first(classes: Sequence[ClassBudget]) -> list[ClassGroup]:
    """The classes of each goal, the weakest first; those not reached last."""
    goals: dict[str, list[ClassBudget]] = {}
    for each in classes:
        goals.setdefault(each.goal, []).append(each)
    groups = []
    for goal in sorted(goals, key=order_of):
        ordered = sorted(
            goals[goal], key=lambda each: (math.inf if each.eps_star is None else each.eps_star, each.label)
        )
        hidden = len(ordered) - WEAKEST - HARDEST
        shown: tuple[ClassBudget | None, ...] = tuple(ordered)
        if hidden > 0:
            shown = (*ordered[:WEAKEST], None, *ordered[-HARDEST:])
        groups.append(ClassGroup(spec=spec(goal), shown=shown, hidden=max(hidden, 0)))
    return groups
