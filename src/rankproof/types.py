"""Shapes of the tensors that travel between the rooms, written once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

ImagesLike = Tensor | np.ndarray
"""Images as a user gives them: (b, c, h, w) floats in [0, 1] or 8-bit integers; `checks` looks at them."""

IntegersLike = Tensor | np.ndarray | Sequence[Any]
"""Positions or labels as a user gives them: integers of any type, also as lists."""

Images = Float[Tensor, "b c h w"]
"""Images with values in [0, 1]."""

Embeddings = Float[Tensor, "b d"]
"""One embedding per image, already prepared for its distance (unit length for cosine)."""

Database = Float[Tensor, "n d"]
"""The embeddings of a whole gallery."""

Chosen = Float[Tensor, "b m d"]
"""The embeddings of m chosen items per attack."""

Queries = Float[Tensor, "q d"]
"""The embeddings of q queries that are no items of the gallery, such as texts."""

Ids = Int[Tensor, "b m"]
"""Positions in the gallery, one row per attack."""

Kept = Int[Tensor, "b g"]
"""Positions of what is to be kept in place, or is already taken, one row per attack."""

Pool = Int[Tensor, "b p"]
"""Positions to choose from, one row per attack."""

Rows = Int[Tensor, " b"]
"""One position per attack."""

PerAttack = Float[Tensor, " b"]
"""One value per attack."""


ImageSets = Float[Tensor, "b p c h w"]
"""p images for each attack, with values in [0, 1]."""

Places = Int[Tensor, "b p k"]
"""Positions of k watched items in the visible list of each of p images, counted from 0."""

Scores = Float[Tensor, "b p"]
"""One value for each of p images of each attack."""


@dataclass(frozen=True)
class Feedback:
    """What a round of queries showed: all that a black-box method sees.

    Args:
        places: (b, p, k) positions of the chosen items in the visible list, in wanted order; N where unseen.
        score: (b, p) the goal's figure of each list, in [-1, 1]; higher is better.
    """

    places: Places
    score: Scores


@runtime_checkable
class QueryFn(Protocol):
    """What a black-box method may do: look at the results of some images."""

    def __call__(self, images: ImageSets, attacks: Rows) -> Feedback:
        """Send p images (b, p, c, h, w) for each of the attacks (b,) and tell what was seen."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """How near a batch of attacks is to its goal.

    Args:
        loss: (b,) what a gradient lowers; differentiable.
        fitness: (b,) the goal's own figure; higher is better.
        constraint_violation: (b,) how far what was to be kept has moved, in units of what is tolerable: above
            1 is too far; None where nothing has to be kept, or where `fitness` weighs it already.
        room: (b,) how much fitter an image could be at most, 0 where none can; None where that has no limit.
    """

    loss: PerAttack
    fitness: PerAttack
    constraint_violation: PerAttack | None = None
    room: PerAttack | None = None


@runtime_checkable
class Objective(Protocol):
    """What a white-box method may ask: how near images are to the goal, with a gradient."""

    def __call__(self, images: Images, penalty_weight: PerAttack | None = None) -> Evaluation:
        """Evaluate images (b, c, h, w); `penalty_weight` (b,) scales the weight of what is to be kept."""
        ...


@runtime_checkable
class SplitObjective(Objective, Protocol):
    """An objective that can be asked for some of the attacks alone, so that others need not be evaluated."""

    def take(self, rows: Rows) -> Objective:
        """The objective of the attacks at some rows (k,); it takes their images (k, c, h, w)."""
        ...


ProgressCallback = Callable[[int, int], None]
"""Called with the amount of work done and the total."""


def no_progress(done: int | float, total: int | float) -> None:
    """A progress callback that shows nothing."""
