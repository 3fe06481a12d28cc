"""The order attack: put chosen results into a chosen order (OA)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import (
    AttackContext,
    BoundGoal,
    Goal,
    GoalSpec,
    Values,
    Wish,
    check_count,
    counted,
    first_results,
    reordered,
)
from rankproof.goals.hinge import RAISE, gallery_hinge
from rankproof.goals.wish import OrderWish
from rankproof.parameters import Count, Weight, check_integer
from rankproof.ranking.metrics import kendall_tau, normalised_rank, short_range_tau
from rankproof.rng import permutations
from rankproof.types import Embeddings, Evaluation, Ids, Places, Scores

VISIBLE = 50  # places a user looks at
ROOM = 4  # k chosen results need about 4 k places to be reordered at all


def _results(values: Values, which: str) -> str:
    """How many results are reordered: "5 top results"."""
    return counted(values.get("k"), f"{which} result", f"{which} results").removeprefix("some ")


def _describe(values: Values) -> str:
    """What the attacker does and wants, and in a black box what is seen."""
    budget = values.get("budget")
    seen = "" if budget is None else f"; all that is seen are {first_results(values)} of {budget:,} queries"
    return f"The query is changed so that its {_results(values, 'top')} come in a chosen order{seen}."


@dataclass(frozen=True, kw_only=True)
class Reorder(Goal):
    """OA: put chosen results into a chosen order, and keep them in sight (ICCV eq. 4, mean form).

    L(q) = 1/k^2 * sum over i < j of [ d(q, c_i) - d(q, c_j) ]+                          (eq. 1)
         + xi * mean over c in C, x in X of [ d(q, c) - d(q, x) ]+                       (L_QA+)

    with c_1 .. c_k in wanted order. C are the k items nearest to the clean query, its own copy included
    unless it is excluded; the order is a random permutation per query unless `order` is given. xi belongs to
    means (xi of the printed sums is xi * k / |X|).

    Args:
        k: number of results to reorder.
        xi: weight of staying in sight.
        order: wanted order of the k nearest by their present places, such as (3, 1, 0, 2, 4).
        sight: how many places count as in sight when an optimiser weighs order against staying there; None
            is max(50, 4 k).
    """

    k: Count = 5
    xi: Weight = 10.0
    order: tuple[int, ...] | None = None
    sight: Count | None = None

    SPEC = GoalSpec(
        name="oa",
        title="OA",
        family="order",
        direction="reorder",
        paper="ICCV 2021",
        metric="tau",
        larger_is_stronger=True,
        target_value=1.0,
        clean_value=0.0,
        parameters=("k", "xi", "order"),
        describe=_describe,
        figure_label="Kendall's tau",
        headline=lambda values, start: (
            f"Change a query so that its {_results(values, 'best')} follow an order of the attacker's choice "
            "with a Kendall tau of",
            ", where 1 is exactly as chosen and 0 is chance",
        ),
        wish=lambda values: f"the {_results(values, 'best')} stand in an order of the attacker's choice",
        standard_audit=7,
        succeeded=reordered,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order is None:
            return
        object.__setattr__(self, "order", tuple(check_integer("order", place) for place in self.order))
        if sorted(self.order) != list(range(self.k)):
            raise RankproofError(f"order must be a permutation of 0 .. {self.k - 1}, got {list(self.order)}")

    def bind(self, context: AttackContext) -> BoundGoal:
        """Choose the k nearest and the wanted order."""
        self.check_size(context.size - (context.excluded is not None))
        if context.targets is not None:
            return BoundOrder(self, context, context.explicit("targets", context.targets, self.k))
        # (b, k), of the ranking that is reported: with the own copy unless it is excluded
        nearest = context.gallery.search(context.clean, self.k, excluded=context.excluded)
        order = self.permutation(context.seed, context.rng_keys, nearest)
        return BoundOrder(self, context, nearest.gather(1, order))

    def permutation(self, seed: int, rng_keys: Sequence[int], nearest: Ids) -> Ids:
        """(b, k) the wanted order of the k nearest (b, k), by their present places."""
        if self.order is not None:
            return nearest.new_tensor(self.order).expand_as(nearest)
        return permutations(seed, rng_keys, "oa", self.k).to(nearest.device)

    def check_size(self, size: int) -> None:
        """Raise unless k of `size` results can be put into another order."""
        if self.k < 2:
            raise RankproofError(f"k must be at least 2, got {self.k}: one item has no order")
        check_count("k", self.k, size)

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """All of them within sight, exactly in the wanted order."""
        assert isinstance(bound, BoundOrder)
        return OrderWish(bound.context, bound.targets, self.places_in_sight)

    @property
    def places_in_sight(self) -> int:
        """How many of the first results are in sight."""
        return self.sight or max(VISIBLE, ROOM * self.k)

    def score(self, places: Places, visible: int | None) -> Scores:
        """tau_S (b, p) of the places (b, p, k) of the chosen, all that a black box goes by."""
        return short_range_tau(places, visible)

    def metrics(self, places: Ids, size: int, tau: Tensor) -> dict[str, Tensor]:
        """The figures of an order: normalised ranks in %, tau, and the mean rank mR.

        Args:
            places: (b, k) true places of the chosen in wanted order.
            size: |X|.
            tau: (b,) Kendall's tau of the places, or tau_S of the visible ones in a black box.
        """
        return {
            "rank": normalised_rank(places, size),
            "tau": tau,
            "mean_rank": places.double().mean(1),
        }


class BoundOrder:
    """A wanted order in a context."""

    stationary = False

    def __init__(self, goal: Reorder, context: AttackContext, wanted: Ids) -> None:
        self.goal, self.context = goal, context
        self.targets: Ids = wanted
        self.preserved: Ids = wanted.new_empty(len(wanted), 0)

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss; fitness: Kendall's tau; constraint violation: the worst place, 1 at the edge of sight."""
        k, size = self.goal.k, self.context.size
        distances = self.context.gallery.distances(z)
        weights = z.new_full((len(z), k), self.goal.xi / (k * size))
        weights = weights if penalty_weight is None else weights * penalty_weight[:, None]
        loss, nearer = gallery_hinge(  # ICCV eq. 4
            distances, self.targets, weights, [RAISE] * k, ordered=k, order_weight=1 / k**2
        )
        fitness = kendall_tau(distances.detach().gather(1, self.targets)).to(z.dtype)
        violation = (nearer.max(1).values + 1) / self.goal.places_in_sight
        return Evaluation(loss, fitness, violation, room=1 - fitness)

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """Kendall's tau and the mean rank mR of the same embedding, and the normalised ranks in %."""
        places = self.context.gallery.rank_of(z, self.targets, ties="order", excluded=self.context.excluded)
        return self.goal.metrics(places, self.context.size, kendall_tau(places))
