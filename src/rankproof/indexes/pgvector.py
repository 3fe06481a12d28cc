"""pgvector in PostgreSQL: the item table is the index; a full scan, or an HNSW graph where there are many."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.indexes.base import HNSW_FROM, ROUNDING, Candidates, Index, ItemTable, rerank
from rankproof.ranking.distances import Distance
from rankproof.types import Embeddings, ProgressCallback, no_progress

GRAPH = "items_graph"
# HNSW: links per item, candidates when adding, when searching. pgvector doubles the links of the lowest
# layer, so this graph is as dense as that of FAISS.
LINKS, EF_CONSTRUCTION, EF_SEARCH = 16, 128, 400
MAX_DIMENSIONS = 2000  # of vectors that pgvector can index
BUILD_MEMORY = "512MB"
POLL = 0.3  # seconds between two progress queries
PROGRESS = "SELECT tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE tuples_total > 0"


class PgvectorIndex(Index):
    """An index that holds nothing in memory: every search is a query to the database.

    Args:
        items: the table.
        connect: gives the calling thread a psycopg connection to the database of the table.
        distance: the ranker's distance. pgvector searches by the inner product or the L2 distance that ranks
            alike.
        hnsw_from: number of items from which on an HNSW graph is used; None always scans all items.
        progress: called with (items in the graph, items in all) while the graph is built.
    """

    def __init__(
        self,
        items: ItemTable,
        connect: Callable[[], AbstractContextManager[Any]],
        distance: Distance,
        *,
        hnsw_from: int | None = HNSW_FROM,
        progress: ProgressCallback = no_progress,
    ) -> None:
        super().__init__(items)
        self._connect, self._distance = connect, distance
        self._operator, self._operator_class = (
            ("<#>", "vector_ip_ops") if distance.name == "cosine" else ("<->", "vector_l2_ops")
        )
        few = hnsw_from is None or len(items) < hnsw_from
        self.exact = few or items.dimensions > MAX_DIMENSIONS
        if not self.exact:
            self._build_graph(progress)

    def search(self, z: Embeddings, count: int) -> list[list[str]]:
        """The ids of the `count` nearest items of each query embedding (b, d), nearest first."""
        setting = "enable_indexscan = off" if self.exact else f"hnsw.ef_search = {EF_SEARCH}"
        with self._connect() as connection, connection.transaction():
            connection.execute(f"SET LOCAL {setting}")
            return [self._search_one(connection, row, count) for row in z.float().cpu()]

    def _search_one(self, connection: Any, z: Tensor, count: int) -> list[str]:
        """The ids of the nearest items of one query embedding (d,)."""
        retrieved = 2 * count
        while True:
            candidates, ids = self._retrieve(connection, z, retrieved)
            (numbers,) = rerank(candidates, z[None], self._distance, count)
            if numbers is not None:
                return [ids[number] for number in numbers]
            retrieved *= 4

    def _retrieve(self, connection: Any, z: Tensor, count: int) -> tuple[Candidates, dict[int, str]]:
        """The `count` nearest items of one query in single precision, and their ids by number."""
        statement = (
            f"SELECT number, id, embedding, embedding {self._operator} %(z)s FROM items "
            f"ORDER BY embedding {self._operator} %(z)s LIMIT %(count)s"
        )
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(statement, {"z": z.numpy(), "count": count}).fetchall()
        vectors = np.array([row[2].to_numpy() for row in rows], np.float32).reshape(-1, len(z))
        final = len(rows) < count or not self.exact
        limit = math.inf if final else self._limit(rows[-1][3], len(z))
        ids = {row[0]: row[1] for row in rows}
        numbers = torch.tensor([list(ids)], dtype=torch.int64)
        return Candidates(
            numbers, torch.from_numpy(vectors)[None], torch.tensor([limit], dtype=torch.float64)
        ), ids

    def _limit(self, key: float, dimensions: int) -> float:
        """The distance within which candidates are complete, given the key of the last candidate."""
        error = ROUNDING * dimensions
        return 1 + key - error if self._operator == "<#>" else key * (1 - error)

    def _build_graph(self, progress: ProgressCallback) -> None:
        """Build the graph unless it exists; an interrupted build leaves nothing behind."""
        statement = (
            f"CREATE INDEX IF NOT EXISTS {GRAPH} ON items USING hnsw (embedding {self._operator_class}) "
            f"WITH (m = {LINKS}, ef_construction = {EF_CONSTRUCTION})"
        )
        with self._connect() as connection, ThreadPoolExecutor(1) as pool:
            connection.execute(f"SET maintenance_work_mem = '{BUILD_MEMORY}'")
            work = pool.submit(connection.execute, statement)
            while wait([work], POLL).not_done:
                with self._connect() as other:
                    for done, total in other.execute(PROGRESS).fetchall():
                        progress(done, total)
            work.result()
