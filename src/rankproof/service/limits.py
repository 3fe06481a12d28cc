"""Limits of the service, and the quota of calls per key.

The defaults are those of the platform that was attacked in ICCV 2021.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from rankproof.errors import RankproofError
from rankproof.service.errors import RefusedError
from rankproof.service.storage import Database

MAX_VISIBLE = 50
MAX_PIXELS = 16_000_000  # of one upload, for which a decoder needs a few hundred megabytes of memory
DAY = 86_400  # seconds

# One statement checks and counts, so that the limits hold for any number of processes on one database.
COUNT_CALL = """
INSERT INTO quota AS q (caller, day, spent, second, burst) VALUES (?, ?, 1, ?, 1)
ON CONFLICT (caller) DO UPDATE SET
    spent = CASE WHEN q.day = excluded.day THEN q.spent + 1 ELSE 1 END,
    burst = CASE WHEN q.second = excluded.second THEN q.burst + 1 ELSE 1 END,
    day = excluded.day,
    second = excluded.second
WHERE (q.day <> excluded.day OR q.spent < ?) AND (q.second <> excluded.second OR q.burst < ?)
RETURNING spent
"""
REFUND = "UPDATE quota SET spent = spent - 1 WHERE caller = ? AND day = ? AND spent > 0"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The settings of the service.

    Args:
        visible: N, the number of results in an answer; 1 to 50.
        max_bytes: size of an image file.
        min_side: length of the shorter side of an image in pixels; 0 allows any.
        enlarge: whether smaller images are enlarged instead of refused.
        max_pixels: height times width of an image.
        per_day: calls per key and day (UTC).
        per_second: calls per key and second.
        upload_seconds: duration of an upload.
        window: how many seconds a batch waits for further requests at most.
        batch: size of a batch.
    """

    visible: int = MAX_VISIBLE
    max_bytes: int = 3_750_000
    min_side: int = 128
    enlarge: bool = True
    max_pixels: int = MAX_PIXELS
    per_day: int = 500
    per_second: int = 10
    upload_seconds: float = 30.0
    window: float = 0.01
    batch: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.visible <= MAX_VISIBLE:
            raise RankproofError(f"--visible must be between 1 and {MAX_VISIBLE}, got {self.visible}")
        for option in ("max_bytes", "max_pixels", "per_day", "per_second", "batch"):
            if (value := getattr(self, option)) < 1:
                raise RankproofError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
        if self.min_side < 0:
            raise RankproofError(f"--min-side must be at least 0, got {self.min_side}")
        if not 0 <= self.window <= 1:
            raise RankproofError(f"--window must be between 0 and 1 second, got {self.window}")


class Quota:
    """Counts the calls of every key per day (UTC) and per second. Refused calls are not counted.

    Args:
        database: where they are counted.
        limits: `per_day` and `per_second`.
        clock: returns the seconds since 1970.
    """

    def __init__(self, database: Database, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._database, self._limits, self._clock = database, limits, clock
        database.run(
            "CREATE TABLE IF NOT EXISTS quota (caller TEXT PRIMARY KEY, day BIGINT NOT NULL, "
            "spent BIGINT NOT NULL, second BIGINT NOT NULL, burst BIGINT NOT NULL)"
        )

    def take(self, caller: str) -> None:
        """Count one call.

        Raises:
            RefusedError: the limit per day ("quota") or per second ("rate") is reached.
        """
        now = self._clock()
        day, limits = int(now // DAY), self._limits
        if self._database.run(COUNT_CALL, caller, day, int(now), limits.per_day, limits.per_second):
            return
        if self.spent(caller) >= limits.per_day:
            wait = math.ceil((day + 1) * DAY - now)
            raise RefusedError(429, "quota", f"all {limits.per_day} calls of today (UTC) are used up", wait)
        raise RefusedError(429, "rate", f"more than {limits.per_second} calls in one second", 1)

    def refund(self, caller: str) -> None:
        """Uncount one call of today, which could not be answered."""
        self._database.run(REFUND, caller, int(self._clock() // DAY))

    def spent(self, caller: str) -> int:
        """The number of calls counted today."""
        day = int(self._clock() // DAY)
        rows = self._database.run("SELECT spent FROM quota WHERE caller = ? AND day = ?", caller, day)
        return int(rows[0][0]) if rows else 0
