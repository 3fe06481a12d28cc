"""What every goal is: a value that, bound to a gallery and some images, tells how near it is.

A goal is a frozen set of knobs. `bind` gives it a scene (the gallery, the clean embeddings of the attacked
images, a seed) and returns a bound goal that knows which items were chosen, scores embeddings while an attack
runs, and gives the verdict afterwards. Goals add up: `QueryRaise(m=4) + 1.0 * Preserve(g=5)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.ranking.gallery import Gallery
from rankproof.types import Embeddings, Ids, Kept, Outcome, Queries, Rows


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a goal is bound to.

    Args:
        gallery: the database.
        clean: (b, d) embeddings of the attacked images before the attack.
        keys: what names each attack, for its random numbers; independent of the batch.
        seed: seed of all choices.
        index: (b,) gallery positions of the images' own clean copies, None if they are not in the gallery.
        targets: (b, m) explicitly chosen items, None to choose as published.
        preserved: (b, g) explicitly chosen C_SP, None to choose as published.
        queries: (w, d) embeddings that take the place of CA's queries from the gallery, or None.
        own_copy: "keep" leaves the own clean copy in the ranking (as published), "drop" takes it out.
    """

    gallery: Gallery
    clean: Embeddings
    keys: Sequence[int]
    seed: int
    index: Rows | None = None
    targets: Ids | None = None
    preserved: Kept | None = None
    queries: Queries | None = None
    own_copy: str = "keep"

    @property
    def size(self) -> int:
        """Number of items in the gallery."""
        return len(self.gallery)

    @property
    def dropped(self) -> Rows | None:
        """The items that do not count in a ranking, one per attack, or None."""
        return self.index if self.own_copy == "drop" else None

    def explicit(self, what: str, ids: Ids, columns: int) -> Ids:
        """Explicitly chosen items, checked against the batch, the gallery and the goal."""
        expected = (len(self.clean), columns)
        if tuple(ids.shape) != expected:
            raise RankproofError(f"{what}: expected positions of shape {expected}, got {tuple(ids.shape)}")
        if int(ids.min()) < 0 or int(ids.max()) >= self.size:
            raise RankproofError(f"{what}: positions must lie in 0 .. {self.size - 1}")
        return ids.to(device=self.clean.device, dtype=torch.int64)


@runtime_checkable
class Bound(Protocol):
    """A goal bound to a scene."""

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

    def outcome(self, z: Embeddings, emphasis: Tensor | None = None) -> Outcome:
        """How near the embeddings (b, d) are.

        Args:
            emphasis: (b,) factor on the weight of what is to be kept; None is 1.
        """
        ...

    def verdict(self, z: Embeddings) -> dict[str, Tensor]:
        """The figures to report for embeddings (b, d), in double precision.

        Returns:
            some of "rank" (b, m) in %, "sp_rank" (b, g) in %, "tau" (b,), "mean_rank" (b,), "shift" (b,).
        """
        ...


class Goal:
    """Base of all goals; gives them addition and weights."""

    def __add__(self, other: "Goal | Sum") -> "Sum":
        return Sum(((1.0, self),)) + other

    def __rmul__(self, weight: float) -> "Sum":
        return Sum(((float(weight), self),))

    def bind(self, scene: Scene) -> Bound:
        """The goal in a scene, its items chosen."""
        return Sum(((1.0, self),)).bind(scene)

    @property
    def metric(self) -> str:
        """The headline figure: "rank", "tau" or "shift"."""
        return "rank"

    def choice_note(self, size: int) -> str:
        """What to tell about the choice of items in a gallery of `size`; empty where it is as published."""
        return ""

    @property
    def whole_gallery(self) -> bool:
        """Whether each pass of an attack compares with the whole gallery."""
        return True

    def memory_per_attack(self, size: int) -> int:
        """Values held per attack while it runs against a gallery of `size` items."""
        return 3 * size


@dataclass(frozen=True)
class Sum:
    """A weighted sum of goals; only query goals can be summed."""

    terms: tuple[tuple[float, Goal], ...]

    def __add__(self, other: "Goal | Sum") -> "Sum":
        return Sum(self.terms + (other.terms if isinstance(other, Sum) else ((1.0, other),)))

    def __rmul__(self, weight: float) -> "Sum":
        return Sum(tuple((weight * own, goal) for own, goal in self.terms))

    def bind(self, scene: Scene) -> Bound:
        """All terms in one scene; the whole gallery is compared once for all of them."""
        from rankproof.goals.query import bind_terms

        return bind_terms(self.terms, scene)

    @property
    def metric(self) -> str:
        """The headline figure of the first term."""
        return self.terms[0][1].metric

    def choice_note(self, size: int) -> str:
        """What the terms tell."""
        return "; ".join(filter(None, (goal.choice_note(size) for _, goal in self.terms)))

    @property
    def whole_gallery(self) -> bool:
        """Whether any of the terms does."""
        return any(goal.whole_gallery for _, goal in self.terms)

    def memory_per_attack(self, size: int) -> int:
        """Values held per attack: the terms share one row of distances."""
        return max(goal.memory_per_attack(size) for _, goal in self.terms)


def check_count(letter: str, count: int, size: int) -> None:
    """Raise unless 1 <= count <= size."""
    if count < 1:
        raise RankproofError(f"{letter} must be at least 1, got {count}")
    if count > size:
        raise RankproofError(f"{letter} = {count} is larger than the gallery of {size} items")
