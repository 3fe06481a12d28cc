"""What an attacker wants."""

from rankproof.goals.base import Bound, Goal, Scene, Sum
from rankproof.goals.candidate import CandidateLower, CandidateRaise
from rankproof.goals.order import Reorder
from rankproof.goals.query import Preserve, QueryLower, QueryRaise
from rankproof.goals.retrieval import LeaveTop, Mismatch, Misrank, NearestOther
from rankproof.goals.shift import MaxShift

__all__ = [
    "Bound",
    "CandidateLower",
    "CandidateRaise",
    "Goal",
    "LeaveTop",
    "MaxShift",
    "Mismatch",
    "Misrank",
    "NearestOther",
    "Preserve",
    "QueryLower",
    "QueryRaise",
    "Reorder",
    "Scene",
    "Sum",
]
