"""rankproof: find out how far a stranger can move the results of a search-by-image system."""

from rankproof.attack import attack
from rankproof.data import load
from rankproof.errors import RankproofError
from rankproof.goals import (
    CandidateLower,
    CandidateRaise,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
)
from rankproof.methods import PGD
from rankproof.models import load_checkpoint
from rankproof.ranking import Gallery, Ranker
from rankproof.result import AttackResult
from rankproof.threat import Threat

__all__ = [
    "PGD",
    "AttackResult",
    "CandidateLower",
    "CandidateRaise",
    "Gallery",
    "MaxShift",
    "Preserve",
    "QueryLower",
    "QueryRaise",
    "Ranker",
    "RankproofError",
    "Reorder",
    "Threat",
    "attack",
    "load",
    "load_checkpoint",
]
