"""FAISS in this process: a full scan, or an HNSW graph where there are many items."""

import math
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import import_extra
from rankproof.indexes.base import HNSW_FROM, NO_ITEM, ROUNDING, Candidates, Index, ItemTable, rerank
from rankproof.io import write_atomically
from rankproof.ranking.distances import Distance
from rankproof.types import Embeddings, ProgressCallback, no_progress

GRAPH = "graph.faiss"
LINKS, EF_CONSTRUCTION, EF_SEARCH = (
    32,
    200,
    512,
)  # HNSW: links per item, candidates when adding, when searching
CHUNK_VALUES = 4_000_000  # embedding values re-ranked at once
REBUILD_SHARE = 0.2  # the share of removed items from which a graph is rebuilt


class FaissIndex(Index):
    """An index in memory, rebuilt from the item table at every start; an HNSW graph is kept on disk.

    Args:
        items: the table.
        distance: the ranker's distance. FAISS searches by the inner product or the squared L2 distance that
            ranks alike.
        folder: where the graph is stored.
        hnsw_from: number of items from which on an HNSW graph is used; None always scans all items.
        progress: called with (items read, items in all).
    """

    def __init__(
        self,
        items: ItemTable,
        distance: Distance,
        folder: Path,
        *,
        hnsw_from: int | None = HNSW_FROM,
        progress: ProgressCallback = no_progress,
    ) -> None:
        self._faiss: Any = import_extra("faiss", "service")
        super().__init__(items)
        self._distance, self._path, self._lock = distance, folder / GRAPH, Lock()
        self._ids: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._removed: set[int] = set()  # numbers that are still in the graph
        self._last = 0  # the largest number in the index
        self._index: Any = None
        self.exact = hnsw_from is None or len(items) < hnsw_from
        if not self.exact:
            self._load_graph()
        self._last_saved = self._last
        self._add_new_items(progress)
        self._save_graph()

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, z: Embeddings, count: int) -> list[list[str]]:
        """The ids of the `count` nearest items of each query embedding (b, d), nearest first."""
        z = z.float().cpu()
        with self._lock:
            if not len(self):
                return [[] for _ in z]
            count, retrieved = min(count, len(self)), 2 * count
            results: dict[int, list[int]] = {}
            while todo := [row for row in range(len(z)) if row not in results]:
                retrieved = min(retrieved, len(self))
                for rows in torch.tensor(todo).split(max(1, CHUNK_VALUES // (retrieved * z.shape[1]))):
                    ranked = rerank(self._retrieve(z[rows], retrieved), z[rows], self._distance, count)
                    pairs = zip(rows.tolist(), ranked, strict=True)
                    results |= {row: numbers for row, numbers in pairs if numbers is not None}
                retrieved *= 4
            return [[self._ids[number] for number in results[row]] for row in range(len(z))]

    def add(self, ids: Sequence[str], z: Embeddings, image_files: Sequence[bytes | None]) -> None:
        """Add items, or replace those with the same ids."""
        with self._lock:
            super().add(ids, z, image_files)
            self._drop(ids)
            self._add_new_items()

    def remove(self, item_id: str) -> bool:
        """Remove an item; returns whether it existed."""
        with self._lock:
            existed = super().remove(item_id)
            self._drop([item_id])
            return existed

    def close(self) -> None:
        """Write the graph to disk."""
        with self._lock:
            self._save_graph()

    def _retrieve(self, z: Embeddings, count: int) -> Candidates:
        """The `count` nearest items of each query in single precision."""
        # faiss.contrib.torch_utils, which other libraries import, replaces `search` by a version without
        # parameters and keeps the original under this name.
        search = getattr(self._index, "search_numpy", self._index.search)
        options = {} if self.exact else {"params": self._graph_parameters(count)}
        keys, numbers = search(z.numpy(), count, **options)
        present = np.where(numbers == NO_ITEM, self._last, numbers)  # any item of the graph as a placeholder
        embeddings = self._index.reconstruct_batch(present.ravel()).reshape(*present.shape, -1)
        # A graph cannot know what it has not visited, so its candidates are taken as they are.
        final = count == len(self) or not self.exact
        limit = torch.full((len(z),), math.inf) if final else self._limit(z, torch.from_numpy(keys[:, -1]))
        return Candidates(torch.from_numpy(numbers), torch.from_numpy(embeddings), limit)

    def _limit(self, z: Embeddings, keys: Tensor) -> Tensor:
        """The distance within which candidates are complete, given the key of each query's last candidate.

        A key is a sum of d products, each of which may be rounded.
        """
        error, keys = ROUNDING * z.shape[1], keys.double()
        if self._distance.name == "cosine":
            return 1 - keys - error
        lengths: Tensor = torch.linalg.vector_norm(z.double(), dim=1)
        keys = keys.clamp(min=0)
        return (keys - error * (2 * lengths + keys.sqrt()).square()).clamp(min=0).sqrt()

    def _graph_parameters(self, count: int) -> Any:
        """HNSW search parameters that skip removed items."""
        present = self._faiss.IDSelectorNot(
            self._faiss.IDSelectorBatch(np.array(sorted(self._removed), np.int64))
        )
        return self._faiss.SearchParametersHNSW(efSearch=max(EF_SEARCH, 2 * count), sel=present)

    def _add_new_items(self, progress: ProgressCallback = no_progress) -> None:
        """Add the items of the table that are not in the index yet."""
        new = self._items.ids(self._last)
        self._register(new)
        done = 0
        for numbers, z in self._items.embeddings(self._last):
            if self._index is None:
                self._index = self._new_index(z.shape[1])
            self._index.add_with_ids(z.numpy(), np.array(numbers))
            self._last, done = numbers[-1], done + len(numbers)
            progress(done, len(new))

    def _register(self, ids: dict[int, str]) -> None:
        self._ids |= ids
        self._numbers |= {item_id: number for number, item_id in ids.items()}

    def _drop(self, ids: Iterable[str]) -> None:
        """Drop items from the index; a graph keeps them and skips them when it is searched."""
        dropped = [self._numbers.pop(item_id) for item_id in ids if item_id in self._numbers]
        for number in dropped:
            del self._ids[number]
        if self.exact and dropped:
            self._index.remove_ids(np.array(dropped))
        else:
            self._removed |= set(dropped)

    def _new_index(self, dimensions: int) -> Any:
        """An empty FAISS index whose items have the numbers of the table."""
        inner = self._distance.name == "cosine"
        metric = self._faiss.METRIC_INNER_PRODUCT if inner else self._faiss.METRIC_L2
        if self.exact:
            return self._faiss.IndexIDMap2(self._faiss.IndexFlat(dimensions, metric))
        graph = self._faiss.IndexHNSWFlat(dimensions, LINKS, metric)
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        return self._faiss.IndexIDMap2(graph)

    def _load_graph(self) -> None:
        """Load the graph on disk if it is intact, belongs to the table, and has few removed items."""
        raw = self._path.read_bytes() if self._path.is_file() else b""
        if sha256(raw).hexdigest() != self._items.metadata.get(GRAPH):
            return
        index = self._faiss.deserialize_index(np.frombuffer(raw, np.uint8))
        numbers = self._faiss.vector_to_array(index.id_map)
        ids = self._items.ids()
        removed = set(numbers.tolist()) - ids.keys()
        if len(removed) < REBUILD_SHARE * len(numbers):
            self._index, self._removed, self._last = index, removed, int(numbers.max())
            self._register({number: item_id for number, item_id in ids.items() if number <= self._last})

    def _save_graph(self) -> None:
        """Write the graph to disk if items were added since it was last written."""
        if self.exact or self._last_saved == self._last:
            return
        raw = self._faiss.serialize_index(self._index).tobytes()
        write_atomically(self._path, raw)
        self._items.metadata.put(GRAPH, sha256(raw).hexdigest())
        self._last_saved = self._last
