"""Request rate and retry policy of a client."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event, Lock

from rankproof.parameters import Checked, Count, Positive, Weight
from rankproof.wire.errors import StoppedError

CONCURRENCY = 4  # calls in flight
FIRST_GAP = 0.25  # seconds between calls after the first 429; doubled by each later one

Sleep = Callable[[float], object]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class RateLimit(Checked):
    """Request rate, timeout and retries of a client.

    Args:
        concurrency: largest number of calls in flight.
        per_second: calls started per second; None is unlimited.
        timeout: seconds after which a call without an answer fails.
        tries: calls for one image before the search stops.
        first_wait, longest_wait: bounds of the exponential backoff, in seconds; half of each wait is jitter.
    """

    concurrency: Count = CONCURRENCY
    per_second: Positive | None = None
    timeout: Positive = 30.0
    tries: Count = 12
    first_wait: Weight = 0.5
    longest_wait: Weight = 60.0

    def backoff(self, tries: int, rng: random.Random) -> float:
        """Seconds to wait after a number of failed tries."""
        whole = min(self.first_wait * 2.0 ** (tries - 1), self.longest_wait)
        return whole * (0.5 + rng.random() / 2)


class Throttle:
    """Spaces out the calls of several threads, and pauses all of them when the service asks for it.

    Args:
        per_second: calls started per second; None is unlimited.
        clock: monotonic time in seconds.
    """

    def __init__(self, per_second: float | None, clock: Clock = time.monotonic) -> None:
        self.gap = 0.0 if per_second is None else 1 / per_second
        self.clock, self._lock = clock, Lock()
        self._next = self._paused_until = -float("inf")

    def take(self) -> float:
        """Reserve the next call; returns the seconds until it may start."""
        with self._lock:
            now = self.clock()
            start = max(now, self._next)
            self._next = start + self.gap
            return start - now

    def pause(self, seconds: float) -> None:
        """Start no call for a number of seconds."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock() + seconds)
            self._next = max(self._next, self._paused_until)

    def slow(self) -> None:
        """Lower the rate, once for all calls that were in flight when a pause began."""
        with self._lock:
            if self.clock() >= self._paused_until:
                self.gap = max(2 * self.gap, FIRST_GAP)


def sleep_unless_stopped(seconds: float, sleep: Sleep | None, stop: Event) -> None:
    """Sleep, unless the search ends in the meantime.

    Raises:
        StoppedError: the search ended.
    """
    if seconds > 0:
        (sleep or stop.wait)(seconds)
    if stop.is_set():
        raise StoppedError("the search was stopped")


def retry_after_seconds(
    header: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> float | None:
    """The seconds of a Retry-After header, which may be a date; None if there are none."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now()).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
