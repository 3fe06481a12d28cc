"""FAISS in the process: every item is looked at, or a graph is walked (HNSW) where there are many."""

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.files import write_atomically
from rankproof.ranking.distances import Distance
from rankproof.service.extras import extra
from rankproof.service.facts import Facts
from rankproof.service.index.base import HNSW_FROM, NONE, ROUNDING, Near, first
from rankproof.service.items import Items
from rankproof.types import Embeddings

GRAPH = "graph.faiss"
NEIGHBOURS, CARE, LOOK_AT = 32, 200, 512  # of HNSW: links of an item, candidates when adding, when searching
LOADED = 4_000_000  # values of embeddings looked at together
STALE = 0.2  # share of removed items at which a graph is made anew


class FaissIndex:
    """All embeddings in memory; what survives a restart is the table of items, and the graph beside it.

    Args:
        items: the table.
        distance: of the library; FAISS ranks by the inner product or the squared length that goes with it.
        folder: where the graph is kept.
        hnsw_from: items from which on a graph is walked; None looks at every item however many there are.
        progress: called with items read and items in all.
    """

    def __init__(
        self,
        items: Items,
        distance: Distance,
        folder: Path,
        *,
        hnsw_from: int | None = HNSW_FROM,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._faiss: Any = extra("faiss", "service")
        self._items, self._distance, self._path = items, distance, folder / GRAPH
        self._lock, self._facts = Lock(), Facts(items.database)
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._removed: set[int] = set()  # numbers that are still in the graph
        self._last = 0  # the largest number in the index
        self._index: Any = None
        self.exact = hnsw_from is None or len(items) < hnsw_from
        if not self.exact:
            self._read_graph()
        self._kept = self._last
        self._catch_up(progress)
        self._keep_graph()

    def __len__(self) -> int:
        return len(self._names)

    def search(self, z: Embeddings, count: int) -> list[list[str]]:
        """The ids of the nearest items of each embedding, nearest first."""
        z = z.float().cpu()
        with self._lock:
            if not len(self):
                return [[] for _ in z]
            count, wanted = min(count, len(self)), 2 * count
            found: dict[int, list[int]] = {}
            while todo := [row for row in range(len(z)) if row not in found]:
                wanted = min(wanted, len(self))
                for rows in torch.tensor(todo).split(max(1, LOADED // (wanted * z.shape[1]))):
                    lists = first(self._near(z[rows], wanted), z[rows], self._distance, count)
                    told = zip(rows.tolist(), lists, strict=True)
                    found |= {row: numbers for row, numbers in told if numbers is not None}
                wanted *= 4
            return [[self._names[number] for number in found[row]] for row in range(len(z))]

    def add(self, ids: Sequence[str], z: Embeddings, pictures: Sequence[bytes | None]) -> None:
        """Add items, or replace those of the same ids."""
        with self._lock:
            self._items.add(ids, z, pictures)
            self._forget(ids)
            self._catch_up()

    def remove(self, name: str) -> bool:
        """Remove an item; whether it was there."""
        with self._lock:
            there = self._items.remove(name)
            self._forget([name])
            return there

    def close(self) -> None:
        """Keep the graph as it is now."""
        with self._lock:
            self._keep_graph()

    def _near(self, z: Embeddings, wanted: int) -> Near:
        """The nearest `wanted` items of each embedding in single precision, and how far they reach."""
        # FAISS's own helper for tensors, which other libraries import, replaces `search` by one that knows
        # no parameters and keeps the true one under this name.
        search = getattr(self._index, "search_numpy", self._index.search)
        options = {} if self.exact else {"params": self._walk(wanted)}
        keys, numbers = search(z.numpy(), wanted, **options)
        some = np.where(numbers == NONE, self._last, numbers)  # only a graph finds too few, and it keeps all
        embeddings = self._index.reconstruct_batch(some.ravel()).reshape(*some.shape, -1)
        whole = wanted == len(self) or not self.exact  # a graph never knows what it has not seen
        reach = torch.full((len(z),), math.inf) if whole else self._reach(z, torch.from_numpy(keys[:, -1]))
        return Near(torch.from_numpy(numbers), torch.from_numpy(embeddings), reach)

    def _reach(self, z: Embeddings, keys: Tensor) -> Tensor:
        """The distances up to which nothing is missed if the last items have these keys in single precision.

        A key is a sum of as many products as there are dimensions, each of which may be rounded.
        """
        error, keys = ROUNDING * z.shape[1], keys.double()
        if self._distance.name == "cosine":
            return 1 - keys - error
        lengths: Tensor = torch.linalg.vector_norm(z.double(), dim=1)
        keys = keys.clamp(min=0)
        return (keys - error * (2 * lengths + keys.sqrt()).square()).clamp(min=0).sqrt()

    def _walk(self, wanted: int) -> Any:
        """How the graph is walked: past items that were removed."""
        gone = self._faiss.IDSelectorNot(
            self._faiss.IDSelectorBatch(np.array(sorted(self._removed), np.int64))
        )
        return self._faiss.SearchParametersHNSW(efSearch=max(LOOK_AT, 2 * wanted), sel=gone)

    def _catch_up(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Take in the items of the table that are not in the index yet."""
        fresh = self._items.names(self._last)
        self._know(fresh)
        done = 0
        for numbers, z in self._items.embeddings(self._last):
            if self._index is None:
                self._index = self._new(z.shape[1])
            self._index.add_with_ids(z.numpy(), np.array(numbers))
            self._last, done = numbers[-1], done + len(numbers)
            progress(done, len(fresh))

    def _know(self, names: dict[int, str]) -> None:
        self._names |= names
        self._numbers |= {name: number for number, name in names.items()}

    def _forget(self, names: Iterable[str]) -> None:
        """Drop items from the index; a graph keeps them and walks past."""
        gone = [self._numbers.pop(name) for name in names if name in self._numbers]
        for number in gone:
            del self._names[number]
        if self.exact and gone:
            self._index.remove_ids(np.array(gone))
        else:
            self._removed |= set(gone)

    def _new(self, dimensions: int) -> Any:
        """An empty index that knows items by their numbers."""
        inner = self._distance.name == "cosine"
        metric = self._faiss.METRIC_INNER_PRODUCT if inner else self._faiss.METRIC_L2
        if self.exact:
            return self._faiss.IndexIDMap2(self._faiss.IndexFlat(dimensions, metric))
        graph = self._faiss.IndexHNSWFlat(dimensions, NEIGHBOURS, metric)
        graph.hnsw.efConstruction = CARE
        return self._faiss.IndexIDMap2(graph)

    def _read_graph(self) -> None:
        """Take the graph that is kept, if it is the one that belongs to the table and not too stale."""
        raw = self._path.read_bytes() if self._path.is_file() else b""
        if sha256(raw).hexdigest() != self._facts.get(GRAPH):
            return
        index = self._faiss.deserialize_index(np.frombuffer(raw, np.uint8))
        inside = self._faiss.vector_to_array(index.id_map)
        known = self._items.names()
        removed = set(inside.tolist()) - known.keys()
        if len(removed) < STALE * len(inside):
            self._index, self._removed, self._last = index, removed, int(inside.max())
            self._know({number: name for number, name in known.items() if number <= self._last})

    def _keep_graph(self) -> None:
        """Write the graph if it has grown since it was last written."""
        if self.exact or self._kept == self._last:
            return
        raw = self._faiss.serialize_index(self._index).tobytes()
        write_atomically(self._path, raw)
        self._facts.put(GRAPH, sha256(raw).hexdigest())
        self._kept = self._last
