"""The worst case of an audit: attack by attack the best image of all that its measurements tried."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.attacks.worst_case import NAME, figures_of, strength
from rankproof.audit.records import Attacks
from rankproof.goals.registry import spec
from rankproof.threat import TOLERANCE


def united(attacks: Sequence[Attacks], eps: float) -> AttackResult:
    """The figures of the best image of each attack; see `rankproof.attacks.worst_case`.

    Args:
        attacks: those of each method on the same images from the first on, those that the figures are of at
            first; others may be fewer or more.
        eps: the audited budget; images that need more do not count.
    """
    first = attacks[0].result
    results = [each.exact or each.result for each in attacks]
    allowed = [set(same_attacks(each, first, eps).tolist()) for each in attacks]
    strengths = [
        [strength(spec(first.goal), first.parameters, figure) for figure in figures_of(result)]
        for result in results
    ]
    won = []
    for row in range(len(first)):
        able = [number for number, rows in enumerate(allowed) if row in rows] or [0]
        won.append(max(able, key=lambda number: strengths[number][row]))  # of equal ones the first
    names = [result.method for result in results]
    wins = ", ".join(f"{names[number]} {won.count(number)}" for number in sorted(set(won)))
    white = [result for result, each in zip(results, attacks, strict=True) if each.exact is None]
    changed: dict[str, Any] = {"evaluations": None} if hasattr(first, "evaluations") else {}
    return replace(
        first,
        method=NAME,
        eps=eps,
        after={
            name: torch.stack([results[number].after[name][row] for row, number in enumerate(won)])
            for name in first.after
        },
        steps=sum(result.steps for result in white),
        zero_gradient=torch.zeros(len(first), dtype=torch.bool),
        seconds=sum(each.result.seconds for each in attacks),
        notes=(*first.notes, f"the best image of each attack, won by: {wins}"),
        **changed,
    )


def same_attacks(attacks: Attacks, other: AttackResult, eps: float) -> Tensor:
    """(k,) the rows at which these attacks have the chosen items of others, within a budget."""
    result = attacks.result
    count = min(len(result), len(other))
    alike = (attacks.size[:count] <= eps + TOLERANCE).cpu()
    for mine, its in ((result.targets, other.targets), (result.preserved, other.preserved)):
        if mine.shape[1] != its.shape[1]:
            return torch.empty(0, dtype=torch.int64)
        alike &= (mine[:count].cpu() == its[:count].cpu()).all(1)
    return alike.nonzero()[:, 0]
