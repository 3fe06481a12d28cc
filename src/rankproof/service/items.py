"""The items of the gallery as they are kept: id, embedding, and the picture of those that were added."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from rankproof.service.database import Database

AT_ONCE = 1000  # embeddings read together
ADD = "INSERT INTO items (id, embedding, picture) VALUES (?, ?, ?)"
REMOVE = "DELETE FROM items WHERE id = ?"


class Items:
    """A table of items, each with a number that tells its place in the gallery.

    Args:
        database: where the table is; it is made where it is missing.
        dimensions: of an embedding.
    """

    def __init__(self, database: Database, dimensions: int) -> None:
        self.database, self.dimensions = database, dimensions
        database.run(
            f"CREATE TABLE IF NOT EXISTS items (number {database.counter}, id TEXT UNIQUE NOT NULL, "
            f"embedding {database.vector(dimensions)} NOT NULL, picture {database.binary})"
        )

    def __len__(self) -> int:
        return int(self.database.run("SELECT count(*) FROM items")[0][0])

    def add(self, ids: Sequence[str], z: Tensor, pictures: Sequence[bytes | None]) -> None:
        """Add items, or replace those of the same ids, which then stand last in the gallery.

        Args:
            ids: b different ids.
            z: (b, d) embeddings.
            pictures: PNG files; None for items of the data set.
        """
        rows = list(zip(ids, self.database.packed(z), pictures, strict=True))
        self.database.write((REMOVE, [(name,) for name in ids]), (ADD, rows))

    def remove(self, name: str) -> bool:
        """Remove an item; whether it was there."""
        return bool(self.database.run(f"{REMOVE} RETURNING number", name))

    def names(self, above: int = 0) -> dict[int, str]:
        """Number and id of every item whose number is larger, in gallery order."""
        return dict(self.database.run("SELECT number, id FROM items WHERE number > ? ORDER BY number", above))

    def page(self, offset: int, count: int) -> list[str]:
        """Ids in gallery order, from a place on."""
        rows = self.database.run("SELECT id FROM items ORDER BY number LIMIT ? OFFSET ?", count, offset)
        return [row[0] for row in rows]

    def embeddings(self, above: int = 0) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers and embeddings (b, d) of every item whose number is larger, in gallery order."""
        page = "SELECT number, embedding FROM items WHERE number > ? ORDER BY number LIMIT ?"
        while rows := self.database.run(page, above, AT_ONCE):
            numbers, packed = [row[0] for row in rows], [row[1] for row in rows]
            yield numbers, self.database.unpacked(packed)
            above = numbers[-1]

    def picture(self, name: str) -> tuple[bytes | None] | None:
        """The PNG file of an item, None in its place where it is of the data set; None for no such item."""
        rows = self.database.run("SELECT picture FROM items WHERE id = ?", name)
        return (rows[0][0],) if rows else None
