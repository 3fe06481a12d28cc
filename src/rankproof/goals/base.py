"""What every goal is: a value that, bound to a gallery and some images, measures how near they are to it.

A goal is a frozen set of parameters. `bind` gives it a context (the gallery, the clean embeddings of the
attacked images, a seed) and returns a bound goal that knows which items were chosen, evaluates embeddings
while an attack runs, and measures the result afterwards. What can be said of a goal without an attack - its
name, its direction, the sentence of a report - stands in its `GoalSpec`, once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from rankproof.checks import check_ids
from rankproof.errors import RankproofError
from rankproof.parameters import Checked
from rankproof.ranking.gallery import Gallery
from rankproof.types import Embeddings, Evaluation, Ids, Kept, Queries, Rows

Family = Literal["candidate", "query", "order", "embedding"]
Direction = Literal["raise", "lower", "reorder", "push", "pull"]
Values = Mapping[str, Any]
"""The parameters of an attack by name (w, m, k, g, xi, visible, budget), None where one does not apply."""

Headline = Callable[[Values, str], tuple[str, str]]
"""The words before and after a headline figure, from the values of an attack and the clean figure's text."""

LETTERS = ("w", "m", "k", "g", "xi")  # the papers' letters for what a goal is given
DISTANCE = "-distance"  # ends the name of a goal in its distance-based form (ECCV appendix G)


@dataclass(frozen=True, kw_only=True)
class GoalSpec:
    """What a goal says about itself, for the command line, reports, recipes and results.

    Args:
        name: the papers' abbreviation, such as "sp-qa+": on the command line and in files.
        title: the name as pages print it, such as "SP-QA+".
        family: what is perturbed, or what the goal is about.
        direction: what happens to the chosen items ("raise", "lower", "reorder"), or to the embedding, which
            is pushed away from its place or pulled to another.
        paper: where it was published.
        metric: the headline figure: "rank" (normalised, in %), "tau", "shift", "distance", "hit" or "kept".
        larger_is_stronger: whether a stronger attack has a larger figure.
        target_value: the figure of an attack that reached all it wants; None where there is no end.
        clean_value: the expected figure at eps = 0; None where it depends on the data.
        parameters: the parameters it has: some of w, m, k, g, xi, and others of its constructor.
        describe: the sentence of a report: what the attacker does and wants, from the values of an attack.
        figure_label: what a table calls the headline figure.
        headline: what a report's first section says of an attack, as the words before and after its headline
            figure, from the values of the attack and the printed clean figure; None where it says nothing.
        standard_audit: its place in a standard audit, from 1; 0 where the audit does not run it.
        succeeded: (b,) whether each attack reached its goal, from its headline figures; None where no figure
            says so.
        wish: what has come true where an attack succeeded, from the values of an attack, as the end of a
            sentence: "a random item is among the first 10 results"; None where the goal has no yes or no.
    """

    name: str
    title: str
    family: Family
    direction: Direction
    paper: str = ""
    metric: str = "rank"
    larger_is_stronger: bool
    target_value: float | None = None
    clean_value: float | None = None
    parameters: tuple[str, ...] = ()
    describe: Callable[[Values], str]
    figure_label: str = "rank of the chosen"
    headline: Headline | None = None
    standard_audit: int = 0
    succeeded: Callable[[Tensor], Tensor] | None = None
    wish: Callable[[Values], str] | None = None

    @property
    def letter(self) -> str:
        """The papers' letter for how many items are chosen: w, m or k; empty where none are."""
        return next((letter for letter in ("w", "m", "k") if letter in self.parameters), "")

    @property
    def keeps(self) -> bool:
        """Whether g results are to stay in place."""
        return "g" in self.parameters

    def reach(self, before: float, after: float) -> float | None:
        """The share of the way from untouched to all that is wanted, in %; None where the goal has no end."""
        if self.target_value is None or before == self.target_value:
            return None
        return 100 * (after - before) / (self.target_value - before)

    def distance_based(self) -> "GoalSpec":
        """The goal in its distance-based form (ECCV appendix G)."""
        title = f"{self.title} (distance)"
        return replace(self, name=self.name + DISTANCE, title=title, standard_audit=0)


@dataclass(frozen=True, kw_only=True)
class AttackContext:
    """What a goal is bound to.

    Args:
        gallery: the database.
        clean: (b, d) embeddings of the attacked images before the attack.
        rng_keys: what names each attack, for its random numbers; independent of the batch.
        seed: seed of all choices.
        gallery_ids: (b,) positions of the images' own clean copies, None if they are not in the gallery.
        targets: (b, m) explicitly chosen items, None to choose as published.
        preserved: (b, g) explicitly chosen C_SP, None to choose as published.
        queries: (w, d) embeddings that take the place of CA's queries from the gallery, or None.
        exclude_self: whether the own clean copy is left out of every ranking.
    """

    gallery: Gallery
    clean: Embeddings
    rng_keys: Sequence[int]
    seed: int
    gallery_ids: Rows | None = None
    targets: Ids | None = None
    preserved: Kept | None = None
    queries: Queries | None = None
    exclude_self: bool = False

    @property
    def size(self) -> int:
        """Number of items in the gallery."""
        return len(self.gallery)

    @property
    def excluded(self) -> Rows | None:
        """The items that do not count in a ranking, one per attack, or None."""
        return self.gallery_ids if self.exclude_self else None

    def explicit(self, what: str, ids: Ids, columns: int) -> Ids:
        """Explicitly chosen items, checked against the batch, the gallery and the goal."""
        return check_ids(what, ids, (len(self.clean), columns), self.size).to(self.clean.device)


@runtime_checkable
class BoundGoal(Protocol):
    """A goal bound to a context."""

    @property
    def targets(self) -> Ids:
        """(b, m) the chosen items; (b, 0) for goals that choose none."""
        ...

    @property
    def stationary(self) -> bool:
        """Whether the clean image itself has no usable gradient."""
        ...

    @property
    def preserved(self) -> Ids:
        """(b, g) the items to keep in place; (b, 0) for goals that keep none."""
        ...

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """How near the embeddings (b, d) are.

        Args:
            penalty_weight: (b,) factor on the weight of what is to be kept; None is 1.
        """
        ...

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """The figures to report for embeddings (b, d), in double precision.

        Returns:
            some of "rank" (b, m) in %, "sp_rank" (b, g) in %, "tau" (b,), "mean_rank" (b,), "shift" (b,).
        """
        ...


@runtime_checkable
class Wish(Protocol):
    """What has to come true for an attack to have succeeded: a yes or no, and how far it is off."""

    @property
    def places(self) -> int | None:
        """The number of results it is about, such as N out of which an item sinks; None where that is K."""
        ...

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """How far embeddings (b, d) are from it.

        Returns:
            a loss that is at most 0 where the wish holds and positive elsewhere, up to rounding and ties;
            differentiable.
        """
        ...

    def towards(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """The way there, from afar as well.

        Args:
            penalty_weight: (b,) factor on the weight of what is to be kept; None is 1.
        Returns:
            a loss for a gradient to lower, and as fitness minus the loss of `evaluate`.
        """
        ...

    def reached(self, z: Embeddings) -> Bool[Tensor, " b"]:
        """Whether all of it has come true, from embeddings (b, d) in exact arithmetic."""
        ...


class Goal(Checked):
    """Base of all goals: a subclass is a frozen dataclass with a `SPEC` and a `bind`.

    Its parameters are checked against the types of its fields (`rankproof.parameters`).
    """

    SPEC: ClassVar[GoalSpec]
    whole_gallery: ClassVar[bool] = True
    """Whether each pass of an attack compares with the whole gallery."""

    def bind(self, context: AttackContext) -> BoundGoal:
        """The goal in a context, its items chosen."""
        raise NotImplementedError

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """What has to come true for an attack to have succeeded; None where the goal has no yes or no.

        Args:
            bound: the goal in a context, as `bind` returned it.
            first: K, how many results count as the first ones.
        """
        return None

    @property
    def spec(self) -> GoalSpec:
        """What the goal says about itself; that of its distance-based form where it has it."""
        distance = getattr(self, "form", "inequality") == "distance"
        return self.SPEC.distance_based() if distance else self.SPEC

    @property
    def metric(self) -> str:
        """The headline figure."""
        return self.SPEC.metric

    @property
    def parameters(self) -> dict[str, int | float | None]:
        """The papers' letters with their values: w, m, k, g, xi; None where a letter does not apply."""
        return {letter: getattr(self, letter, None) for letter in LETTERS}

    def choice_note(self, size: int) -> str:
        """A note on the choice of items in a gallery of `size`; empty where it is as published."""
        return ""

    def memory_per_attack(self, size: int) -> int:
        """Values held per attack while it runs against a gallery of `size` items."""
        return 3 * size

    def __add__(self, other: object) -> "Goal":
        raise RankproofError(ONLY_QUERY_GOALS)

    def __rmul__(self, weight: float) -> "Goal":
        raise RankproofError(ONLY_QUERY_GOALS)


ONLY_QUERY_GOALS = "only query goals can be added or weighted, such as QueryRaise(m=4) + 1.0 * Preserve(g=5)"


def check_count(letter: str, count: int, size: int) -> None:
    """Raise unless 1 <= count <= size."""
    if count < 1:
        raise RankproofError(f"{letter} must be at least 1, got {count}")
    if count > size:
        raise RankproofError(f"{letter} = {count} is larger than the gallery of {size} items")


def counted(number: int | None, one: str, many: str) -> str:
    """A number with its noun for a sentence: "one item", "4 items", "some items" where it is not known."""
    if number is None:
        return f"some {many}"
    return f"one {one}" if number == 1 else f"{number} {many}"


def first_results(values: Values) -> str:
    """What a black box shows, for a sentence."""
    visible = values.get("visible")
    return "the results" if visible in (None, "inf") else f"the first {visible:,} results"


def item_text(number: int | None, one: str, many: str) -> str:
    """A number with its noun, or `one` for a single one: "a random item", "4 random items"."""
    return one if number in (None, 1) else f"{number} {many}"


def reordered(tau: Tensor) -> Tensor:
    """(b,) whether every pair of the chosen results stands in the wanted order."""
    return tau >= 1 - 1e-9
