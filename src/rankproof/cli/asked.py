"""An attack as it is asked for, whatever it is that is attacked."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankproof.goals import Goal, Sum
    from rankproof.methods import BlackBox, Method
    from rankproof.methods.space import Space
    from rankproof.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An attack as it is asked for, whatever it is that is attacked.

    Args:
        goal, threat, method, space, seed: of `rankproof.attack`.
        visible: how many results are seen, as it was written; see `visible_of`.
        budget: Q, or None for the default of what is attacked.
        journal: where the search is kept, or None.
    """

    goal: "Goal | Sum"
    threat: "Threat"
    method: "Method | BlackBox"
    space: "Space | None"
    seed: int
    visible: str | None
    budget: int | None
    journal: Path | None
