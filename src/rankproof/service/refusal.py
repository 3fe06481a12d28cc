"""Why a request is not answered, as its caller is told."""

REASONS = (
    *("request", "key", "admin", "item", "slow", "size", "kind", "picture"),
    *("quota", "rate", "database"),
)


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: the HTTP status, 4xx, or 503 while something is away.
        reason: one of `REASONS`, for programs.
        detail: one sentence, for people.
        retry_after: seconds after which the same request can succeed, where that is known.
    """

    def __init__(self, status: int, reason: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.retry_after = status, reason, detail, retry_after
