"""What the attacker wants: the options that say it, and the goal they stand for."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankproof.console import at_least_one, not_below_zero
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.goals import Goal, Sum

GOALS = "ca+|ca-|qa+|qa-|sp-qa+|sp-qa-|oa|shift|mismatch|misrank|nearest-other|top4"

GoalName = Annotated[str, typer.Option(metavar="GOAL", help="What the attacker wants.", show_default=False)]
W = Annotated[int | None, typer.Option("--w", metavar="N", help="Queries of ca+, ca-. Left out: 1.")]
M = Annotated[
    int | None, typer.Option("--m", metavar="N", help="Chosen candidates of qa, sp-qa. Left out: 1.")
]
K = Annotated[int | None, typer.Option("--k", metavar="N", help="Items oa reorders. Left out: 5.")]
Order = Annotated[
    str | None,
    typer.Option(
        metavar="3,1,0,2,4",
        help="Wanted order of oa, by present places from 0. Left out: drawn for each query.",
        show_default=False,
    ),
]
G = Annotated[int | None, typer.Option("--g", metavar="N", help="Items sp-qa keeps in place. Left out: 5.")]
Xi = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Weight of keeping in place or in sight. Left out: 1 for sp-qa+, 100 for sp-qa-, 10 for oa.",
    ),
]


def goal_of(
    word: str,
    *,
    w: int | None = None,
    m: int | None = None,
    k: int | None = None,
    g: int | None = None,
    xi: float | None = None,
    order: str | None = None,
) -> "Goal | Sum":
    """The goal a word stands for; None leaves a knob at its default, and one of another goal is an error."""
    from rankproof import CandidateLower, CandidateRaise, MaxShift, Preserve, QueryLower, QueryRaise, Reorder
    from rankproof.goals import LeaveTop, Mismatch, Misrank, NearestOther

    for letter, count in (("w", w), ("m", m), ("k", k), ("g", g)):
        at_least_one(letter, count)
    not_below_zero("xi", xi)
    places = order_of(order)
    given: dict[str, Any] = {"w": w, "m": m, "k": k, "g": g, "xi": xi, "order": places}
    known: list[str] = []

    def knob(letter: str, default: int | float | None) -> Any:
        known.append(letter)
        value = given.pop(letter)
        return default if value is None else value

    goal: Goal | Sum
    match word:
        case "ca+":
            goal = CandidateRaise(w=knob("w", 1))
        case "ca-":
            goal = CandidateLower(w=knob("w", 1))
        case "qa+":
            goal = QueryRaise(m=knob("m", 1))
        case "qa-":
            goal = QueryLower(m=knob("m", 1))
        case "sp-qa+":
            goal = QueryRaise(m=knob("m", 1)) + knob("xi", 1.0) * Preserve(g=knob("g", 5))
        case "sp-qa-":
            goal = QueryLower(m=knob("m", 1)) + knob("xi", 100.0) * Preserve(g=knob("g", 5))
        case "oa":
            size = 5 if places is None else len(places)
            goal = Reorder(k=knob("k", size), xi=knob("xi", 10.0), order=knob("order", None))
        case "shift":
            goal = MaxShift()
        case "mismatch":
            goal = Mismatch()
        case "misrank":
            goal = Misrank()
        case "nearest-other":
            goal = NearestOther()
        case "top4":
            goal = LeaveTop()
        case _:
            raise RankproofError(f"--goal {word!r} is unknown; known: {GOALS.replace('|', ', ')}")
    if odd := [letter for letter, value in given.items() if value is not None]:
        knobs = ", ".join(f"--{letter}" for letter in known) or "none"
        raise RankproofError(f"--{odd[0]} is no knob of goal {word}; it has: {knobs}")
    return goal


def order_of(text: str | None) -> tuple[int, ...] | None:
    """The places in "3,1,0,2,4"; None stays None."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\s*,\s*[0-9]{1,9})*", text.strip()):
        raise RankproofError(f"--order {text!r} is no order; write places from 0, such as 3,1,0,2,4")
    return tuple(int(place) for place in text.split(","))
