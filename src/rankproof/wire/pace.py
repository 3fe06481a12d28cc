"""How fast a service is asked, and how long to wait when it cannot answer."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event, Lock

from rankproof.errors import RankproofError
from rankproof.wire.stops import StoppedError

CONCURRENCY = 4  # calls under way at once
SLOWER = 0.25  # seconds between turns after the first refusal for coming too fast; doubled by each later one

Sleep = Callable[[float], object]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a service is asked.

    Args:
        concurrency: calls under way at once.
        per_second: calls begun in a second, or None for no limit of ours.
        timeout: seconds until a call without an answer is given up.
        tries: calls for one picture before the search stops.
        first_wait, longest_wait: seconds; the wait doubles with each try, and half of it is left to chance.
    """

    concurrency: int = CONCURRENCY
    per_second: float | None = None
    timeout: float = 30.0
    tries: int = 12
    first_wait: float = 0.5
    longest_wait: float = 60.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "tries"):
            if getattr(self, name) < 1:
                raise RankproofError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.per_second is not None and not 0 < self.per_second < float("inf"):
            raise RankproofError(f"calls per second must be above 0, got {self.per_second}")

    def wait(self, tries: int, chance: random.Random) -> float:
        """Seconds to wait after so many tries that failed."""
        whole = min(self.first_wait * 2.0 ** (tries - 1), self.longest_wait)
        return whole * (0.5 + chance.random() / 2)


class Turns:
    """Who may call when: threads take turns at the agreed rate, and all pause when the service says so.

    Args:
        per_second: turns in a second, or None.
        clock: seconds, going forward.
    """

    def __init__(self, per_second: float | None, clock: Clock = time.monotonic) -> None:
        self.gap = 0.0 if per_second is None else 1 / per_second
        self.clock, self._lock = clock, Lock()
        self._next = self._paused_until = -float("inf")

    def take(self) -> float:
        """Take the next turn; returns the seconds until it comes."""
        with self._lock:
            now = self.clock()
            turn = max(now, self._next)
            self._next = turn + self.gap
            return turn - now

    def pause(self, seconds: float) -> None:
        """No turn for so many seconds."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock() + seconds)
            self._next = max(self._next, self._paused_until)

    def slow(self) -> None:
        """Fewer turns from now on; calls that were under way when a pause began tell nothing new."""
        with self._lock:
            if self.clock() >= self._paused_until:
                self.gap = max(2 * self.gap, SLOWER)


def rest(seconds: float, sleep: Sleep | None, stop: Event) -> None:
    """Sleep, unless the search ends meanwhile.

    Raises:
        StoppedError: it did.
    """
    if seconds > 0:
        (sleep or stop.wait)(seconds)
    if stop.is_set():
        raise StoppedError("the search was stopped")


def seconds_told(header: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """The seconds in a Retry-After header, which may hold a date; None where it tells none."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now()).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
