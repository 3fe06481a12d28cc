"""The papers' protocol of universal perturbations (ECCV section 5.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.attack import attack
from rankproof.goals import CandidateLower, Goal, QueryLower, Sum
from rankproof.methods.universal import Universal
from rankproof.randomness import generator
from rankproof.result import AttackResult
from rankproof.target import Target
from rankproof.threat import Threat
from rankproof.transfer import on_unseen

SEEN_SHARE, NEAREST_SHARE = 0.05, 0.01


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What came of it.

    Args:
        values: for each target the mean rank of the scored images: "seen_before", "seen", "unseen_before" and
            "unseen".
        images: how many a perturbation was made from.
        steps: evaluations of each of them.
        notes: what is to be told.
        attacks: on the seen and the unseen images of each target, by its number: "0-seen", "0-unseen".
    """

    values: dict[str, list[float]]
    images: int
    steps: int
    notes: tuple[str, ...]
    attacks: dict[str, AttackResult]


def shared_values(
    target: Target, goal: Goal | Sum, eps: float, count: int, seed: int, tell: Callable[[int, int], None]
) -> Shared:
    """One perturbation for all seen images, for each of some targets.

    5 % of X are seen and another 5 % unseen. "+" figures are of all of them; "-" figures only of the 1 % that
    are nearest to the target, the others having no rank to lose. The search runs over all seen images.

    Args:
        count: targets, drawn uniformly from X; the paper has one for every ten images.
        tell: called with evaluations done and in all.
    """
    size, gallery, method = len(target.gallery), target.gallery, Universal()
    each = max(2, round(SEEN_SHARE * size))
    drawn = torch.randperm(size, generator=generator(seed, 0, "universal images"))
    seen, unseen = drawn[:each], drawn[each : 2 * each]
    wanted = torch.randperm(size, generator=generator(seed, 0, "universal targets"))[:count]
    lowers = isinstance(goal, CandidateLower | QueryLower)
    values: dict[str, list[float]] = {name: [] for name in ("seen_before", "seen", "unseen_before", "unseen")}
    attacks: dict[str, AttackResult] = {}
    for number, item in enumerate(wanted.tolist()):

        def show(done: int, total: int, number: int = number) -> None:
            tell(number * total + done, len(wanted) * total)

        made = attack(
            gallery,
            target.dataset.take(seen),
            goal,
            Threat(eps, shared=True),
            method=method,
            seed=seed,
            index=seen,
            targets=torch.full((each, 1), item),
            progress=show,
        )
        other = on_unseen(made, gallery, goal, target.dataset.take(unseen), index=unseen)
        for name, result, positions in (("seen", made, seen), ("unseen", other, unseen)):
            attacks[f"{number}-{name}"] = result
            rows = _nearest(target, item, positions) if lowers else torch.arange(len(positions))
            values[f"{name}_before"].append(_mean(result.headline(after=False)[rows]))
            values[name].append(_mean(result.headline()[rows]))
    scored = f"the {_share(each)} nearest to the target" if lowers else "all"
    note = (
        f"{len(wanted)} targets (published: one for every ten images), each with a perturbation made from "
        f"{each} images and tested on {each} others; {scored} of them scored; one value per target"
    )
    return Shared(values=values, images=each, steps=method.passes(eps), notes=(note,), attacks=attacks)


def _nearest(target: Target, item: int, positions: Tensor) -> Tensor:
    """Which of the images at `positions` (b,) are the 1 % nearest to an item."""
    gallery = target.gallery
    own = gallery.embeddings[item][None].double()
    others = gallery.embeddings[positions.to(own.device)].double()
    distances = gallery.ranker.distance.pairwise(own, others)[0]  # (b,)
    return distances.topk(_share(len(positions)), largest=False).indices.cpu()


def _share(images: int) -> int:
    return max(1, round(NEAREST_SHARE * images))


def _mean(values: Tensor) -> float:
    return round(float(values.double().mean()), 6)
