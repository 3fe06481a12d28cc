"""Goals: what an attacker wants of a ranking."""

from rankproof.goals.base import AttackContext, BoundGoal, Goal, GoalSpec
from rankproof.goals.candidate import CandidateLower, CandidateRaise
from rankproof.goals.order import Reorder
from rankproof.goals.query import Preserve, QueryLower, QueryRaise, QuerySum
from rankproof.goals.retrieval import LeaveTop, Mismatch, Misrank, NearestOther
from rankproof.goals.shift import MaxShift
from rankproof.goals.wrong_first import WrongFirst

__all__ = [
    "AttackContext",
    "BoundGoal",
    "CandidateLower",
    "CandidateRaise",
    "Goal",
    "GoalSpec",
    "LeaveTop",
    "MaxShift",
    "Mismatch",
    "Misrank",
    "NearestOther",
    "Preserve",
    "QueryLower",
    "QueryRaise",
    "QuerySum",
    "Reorder",
    "WrongFirst",
]
