"""Why a search on a live service ends before its time; what was answered until then is kept."""

from rankproof.errors import RankproofError


class UnfinishedError(RankproofError):
    """The service was not asked all that was to be asked; the same call goes on later."""


class QuotaExhaustedError(UnfinishedError):
    """The service answers no more today."""


class CapReachedError(UnfinishedError):
    """A call beyond the cap was refused; it was not sent."""


class UnreachableError(UnfinishedError):
    """The service gave no answer however often it was asked."""


class StoppedError(UnfinishedError):
    """Another call ended the search; this one was not sent."""
