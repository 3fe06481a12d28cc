"""How many steps of which size: the papers' rules."""

from dataclasses import dataclass

ROUNDING = 1e-9


@dataclass(frozen=True)
class Schedule:
    """A number of steps of one size in [0, 1]."""

    steps: int
    step: float


def eccv20(eps: float) -> Schedule:
    """alpha = min(max(eps/10, 1/255), 0.01), steps = int(min(max(10, 2 eps/alpha), 30)) (ECCV section 4)."""
    alpha = min(max(eps / 10, 1 / 255), 0.01)
    return Schedule(int(min(max(10, 2 * eps / alpha + ROUNDING), 30)), alpha)


def iccv21(eps: float) -> Schedule:
    """24 steps of 1/255 at any eps (ICCV section 4)."""
    return Schedule(24, 1 / 255)
