"""SQLite: a single file, used with the FAISS index."""

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
from rankproof.service.errors import DatabaseUnavailableError
from rankproof.service.storage.base import Row

LOCK_TIMEOUT = 10.0  # seconds to wait for another process that writes


class Sqlite:
    """A database in one file, which several processes may open.

    Args:
        path: the file; it is created if missing.
    """

    counter = "INTEGER PRIMARY KEY AUTOINCREMENT"
    binary = "BLOB"

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
        except (OSError, sqlite3.Error) as error:
            raise RankproofError(f"{path}: cannot be used ({error}); choose another folder") from None

    def vector(self, dimensions: int) -> str:
        """The type of an embedding, which is stored as bytes."""
        return self.binary

    def run(self, statement: str, *values: object) -> list[Row]:
        """Execute one statement and return its rows."""
        with self._locked():
            return self._connection.execute(statement, values).fetchall()

    def write(self, *changes: tuple[str, Sequence[Row]]) -> None:
        """Execute several statements in one transaction."""
        with self._locked():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, rows in changes:
                    self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    def encode_vectors(self, z: Tensor) -> list[Any]:
        """The single-precision bytes of each embedding."""
        return [row.tobytes() for row in z.float().cpu().numpy()]

    def decode_vectors(self, values: Sequence[Any]) -> Tensor:
        """Embeddings (b, d) from their bytes."""
        flat = np.frombuffer(b"".join(values), np.float32)
        return torch.from_numpy(flat.reshape(len(values), -1).copy())

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one thread at a time use the connection."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise DatabaseUnavailableError(error) from None
