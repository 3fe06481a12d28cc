"""An option that belongs to another kind of attack is an error."""

from typing import TYPE_CHECKING, Any

from rankproof.cli.visible import visible_of
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.goals import Goal, Sum
    from rankproof.methods import BlackBox, Method


def check_kind(goal: "Goal | Sum", how: "Method | BlackBox", given: dict[str, Any]) -> None:
    """Raise where an option belongs to the other kind of attack; `given` has None for what was left out."""
    from rankproof.goals import Reorder
    from rankproof.methods import BlackBox

    if not isinstance(how, BlackBox):
        for option in ("visible", "budget", "space", "journal", "target", "adapter"):
            if given[option] is not None:
                raise RankproofError(
                    f"--{option} is for black-box attacks and {how.name} needs gradients; "
                    f"leave it out or choose --goal oa --method auto"
                )
        return
    if not isinstance(goal, Reorder):
        words = ("target", "adapter", "method", "visible", "budget")
        cause = next(name for name in words if given[name] is not None)
        raise RankproofError(
            f"--{cause} {given[cause]} makes a black-box attack, which there is for oa only; "
            f"leave it out or choose --goal oa"
        )
    if given["steps"] is not None:
        raise RankproofError(
            "--steps counts gradients, which a black box does not give; limit it by --budget"
        )
    if given["xi"] is not None:
        raise RankproofError("--xi weighs nothing in a black box: only the order counts; leave it out")
    visible_of(given["visible"], goal.k)


def left_out(what: str, given: dict[str, Any]) -> None:
    """Raise where an option is given that is about something else."""
    for option, value in given.items():
        if value is not None:
            raise RankproofError(f"--{option} is about {what}; leave it out")
