"""The order attack: put chosen results into a chosen order (OA)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import Bound, Goal, Scene, check_count
from rankproof.goals.hinge import RAISE, gallery_hinge
from rankproof.randomness import permutations
from rankproof.ranking.metrics import kendall_tau, normalised_rank, short_range_tau
from rankproof.types import Embeddings, Ids, Outcome, Places, Scores

VISIBLE = 50  # places a user looks at
ROOM = 4  # k chosen results need about 4 k places to be reordered at all


@dataclass(frozen=True, kw_only=True)
class Reorder(Goal):
    """OA: put chosen results into a chosen order, and keep them in sight (ICCV eq. 4, mean form).

    L(q) = 1/k^2 * sum over i < j of [ d(q, c_i) - d(q, c_j) ]+                          (eq. 1)
         + xi * mean over c in C, x in X of [ d(q, c) - d(q, x) ]+                       (L_QA+)

    with c_1 .. c_k in wanted order. C are the k items nearest to the clean query, its own copy included
    unless it is dropped; the order is a random permutation per query unless `order` is given. xi belongs to
    means (xi of the printed sums is xi * k / |X|).

    Args:
        k: number of results to reorder.
        xi: weight of staying in sight.
        order: wanted order of the k nearest by their present places, such as (3, 1, 0, 2, 4).
        sight: how many places count as in sight when an optimiser weighs order against staying there; None
            is max(50, 4 k).
    """

    k: int = 5
    xi: float = 10.0
    order: tuple[int, ...] | None = None
    sight: int | None = None

    def __post_init__(self) -> None:
        if self.order is not None and sorted(self.order) != list(range(self.k)):
            raise RankproofError(f"order must be a permutation of 0 .. {self.k - 1}, got {list(self.order)}")

    @property
    def metric(self) -> str:
        """The order attack is measured by Kendall's tau."""
        return "tau"

    def bind(self, scene: Scene) -> Bound:
        """Choose the k nearest and the wanted order."""
        check_count("k", self.k, scene.size - (scene.dropped is not None))
        if self.k < 2:
            raise RankproofError(f"k must be at least 2, got {self.k}: one item has no order")
        if scene.targets is not None:
            return BoundOrder(self, scene, scene.explicit("targets", scene.targets, self.k))
        # (b, k), of the ranking that is reported: with the own copy unless it is dropped
        nearest = scene.gallery.search(scene.clean, self.k, dropped=scene.dropped)
        return BoundOrder(self, scene, nearest.gather(1, self.permutation(scene.seed, scene.keys, nearest)))

    def permutation(self, seed: int, keys: Sequence[int], nearest: Ids) -> Ids:
        """(b, k) the wanted order of the k nearest (b, k), by their present places."""
        if self.order is not None:
            return nearest.new_tensor(self.order).expand_as(nearest)
        return permutations(seed, keys, "oa", self.k).to(nearest.device)

    def score(self, places: Places, visible: int | None) -> Scores:
        """tau_S (b, p) of the places (b, p, k) of the chosen, all that a black box has to go by."""
        return short_range_tau(places, visible)


class BoundOrder:
    """A wanted order in a scene."""

    stationary = False

    def __init__(self, goal: Reorder, scene: Scene, wanted: Ids) -> None:
        self.goal, self.scene = goal, scene
        self.targets: Ids = wanted
        self.preserved: Ids = wanted.new_empty(len(wanted), 0)

    def outcome(self, z: Embeddings, emphasis: Tensor | None = None) -> Outcome:
        """Loss; merit: Kendall's tau; strain: the worst place of the chosen, 1 where it just leaves sight."""
        k, size = self.goal.k, self.scene.size
        distances = self.scene.gallery.distances(z)
        weights = z.new_full((len(z), k), self.goal.xi / (k * size))
        weights = weights if emphasis is None else weights * emphasis[:, None]
        loss, nearer = gallery_hinge(
            distances, self.targets, weights, [RAISE] * k, ordered=k, order_weight=1 / k**2
        )
        merit = kendall_tau(distances.detach().gather(1, self.targets)).to(z.dtype)
        return Outcome(loss, merit, (nearer.max(1).values + 1) / (self.goal.sight or max(VISIBLE, ROOM * k)))

    def verdict(self, z: Embeddings) -> dict[str, Tensor]:
        """Kendall's tau and the mean rank mR of the same embedding, and the normalised ranks in %."""
        places = self.scene.gallery.rank_of(z, self.targets, ties="order", dropped=self.scene.dropped)
        return {
            "rank": normalised_rank(places, self.scene.size),
            "tau": kendall_tau(places),
            "mean_rank": places.double().mean(1),
        }
