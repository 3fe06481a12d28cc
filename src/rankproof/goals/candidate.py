"""Candidate attacks: perturb a candidate so that it rises (CA+) or sinks (CA-) for chosen queries.

The distances d(q, x) from a fixed query to the gallery never change while the candidate moves. They are
sorted once, with prefix sums S_r of the r smallest; then, for a = d(q, c~),

    sum over x of [a - d(q, x)]+ = r a - S_r    with r = #{x : d(q, x) < a},

whose gradient with respect to a is r itself. A step costs O(w log |X|) for each attacked item.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rankproof.goals.base import Bound, Goal, Scene, check_count
from rankproof.goals.choose import from_pool_with_replacement, nearest_others, pool_note, pool_size, uniform
from rankproof.goals.hinge import LOWER, RAISE
from rankproof.ranking.metrics import normalised_rank
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

    def bind(self, scene: Scene) -> Bound:
        """Choose the queries and sort their distances."""
        check_count("w", self.w, scene.size)
        if scene.targets is not None:
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

    def bind(self, scene: Scene) -> Bound:
        """Choose the queries and sort their distances."""
        check_count("w", self.w, scene.size)
        if scene.targets is not None:
            queries = scene.explicit("targets", scene.targets, self.w)
        else:
            pool = nearest_others(scene, pool_size(scene.size, self.w))
            queries = from_pool_with_replacement(scene, pool, self.w, "ca-")
        return BoundCandidate(scene, queries, LOWER, self.form)

    def choice_note(self, size: int) -> str:
        """Whether the pool had to be larger than 1 %."""
        return pool_note(size, self.w)

    def memory_per_attack(self, size: int) -> int:
        """Sorted distances and prefix sums of w queries."""
        return 2 * self.w * size


class BoundCandidate:
    """A candidate and its chosen queries in a scene."""

    stationary = False

    def __init__(self, scene: Scene, queries: Ids, direction: int, form: Form) -> None:
        self.scene, self.direction, self.form = scene, direction, form
        self.targets: Ids = queries
        self.preserved: Ids = queries.new_empty(len(queries), 0)
        gallery = scene.gallery
        self._anchors = gallery.embeddings[queries]  # (b, w, d)
        unique, inverse = queries.unique(return_inverse=True)
        ordered = sorted_rows(gallery.distances(gallery.embeddings[unique]))  # (u, n)
        prefix = ordered.new_zeros(len(unique), scene.size + 1)
        torch.cumsum(ordered, dim=1, out=prefix[:, 1:])
        self._ordered, self._prefix = ordered[inverse], prefix[inverse]  # (b, w, n), (b, w, n + 1)

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
        position = torch.searchsorted(self._ordered, own[:, :, None], right=not raises)  # (b, w, 1)
        below = self._prefix.gather(2, position)[:, :, 0]
        if raises:
            return position[:, :, 0].to(own.dtype), below
        return (self.scene.size - position[:, :, 0]).to(own.dtype), self._prefix[:, :, -1] - below

    def verdict(self, z: Embeddings) -> dict[str, Tensor]:
        """Normalised ranks for each query in %."""
        ranks = self.scene.gallery.rank_among(z, self.targets, dropped=self.scene.dropped)
        return {"rank": normalised_rank(ranks, self.scene.size)}


def sorted_rows(values: Tensor) -> Tensor:
    """Each row in ascending order; on a CPU by numpy, which sorts values without their places far faster."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values
