"""What an index does, and how its candidates are re-ranked exactly.

FAISS and pgvector compute distances in single precision. That is enough to find the items that can be among
the first N, but not to order them. So an index retrieves more than N candidates, and `rerank` orders them
exactly as `Gallery.search` does, with ties in gallery order. The result equals that of `Gallery.search` on
the stored embeddings, provided that every item outside the candidates is farther away than the N-th result.
Where the rounding error of single precision leaves that open, the index retrieves more candidates.

What is stored is prepared for the distance and in single precision, as both libraries want it. For the cosine
and the sphere it is therefore the encoder's embedding scaled to unit length and rounded: items whose lengths
|a - b| differ by less than about 1e-7 may stand in another order than in a `Gallery` of the encoder's own
embeddings. Euclidean embeddings are stored as they are.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from rankproof.ranking.distances import Distance
from rankproof.ranking.exact import ordered_distances
from rankproof.types import Embeddings

HNSW_FROM = 50_000  # items: from here on a full scan takes longer than the encoder
ROUNDING = 2.0**-22  # bound on the relative error of one single-precision addition, with a margin
NO_ITEM, AFTER_ALL = (
    -1,
    2**63 - 1,
)  # the number that FAISS gives for "no item"; one that sorts after all others


@runtime_checkable
class Metadata(Protocol):
    """Named text values stored beside the items."""

    def get(self, name: str) -> str | None:
        """The value, or None if it was never set."""
        ...

    def put(self, name: str, value: str) -> None:
        """Set a value."""
        ...


@runtime_checkable
class ItemTable(Protocol):
    """The stored items an index is built over; numbers increase in gallery order and are never reused."""

    @property
    def dimensions(self) -> int:
        """d, of an embedding."""
        ...

    @property
    def metadata(self) -> Metadata:
        """Values stored beside the items."""
        ...

    def __len__(self) -> int:
        """The number of items."""
        ...

    def add(self, ids: Sequence[str], z: Embeddings, image_files: Sequence[bytes | None]) -> None:
        """Add b items, or replace those with the same ids, all of them or none."""
        ...

    def remove(self, item_id: str) -> bool:
        """Remove an item; returns whether it existed."""
        ...

    def ids(self, above: int = 0) -> dict[int, str]:
        """Number and id of every item whose number exceeds `above`, in gallery order."""
        ...

    def embeddings(self, above: int = 0) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers and embeddings (b, d) of the same items, in blocks."""
        ...


class Index(ABC):
    """A searchable set of items that persists across restarts; all methods are thread-safe.

    Args:
        items: the table that the index is built over, and that `add` and `remove` change.
    """

    def __init__(self, items: ItemTable) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @abstractmethod
    def search(self, z: Embeddings, count: int) -> list[list[str]]:
        """The ids of the `count` nearest items of each query embedding (b, d), nearest first."""

    def add(self, ids: Sequence[str], z: Embeddings, image_files: Sequence[bytes | None]) -> None:
        """Add b items. An item whose id exists is replaced and moves to the end of the gallery order."""
        self._items.add(ids, z, image_files)

    def remove(self, item_id: str) -> bool:
        """Remove an item; returns whether it existed."""
        return self._items.remove(item_id)

    def close(self) -> None:  # noqa: B027 - most indexes have nothing left to write
        """Write to disk whatever has not been written yet."""


@dataclass(frozen=True)
class Candidates:
    """The items an index retrieved for each of b queries.

    Args:
        numbers: (b, m) item numbers, which increase in gallery order; `NO_ITEM` where fewer were retrieved.
        embeddings: (b, m, d) the items' embeddings; arbitrary where there is no item.
        complete_within: (b,) a distance; every item nearer than this is among the candidates.
    """

    numbers: Int[Tensor, "b m"]
    embeddings: Float[Tensor, "b m d"]
    complete_within: Float[Tensor, " b"]


def rerank(candidates: Candidates, z: Embeddings, distance: Distance, count: int) -> list[list[int] | None]:
    """Order candidates as `Gallery.search` does: by exact distance, ties in gallery order.

    Args:
        z: (b, d) query embeddings.
        count: results per query; fewer if there are fewer candidates.
    Returns:
        For each query the numbers of its results, nearest first, or None if the candidates do not determine
        them.
    """
    numbers, order = candidates.numbers.where(candidates.numbers != NO_ITEM, AFTER_ALL).sort()
    values, distances = (
        part.gather(1, order).masked_fill(numbers == AFTER_ALL, math.inf)
        for part in ordered_distances(distance, z, candidates.embeddings)
    )
    places = values.sort(stable=True).indices
    distances = distances.gather(1, places)
    lengths = (distances < math.inf).sum(1).clamp(max=count).tolist()
    limit = candidates.complete_within
    complete = (limit == math.inf) | (distances[:, :count] < limit[:, None]).all(1)
    ranked = numbers.gather(1, places)
    return [
        row[:length] if determined else None
        for row, length, determined in zip(
            ranked[:, :count].tolist(), lengths, complete.tolist(), strict=True
        )
    ]
