"""pgvector in PostgreSQL: the table of items is the index; every item is looked at, or a graph is walked."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

from rankproof.ranking.distances import Distance
from rankproof.service.database.postgres import Postgres
from rankproof.service.index.base import HNSW_FROM, ROUNDING, Near, first
from rankproof.service.items import Items
from rankproof.types import Embeddings

GRAPH = "items_graph"
LINKS, CARE, LOOK_AT = 16, 128, 400  # of HNSW, as beside FAISS; pgvector has twice the links below
MOST_DIMENSIONS = 2000  # of a graph of pgvector
MEMORY = "512MB"  # for making a graph
POLL = 0.3  # seconds between two looks at how far it is
PROGRESS = "SELECT tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE tuples_total > 0"


class PostgresIndex:
    """Nothing in memory: every search asks the database.

    Args:
        items: the table.
        distance: of the library; pgvector ranks by the inner product or the length that goes with it.
        hnsw_from: items from which on a graph is walked; None looks at every item however many there are.
        progress: called with items in the graph and items in all.
    """

    def __init__(
        self,
        items: Items,
        database: Postgres,
        distance: Distance,
        *,
        hnsw_from: int | None = HNSW_FROM,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._items, self._database, self._distance = items, database, distance
        self._operator, self._family = (
            ("<#>", "vector_ip_ops") if distance.name == "cosine" else ("<->", "vector_l2_ops")
        )
        few = hnsw_from is None or len(items) < hnsw_from
        self.exact = few or items.dimensions > MOST_DIMENSIONS
        if not self.exact:
            self._make_graph(progress)

    def __len__(self) -> int:
        return len(self._items)

    def search(self, z: Embeddings, count: int) -> list[list[str]]:
        """The ids of the nearest items of each embedding, nearest first."""
        with self._database.connection() as connection, connection.transaction():
            connection.execute(self._setting())
            return [self._search_one(connection, row, count) for row in z.float().cpu()]

    def add(self, ids: Sequence[str], z: Embeddings, pictures: Sequence[bytes | None]) -> None:
        """Add items, or replace those of the same ids."""
        self._items.add(ids, z, pictures)

    def remove(self, name: str) -> bool:
        """Remove an item; whether it was there."""
        return self._items.remove(name)

    def close(self) -> None:
        """The database keeps everything at once."""

    def _setting(self) -> str:
        """Whether a search may walk the graph, and how far."""
        return "SET LOCAL enable_indexscan = off" if self.exact else f"SET LOCAL hnsw.ef_search = {LOOK_AT}"

    def _search_one(self, connection: Any, z: torch.Tensor, count: int) -> list[str]:
        """The ids of the nearest items of one embedding (d,)."""
        wanted = 2 * count
        while True:
            near, names = self._near(connection, z, wanted)
            (numbers,) = first(near, z[None], self._distance, count)
            if numbers is not None:
                return [names[number] for number in numbers]
            wanted *= 4

    def _near(self, connection: Any, z: torch.Tensor, wanted: int) -> tuple[Near, dict[int, str]]:
        """The nearest `wanted` items in single precision, how far they reach, and their ids."""
        statement = (
            f"SELECT number, id, embedding, embedding {self._operator} %(z)s FROM items "
            f"ORDER BY embedding {self._operator} %(z)s LIMIT %(wanted)s"
        )
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(statement, {"z": z.numpy(), "wanted": wanted}).fetchall()
        embeddings = self._database.unpacked([row[2] for row in rows]) if rows else z[None][:0]
        whole = len(rows) < wanted or not self.exact
        reach = math.inf if whole else self._reach(rows[-1][3], len(z))
        names = {row[0]: row[1] for row in rows}
        numbers = torch.tensor([list(names)], dtype=torch.int64)
        return Near(numbers, embeddings[None], torch.tensor([reach], dtype=torch.float64)), names

    def _reach(self, key: float, dimensions: int) -> float:
        """The distance up to which nothing is missed when the last item has this key in single precision."""
        error = ROUNDING * dimensions
        return 1 + key - error if self._operator == "<#>" else key * (1 - error)

    def _make_graph(self, progress: Callable[[int, int], None]) -> None:
        """Make the graph where it is missing; one that was stopped left nothing."""
        statement = (
            f"CREATE INDEX IF NOT EXISTS {GRAPH} ON items USING hnsw (embedding {self._family}) "
            f"WITH (m = {LINKS}, ef_construction = {CARE})"
        )
        with self._database.connection() as connection, ThreadPoolExecutor(1) as other:
            connection.execute(f"SET maintenance_work_mem = '{MEMORY}'")
            work = other.submit(connection.execute, statement)
            while wait([work], POLL).not_done:
                for done, total in self._database.run(PROGRESS):
                    progress(done, total)
            work.result()
