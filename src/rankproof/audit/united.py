"""The worst case of an audit: attack by attack the best image of all that its measurements tried."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.attacks.worst_case import NAME, best_of, figures_of
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
    made = {
        str(number): [
            figure if row in rows else None for row, figure in enumerate(figures_of(result)[: len(first)])
        ]
        for number, (result, rows) in enumerate(zip(results, allowed, strict=True))
    }
    won = [int(number) for number in best_of(spec(first.goal), first.parameters, made).methods]
    names = [result.method for result in results]
    wins = ", ".join(f"{names[number]} {won.count(number)}" for number in sorted(set(won)))
    white = [result for result, each in zip(results, attacks, strict=True) if each.exact is None]
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
        evaluations=None,
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
