"""The worst case: attack by attack the strongest of all images that were tried, within the audited budget."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.audit.records import Attacks
from rankproof.goals.base import GoalSpec
from rankproof.threat import TOLERANCE

WORST_CASE = "worst-case"


def worst_case(spec: GoalSpec, attacks: Sequence[Attacks], eps: float) -> AttackResult:
    """The figures of the strongest image for each attack of the first of several methods.

    Args:
        spec: what the goal says about itself.
        attacks: those of each method on the same images from the first on; some may have fewer or more.
        eps: the audited budget; images that need more do not count.
    """
    first = attacks[0].result
    count = len(first)
    scores = torch.stack([_scores(spec, each, first, eps, count) for each in attacks])  # (methods, b)
    best = scores.argmax(0)  # the first of equal ones
    results = [each.exact or each.result for each in attacks]
    after = {
        name: torch.stack([results[int(best[row])].after[name][row] for row in range(count)])
        for name in first.after
    }
    used = Counter(results[int(number)].method for number in best)
    note = f"the strongest image of each attack, by method: {', '.join(f'{n} {c}' for n, c in used.items())}"
    return replace(
        first,
        method=WORST_CASE,
        after=after,
        steps=sum(each.result.steps for each in attacks if each.exact is None),
        zero_gradient=torch.zeros(count, dtype=torch.bool),
        seconds=sum(each.result.seconds for each in attacks),
        notes=(*first.notes, note),
    )


def _scores(spec: GoalSpec, attacks: Attacks, first: AttackResult, eps: float, count: int) -> Tensor:
    """(b,) the headline figures, larger is stronger; -inf where there is no such attack."""
    scores = torch.full((count,), -torch.inf, dtype=torch.float64)
    rows = same_attacks(attacks, first, eps)
    result = attacks.exact or attacks.result
    values = result.headline().double()
    scores[rows] = (values if spec.larger_is_stronger else -values)[rows]
    return scores


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
