"""The share of attacks that succeed within eps, all goals in one chart, as an <svg> that follows the page.

Colours, type and dashes come from the classes of the page's style sheet, so that the chart follows it into
the dark and onto paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import NamedTuple

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.report.budgets import HALF_LEVEL, attacks, budget_text, kind, level_text, median_text
from rankproof.threat import LEVELS

Length = int | float

LOW, ENDS = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-6), (16.0, 64.0, 255.0)  # of the axis, in 1/255
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, *(2.0**power for power in range(8)), 255.0)
CHARACTER, LINE = 9.2, 15  # width of a letter and height of a line of a label
HEIGHTS = (
    0.75,
    0.65,
    0.85,
    0.58,
    0.42,
    0.35,
    0.25,
    0.93,
    0.15,
    0.07,
)  # where along its curve a name may stand
DASHES = 3  # how many curves of one kind can be told apart

EIGHT_BIT = "an 8-bit file can hold no less"


@dataclass(frozen=True)
class BudgetAxis:
    """A logarithmic axis of budgets, from `low` to `high` in 1/255."""

    low: Length
    high: Length

    @classmethod
    def of(cls, budgets: Sequence[float], *, whole: bool = False) -> "BudgetAxis":
        """The axis that holds some budgets in [0, 1], as one of a few, so that reports compare.

        Args:
            whole: whether it is to reach 255/255.
        """
        levels = [LEVELS * eps for eps in budgets if 0 < eps <= 1]
        low = next((low for low in LOW if low <= 0.9 * min(levels, default=1.0)), LOW[-1])
        most = max(levels, default=0.0)
        high = next((end for end in ENDS[: -1 if not whole else None] if most <= 0.9 * end), ENDS[-1])
        return cls(low, ENDS[-1] if whole else high)

    def share(self, eps: Length) -> Length:
        """Where a budget in [0, 1] stands between both ends, 0 to 1."""
        levels = min(max(eps * LEVELS, self.low), self.high)
        return math.log(levels / self.low) / math.log(self.high / self.low)

    def ticks(self, width: Length, least: Length = 30.0) -> list[float]:
        """Levels in 1/255 whose labels do not touch on an axis of some pixels; 1, 0.5 and the ends first."""
        inside = [level for level in TICKS if self.low <= level <= self.high]
        order = sorted(inside, key=lambda level: (level not in (1, 0.1, self.high), -inside.index(level)))
        chosen: list[float] = []
        for level in order:
            if all(abs(self.share(level / LEVELS) - self.share(o / LEVELS)) * width >= least for o in chosen):
                chosen.append(level)
        return sorted(chosen)


def axis_of(summaries: Sequence[BudgetSummary], audited: Length | None) -> BudgetAxis:
    """The axis for all curves and the audited budget, if any; to 255/255 where not all were reached."""
    budgets = [eps for each in summaries for eps, _ in each.curve]
    whole = any(each.reached < attacks(each) for each in summaries)
    return BudgetAxis.of([*budgets, audited or HALF_LEVEL, HALF_LEVEL], whole=whole)


@dataclass(frozen=True)
class Frame:
    """Where a chart of some width is drawn."""

    width: int
    height: int
    left: int = 46
    right: int = 14
    top: int = 44
    bottom: int = 44

    @property
    def across(self) -> int:
        """The width of the area of the curves."""
        return self.width - self.left - self.right


WIDE, NARROW = Frame(1000, 400), Frame(358, 340, left=38, right=8)


class Point(NamedTuple):
    """A point of a curve, in pixels."""

    x: Length
    y: Length


class _Chart:
    """Scales of a chart."""

    def __init__(self, axis: BudgetAxis, frame: Frame) -> None:
        self.axis, self.frame = axis, frame

    def x(self, eps: Length) -> Length:
        return self.frame.left + self.frame.across * self.axis.share(eps)

    def y(self, share: Length) -> Length:
        base = self.frame.height - self.frame.bottom
        return base - (base - self.frame.top) * share

    def corners(self, summary: BudgetSummary) -> list[Point]:
        """The corners of a curve of steps; steps within half a pixel are one."""
        points: list[Point] = []
        height = 0.0
        for eps, share in summary.curve:
            x = self.x(eps)
            if points and x - points[-1].x < 0.5 and share < summary.curve[-1][1]:
                height = share
                points[-1] = Point(points[-1].x, self.y(share))
                continue
            points += [Point(x, self.y(height)), Point(x, self.y(share))]
            height = share
        end = self.frame.width - self.frame.right
        return [*points, Point(end, self.y(height))] if points else []


def shown(summaries: Sequence[BudgetSummary]) -> list[tuple[BudgetSummary, str]]:
    """The goals that have a curve, each with the classes of its colour and its dashes."""
    counts: dict[str, int] = {}
    found = []
    for summary in summaries:
        what = kind(summary.spec)
        found.append((summary, f"{what} d{counts.get(what, 0) % DASHES}"))
        counts[what] = counts.get(what, 0) + 1
    return [(summary, style) for summary, style in found if summary.curve]


def budget_svg(
    summaries: Sequence[BudgetSummary], axis: BudgetAxis, *, audited: Length | None, frame: Frame
) -> str:
    """The curves of all goals that some attack reached, with their names at them, as one <svg> element."""
    chart, drawn = _Chart(axis, frame), shown(summaries)
    parts = [*_grid(chart), *_marks(chart, audited)]
    curves = [(summary, style, chart.corners(summary)) for summary, style in drawn]
    for summary, style, corners in reversed(curves):
        start = Point(corners[0].x, chart.y(0))
        path = f"M{start.x:.1f},{start.y:.1f}" + "".join(f"L{x:.1f},{y:.1f}" for x, y in corners)
        title = escape(f"{summary.spec.title}: {summary.sentence}")
        parts.append(f'<path class="curve {style}" d="{path}"><title>{title}</title></path>')
    for summary, style, _ in reversed(curves):
        if summary.eps_star is not None:
            at = f'cx="{chart.x(summary.eps_star):.1f}" cy="{chart.y(0.5):.1f}"'
            title = escape(f"{summary.spec.title}: half within {budget_text(summary.eps_star)}")
            parts.append(f'<circle class="dot {style}" {at} r="4.5"><title>{title}</title></circle>')
    parts += _names(chart, curves)
    label = "Share of attacks that succeed within a budget. Half succeed within: " + (
        "; ".join(f"{each.spec.title} {median_text(each)}" for each in summaries) + ", in 1/255."
    )
    size = f'viewBox="0 0 {frame.width} {frame.height}" width="{frame.width}" height="{frame.height}"'
    about = f'class="chart" role="img" aria-label="{escape(label)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>{"".join(parts)}</svg>'


def _grid(chart: _Chart) -> list[str]:
    """The axes with their ticks; the line of half of the attacks is drawn stronger."""
    frame = chart.frame
    base, end = frame.height - frame.bottom, frame.width - frame.right
    parts = []
    for percent in (0, 25, 50, 75, 100):
        y = chart.y(percent / 100)
        line = f'x1="{frame.left}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="rule{" half" if percent == 50 else ""}" {line}/>')
        text = f"{percent}" if frame.width < WIDE.width else f"{percent} %"
        parts.append(f'<text x="{frame.left - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for level in chart.axis.ticks(frame.across):
        x = chart.x(level / LEVELS)
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 5}"/>')
        anchor = "end" if x > end - 8 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{base + 19}" text-anchor="{anchor}">{level:g}</text>')
    middle, y = (frame.left + end) / 2, frame.height - 6
    what = "largest change of any pixel, in 1/255 (each doubling is as wide)"
    if frame.width < WIDE.width:
        what = "largest change of any pixel, in 1/255"
    return [*parts, f'<text x="{middle}" y="{y}" text-anchor="middle">{what}</text>']


def _marks(chart: _Chart, audited: Length | None) -> list[str]:
    """The least that a file can hold, and the audited budget."""
    frame, base = chart.frame, chart.frame.height - chart.frame.bottom
    half = chart.x(HALF_LEVEL)
    parts = [
        f'<rect class="unheld" x="{frame.left}" y="{frame.top}" width="{max(half - frame.left, 0):.1f}" '
        f'height="{base - frame.top}"/>'
    ]
    texts = []
    marks = [(HALF_LEVEL, EIGHT_BIT, "mark", 14)]
    if audited is not None:
        marks.append((audited, f"audited: {budget_text(audited)}", "audited", 30))
    for eps, text, style, row in marks:
        x, width = chart.x(eps), CHARACTER * len(text)
        parts.append(f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{row + 5}" y2="{base}"/>')
        at, anchor = x, "start"
        if x + width > frame.width:  # a name that would leave the chart ends at its right edge
            at, anchor = min(x + width / 2, frame.width - frame.right), "end"
        place = f'x="{at:.1f}" y="{row}" text-anchor="{anchor}"'
        texts.append(f'<text class="{style}" {place}>{escape(text)}</text>')
    return [*parts, *texts]


def _names(chart: _Chart, curves: Sequence[tuple[BudgetSummary, str, list[Point]]]) -> list[str]:
    """A name at each curve, where it covers no other name and the fewest curves."""
    circles = [chart.x(each.eps_star) for each, _, _ in curves if each.eps_star is not None]
    middle = chart.y(0.5)
    taken = [(x - 6, middle - 6, x + 6, middle + 6) for x in circles]
    crowd = [point for _, _, corners in curves for point in _dense(corners)]
    parts = []
    for summary, style, corners in curves:
        width = CHARACTER * len(summary.spec.title) + 4
        places = []
        for preference, share in enumerate(HEIGHTS):
            point = next((p for p in corners if p.y <= chart.y(share) + 0.01), None)
            if point is None:
                continue
            # A curve climbs to the right: there is room below it on its right, above it on its left.
            places.append((_Box(point.x + 6, chart.y(share) - 2, width), 2 * preference))
            places.append((_Box(point.x - width - 6, chart.y(share) - LINE + 2, width), 2 * preference + 1))
        end = corners[-1]
        places.append((_Box(end.x - width, end.y - LINE - 3, width), len(HEIGHTS)))
        box, _ = min(places, key=lambda place: place[1] + place[0].cost(chart, taken, crowd))
        taken.append(box.corners)
        parts.append(
            f'<text class="name {style}" x="{box.left + 3:.1f}" y="{box.top + LINE - 4:.1f}">'
            f"{escape(summary.spec.title)}</text>"
        )
    return parts


class _Box(NamedTuple):
    """Where a name may stand."""

    left: Length
    top: Length
    width: Length

    @property
    def corners(self) -> tuple[Length, Length, Length, Length]:
        return self.left, self.top, self.left + self.width, self.top + LINE

    def cost(
        self, chart: _Chart, taken: Sequence[tuple[Length, Length, Length, Length]], crowd: Sequence[Point]
    ) -> Length:
        """How bad the place is: a covered name is far worse than a covered piece of a curve."""
        left, top, right, bottom = self.corners
        frame = chart.frame
        outside = left < frame.left or right > frame.width - frame.right or top < frame.top
        names = sum(left < r and l < right and top < b and t < bottom for l, t, r, b in taken)  # noqa: E741
        covered = sum(left - 3 <= x <= right + 3 and top <= y <= bottom for x, y in crowd)
        return 1000 * outside + 300 * names + covered


def _dense(corners: Sequence[Point]) -> list[Point]:
    """Points along a curve of steps, some pixels apart."""
    found: list[Point] = []
    for start, end in pairwise(corners):
        count = max(1, int(max(abs(end.x - start.x), abs(end.y - start.y)) / 6))
        for step in range(count):
            part = step / count
            found.append(Point(start.x + part * (end.x - start.x), start.y + part * (end.y - start.y)))
    return found


def level_label(level: Length) -> str:
    """A level in 1/255 as a table prints it."""
    return level_text(level / LEVELS)
