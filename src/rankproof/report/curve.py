"""What a black box reached over the queries it spent, as an <svg> that follows the page."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from rankproof.report.format import minus

Length = int | float


class Line(NamedTuple):
    """What one method reached: its name, and its best mean figure after so many queries."""

    name: str
    points: Sequence[tuple[float, float]]


WIDE, HIGH = 360, 190
LEFT, TOP = 40, 12
FORMS = 3  # of the lines


def query_svg(lines: Sequence[Line], *, label: str) -> str:
    """The best tau_S over the queries spent, a line for each method, as one <svg> element without any id.

    The horizontal axis is log10 of the queries; the vertical one ends at the next quarter above all values.

    Args:
        lines: the main method first; values that are not finite are left out.
        label: what a screen reader says instead of the curves.
    """
    drawn = [
        (line.name, sorted((float(q), float(v)) for q, v in line.points if q >= 1 and math.isfinite(v)))
        for line in lines
    ]
    drawn = [(name, points) for name, points in drawn if points]
    values = [value for _, points in drawn for _, value in points] or [0.0]
    most = max((points[-1][0] for _, points in drawn), default=1.0)
    # A mean start a little below chance is no reason for an axis that goes down to -0.25.
    low = math.floor(4 * min(values)) / 4 if min(values) < -0.05 else 0.0
    high = min(1.0, max(0.25, math.ceil(4 * max(values)) / 4))
    last, base, end = math.log10(max(most, 10.0)), HIGH - 38, WIDE - 24

    def x(queries: Length) -> float:
        return LEFT + (end - LEFT) * math.log10(queries) / last

    def y(value: float) -> float:
        return TOP + (base - TOP) * (high - min(max(value, low), high)) / (high - low)

    parts = []
    for tick in (low + 0.25 * step for step in range(round(4 * (high - low)) + 1)):
        style = "rule zero" if tick == 0 else "rule"
        parts.append(f'<line class="{style}" x1="{LEFT}" x2="{end}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        if high - low <= 1 or tick in (low, high) or tick % 0.5 == 0:
            at, text = f'x="{LEFT - 6}" y="{y(tick) + 4:.1f}"', minus(f"{tick:g}")
            parts.append(f'<text {at} text-anchor="end">{text}</text>')
    for power in range(int(last + 1e-9) + 1):
        parts.append(
            f'<text x="{x(10**power):.1f}" y="{base + 17}" text-anchor="middle">{10**power:,}</text>'
        )
    parts.append(f'<text x="{(LEFT + end) / 2}" y="{HIGH - 3}" text-anchor="middle">queries</text>')
    for number, (name, points) in reversed(list(enumerate(drawn))):
        style = f"q{min(number, 1)} d{min(number, FORMS - 1)}"
        line = "L".join(f"{x(queries):.1f},{y(value):.1f}" for queries, value in points)
        parts.append(f'<path class="curve {style}" d="M{line}"/>')
        queries, value = points[-1]
        parts.append(f'<circle class="end {style}" cx="{x(queries):.1f}" cy="{y(value):.1f}" r="3.5"/>')
        # The legend stands where a search begins and no curve is.
        row = TOP + 10 + 17 * number
        parts.append(f'<path class="curve {style}" d="M{LEFT + 8},{row}H{LEFT + 32}"/>')
        parts.append(f'<text class="legend" x="{LEFT + 39}" y="{row + 4}">{escape(name)}</text>')
    size = f'viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}"'
    about = f'class="chart queries" role="img" aria-label="{escape(label)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>{"".join(parts)}</svg>'
