"""What an index does, and how its single-precision answer becomes the library's own ranking.

A library of indexes finds near items fast, in single precision: enough to know who can be among the first N,
not enough to tell their order. So more than N are asked for, and those are ranked by the same distances in
double precision that `Gallery.search` takes, equal ones in gallery order. The answer is the gallery's, to the
place, if everything that was not found is farther than the N-th; where single precision cannot promise that,
more are asked for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from rankproof.ranking.distances import Distance
from rankproof.types import Embeddings

HNSW_FROM = 50_000  # items: from here on looking at each takes longer than the encoder
ROUNDING = 2.0**-22  # of one addition in single precision, with room to spare
NONE, LAST = -1, 2**63 - 1  # what stands for no item, and a number behind all others


@runtime_checkable
class Index(Protocol):
    """Items that can be searched, added and removed, from several threads, and are there after a restart."""

    def __len__(self) -> int:
        """How many items there are."""
        ...

    def search(self, z: Embeddings, count: int) -> list[list[str]]:
        """The ids of the nearest items of each embedding (b, d), nearest first; all where there are fewer."""
        ...

    def add(self, ids: Sequence[str], z: Embeddings, pictures: Sequence[bytes | None]) -> None:
        """Add b items, or replace those of the same ids, which then stand last in the gallery."""
        ...

    def remove(self, name: str) -> bool:
        """Remove an item; whether it was there."""
        ...

    def close(self) -> None:
        """Keep what is not kept yet."""
        ...


@dataclass(frozen=True)
class Near:
    """Items near each of b queries, as many as were asked for; `NONE` where fewer were found.

    Args:
        numbers: (b, m) what they are known by, which also tells their places in the gallery.
        embeddings: (b, m, d) theirs; anything where there is none.
        reach: (b,) every item that is nearer than this is among them, though perhaps not those beyond.
    """

    numbers: Int[Tensor, "b m"]
    embeddings: Float[Tensor, "b m d"]
    reach: Float[Tensor, " b"]


def first(near: Near, z: Embeddings, distance: Distance, count: int) -> list[list[int] | None]:
    """The numbers of each query's first items in the gallery's ranking; None where `near` does not tell them.

    Args:
        z: (b, d) the queries' embeddings.
        count: how many; fewer where `near` holds all there are.
    """
    numbers, order = near.numbers.where(near.numbers != NONE, LAST).sort()
    # Row by row: a product of matrices may round equal rows in two ways, and they must stay equally far.
    far = distance.between(z.double()[:, None], near.embeddings.double()).gather(1, order)
    far, places = far.masked_fill_(numbers == LAST, math.inf).sort(stable=True)
    found = (far < math.inf).sum(1).clamp(max=count).tolist()
    sure = (near.reach == math.inf) | (far[:, :count] < near.reach[:, None]).all(1)
    ranked = numbers.gather(1, places)
    return [
        row[:many] if known else None
        for row, many, known in zip(ranked[:, :count].tolist(), found, sure.tolist(), strict=True)
    ]
