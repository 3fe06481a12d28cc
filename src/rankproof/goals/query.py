"""Query attacks: perturb the query so that chosen candidates rise (QA+) or sink (QA-)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import (
    LETTERS,
    ONLY_QUERY_GOALS,
    AttackContext,
    BoundGoal,
    Goal,
    GoalSpec,
    Values,
    Wish,
    check_count,
    counted,
    item_text,
)
from rankproof.goals.hinge import LOWER, RAISE, gallery_hinge
from rankproof.goals.selection import (
    best_of_rest,
    from_pool_shuffled,
    nearest_others,
    pool_note,
    pool_size,
    uniform,
)
from rankproof.goals.wish import PlacesWish, sight
from rankproof.parameters import Count, Range, check_number
from rankproof.ranking.metrics import normalised_rank
from rankproof.types import Embeddings, Evaluation, Ids

Form = Literal["inequality", "distance"]

# How an optimiser weighs places lost by C_SP against places won by C when it picks the best iterate, for
# each unit of xi. Beside QA- the first places lost are cheap and further ones cost more and more.
PRICE_BESIDE_RAISE = 1.5
PRICE_BESIDE_LOWER = 0.018
NOT_NEGATIVE = Range(low=0.0)  # weights
SEVERE_SHARE = 0.02  # share of the gallery at which a place lost beside QA- counts double


@dataclass(frozen=True, kw_only=True)
class HingeTerm:
    """What one term wants of its items.

    Args:
        ids: (b, m) positions of the items.
        direction: RAISE or LOWER.
        weight: weight of the mean over items and gallery.
        keeps: these items are to stay where they are; their weight follows the attack's penalty_weight.
        form: hinges against the gallery, or the bare distance (ECCV appendix G).
    """

    ids: Ids
    direction: int
    weight: float
    keeps: bool
    form: Form = "inequality"


def _moves(values: Values, one: str, many: str) -> str:
    """The chosen items with their verb, for a sentence: "a random item moves"."""
    return f"{item_text(values.get('m'), one, many)} {'moves' if values.get('m') in (None, 1) else 'move'}"


class QueryGoal(Goal):
    """A goal about the ranking that a perturbed query gets; such goals can be added and weighted."""

    def term(self, context: AttackContext, weight: float, taken: Ids) -> HingeTerm:
        """Its items and what it wants of them; `taken` (b, t) are chosen by earlier terms."""
        raise NotImplementedError

    def weighted(self, weight: float) -> tuple[tuple[float, "QueryGoal"], ...]:
        """Its terms, each with its weight times another."""
        terms = self.terms if isinstance(self, QuerySum) else ((1.0, self),)
        return tuple((weight * inner, goal) for inner, goal in terms)

    def __add__(self, other: object) -> "QuerySum":
        if not isinstance(other, QueryGoal):
            raise RankproofError(ONLY_QUERY_GOALS)
        return QuerySum(self.weighted(1.0) + other.weighted(1.0))

    def __rmul__(self, weight: float) -> "QuerySum":
        return QuerySum(self.weighted(float(check_number("xi", weight, NOT_NEGATIVE))))

    def bind(self, context: AttackContext) -> "BoundQuery":
        """The goal alone, as a sum of one term."""
        return QuerySum(self.weighted(1.0)).bind(context)

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """Raised items among the first K, lowered ones out of the first N, C_SP among the first 2 g."""
        assert isinstance(bound, BoundQuery)
        return bound.wish(first)


@dataclass(frozen=True, kw_only=True)
class ChosenItems(QueryGoal):
    """A goal about the ranks of m chosen candidates in the ranking of a perturbed query."""

    m: Count = 1
    form: Form = "inequality"

    direction: ClassVar[int]

    def draw(self, context: AttackContext) -> Ids:
        """(b, m) the published choice of candidates."""
        raise NotImplementedError

    def term(self, context: AttackContext, weight: float, taken: Ids) -> HingeTerm:
        """The candidates, drawn or explicit."""
        check_count("m", self.m, context.size - (self.direction == LOWER))
        if context.targets is None:
            ids = self.draw(context)
        else:
            ids = context.explicit("targets", context.targets, self.m)
        return HingeTerm(ids=ids, direction=self.direction, weight=weight, keeps=False, form=self.form)


@dataclass(frozen=True, kw_only=True)
class QueryRaise(ChosenItems):
    """QA+: bring m chosen candidates ahead of the whole gallery (ECCV eq. 11, mean form).

    L(q) = mean over c in C, x in X of [ d(q, c) - d(q, x) ]+

    C is drawn uniformly from the gallery with replacement (it may contain the query's own copy).

    Args:
        m: number of chosen candidates.
        form: "inequality", or "distance" for mean d(q, c) (ECCV appendix G).
    """

    direction = RAISE
    SPEC = GoalSpec(
        name="qa+",
        title="QA+",
        family="query",
        direction="raise",
        paper="ECCV 2020",
        larger_is_stronger=False,
        target_value=0.0,
        clean_value=50.0,
        parameters=("m",),
        describe=lambda values: (
            f"The query is changed so that {counted(values.get('m'), 'item', 'items')} drawn at random "
            f"{'rises' if values.get('m') == 1 else 'rise'}."
        ),
        headline=lambda values, start: (
            f"Change a query so that {_moves(values, 'a random item', 'random items')} from the middle of "
            f"the ranking ({start}) to",
            "",
        ),
        wish=lambda values: (
            f"{item_text(values.get('m'), 'a random item is', 'random items are')} among the first "
            f"{values['first']} results"
        ),
        standard_audit=3,
    )

    def draw(self, context: AttackContext) -> Ids:
        """m random items of the gallery."""
        return uniform(context, self.m, "qa+").to(context.clean.device)


@dataclass(frozen=True, kw_only=True)
class QueryLower(ChosenItems):
    """QA-: push m chosen top candidates behind the whole gallery (ECCV eq. 9, mean form).

    L(q) = mean over c in C, x in X of [ d(q, x) - d(q, c) ]+

    C is the start of a random permutation of the 1 % nearest to the query, its own copy excluded.

    Args:
        m: number of chosen candidates.
        form: "inequality", or "distance" for -mean d(q, c) (ECCV eq. 17).
    """

    direction = LOWER
    SPEC = GoalSpec(
        name="qa-",
        title="QA−",
        family="query",
        direction="lower",
        paper="ECCV 2020",
        larger_is_stronger=True,
        target_value=100.0,
        parameters=("m",),
        describe=lambda values: (
            f"The query is changed so that {counted(values.get('m'), 'item', 'items')} among its nearest "
            "sink."
        ),
        headline=lambda values, start: (
            f"Change a query so that {_moves(values, 'one of its best results', 'of its best results')} from "
            f"{start} of the ranking to",
            "",
        ),
        wish=lambda values: (
            f"{item_text(values.get('m'), 'one of the best results has', 'of the best results have')} left "
            f"the first {values['places']}"
        ),
        standard_audit=4,
    )

    def draw(self, context: AttackContext) -> Ids:
        """m random items of the nearest 1 %."""
        pool = nearest_others(context, _pool(context, self.m))
        return from_pool_shuffled(context, pool, self.m, "qa-")

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

    g: Count = 5
    form: Form = "inequality"

    SPEC = GoalSpec(
        name="sp",
        title="SP",
        family="query",
        direction="raise",
        paper="ECCV 2020",
        larger_is_stronger=False,
        parameters=("g",),
        describe=lambda values: "The query's best results stay in place.",
    )

    def term(self, context: AttackContext, weight: float, taken: Ids) -> HingeTerm:
        """The g nearest free items, or the explicit ones."""
        check_count("g", self.g, context.size - 1 - taken.shape[1])
        if context.preserved is None:
            ids = best_of_rest(nearest_others(context, self.g + taken.shape[1]), taken, self.g)
        else:
            ids = context.explicit("preserved", context.preserved, self.g)
        return HingeTerm(ids=ids, direction=RAISE, weight=weight, keeps=True, form=self.form)


@dataclass(frozen=True)
class QuerySum(QueryGoal):
    """A weighted sum of query goals, such as SP-QA: `QueryRaise(m=4) + 1.0 * Preserve(g=5)`.

    Args:
        terms: each goal with its weight; one QueryRaise or QueryLower and at most one Preserve can be bound.
    """

    terms: tuple[tuple[float, QueryGoal], ...]

    def __post_init__(self) -> None:
        for weight, _ in self.terms:
            check_number("xi", weight, NOT_NEGATIVE)

    @property
    def spec(self) -> GoalSpec:
        """That of SP-QA where a term is preserved, else that of the first term."""
        goals = [goal for _, goal in self.terms]
        plain = goals[0].SPEC
        if any(isinstance(goal, Preserve) for goal in goals[1:]):
            plain = SP_QA.get(type(goals[0]), plain)
        distance = any(goal.spec is not goal.SPEC for goal in goals)
        return plain.distance_based() if distance else plain

    @property
    def metric(self) -> str:
        """The headline figure of the first term."""
        return self.terms[0][1].metric

    @property
    def parameters(self) -> dict[str, int | float | None]:
        """Those of the terms; xi is the weight of what is preserved."""
        values: dict[str, int | float | None] = dict.fromkeys(LETTERS)
        for weight, goal in self.terms:
            values |= {letter: value for letter, value in goal.parameters.items() if value is not None}
            if isinstance(goal, Preserve):
                values["xi"] = weight
        return values

    def bind(self, context: AttackContext) -> "BoundQuery":
        """All terms in one context; the whole gallery is compared once for all of them."""
        taken = torch.empty(len(context.clean), 0, dtype=torch.int64, device=context.clean.device)
        terms: list[HingeTerm] = []
        for weight, goal in self.terms:
            term = goal.term(context, weight, taken)
            if term.direction == LOWER:
                taken = torch.cat([taken, term.ids], dim=1)
            terms.append(term)
        return BoundQuery(context, tuple(terms))

    def choice_note(self, size: int) -> str:
        """The notes of all terms."""
        return "; ".join(filter(None, (goal.choice_note(size) for _, goal in self.terms)))

    def memory_per_attack(self, size: int) -> int:
        """Values held per attack: the terms share one row of distances."""
        return max(goal.memory_per_attack(size) for _, goal in self.terms)


def _preserving(spec: GoalSpec, order: int) -> GoalSpec:
    """The semantics-preserving version of a query goal."""
    return replace(
        spec,
        name=f"sp-{spec.name}",
        title=f"SP-{spec.title}",
        parameters=("m", "g", "xi"),
        describe=lambda values: (
            f"As {spec.title}, while {counted(values.get('g'), 'top result', 'top results')} stay in place "
            "so that nobody notices."
        ),
        headline=None,
        wish=lambda values: (
            f"{_wish_of(spec, values)} while the {values['g']} best others stay among the first "
            f"{2 * values['g']}"
        ),
        standard_audit=order,
    )


def _wish_of(spec: GoalSpec, values: Values) -> str:
    """What has come true of the goal without the results it keeps."""
    assert spec.wish is not None
    return spec.wish(values)


SP_QA: dict[type[QueryGoal], GoalSpec] = {
    QueryRaise: _preserving(QueryRaise.SPEC, 5),
    QueryLower: _preserving(QueryLower.SPEC, 6),
}
"""SP-QA+ and SP-QA- by the goal that is summed with `Preserve`."""


class BoundQuery:
    """A sum of query terms in a context; one matrix product and one pass over the distances serve all."""

    stationary = False

    def __init__(self, context: AttackContext, terms: tuple[HingeTerm, ...]) -> None:
        chosen, preserved = [p for p in terms if not p.keeps], [p for p in terms if p.keeps]
        if len(chosen) != 1 or len(preserved) > 1:
            raise RankproofError("a query attack is one QueryRaise or QueryLower and at most one Preserve")
        if not chosen[0].weight > 0:
            raise RankproofError("the weight of what is raised or lowered must be above 0")
        self.context = context
        self.terms = (*chosen, *preserved)
        self.targets: Ids = chosen[0].ids
        self.preserved: Ids = preserved[0].ids if preserved else self.targets[:, :0]
        self._ids = torch.cat([p.ids for p in self.terms], dim=1)
        self._directions = [p.direction for p in self.terms for _ in range(p.ids.shape[1])]
        self._distance_only = [p.form == "distance" for p in self.terms for _ in range(p.ids.shape[1])]

    def _weights(self, z: Tensor, penalty_weight: Tensor | None) -> Tensor:
        """(b, m + g) weight of every chosen item's hinges: the means of the losses and their balance."""
        parts = []
        for term in self.terms:
            items = term.ids.shape[1]
            share = term.weight / (items * (self.context.size if term.form == "inequality" else 1))
            part = z.new_full((len(z), items), share)
            parts.append(
                part * penalty_weight[:, None] if penalty_weight is not None and term.keeps else part
            )
        return torch.cat(parts, dim=1)

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss; fitness: how far the chosen ranks moved as wanted, less the price of C_SP's places lost."""
        weights = self._weights(z, penalty_weight)
        distances = self.context.gallery.distances(z)
        loss, counts = gallery_hinge(  # ECCV eq. 9, 11 and 12
            distances,
            self._ids,
            weights,
            self._directions,
            distance_only=self._distance_only,
            near_top=self.preserved.shape[1],
        )
        shares = counts / self.context.size  # (b, m + g) nearer (raised) or farther (lowered) share
        m = self.targets.shape[1]
        fitness = -shares[:, :m].mean(1)
        if shares.shape[1] > m:
            lost = shares[:, m:].mean(1)
            fitness = fitness - self._price(lost)
        return Evaluation(loss, fitness, room=-fitness)

    def _price(self, lost: Tensor) -> Tensor:
        """What C_SP's mean share of places lost (b,) is worth in C's places; it follows xi."""
        chosen, preserved = self.terms
        return price(chosen.direction, preserved.weight / chosen.weight, chosen.ids.shape[1], lost)

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """Normalised ranks of C and C_SP in %."""
        size, gallery, excluded = self.context.size, self.context.gallery, self.context.excluded
        ranks = normalised_rank(gallery.rank_of(z, self._ids, excluded=excluded), size)
        m = self.targets.shape[1]
        return {"rank": ranks[:, :m]} | ({"sp_rank": ranks[:, m:]} if m < ranks.shape[1] else {})

    def wish(self, first: int) -> PlacesWish:
        """What has to come true: raised items within the first K, lowered ones beyond N, C_SP within 2 g."""
        places, within = [], []
        for term in self.terms:
            count, raised = term.ids.shape[1], term.direction == RAISE
            most = 2 * count if term.keeps else first if raised else sight(_pool(self.context, count))
            places += [most] * count
            within += [raised] * count
        return PlacesWish(
            self.context, self._ids, places, within, None if within[0] else places[0], self.preserved.shape[1]
        )


def price(direction: int, xi: float, m: int, lost: Tensor) -> Tensor:
    """What C_SP's mean share of places lost (b,) is worth in the places that C won.

    Args:
        direction: RAISE or LOWER, what is wanted of C.
        xi: weight of C_SP beside that of C.
        m: how many items C are.
    """
    if direction == RAISE:
        return PRICE_BESIDE_RAISE * xi * lost
    return PRICE_BESIDE_LOWER * xi / math.sqrt(m) * lost * (1 + lost / SEVERE_SHARE)


def _pool(context: AttackContext, m: int) -> int:
    """How many of the nearest items QA- chooses m from."""
    return pool_size(context.size, m + Preserve.g, own=context.gallery_ids is not None)
