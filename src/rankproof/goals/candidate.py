"""Candidate attacks: perturb a candidate so that it rises (CA+) or sinks (CA-) for chosen queries.

The distances d(q, x) from a fixed query to the gallery never change while the candidate moves. They are
sorted once, with prefix sums S_r of the r smallest; then, for a = d(q, c~),

    sum over x of [a - d(q, x)]+ = r a - S_r    with r = #{x : d(q, x) < a},

whose gradient with respect to a is r itself. A step costs O(w log |X|) for each attacked item.

A query is an item of the gallery, chosen as published or explicitly, or any embedding (`Scene.queries`): in a
gallery of pictures that is searched by words, the queries are texts.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import Bound, Goal, Scene, check_count
from rankproof.goals.choose import from_pool_with_replacement, nearest_others, pool_note, pool_size, uniform
from rankproof.goals.hinge import LOWER, RAISE
from rankproof.ranking.metrics import normalised_rank
from rankproof.ranking.sorting import sort_rows
from rankproof.types import Embeddings, Ids, Outcome

Form = Literal["inequality", "distance"]


@dataclass(frozen=True, kw_only=True)
class CandidateRaise(Goal):
    """CA+: bring the candidate ahead of the whole gallery for each of w queries (ECCV eq. 4, mean form).

    L(c) = mean over q in Q, x in X of [ d(q, c) - d(q, x) ]+

    Q is drawn uniformly from the gallery with replacement (it may contain the candidate's own copy).

    Args:
        w: number of queries.
        form: "inequality", or "distance" for mean d(q, c) (ECCV eq. 16).
    """

    w: int = 1
    form: Form = "inequality"

    whole_gallery = False  # the queries' distances never change: they are sorted once

    def bind(self, scene: Scene) -> Bound:
        """Choose the queries and sort their distances."""
        check_count("w", self.w, scene.size)
        if scene.queries is not None:
            queries = _all_given(scene, self.w)
        elif scene.targets is not None:
            queries = scene.explicit("targets", scene.targets, self.w)
        else:
            queries = uniform(scene, self.w, "ca+").to(scene.clean.device)
        return BoundCandidate(scene, queries, RAISE, self.form)

    def memory_per_attack(self, size: int) -> int:
        """Sorted distances and prefix sums of w queries."""
        return 2 * self.w * size


@dataclass(frozen=True, kw_only=True)
class CandidateLower(Goal):
    """CA-: push the candidate behind the whole gallery for each of w queries (ECCV eq. 7, mean form).

    L(c) = mean over q in Q, x in X of [ d(q, x) - d(q, c) ]+

    Q is drawn with replacement from the 1 % nearest to the candidate, its own copy excluded.

    Args:
        w: number of queries.
        form: "inequality", or "distance" for -mean d(q, c).
    """

    w: int = 1
    form: Form = "inequality"

    whole_gallery = False  # the same

    def bind(self, scene: Scene) -> Bound:
        """Choose the queries and sort their distances."""
        check_count("w", self.w, scene.size)
        if scene.queries is not None:
            queries = _all_given(scene, self.w)
        elif scene.targets is not None:
            queries = scene.explicit("targets", scene.targets, self.w)
        else:
            pool = nearest_others(scene, pool_size(scene.size, self.w, own=scene.index is not None))
            queries = from_pool_with_replacement(scene, pool, self.w, "ca-")
        return BoundCandidate(scene, queries, LOWER, self.form)

    def choice_note(self, size: int) -> str:
        """Whether the pool had to be larger than 1 %."""
        return pool_note(size, self.w)

    def memory_per_attack(self, size: int) -> int:
        """Sorted distances and prefix sums of w queries."""
        return 2 * self.w * size


class BoundCandidate:
    """A candidate and its queries (b, w) in a scene: positions in the gallery, or in the given embeddings."""

    stationary = False

    def __init__(self, scene: Scene, queries: Ids, direction: int, form: Form) -> None:
        self.scene, self.direction, self.form = scene, direction, form
        self._queries = queries
        self.preserved: Ids = queries.new_empty(len(queries), 0)
        self.targets: Ids = queries if scene.queries is None else self.preserved  # no item was chosen
        gallery = scene.gallery
        embeddings = gallery.embeddings if scene.queries is None else scene.queries
        self._anchors = embeddings[queries]  # (b, w, d)
        # A query that several attacks share is sorted once; `_row` and `_slot` (b * w) say where each asks.
        unique, inverse = queries.unique(return_inverse=True)
        self._row, self._slot = inverse.flatten(), _places_in_group(inverse.flatten())
        self._ordered = sort_rows(gallery.distances(embeddings[unique]))  # (u, n)
        self._prefix = self._ordered.new_zeros(len(unique), scene.size + 1)
        torch.cumsum(self._ordered, dim=1, out=self._prefix[:, 1:])

    def outcome(self, z: Embeddings, emphasis: Tensor | None = None) -> Outcome:
        """Loss; merit: the mean share of the gallery behind (CA+) or ahead of (CA-) the candidate."""
        size = self.scene.size
        own = self.scene.gallery.ranker.distance.between(self._anchors, z[:, None])  # (b, w)
        active, sums = self._active(own.detach())
        hinges = self.direction * (active * own - sums) / size
        loss = (self.direction * own if self.form == "distance" else hinges).mean(1)
        return Outcome(loss, -active.mean(1) / size)

    def _active(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """For each query the number of active hinges and the sum of their d(q, x), both (b, w)."""
        raises = self.direction == RAISE
        asked = own.new_zeros(len(self._ordered), int(self._slot.max()) + 1)  # (u, most attacks of one query)
        asked[self._row, self._slot] = own.flatten()
        position = torch.searchsorted(self._ordered, asked, right=not raises)[self._row, self._slot]
        below = self._prefix[self._row, position].view(own.shape)
        active = position.view(own.shape).to(own.dtype)
        if raises:
            return active, below
        whole = self._prefix[self._row, -1].view(own.shape)
        return self.scene.size - active, whole - below

    def verdict(self, z: Embeddings) -> dict[str, Tensor]:
        """Normalised ranks for each query in %."""
        scene = self.scene
        ranks = scene.gallery.rank_among(z, self._queries, given=scene.queries, dropped=scene.dropped)
        return {"rank": normalised_rank(ranks, scene.size)}


def _all_given(scene: Scene, w: int) -> Ids:
    """(b, w) all given queries for each candidate."""
    given = 0 if scene.queries is None else len(scene.queries)
    if given != w:
        raise RankproofError(f"queries: {given} are given, but w = {w}; make the goal with w={given}")
    return torch.arange(w, device=scene.clean.device).expand(len(scene.clean), w)


def _places_in_group(groups: Tensor) -> Tensor:
    """For each element (k,) how many earlier ones are of the same group."""
    ordered, order = groups.sort(stable=True)
    first = torch.searchsorted(ordered, ordered)
    places = torch.empty_like(groups)
    places[order] = torch.arange(len(groups), device=groups.device) - first
    return places
