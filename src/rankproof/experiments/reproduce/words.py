"""The words of a recipe as goals and methods."""

from rankproof.errors import RankproofError
from rankproof.experiments.ordering import METHODS
from rankproof.experiments.reproduce.blocks import DISTANCE
from rankproof.experiments.reproduce.cell import STRONG, Cell
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
from rankproof.goals.query import Form
from rankproof.methods.base import Method
from rankproof.methods.presets import published, strong
from rankproof.methods.search import BlackBox


def goal_of(cell: Cell) -> Goal | Sum:
    """What the attacker of a cell wants; xi weighs means (docs/definitions.md)."""
    form: Form = "distance" if cell.goal.endswith(DISTANCE) else "inequality"
    count, xi = cell.count, cell.xi
    match cell.goal.removesuffix(DISTANCE):
        case "ca+":
            return CandidateRaise(w=count, form=form)
        case "ca-":
            return CandidateLower(w=count, form=form)
        case "qa+":
            return QueryRaise(m=count, form=form)
        case "qa-":
            return QueryLower(m=count, form=form)
        case "sp-qa+":
            return QueryRaise(m=count, form=form) + _weight(cell) * Preserve(form=form)
        case "sp-qa-":
            return QueryLower(m=count, form=form) + _weight(cell) * Preserve(form=form)
        case "oa" if cell.run == "order-strip":
            return Reorder(k=count, order=(0, *range(count - 1, 0, -1)))  # ICCV figure 1: p = [1, 5, 4, 3, 2]
        case "oa":
            return Reorder(k=count) if xi is None else Reorder(k=count, xi=xi)
        case "shift":
            return MaxShift()
        case other:
            raise RankproofError(f"{cell.name}: goal {other!r} is unknown")


def descent_of(cell: Cell) -> Method:
    """The search with gradients of a cell: as published, or ours with as many evaluations."""
    metric = goal_of(cell).metric
    return strong(metric) if cell.method == STRONG else published(metric)


def search_of(cell: Cell) -> BlackBox:
    """The search of a black-box cell; where none is made, any will do, since one query allows no second."""
    word = "rand" if cell.method == "none" else cell.method
    if word not in METHODS:
        raise RankproofError(f"{cell.name}: method {cell.method!r} is unknown")
    return METHODS[word]


def _weight(cell: Cell) -> float:
    if cell.xi is None:
        raise RankproofError(f"{cell.name}: {cell.goal} needs xi in the recipe")
    return cell.xi
