"""Searches made from another search, to see whether that one can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rankproof.methods.white_box.base import Method, MethodOutput, random_start
from rankproof.methods.white_box.momentum_pgd import REJECTED, eligible
from rankproof.threat import TOLERANCE, Threat
from rankproof.types import Evaluation, Images, Objective


def doubled(method: Method, eps: float) -> Method:
    """The same search with twice the evaluations; itself where it has no number of them.

    A method that runs another one (`search`) gets that one doubled; where it has blocks of its own, these too
    (`least`).
    """
    changed: Any = method
    names = {each.name for each in fields(changed)} if is_dataclass(changed) else set()
    if "search" in names:
        longer = {"least": 2 * changed.least} if "least" in names else {}
        return _method(replace(changed, search=doubled(changed.search, eps), **longer))
    return _method(replace(changed, steps=2 * method.passes(eps))) if "steps" in names else method


def _method(changed: Any) -> Method:
    assert isinstance(changed, Method)
    return changed


@dataclass(frozen=True, kw_only=True)
class RandomStart:
    """A search that begins at a random image of the threat set.

    Args:
        method: the search.
    """

    method: Method

    @property
    def name(self) -> str:
        """That of the search, with where it began."""
        return f"{self.method.name} from a random start"

    def passes(self, eps: float) -> int:
        """As many as the search takes."""
        return self.method.passes(eps)

    def run(
        self,
        original: Images,
        initial: Images,
        objective: Objective,
        threat: Threat,
        *,
        seed: int,
        rng_keys: Sequence[int],
    ) -> MethodOutput:
        """Attack a batch."""
        start = random_start(original, threat, threat.eps, seed=seed, rng_keys=rng_keys, purpose="restart")
        return self.method.run(original, start, objective, threat, seed=seed, rng_keys=rng_keys)


@dataclass(frozen=True, kw_only=True)
class BestSeen:
    """A search of which the best image is returned that it evaluated, whatever it would return itself.

    The best image has the highest fitness among those that lie in the threat set and keep what is to be kept.

    Args:
        method: the search.
        fitness: filled by `run`: for each batch (its random keys) the fitness (b,) of the best images, and of
            those that the search itself returned.
    """

    method: Method
    fitness: dict[tuple[int, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of the search."""
        return f"the best image that {self.method.name} saw"

    def passes(self, eps: float) -> int:
        """As many as the search takes."""
        return self.method.passes(eps)

    def run(
        self,
        original: Images,
        initial: Images,
        objective: Objective,
        threat: Threat,
        *,
        seed: int,
        rng_keys: Sequence[int],
    ) -> MethodOutput:
        """Attack a batch."""
        seen = _Seen(original, threat.eps)
        watched = _watched(objective, seen, torch.arange(len(original), device=original.device))
        output = self.method.run(original, initial, watched, threat, seed=seed, rng_keys=rng_keys)
        with torch.no_grad():
            returned = eligible(objective(output.images))
        self.fitness[tuple(rng_keys)] = seen.fitness.cpu(), returned.cpu()
        return replace(output, images=seen.images)


class _Seen:
    """The best image of each attack that was evaluated within eps."""

    def __init__(self, original: Images, eps: float) -> None:
        self.original, self.eps = original, eps
        self.images = original.clone()
        self.fitness = original.new_full((len(original),), 2 * REJECTED)

    def consider(self, rows: Tensor, images: Images, evaluation: Evaluation) -> None:
        """Keep what is better than the best image so far of the attacks at some rows (k,)."""
        images = images.detach()
        inside = (images - self.original[rows]).flatten(1).abs().amax(1) <= self.eps + TOLERANCE
        fitness = torch.where(inside, eligible(evaluation).detach().to(self.fitness), 2 * REJECTED)
        better = fitness > self.fitness[rows]
        self.images[rows[better]] = images[better]
        self.fitness[rows[better]] = fitness[better]


def _watched(objective: Any, seen: _Seen, rows: Tensor) -> Objective:
    """An objective that shows its images to `seen`, as those of the attacks at some rows; so do its parts."""

    class Watched:
        def __call__(self, images: Images, penalty_weight: Tensor | None = None) -> Evaluation:
            evaluation: Evaluation = objective(images, penalty_weight)
            seen.consider(rows, images, evaluation)
            return evaluation

    class Split(Watched):
        def take(self, part: Tensor) -> Objective:
            return _watched(objective.take(part), seen, rows[part])

    return Split() if hasattr(objective, "take") else Watched()
