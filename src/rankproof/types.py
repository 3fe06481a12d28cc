"""Shapes of the tensors that travel between the rooms, written once."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "b c h w"]
"""Pictures with values in [0, 1]."""

Embeddings = Float[Tensor, "b d"]
"""One embedding per image, already prepared for its distance (unit length for cosine)."""

Database = Float[Tensor, "n d"]
"""The embeddings of a whole gallery."""

Chosen = Float[Tensor, "b m d"]
"""The embeddings of m chosen items per attack."""

Queries = Float[Tensor, "w d"]
"""The embeddings of w queries that are no items of the gallery, such as texts."""

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


Pictures = Float[Tensor, "b p c h w"]
"""p pictures for each attack, with values in [0, 1]."""

Places = Int[Tensor, "b p k"]
"""Positions of k watched items in the visible list of each of p pictures, counted from 0."""

Scores = Float[Tensor, "b p"]
"""One value for each of p pictures of each attack."""


@dataclass(frozen=True)
class Seen:
    """What became visible of a round of queries: all that a black-box method is told.

    Args:
        places: (b, p, k) positions of the chosen in the visible list, in wanted order; N where unseen.
        score: (b, p) the goal's figure of each list, in [-1, 1]; higher is better.
    """

    places: Places
    score: Scores


@runtime_checkable
class Look(Protocol):
    """What a black-box method may do: look at the results of some pictures."""

    def __call__(self, images: Pictures, attacks: Rows) -> Seen:
        """Send p pictures (b, p, c, h, w) for each of the attacks (b,) and tell what was seen."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How near a batch of attacks is to its goal.

    Args:
        loss: (b,) what a gradient lowers; differentiable.
        merit: (b,) the goal's own figure; higher is better.
        strain: (b,) how far what was to be kept has moved, in units of what is tolerable: above 1 is too far;
            None where nothing has to be kept, or where `merit` weighs it already.
    """

    loss: PerAttack
    merit: PerAttack
    strain: PerAttack | None = None


@runtime_checkable
class Objective(Protocol):
    """What a white-box method may ask: how near images are to the goal, with a gradient."""

    def __call__(self, images: Images, emphasis: PerAttack | None = None) -> Outcome:
        """The outcome of images (b, c, h, w); `emphasis` (b,) scales the weight of what is to be kept."""
        ...
