"""What SQLite and PostgreSQL have in common; both understand the same SQL but for the names of some types."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from rankproof.errors import RankproofError

Row = tuple[Any, ...]


class AwayError(RankproofError):
    """The database cannot be reached, or is busy for too long; the next call may succeed."""

    def __init__(self, said: object) -> None:
        super().__init__(f"the database is away ({' '.join(str(said).split())}); try again")


@runtime_checkable
class Database(Protocol):
    """Rows that survive a restart; safe to use from several threads and processes."""

    @property
    def counter(self) -> str:
        """The type of a primary key that counts by itself and never takes a number again."""
        ...

    @property
    def binary(self) -> str:
        """The type of bytes."""
        ...

    def vector(self, dimensions: int) -> str:
        """The type of an embedding of that many numbers in single precision."""
        ...

    def run(self, statement: str, *values: object) -> list[Row]:
        """The rows of one statement, which is done whole or not at all; `?` stands for a value."""
        ...

    def write(self, *changes: tuple[str, Sequence[Row]]) -> None:
        """Several statements, each once for every row of values; all are done or none."""
        ...

    def packed(self, z: Tensor) -> list[Any]:
        """Embeddings (b, d) as values of type `vector`."""
        ...

    def unpacked(self, values: Sequence[Any]) -> Tensor:
        """Values of type `vector` as embeddings (b, d)."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
