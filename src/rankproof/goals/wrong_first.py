"""The simplest failure of a search: what comes first is not what was looked for."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import AttackContext, BoundGoal, Goal, GoalSpec, Wish
from rankproof.goals.selection import nearest_others
from rankproof.types import Embeddings, Evaluation, Ids


@dataclass(frozen=True, kw_only=True)
class WrongFirst(Goal):
    """Wrong first: what comes first among the other results is no match.

    L(q) = min over x not in P of d(q, x)  -  min over x in P of d(q, x)

    P are the other items of the query's class. Where no classes are known, or all are the same, P is the item
    that comes first for the clean query. The query's own clean copy never counts.
    """

    SPEC = GoalSpec(
        name="wrong-first",
        title="Wrong first",
        family="embedding",
        direction="push",
        metric="hit",
        larger_is_stronger=False,
        target_value=0.0,
        describe=lambda values: (
            "The query is changed so that its first result is of another class, or is another item where no "
            "classes are known."
        ),
        figure_label="first result still right, as a share",
        headline=lambda values, start: (
            f"Change a query, and the share of first results that are right goes from {start} to",
            "",
        ),
        wish=lambda values: "the first result is a wrong one",
        standard_audit=8,
        succeeded=lambda hit: hit == 0,
    )

    def bind(self, context: AttackContext) -> BoundGoal:
        """What matches each query; the chosen item is the one that comes first for the clean query."""
        if context.size - (context.gallery_ids is not None) < 2:
            raise RankproofError("WrongFirst needs two other items; take a larger gallery")
        if context.targets is not None and context.targets.shape[1]:
            return BoundWrongFirst(context, context.explicit("targets", context.targets, 1))
        return BoundWrongFirst(context, nearest_others(context, 1))

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """The first other result is no match."""
        assert isinstance(bound, BoundWrongFirst)
        return bound


class BoundWrongFirst:
    """Queries and what matches them: a goal that is its own wish."""

    stationary = False
    places = 1

    def __init__(self, context: AttackContext, targets: Ids) -> None:
        self.context, self.targets = context, targets
        self.preserved: Ids = targets[:, :0]
        labels, ids = context.gallery.labels, context.gallery_ids
        self._ids, self._labels = ids, None
        if labels is not None and ids is not None and bool((labels != labels[0]).any()):
            self._labels = labels.to(targets.device)

    def _matches(self) -> Bool[Tensor, "b n"]:
        """Whether each item matches each query."""
        if self._labels is not None and self._ids is not None:
            return self._labels[self._ids][:, None] == self._labels
        return torch.arange(self.context.size, device=self.targets.device) == self.targets

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: how much nearer what matches is; fitness: how much nearer what does not match is."""
        distances, matches = self.context.gallery.distances(z), self._matches()
        if self._ids is not None:
            distances = distances.scatter(1, self._ids[:, None], math.inf)
        right = distances.masked_fill(~matches, math.inf).amin(1)
        wrong = distances.masked_fill(matches, math.inf).amin(1)
        # A query alone in its class has what it wants: no gradient is the right one there.
        loss = torch.where(right.isfinite(), wrong - right, torch.zeros_like(wrong))
        return Evaluation(loss, -loss.detach())

    def towards(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """The same."""
        return self.evaluate(z)

    def reached(self, z: Embeddings) -> Bool[Tensor, " b"]:
        """Whether the first other result is no match; of equally far items the first in the gallery is."""
        nearest = self.context.gallery.search(z, 1, excluded=self._ids)
        return ~self._matches().gather(1, nearest)[:, 0]

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """Whether the first other result still matches."""
        return {"hit": (~self.reached(z)).double()}
