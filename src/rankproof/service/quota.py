"""How often a key may call: so many times on a day (UTC) and in a second.

One statement looks and counts, so the limits hold whatever number of processes share the database. A call
that is refused is not counted.
"""

import math
import time
from collections.abc import Callable

from rankproof.service.database import Database
from rankproof.service.limits import Limits
from rankproof.service.refusal import RefusedError

DAY = 86_400  # seconds

TAKE = """
INSERT INTO quota AS q (caller, day, spent, second, burst) VALUES (?, ?, 1, ?, 1)
ON CONFLICT (caller) DO UPDATE SET
    spent = CASE WHEN q.day = excluded.day THEN q.spent + 1 ELSE 1 END,
    burst = CASE WHEN q.second = excluded.second THEN q.burst + 1 ELSE 1 END,
    day = excluded.day,
    second = excluded.second
WHERE (q.day <> excluded.day OR q.spent < ?) AND (q.second <> excluded.second OR q.burst < ?)
RETURNING spent
"""
GIVE_BACK = "UPDATE quota SET spent = spent - 1 WHERE caller = ? AND day = ? AND spent > 0"


class Quota:
    """The calls of every key.

    Args:
        database: where they are counted.
        limits: how many are allowed.
        clock: seconds since 1970.
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
            RefusedError: the day's calls are spent ("quota") or the second's ("rate"); not counted.
        """
        now = self._clock()
        day, limits = int(now // DAY), self._limits
        if self._database.run(TAKE, caller, day, int(now), limits.per_day, limits.per_second):
            return
        if self.spent(caller) >= limits.per_day:
            wait = math.ceil((day + 1) * DAY - now)
            raise RefusedError(429, "quota", f"all {limits.per_day} calls of today (UTC) are spent", wait)
        raise RefusedError(429, "rate", f"more than {limits.per_second} calls in a second", 1)

    def give_back(self, caller: str) -> None:
        """Take one call off again, which could not be answered."""
        self._database.run(GIVE_BACK, caller, int(self._clock() // DAY))

    def spent(self, caller: str) -> int:
        """The calls counted today."""
        day = int(self._clock() // DAY)
        rows = self._database.run("SELECT spent FROM quota WHERE caller = ? AND day = ?", caller, day)
        return int(rows[0][0]) if rows else 0
