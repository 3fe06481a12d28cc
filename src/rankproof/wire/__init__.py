"""Attacking a search service that is already running: pictures go out, lists of ids come back."""

from rankproof.wire.adapter import OWN, Adapter
from rankproof.wire.client import Client
from rankproof.wire.guard import Destination, allowed
from rankproof.wire.http_oracle import HttpOracle
from rankproof.wire.ledger import Ledger
from rankproof.wire.pace import Pace
from rankproof.wire.stops import CapReachedError, QuotaExhaustedError, UnfinishedError, UnreachableError

__all__ = [
    "OWN",
    "Adapter",
    "CapReachedError",
    "Client",
    "Destination",
    "HttpOracle",
    "Ledger",
    "Pace",
    "QuotaExhaustedError",
    "UnfinishedError",
    "UnreachableError",
    "allowed",
]
