"""Attacks on a running search service: images are sent over HTTP, and lists of ids come back."""

from rankproof.wire.adapter import RANKPROOF_SERVICE, Adapter
from rankproof.wire.client import Client
from rankproof.wire.destination import Destination, check_destination
from rankproof.wire.errors import CapReachedError, QuotaExhaustedError, UnfinishedError, UnreachableError
from rankproof.wire.http_oracle import HttpOracle
from rankproof.wire.rate_limit import RateLimit
from rankproof.wire.response_cache import ResponseCache

__all__ = [
    "RANKPROOF_SERVICE",
    "Adapter",
    "CapReachedError",
    "Client",
    "Destination",
    "HttpOracle",
    "QuotaExhaustedError",
    "RateLimit",
    "ResponseCache",
    "UnfinishedError",
    "UnreachableError",
    "check_destination",
]
