"""Every answer a service gave, on disk before it is used: nothing is asked twice."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from rankproof.errors import RankproofError
from rankproof.wire.stops import CapReachedError

TABLES = """
CREATE TABLE IF NOT EXISTS service (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (digest TEXT PRIMARY KEY, ids TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (day TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""


def today() -> str:
    """The day by which services count, in UTC."""
    return datetime.now(UTC).date().isoformat()


class Ledger:
    """The answers of one service by the hash of the exact bytes sent, and how often it was called.

    An answer is on the disk before it is used, and a call is counted before it is sent: a process that dies
    at any moment loses no answer and forgets no call. One process at a time holds the file.

    Args:
        path: the file, or None to keep nothing after this process.
        service: what was asked and how; a file of another service is refused.
        cap: most calls ever recorded here; a retry is a call too. None is no limit.
        day: today's date.
    """

    def __init__(
        self, path: Path | None, service: str, cap: int | None = None, day: Callable[[], str] = today
    ) -> None:
        self.path, self.cap, self.day = path, cap, day
        self._lock = Lock()
        self.numbers: dict[Hashable, int] = {}  # ids in the order in which they were first seen
        self._answers: dict[str, list[str]] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path or ":memory:", timeout=0, check_same_thread=False)
        try:
            self._open(service)
        except sqlite3.DatabaseError as error:
            self._file.close()
            busy = "locked" in str(error)
            cause = "is in use by another attack; wait" if busy else f"cannot be read ({error}); delete it"
            raise RankproofError(f"{path}: {cause}, or choose another --journal") from None
        except RankproofError:
            self._file.close()
            raise

    def __contains__(self, sent: bytes) -> bool:
        return _digest(sent) in self._answers

    def __getitem__(self, sent: bytes) -> list[str]:
        """The ids that were answered to these bytes."""
        return self._answers[_digest(sent)]

    def call(self) -> None:
        """Count a call that is about to be sent.

        Raises:
            CapReachedError: it would be one too many.
        """
        with self._lock, self._file:
            if self.cap is not None and self._count() >= self.cap:
                raise CapReachedError(f"the cap of {self.cap} calls is reached; --cap allows more")
            self._file.execute(
                "INSERT INTO calls VALUES (?, 1) ON CONFLICT (day) DO UPDATE SET count = count + 1",
                (self.day(),),
            )

    def keep(self, sent: bytes, ids: list[str]) -> None:
        """Write an answer down."""
        with self._lock, self._file:
            row = (_digest(sent), json.dumps(ids))
            self._file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", row)
            self._remember(*row)

    @property
    def calls(self) -> int:
        """Calls recorded here so far."""
        with self._lock:
            return self._count()

    @property
    def calls_today(self) -> int:
        """Calls recorded here today."""
        with self._lock:
            return self._count("WHERE day = ?", self.day())

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):
            self._file.close()

    def _open(self, service: str) -> None:
        """Take hold of the file and read what is there."""
        for line in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._file.execute(f"PRAGMA {line}")
        self._file.executescript(TABLES)
        with self._file:
            known = self._file.execute("SELECT name FROM service").fetchone()
            if known is None:
                self._file.execute("INSERT INTO service VALUES (?)", (service,))
            elif known[0] != service:
                raise RankproofError(
                    f"{self.path}: holds answers of another service; choose another --journal"
                )
        for digest, ids in self._file.execute("SELECT digest, ids FROM answers ORDER BY rowid"):
            self._remember(digest, ids)

    def _remember(self, digest: str, ids: str) -> None:
        self._answers[digest] = json.loads(ids)
        for name in self._answers[digest]:
            self.numbers.setdefault(name, len(self.numbers))

    def _count(self, where: str = "", *values: str) -> int:
        (count,) = self._file.execute(f"SELECT total(count) FROM calls {where}", values).fetchone()
        return int(count)


def _digest(sent: bytes) -> str:
    return hashlib.sha256(sent).hexdigest()
