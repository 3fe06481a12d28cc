"""The interface that SQLite and PostgreSQL share. Both take the same SQL, but for the names of some types."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Row = tuple[Any, ...]


@runtime_checkable
class Database(Protocol):
    """A database that several threads and processes may use at once."""

    @property
    def counter(self) -> str:
        """The type of an auto-incremented primary key that never reuses a number."""
        ...

    @property
    def binary(self) -> str:
        """The type of a byte string."""
        ...

    def vector(self, dimensions: int) -> str:
        """The type of a single-precision embedding."""
        ...

    def run(self, statement: str, *values: object) -> list[Row]:
        """Execute one statement atomically and return its rows; `?` marks a value."""
        ...

    def write(self, *changes: tuple[str, Sequence[Row]]) -> None:
        """Execute several statements in one transaction, each once for every row of values."""
        ...

    def encode_vectors(self, z: Tensor) -> list[Any]:
        """Embeddings (b, d) as values of type `vector`."""
        ...

    def decode_vectors(self, values: Sequence[Any]) -> Tensor:
        """Values of type `vector` as embeddings (b, d)."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class MetadataStore:
    """Named text values of a database, such as the fingerprint of the model that its items were embedded by.

    Args:
        database: where they are stored.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.run("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def get(self, name: str) -> str | None:
        """The value, or None if it was never set."""
        rows = self._database.run("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def put(self, name: str, value: str) -> None:
        """Set a value."""
        self._database.run(
            "INSERT INTO facts (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            name,
            value,
        )
