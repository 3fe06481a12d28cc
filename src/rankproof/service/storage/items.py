"""The table of gallery items: id, embedding, and the image file of items that were added by upload."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from rankproof.service.storage.base import Database, MetadataStore

BLOCK = 1000  # embeddings read at once
ADD = "INSERT INTO items (id, embedding, picture) VALUES (?, ?, ?)"
REMOVE = "DELETE FROM items WHERE id = ?"


class Items:
    """The item table. Every item has a number; numbers increase in gallery order and are never reused.

    Args:
        database: where the table is; it is created if missing.
        dimensions: d, of an embedding.
    """

    def __init__(self, database: Database, dimensions: int) -> None:
        self.database, self.dimensions, self.metadata = database, dimensions, MetadataStore(database)
        database.run(
            f"CREATE TABLE IF NOT EXISTS items (number {database.counter}, id TEXT UNIQUE NOT NULL, "
            f"embedding {database.vector(dimensions)} NOT NULL, picture {database.binary})"
        )

    def __len__(self) -> int:
        return int(self.database.run("SELECT count(*) FROM items")[0][0])

    def add(self, ids: Sequence[str], z: Tensor, image_files: Sequence[bytes | None]) -> None:
        """Add items. An item whose id exists is replaced and moves to the end of the gallery order.

        Args:
            ids: b different ids.
            z: (b, d) embeddings.
            image_files: b PNG files; None for items of the data set.
        """
        rows = list(zip(ids, self.database.encode_vectors(z), image_files, strict=True))
        self.database.write((REMOVE, [(item_id,) for item_id in ids]), (ADD, rows))

    def remove(self, item_id: str) -> bool:
        """Remove an item; returns whether it existed."""
        return bool(self.database.run(f"{REMOVE} RETURNING number", item_id))

    def ids(self, above: int = 0) -> dict[int, str]:
        """Number and id of every item whose number exceeds `above`, in gallery order."""
        return dict(self.database.run("SELECT number, id FROM items WHERE number > ? ORDER BY number", above))

    def page(self, offset: int, count: int) -> list[str]:
        """Up to `count` ids in gallery order, from position `offset` on."""
        rows = self.database.run("SELECT id FROM items ORDER BY number LIMIT ? OFFSET ?", count, offset)
        return [row[0] for row in rows]

    def embeddings(self, above: int = 0) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers and embeddings (b, d) of every item whose number exceeds `above`, in blocks."""
        block = "SELECT number, embedding FROM items WHERE number > ? ORDER BY number LIMIT ?"
        while rows := self.database.run(block, above, BLOCK):
            numbers = [row[0] for row in rows]
            yield numbers, self.database.decode_vectors([row[1] for row in rows])
            above = numbers[-1]

    def image_file(self, item_id: str) -> tuple[bytes | None] | None:
        """(PNG file,) of an item, (None,) if its image is in the data set, None if there is no such item."""
        rows = self.database.run("SELECT picture FROM items WHERE id = ?", item_id)
        return (rows[0][0],) if rows else None
