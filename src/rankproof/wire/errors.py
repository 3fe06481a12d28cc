"""Errors that end a search on a service early; every answer received until then stays in the cache."""

from rankproof.errors import RankproofError


class UnfinishedError(RankproofError):
    """The search ended early; the same call continues it later."""


class QuotaExhaustedError(UnfinishedError):
    """The service accepts no more calls today."""


class CapReachedError(UnfinishedError):
    """A call beyond the cap was refused; it was not sent."""


class UnreachableError(UnfinishedError):
    """The service did not answer after the allowed number of tries."""


class StoppedError(UnfinishedError):
    """The search ended because of another call; this call was not sent."""
