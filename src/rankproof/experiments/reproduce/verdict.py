"""Whether a measured figure agrees with the printed one."""

from dataclasses import dataclass
from typing import Any, Literal

from rankproof.experiments.reproduce.blocks import DISTANCE
from rankproof.experiments.reproduce.cell import Cell, Figure

Mark = Literal[
    "agrees",
    "stronger",
    "weaker",
    "too few attacks",
    "not run",
    "no data",
    "training failed",
    "unreadable in print",
    "not compared",
]
MARKS: tuple[Mark, ...] = (
    *("agrees", "stronger", "weaker", "too few attacks", "unreadable in print"),
    *("not compared", "not run", "no data", "training failed"),
)
SLACK = 1e-9  # of differences of decimals


@dataclass(frozen=True, kw_only=True)
class Row:
    """One printed figure with ours beside.

    Args:
        cell, figure: which.
        record: what was measured; None where nothing was.
        mark: how the two compare.
    """

    cell: Cell
    figure: Figure
    record: dict[str, Any] | None
    mark: Mark

    def measured(self, name: str | None) -> tuple[float, float | None, float | None] | None:
        """Mean and interval of a figure of the cell; None where there is none."""
        if self.record is None or name is None or name not in self.record["figures"]:
            return None
        mean, low, high = self.record["figures"][name]
        return mean, low, high


def row_of(
    cell: Cell,
    figure: Figure,
    record: dict[str, Any] | None,
    tolerance: float,
    missing: Mark = "not run",
) -> Row:
    """A figure and its verdict; `missing` says why there is no record."""
    if record is None:
        return Row(cell=cell, figure=figure, record=None, mark=missing)
    if not cell.comparable:
        mark: Mark = "not compared"
    elif figure.printed is None:
        mark = "unreadable in print"
    else:
        mean, low, high = record["figures"][figure.name]
        half = None if low is None or high is None else (high - low) / 2
        mark = compare(mean - figure.printed, half, tolerance, rises=larger_is_stronger(cell))
    return Row(cell=cell, figure=figure, record=record, mark=mark)


def compare(gap: float, half: float | None, tolerance: float, *, rises: bool) -> Mark:
    """The verdict on a figure.

    It agrees within the tolerance if its 95 % interval is no wider than that to either side. It is stronger
    or weaker if it lies beyond, and a wide interval does as well.

    Args:
        gap: measured minus printed.
        half: half the width of the interval; None where a single attack has none.
        rises: whether a stronger attack has a larger figure.
    """
    sure = half is not None and half <= tolerance + SLACK
    if abs(gap) <= tolerance + SLACK:
        return "agrees" if sure else "too few attacks"
    if not sure and (half is None or abs(gap) <= tolerance + half + SLACK):
        return "too few attacks"
    return "stronger" if (gap > 0) == rises else "weaker"


def larger_is_stronger(cell: Cell) -> bool:
    """Whether a stronger attack has a larger figure: tau, and the ranks of "-" goals."""
    return cell.goal == "oa" or cell.goal.removesuffix(DISTANCE).endswith("-")
