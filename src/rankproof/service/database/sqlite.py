"""A file beside the FAISS index."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.service.database.base import AwayError, Row

BUSY = 10.0  # seconds to wait for another process that writes


class Sqlite:
    """A database in one file, which several processes may open.

    Args:
        path: the file; it is made where it is missing.
    """

    counter = "INTEGER PRIMARY KEY AUTOINCREMENT"
    binary = "BLOB"

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
        except (OSError, sqlite3.Error) as error:
            raise RankproofError(f"{path}: cannot be used ({error}); choose another folder") from None

    def vector(self, dimensions: int) -> str:
        """Bytes of single-precision numbers."""
        return self.binary

    def run(self, statement: str, *values: object) -> list[Row]:
        """The rows of one statement."""
        with self._held():
            return self._connection.execute(statement, values).fetchall()

    def write(self, *changes: tuple[str, Sequence[Row]]) -> None:
        """Several statements in one transaction."""
        with self._held():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, rows in changes:
                    self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    def packed(self, z: Tensor) -> list[Any]:
        """The bytes of each row."""
        return [row.tobytes() for row in z.float().cpu().numpy()]

    def unpacked(self, values: Sequence[Any]) -> Tensor:
        """Each row from its bytes."""
        flat = np.frombuffer(b"".join(values), np.float32)
        return torch.from_numpy(flat.reshape(len(values), -1).copy())

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The connection for one thread at a time; a file that is locked for too long is away."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise AwayError(error) from None
