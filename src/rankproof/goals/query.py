"""Query attacks: perturb the query so that chosen candidates rise (QA+) or sink (QA-)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import Bound, Goal, Scene, check_count
from rankproof.goals.choose import (
    best_of_rest,
    from_pool_shuffled,
    nearest_others,
    pool_note,
    pool_size,
    uniform,
)
from rankproof.goals.hinge import LOWER, RAISE, gallery_hinge
from rankproof.ranking.metrics import normalised_rank
from rankproof.types import Embeddings, Ids, Outcome

Form = Literal["inequality", "distance"]

# How an optimiser weighs places lost by C_SP against places won by C when it picks the best iterate, for
# each unit of xi. Beside QA- the first places lost are cheap and further ones cost more and more.
PRICE_BESIDE_RAISE = 1.5
PRICE_BESIDE_LOWER = 0.018
SEVERE_SHARE = 0.02  # share of the gallery at which a place lost beside QA- counts double


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What one term wants of its items.

    Args:
        ids: (b, m) positions of the items.
        direction: RAISE or LOWER.
        weight: weight of the mean over items and gallery.
        keeps: these items are to stay where they are; their weight follows the attack's emphasis.
        form: hinges against the gallery, or the bare distance (ECCV appendix G).
    """

    ids: Ids
    direction: int
    weight: float
    keeps: bool
    form: Form = "inequality"


class QueryGoal(Goal):
    """A goal about the ranking that a perturbed query gets."""

    def pull(self, scene: Scene, weight: float, taken: Ids) -> Pull:
        """The items of this term and what it wants of them; `taken` (b, t) are chosen by earlier terms."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class QueryRaise(QueryGoal):
    """QA+: bring m chosen candidates ahead of the whole gallery (ECCV eq. 11, mean form).

    L(q) = mean over c in C, x in X of [ d(q, c) - d(q, x) ]+

    C is drawn uniformly from the gallery with replacement (it may contain the query's own copy).

    Args:
        m: number of chosen candidates.
        form: "inequality", or "distance" for mean d(q, c) (ECCV appendix G).
    """

    m: int = 1
    form: Form = "inequality"

    def pull(self, scene: Scene, weight: float, taken: Ids) -> Pull:
        """m random items, or the explicit ones."""
        check_count("m", self.m, scene.size)
        if scene.targets is None:
            ids = uniform(scene, self.m, "qa+").to(scene.clean.device)
        else:
            ids = scene.explicit("targets", scene.targets, self.m)
        return Pull(ids=ids, direction=RAISE, weight=weight, keeps=False, form=self.form)


@dataclass(frozen=True, kw_only=True)
class QueryLower(QueryGoal):
    """QA-: push m chosen top candidates behind the whole gallery (ECCV eq. 9, mean form).

    L(q) = mean over c in C, x in X of [ d(q, x) - d(q, c) ]+

    C is the start of a random permutation of the 1 % nearest to the query, its own copy excluded.

    Args:
        m: number of chosen candidates.
        form: "inequality", or "distance" for -mean d(q, c) (ECCV eq. 17).
    """

    m: int = 1
    form: Form = "inequality"

    def pull(self, scene: Scene, weight: float, taken: Ids) -> Pull:
        """m random items of the nearest 1 %, or the explicit ones."""
        check_count("m", self.m, scene.size - 1)
        if scene.targets is None:
            pool = nearest_others(
                scene, pool_size(scene.size, self.m + Preserve.g, own=scene.index is not None)
            )
            ids = from_pool_shuffled(scene, pool, self.m, "qa-")
        else:
            ids = scene.explicit("targets", scene.targets, self.m)
        return Pull(ids=ids, direction=LOWER, weight=weight, keeps=False, form=self.form)

    def choice_note(self, size: int) -> str:
        """Whether the pool had to be larger than 1 %."""
        return pool_note(size, self.m + Preserve.g)


@dataclass(frozen=True, kw_only=True)
class Preserve(QueryGoal):
    """The semantics-preserving term: keep the g best-ranked other results C_SP ahead of the gallery.

    L(q) = mean over c in C_SP, x in X of [ d(q, c) - d(q, x) ]+      (second term of ECCV eq. 12)

    C_SP are the g items nearest to the clean query without its own copy and, beside QA-, without C.
    SP-QA is `QueryRaise(m) + xi * Preserve(g)` with xi = 1, or `QueryLower(m) + xi * Preserve(g)` with
    xi = 100; xi belongs to means (xi of the printed sums is xi * m / g).

    Args:
        g: number of preserved candidates.
        form: "inequality", or "distance" for mean d(q, c).
    """

    g: int = 5
    form: Form = "inequality"

    def pull(self, scene: Scene, weight: float, taken: Ids) -> Pull:
        """The g nearest free items, or the explicit ones."""
        check_count("g", self.g, scene.size - 1 - taken.shape[1])
        if scene.preserved is None:
            ids = best_of_rest(nearest_others(scene, self.g + taken.shape[1]), taken, self.g)
        else:
            ids = scene.explicit("preserved", scene.preserved, self.g)
        return Pull(ids=ids, direction=RAISE, weight=weight, keeps=True, form=self.form)


def bind_terms(terms: Sequence[tuple[float, Goal]], scene: Scene) -> Bound:
    """Bind one goal, or a sum of query goals, to a scene."""
    first = terms[0][1]
    if not isinstance(first, QueryGoal) or not all(isinstance(goal, QueryGoal) for _, goal in terms):
        raise RankproofError(
            "only query goals can be added or weighted, such as QueryRaise(m=4) + 1.0 * Preserve(g=5)"
        )
    taken = torch.empty(len(scene.clean), 0, dtype=torch.int64, device=scene.clean.device)
    pulls: list[Pull] = []
    for weight, goal in terms:
        assert isinstance(goal, QueryGoal)
        pull = goal.pull(scene, weight, taken)
        if pull.direction == LOWER:
            taken = torch.cat([taken, pull.ids], dim=1)
        pulls.append(pull)
    return BoundQuery(scene, tuple(pulls))


class BoundQuery:
    """A sum of query terms in a scene; one matrix product and one pass over the distances serve all."""

    stationary = False

    def __init__(self, scene: Scene, pulls: tuple[Pull, ...]) -> None:
        chosen, kept = [p for p in pulls if not p.keeps], [p for p in pulls if p.keeps]
        if len(chosen) != 1 or len(kept) > 1:
            raise RankproofError("a query attack is one QueryRaise or QueryLower and at most one Preserve")
        self.scene = scene
        self.pulls = (*chosen, *kept)
        self.targets: Ids = chosen[0].ids
        self.preserved: Ids = kept[0].ids if kept else self.targets[:, :0]
        self._ids = torch.cat([p.ids for p in self.pulls], dim=1)
        self._directions = [p.direction for p in self.pulls for _ in range(p.ids.shape[1])]
        self._plain = [p.form == "distance" for p in self.pulls for _ in range(p.ids.shape[1])]

    def _weights(self, z: Tensor, emphasis: Tensor | None) -> Tensor:
        """(b, m + g) weight of every chosen item's hinges: the means of the losses and their balance."""
        parts = []
        for pull in self.pulls:
            items = pull.ids.shape[1]
            share = pull.weight / (items * (self.scene.size if pull.form == "inequality" else 1))
            part = z.new_full((len(z), items), share)
            parts.append(part * emphasis[:, None] if emphasis is not None and pull.keeps else part)
        return torch.cat(parts, dim=1)

    def outcome(self, z: Embeddings, emphasis: Tensor | None = None) -> Outcome:
        """Loss; merit: how far the chosen ranks moved as wanted, less the price of C_SP's places lost."""
        weights = self._weights(z, emphasis)
        distances = self.scene.gallery.distances(z)
        kept = self.preserved.shape[1]
        loss, counts = gallery_hinge(
            distances, self._ids, weights, self._directions, plain=self._plain, kept=kept
        )
        shares = counts / self.scene.size  # (b, m + g) nearer (raised) or farther (lowered) share
        m = self.targets.shape[1]
        merit = -shares[:, :m].mean(1)
        if shares.shape[1] > m:
            lost = shares[:, m:].mean(1)
            merit = merit - self._price(lost)
        return Outcome(loss, merit)

    def _price(self, lost: Tensor) -> Tensor:
        """What C_SP's mean share of places lost (b,) is worth in C's places; it follows xi."""
        chosen, kept = self.pulls
        xi = kept.weight / chosen.weight
        if chosen.direction == RAISE:
            return PRICE_BESIDE_RAISE * xi * lost
        return PRICE_BESIDE_LOWER * xi / math.sqrt(chosen.ids.shape[1]) * lost * (1 + lost / SEVERE_SHARE)

    def verdict(self, z: Embeddings) -> dict[str, Tensor]:
        """Normalised ranks of C and C_SP in %."""
        size, gallery, dropped = self.scene.size, self.scene.gallery, self.scene.dropped
        ranks = normalised_rank(gallery.rank_of(z, self._ids, dropped=dropped), size)
        m = self.targets.shape[1]
        return {"rank": ranks[:, :m]} | ({"sp_rank": ranks[:, m:]} if m < ranks.shape[1] else {})
