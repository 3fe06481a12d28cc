"""The papers' names of goals and knobs, for people and files."""

from rankproof.goals.base import Goal, Sum
from rankproof.goals.candidate import CandidateLower, CandidateRaise
from rankproof.goals.order import Reorder
from rankproof.goals.query import Preserve, QueryLower, QueryRaise
from rankproof.goals.retrieval import LeaveTop, Mismatch, Misrank, NearestOther
from rankproof.goals.shift import MaxShift

NAMES: dict[type[Goal], str] = {
    CandidateRaise: "ca+",
    CandidateLower: "ca-",
    QueryRaise: "qa+",
    QueryLower: "qa-",
    Preserve: "sp",
    Reorder: "oa",
    MaxShift: "shift",
    Mismatch: "mismatch",
    Misrank: "misrank",
    NearestOther: "nearest-other",
    LeaveTop: "top4",
}


def goal_name(goal: Goal | Sum) -> str:
    """The papers' abbreviation, such as "ca+" or "sp-qa-"; distance-based forms end in "-distance"."""
    terms = goal.terms if isinstance(goal, Sum) else ((1.0, goal),)
    parts = [NAMES.get(type(term), type(term).__name__) for _, term in terms]
    name = "sp-" + parts[0] if parts[1:] == ["sp"] else "+".join(parts)
    distance = any(getattr(term, "form", "inequality") == "distance" for _, term in terms)
    return f"{name}-distance" if distance else name


def goal_knobs(goal: Goal | Sum) -> dict[str, int | float | None]:
    """The papers' letters with their values: w, m, k, g, xi; None where a letter does not apply."""
    knobs: dict[str, int | float | None] = dict.fromkeys(("w", "m", "k", "g", "xi"))
    for weight, term in goal.terms if isinstance(goal, Sum) else ((1.0, goal),):
        for letter in knobs:
            if hasattr(term, letter):
                knobs[letter] = getattr(term, letter)
        if isinstance(term, Preserve):
            knobs["xi"] = weight
    return knobs
