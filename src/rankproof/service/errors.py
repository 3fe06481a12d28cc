"""Errors that the service reports to its callers."""

from rankproof.errors import RankproofError

REASONS = (
    *("request", "key", "admin", "item", "slow", "size", "kind", "picture"),
    *("quota", "rate", "database"),
)


class RefusedError(Exception):
    """A request that the service does not answer.

    Args:
        status: the HTTP status, 4xx or 503.
        reason: one of `REASONS`, for programs.
        detail: one sentence, for people.
        retry_after: seconds after which the same request can succeed, where that is known.
    """

    def __init__(self, status: int, reason: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.retry_after = status, reason, detail, retry_after


class DatabaseUnavailableError(RankproofError):
    """The database cannot be reached, or is locked by another process; a later call may succeed."""

    def __init__(self, cause: object) -> None:
        super().__init__(f"the database is unavailable ({' '.join(str(cause).split())}); try again")
