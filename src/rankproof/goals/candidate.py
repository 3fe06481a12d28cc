"""Candidate attacks: perturb a candidate so that it rises (CA+) or sinks (CA-) for chosen queries.

The distances d(q, x) from a fixed query to the gallery never change while the candidate moves. They are
sorted once, with prefix sums S_r of the r smallest; then, for a = d(q, c~),

    sum over x of [a - d(q, x)]+ = r a - S_r    with r = #{x : d(q, x) < a},

whose gradient with respect to a is r itself. A step costs O(w log |X|) for each attacked item.

A query is an item of the gallery, chosen as published or explicitly, or any embedding
(`AttackContext.queries`): in a gallery of images that is searched by words, the queries are texts.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import (
    AttackContext,
    BoundGoal,
    Goal,
    GoalSpec,
    Wish,
    check_count,
    counted,
    item_text,
)
from rankproof.goals.hinge import LOWER, RAISE
from rankproof.goals.selection import (
    from_pool_with_replacement,
    nearest_others,
    pool_note,
    pool_size,
    uniform,
)
from rankproof.goals.wish import CandidateWish, sight
from rankproof.parameters import Count
from rankproof.ranking.metrics import normalised_rank
from rankproof.ranking.sorting import sort_rows
from rankproof.types import Embeddings, Evaluation, Ids

Form = Literal["inequality", "distance"]


@dataclass(frozen=True, kw_only=True)
class CandidateGoal(Goal):
    """A goal about the ranks of a perturbed candidate in the rankings of w queries."""

    w: Count = 1
    form: Form = "inequality"

    direction: ClassVar[int]
    whole_gallery = False  # the queries' distances never change: they are sorted once

    def draw(self, context: AttackContext) -> Ids:
        """(b, w) the published choice of queries."""
        raise NotImplementedError

    def bind(self, context: AttackContext) -> BoundGoal:
        """Choose the queries and sort their distances."""
        check_count("w", self.w, context.size)
        if context.queries is not None:
            queries = _all_queries(context, self.w)
        elif context.targets is not None:
            queries = context.explicit("targets", context.targets, self.w)
        else:
            queries = self.draw(context)
        return BoundCandidate(context, queries, self.direction, self.form)

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """Among the first K results of every query, or out of the first N."""
        assert isinstance(bound, BoundCandidate)
        return bound.wish(first if self.direction == RAISE else sight(self.pool(bound.context)))

    def pool(self, context: AttackContext) -> int:
        """How many of the nearest items queries are chosen from."""
        return pool_size(context.size, self.w, own=context.gallery_ids is not None)

    def memory_per_attack(self, size: int) -> int:
        """Sorted distances and prefix sums of w queries."""
        return 2 * self.w * size


@dataclass(frozen=True, kw_only=True)
class CandidateRaise(CandidateGoal):
    """CA+: bring the candidate ahead of the whole gallery for each of w queries (ECCV eq. 4, mean form).

    L(c) = mean over q in Q, x in X of [ d(q, c) - d(q, x) ]+

    Q is drawn uniformly from the gallery with replacement (it may contain the candidate's own copy).

    Args:
        w: number of queries.
        form: "inequality", or "distance" for mean d(q, c) (ECCV eq. 16).
    """

    direction = RAISE
    SPEC = GoalSpec(
        name="ca+",
        title="CA+",
        family="candidate",
        direction="raise",
        paper="ECCV 2020",
        larger_is_stronger=False,
        target_value=0.0,
        clean_value=50.0,
        parameters=("w",),
        describe=lambda values: (
            f"An item is changed so that it rises for {counted(values.get('w'), 'query', 'queries')} "
            "drawn at random."
        ),
        headline=lambda values, start: (
            "Change an item so that it moves, for "
            f"{item_text(values.get('w'), 'a random query', 'random queries at once')}, from the middle of "
            f"the ranking ({start}) to",
            "",
        ),
        wish=lambda values: (
            f"an item is among the first {values['first']} results of "
            f"{item_text(values.get('w'), 'a random query', 'random queries at once')}"
        ),
        standard_audit=1,
    )

    def draw(self, context: AttackContext) -> Ids:
        """w random items of the gallery."""
        return uniform(context, self.w, "ca+").to(context.clean.device)


@dataclass(frozen=True, kw_only=True)
class CandidateLower(CandidateGoal):
    """CA-: push the candidate behind the whole gallery for each of w queries (ECCV eq. 7, mean form).

    L(c) = mean over q in Q, x in X of [ d(q, x) - d(q, c) ]+

    Q is drawn with replacement from the 1 % nearest to the candidate, its own copy excluded.

    Args:
        w: number of queries.
        form: "inequality", or "distance" for -mean d(q, c).
    """

    direction = LOWER
    SPEC = GoalSpec(
        name="ca-",
        title="CA−",
        family="candidate",
        direction="lower",
        paper="ECCV 2020",
        larger_is_stronger=True,
        target_value=100.0,
        parameters=("w",),
        describe=lambda values: (
            f"An item near the top for {counted(values.get('w'), 'query', 'queries')} is changed so that it "
            "sinks."
        ),
        headline=lambda values, start: (
            f"Change an item that {item_text(values.get('w'), 'a query finds', 'queries find')} near the top "
            f"({start}) so that it moves to",
            "",
        ),
        wish=lambda values: (
            "an item has left the first "
            f"{values['places']} results of {item_text(values.get('w'), 'a query', 'queries')} that found it"
        ),
        standard_audit=2,
    )

    def draw(self, context: AttackContext) -> Ids:
        """w random items of the nearest 1 %."""
        pool = nearest_others(context, self.pool(context))
        return from_pool_with_replacement(context, pool, self.w, "ca-")

    def choice_note(self, size: int) -> str:
        """Whether the pool had to be larger than 1 %."""
        return pool_note(size, self.w)


class BoundCandidate:
    """A candidate and its queries (b, w): positions in the gallery, or in the given embeddings."""

    stationary = False

    def __init__(self, context: AttackContext, queries: Ids, direction: int, form: Form) -> None:
        self.context, self.direction, self.form = context, direction, form
        self._queries = queries
        self.preserved: Ids = queries.new_empty(len(queries), 0)
        self.targets: Ids = queries if context.queries is None else self.preserved  # no item was chosen
        gallery = context.gallery
        embeddings = gallery.embeddings if context.queries is None else context.queries
        self._anchors = gallery.prepare(embeddings[queries])  # (b, w, d)
        # A query that several attacks share is sorted once; `_row` and `_slot` (b * w) say where each asks.
        unique, inverse = queries.unique(return_inverse=True)
        self._row, self._slot = inverse.flatten(), _places_in_group(inverse.flatten())
        self._ordered = sort_rows(gallery.distances(embeddings[unique]))  # (u, n)
        # A query that is another item is nearest to itself, whatever becomes of the candidate.
        self._before_all = self._anchors.new_zeros(len(queries))
        if direction == RAISE and context.queries is None:
            own = -1 if context.gallery_ids is None else context.gallery_ids[:, None]
            self._before_all = (queries != own).to(self._anchors.dtype).mean(1)
        self._prefix = self._ordered.new_zeros(len(unique), context.size + 1)
        torch.cumsum(self._ordered, dim=1, out=self._prefix[:, 1:])

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss; fitness: the mean share of the gallery behind (CA+) or ahead of (CA-) the candidate."""
        size = self.context.size
        gallery = self.context.gallery
        d = gallery.between(self._anchors, gallery.prepare(z)[:, None])  # (b, w) of d(q, c)
        active, sums = self._active(d.detach())
        hinges = self.direction * (active * d - sums) / size  # ECCV eq. 4 and 7
        loss = (self.direction * d if self.form == "distance" else hinges).mean(1)  # ECCV eq. 16 and 17
        fitness = -active.mean(1) / size
        return Evaluation(loss, fitness, room=-fitness - self._before_all / size)

    def _active(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """For each query the number of active hinges and the sum of their d(q, x), both (b, w)."""
        raises = self.direction == RAISE
        sought = d.new_zeros(len(self._ordered), int(self._slot.max()) + 1)  # (u, most attacks of one query)
        sought[self._row, self._slot] = d.flatten()
        position = torch.searchsorted(self._ordered, sought, right=not raises)[self._row, self._slot]
        below = self._prefix[self._row, position].view(d.shape)  # S_r
        active = position.view(d.shape).to(d.dtype)  # r
        if raises:
            return active, below
        whole = self._prefix[self._row, -1].view(d.shape)
        return self.context.size - active, whole - below

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """Normalised ranks for each query in %."""
        context = self.context
        ranks = context.gallery.rank_among(z, self._queries, given=context.queries, excluded=context.excluded)
        return {"rank": normalised_rank(ranks, context.size)}

    def wish(self, places: int) -> CandidateWish:
        """Within the first results of every query, or beyond them."""
        context, gallery = self.context, self.context.gallery
        ordered = self._ordered[self._row][:, : places + 1]  # (b * w, K + 1)
        limits = ordered[:, min(places, ordered.shape[1]) - 1].view(self._queries.shape)
        if (
            context.excluded is not None and ordered.shape[1] > places
        ):  # the own copy's place goes to the next
            own = gallery.between(self._anchors, gallery.prepared[context.excluded][:, None])
            limits = torch.where(own <= limits, ordered[:, places].view(limits.shape), limits)
        within = self.direction == RAISE
        return CandidateWish(context, self._queries, limits, self._anchors, places=places, within=within)


def _all_queries(context: AttackContext, w: int) -> Ids:
    """(b, w) all queries of the context for each candidate."""
    count = 0 if context.queries is None else len(context.queries)
    if count != w:
        raise RankproofError(f"queries: {count} are given, but w = {w}; make the goal with w={count}")
    return torch.arange(w, device=context.clean.device).expand(len(context.clean), w)


def _places_in_group(groups: Tensor) -> Tensor:
    """For each element (k,) how many earlier ones are of the same group."""
    ordered, order = groups.sort(stable=True)
    first = torch.searchsorted(ordered, ordered)
    places = torch.empty_like(groups)
    places[order] = torch.arange(len(groups), device=groups.device) - first
    return places
