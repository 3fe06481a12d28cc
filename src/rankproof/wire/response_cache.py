"""Answers of a service on disk, written before they are used, so that no image is sent twice."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from rankproof.errors import RankproofError
from rankproof.wire.errors import CapReachedError

TABLES = """
CREATE TABLE IF NOT EXISTS service (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (digest TEXT PRIMARY KEY, ids TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (day TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""


def today() -> str:
    """Today's date in UTC, by which daily quotas are counted."""
    return datetime.now(UTC).date().isoformat()


class ResponseCache:
    """The answers of one service by the hash of the exact bytes sent, and the number of calls made to it.

    An answer is on disk before it is used, and a call is counted before it is sent: a process that dies at
    any moment loses no answer and forgets no call. One process at a time holds the file.

    Args:
        path: the SQLite file; None keeps everything in memory.
        service: identifies the service and how it is called; a file of another service is refused.
        cap: largest number of calls ever recorded here, retries included; None is unlimited.
        day: returns today's date.
    """

    def __init__(
        self, path: Path | None, service: str, cap: int | None = None, day: Callable[[], str] = today
    ) -> None:
        self.path, self.cap, self.day = path, cap, day
        self._lock = Lock()
        self.numbers: dict[Hashable, int] = {}  # id -> number, in the order in which ids were first seen
        self._answers: dict[str, list[str]] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path or ":memory:", timeout=0, check_same_thread=False)
        try:
            self._open(service)
        except sqlite3.DatabaseError as error:
            self._database.close()
            busy = "locked" in str(error)
            cause = "is in use by another attack; wait" if busy else f"cannot be read ({error}); delete it"
            raise RankproofError(f"{path}: {cause}, or choose another --journal") from None
        except RankproofError:
            self._database.close()
            raise

    def __contains__(self, sent: bytes) -> bool:
        return _digest(sent) in self._answers

    def __getitem__(self, sent: bytes) -> list[str]:
        """The ids that were answered to these bytes, nearest first."""
        return self._answers[_digest(sent)]

    def count_call(self) -> None:
        """Count a call that is about to be sent.

        Raises:
            CapReachedError: the call would exceed the cap; it is not counted.
        """
        with self._lock, self._database:
            if self.cap is not None and self._calls() >= self.cap:
                raise CapReachedError(f"the cap of {self.cap} calls is reached; --cap allows more")
            self._database.execute(
                "INSERT INTO calls VALUES (?, 1) ON CONFLICT (day) DO UPDATE SET count = count + 1",
                (self.day(),),
            )

    def store(self, sent: bytes, ids: list[str]) -> None:
        """Write an answer to disk."""
        with self._lock, self._database:
            row = (_digest(sent), json.dumps(ids))
            self._database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", row)
            self._add(*row)

    @property
    def calls(self) -> int:
        """Calls recorded so far."""
        with self._lock:
            return self._calls()

    @property
    def calls_today(self) -> int:
        """Calls recorded today."""
        with self._lock:
            return self._calls("WHERE day = ?", self.day())

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._database.close()

    def _open(self, service: str) -> None:
        """Lock the file, create its tables and read the answers in it."""
        for line in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._database.execute(f"PRAGMA {line}")
        self._database.executescript(TABLES)
        with self._database:
            recorded = self._database.execute("SELECT name FROM service").fetchone()
            if recorded is None:
                self._database.execute("INSERT INTO service VALUES (?)", (service,))
            elif recorded[0] != service:
                raise RankproofError(
                    f"{self.path}: holds answers of another service; choose another --journal"
                )
        for digest, ids in self._database.execute("SELECT digest, ids FROM answers ORDER BY rowid"):
            self._add(digest, ids)

    def _add(self, digest: str, ids: str) -> None:
        self._answers[digest] = json.loads(ids)
        for name in self._answers[digest]:
            self.numbers.setdefault(name, len(self.numbers))

    def _calls(self, where: str = "", *values: str) -> int:
        (count,) = self._database.execute(f"SELECT total(count) FROM calls {where}", values).fetchone()
        return int(count)


def _digest(sent: bytes) -> str:
    return hashlib.sha256(sent).hexdigest()
