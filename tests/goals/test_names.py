import pytest

from rankproof.goals import (
    CandidateLower,
    CandidateRaise,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
)
from rankproof.goals.registry import goal_knobs, goal_name

NOTHING = dict.fromkeys(("w", "m", "k", "g", "xi"))


@pytest.mark.parametrize(
    ("goal", "name", "knobs"),
    [
        (CandidateRaise(w=2), "ca+", {"w": 2}),
        (CandidateLower(w=5), "ca-", {"w": 5}),
        (QueryRaise(m=3), "qa+", {"m": 3}),
        (QueryLower(m=4), "qa-", {"m": 4}),
        (QueryRaise(m=3) + 1.5 * Preserve(g=6), "sp-qa+", {"m": 3, "g": 6, "xi": 1.5}),
        (QueryLower(m=3) + 2.0 * (50.0 * Preserve()), "sp-qa-", {"m": 3, "g": 5, "xi": 100.0}),
        (Reorder(k=10, xi=1000.0), "oa", {"k": 10, "xi": 1000.0}),
        (MaxShift(), "shift", {}),
        (CandidateRaise(form="distance"), "ca+-distance", {"w": 1}),
        (QueryLower(form="distance") + 1.0 * Preserve(), "sp-qa--distance", {"m": 1, "g": 5, "xi": 1.0}),
    ],
)
def test_a_goal_is_told_by_the_papers_letters(goal, name, parameters):
    assert goal_name(goal) == name
    assert goal_knobs(goal) == NOTHING | parameters
