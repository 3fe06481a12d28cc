"""The worst case, attack by attack: the best image over everything that was tried for it.

An attacker who has several methods keeps the best image of each attack. What "best" means follows the goal:

- ranks, shift, distance, hit and kept: the headline figure;
- SP-QA: the places that C won less the price of those that C_SP lost (`rankproof.goals.query.price`). The
  searches choose their own best image by it, too: C_SP is not given up for a small gain of C;
- OA: Kendall's tau; of equal ones, all k results in sight before some of them lost; then the lower mean rank.

Where two images are equal in all that, the method that is named first has won.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.errors import RankproofError
from rankproof.goals.base import GoalSpec
from rankproof.goals.hinge import LOWER, RAISE
from rankproof.goals.order import Reorder
from rankproof.goals.query import price
from rankproof.goals.registry import spec as spec_of
from rankproof.threat import LEVELS, TOLERANCE, format_eps

NAME = "worst-case"


@dataclass(frozen=True, kw_only=True)
class AttackFigure:
    """The figures of one attack by which it is compared with others on the same image.

    Args:
        value: the headline figure.
        sp_rank: mean normalised rank of C_SP in %; None where nothing is kept.
        last_place: of an order the place, from 0, of the last of the k results; else None.
        mean_rank: of an order the mean place mR; else None.
    """

    value: float
    sp_rank: float | None = None
    last_place: float | None = None
    mean_rank: float | None = None


@dataclass(frozen=True, kw_only=True)
class BestOf:
    """The best figure of each attack, and the method it is of."""

    figures: tuple[AttackFigure, ...]
    methods: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The best image of each attack.

    Args:
        result: these images with their figures; its method is "worst-case".
        methods: for each attack the method that won.
    """

    result: AttackResult
    methods: tuple[str, ...]


def figures_of(result: AttackResult) -> tuple[AttackFigure, ...]:
    """The figures of each attack of a result by which it is compared with others."""
    after, rows = result.after, len(result)
    nothing: list[float | None] = [None] * rows
    kept = after["sp_rank"].mean(1).tolist() if "sp_rank" in after else nothing
    last = mean = nothing
    if result.metric == "tau":
        mean = after["mean_rank"].tolist() if "mean_rank" in after else nothing
        if "rank" in after and result.gallery_size:
            last = (after["rank"].amax(1) * result.gallery_size / 100).tolist()
    parts = zip(result.headline().tolist(), kept, last, mean, strict=True)
    return tuple(
        AttackFigure(value=value, sp_rank=sp_rank, last_place=place, mean_rank=mean_rank)
        for value, sp_rank, place, mean_rank in parts
    )


def strength(spec: GoalSpec, parameters: Mapping[str, Any], figure: AttackFigure) -> tuple[float, ...]:
    """How strong an attack is, to be compared with others on the same image: larger is stronger.

    Args:
        spec: of the goal.
        parameters: the papers' letters; m and xi decide what C_SP is worth, k how much is in sight.
        figure: of the attack.
    Returns:
        numbers of which the first that differs decides.
    """
    if not math.isfinite(figure.value):
        return (-math.inf,)
    signed = figure.value if spec.larger_is_stronger else -figure.value
    if figure.sp_rank is not None:
        direction = LOWER if spec.larger_is_stronger else RAISE
        lost = torch.tensor(figure.sp_rank / 100, dtype=torch.float64)
        worth = price(direction, float(parameters["xi"]), int(parameters["m"] or 1), lost)
        return (signed - 100 * float(worth),)
    if spec.metric != "tau":
        return (signed,)
    sight = Reorder(k=int(parameters["k"])).places_in_sight
    seen = figure.last_place is None or figure.last_place < sight - 1e-6
    return signed, float(seen), -(figure.mean_rank or 0.0)


def best_of(
    spec: GoalSpec, parameters: Mapping[str, Any], figures: Mapping[str, Sequence[AttackFigure | None]]
) -> BestOf:
    """The best of several methods, attack by attack, from their figures alone.

    Args:
        spec: of the goal.
        parameters: the papers' letters.
        figures: for each method the figures of the attacks in one order that all share; None where it made
            no such attack, and a method that made fewer has the first of them.
    Raises:
        RankproofError: there is an attack that no method made, or none at all.
    """
    count = max((len(each) for each in figures.values()), default=0)
    if not count:
        raise RankproofError("the worst case is of nothing: no attack was made")
    best, methods = [], []
    for row in range(count):
        found = {name: each[row] for name, each in figures.items() if row < len(each)}
        made = {name: figure for name, figure in found.items() if figure is not None}
        if not made:
            raise RankproofError(f"the worst case is of nothing: attack {row} was made by no method")
        # Of equal ones `max` takes the first.
        won = max(made, key=lambda name: strength(spec, parameters, made[name]))
        best.append(made[won])
        methods.append(won)
    return BestOf(figures=tuple(best), methods=tuple(methods))


def worst_case(results: Sequence[AttackResult], names: Sequence[str] | None = None) -> WorstCase:
    """The best image of each attack over several results.

    Args:
        results: attacks on the same images with the same items and goal, those of another model ranked by
            this one (`transfer`); a result of fewer attacks has the first of them. Their largest eps is that
            of the worst case.
        names: what each is called; None takes the names of their methods.
    Returns:
        the images, and for each the name of the result it is of.
    Raises:
        RankproofError: there is none, or they are of other images, items or goals.
    """
    if not results:
        raise RankproofError("the worst case is of nothing: give one result or more")
    names = [result.method for result in results] if names is None else list(names)
    if len(set(names)) < len(results) or len(names) != len(results):
        raise RankproofError(f"worst_case: every result needs a name of its own, got {', '.join(names)}")
    longest = max(results, key=len)
    for result in results:
        _check_alike(result, longest)
    figures = {name: figures_of(result) for name, result in zip(names, results, strict=True)}
    best = best_of(spec_of(longest.goal), longest.parameters, figures)
    winners = [results[names.index(name)] for name in best.methods]
    wins = ", ".join(f"{name} {best.methods.count(name)}" for name in names)
    notes = dict.fromkeys(note for result in results for note in result.notes)
    shared = [set(result.after) & set(result.before) for result in results]
    after = set.intersection(*shared)
    return WorstCase(
        result=replace(
            longest,
            method=NAME,
            eps=max(result.eps for result in results),
            steps=sum(result.steps for result in results),
            original=_rows(winners, "original"),
            adversarial=_rows(winners, "adversarial"),
            zero_gradient=_rows(winners, "zero_gradient"),
            before={key: torch.stack([w.before[key][row] for row, w in enumerate(winners)]) for key in after},
            after={key: torch.stack([w.after[key][row] for row, w in enumerate(winners)]) for key in after},
            unchanged=longest.unchanged,
            seconds=sum(result.seconds for result in results),
            notes=(*notes, f"the best image of each attack, won by: {wins}"),
            log=None,
            perturbation=None,
            **_evaluations(results, longest),
        ),
        methods=best.methods,
    )


def _rows(winners: Sequence[AttackResult], name: str) -> Tensor:
    """For each attack the row of the result that won."""
    first: Tensor = getattr(winners[0], name)
    return torch.stack([getattr(each, name)[row].to(first) for row, each in enumerate(winners)])


def _evaluations(results: Sequence[AttackResult], longest: AttackResult) -> dict[str, Any]:
    """What all methods together spent on each attack, where all of them counted it."""
    spent = [result.evaluations for result in results]
    if any(each is None or len(each) < len(longest) for each in spent):
        return {"evaluations": None}
    return {"evaluations": torch.stack([each for each in spent if each is not None]).sum(0)}


def _check_alike(result: AttackResult, longest: AttackResult) -> None:
    """Raise unless a result is of the same attacks as the longest one.

    The originals may differ by what rounding to 8 bits changes.
    """
    rows = len(result)
    letters = [(value, longest.parameters.get(key)) for key, value in result.parameters.items()]
    # A black box has no xi: it sees no losses.
    other = any(value != wanted for value, wanted in letters if None not in (value, wanted))
    if other or (result.goal, result.gallery_size) != (longest.goal, longest.gallery_size):
        raise RankproofError(
            f"worst_case: {result.method} attacked {result.goal}, {longest.method} {longest.goal} with other "
            f"parameters or another gallery; give results of the same goal"
        )
    if not (
        torch.equal(result.targets.cpu(), longest.targets[:rows].cpu())
        and torch.equal(result.preserved.cpu(), longest.preserved[:rows].cpu())
    ):
        raise RankproofError(
            f"worst_case: {result.method} was given other items than {longest.method}; give the same targets"
        )
    original, expected = result.original.cpu(), longest.original[:rows].cpu()
    if original.shape != expected.shape or (
        rows and float((original.double() - expected.double()).abs().max()) > 0.5 / LEVELS + TOLERANCE
    ):
        raise RankproofError(
            f"worst_case: {result.method} at {format_eps(result.eps)} attacked other images than "
            f"{longest.method}; give results of the same images in the same order"
        )
