"""Small curves over eps and queries for a page, as <svg> elements."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from rankproof.report.colours import BAND, CHOSEN, INK, MUTED, RULE
from rankproof.report.format import minus
from rankproof.threat import format_eps

Length = int | float


class Point(NamedTuple):
    """A mean at one budget, with its 95 % interval where it has one."""

    eps: float
    value: float
    low: float | None = None
    high: float | None = None


WIDTH, HEIGHT = 236, 104
LEFT, RIGHT, TOP, BOTTOM = 40, 32, 9, 22


def curve_svg(points: Sequence[Point], *, metric: str, audited: float, label: str) -> str:
    """A small curve over eps with its 95 % band, as one <svg> element without any id.

    The horizontal axis is log2(1 + n) for eps = n/255. Of a rank 0 % is drawn at the top, because it is
    the top of the ranking; of "tau" and "shift" the largest value.

    Args:
        points: in any order; those that are not finite are left out.
        metric: "rank" (in %), "tau" or "shift".
        audited: the budget to mark, in [0, 1].
        label: what a screen reader says instead of the curve.
    """
    drawn = sorted(
        (_floats(point) for point in points if math.isfinite(point.value)), key=lambda point: point.eps
    )
    ends, ticks = _scale(drawn, metric)
    last = max([math.log2(1 + 255 * eps) for eps in (audited, *(point.eps for point in drawn))]) or 1.0

    def x(eps: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log2(1 + 255 * eps) / last

    def y(value: float) -> float:
        share = (min(max(value, min(ends)), max(ends)) - ends[0]) / (ends[1] - ends[0])
        return TOP + (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{RULE}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end" fill="{MUTED}">{text}</text>'
        for tick, text in ticks
    ]
    parts += _x_axis([point.eps for point in drawn], audited, x)
    lower = [(point.eps, point.low) for point in drawn if point.low is not None]
    upper = [(point.eps, point.high) for point in drawn if point.high is not None]
    if len(lower) > 1:
        outline = " ".join(f"{x(eps):.1f},{y(end):.1f}" for eps, end in lower + upper[::-1])
        parts.append(f'<polygon points="{outline}" fill="{BAND}" fill-opacity="0.2"/>')
    line = " ".join(f"{x(point.eps):.1f},{y(point.value):.1f}" for point in drawn)
    stroke = f'stroke="{BAND}" stroke-width="1.6" stroke-linejoin="round"'
    parts.append(f'<polyline points="{line}" fill="none" {stroke}/>')
    for point in drawn:
        mark = _same(point.eps, audited)
        ring = ' stroke="#fff" stroke-width="1.2"' if mark else ""
        centre = f'cx="{x(point.eps):.1f}" cy="{y(point.value):.1f}"'
        parts.append(f'<circle {centre} r="{4 if mark else 1.9}" fill="{BAND}"{ring}/>')
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    about = f'role="img" aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="10"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>{"".join(parts)}</svg>'


class Line(NamedTuple):
    """What one method reached: its name, and its best mean figure after so many queries."""

    name: str
    points: Sequence[tuple[float, float]]


WIDE, HIGH = 320, 150
COLOURS = (BAND, CHOSEN)


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
    last, base, end = math.log10(max(most, 10.0)), HIGH - 34, WIDE - 24

    def x(queries: Length) -> float:
        return LEFT + (end - LEFT) * math.log10(queries) / last

    def y(value: float) -> float:
        return TOP + (base - TOP) * (high - min(max(value, low), high)) / (high - low)

    parts = []
    for tick in (low + 0.25 * step for step in range(round(4 * (high - low)) + 1)):
        style = f'stroke="{MUTED if tick == 0 else RULE}"'
        parts.append(f'<line x1="{LEFT}" x2="{end}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" {style}/>')
        if high - low <= 1 or tick in (low, high) or tick % 0.5 == 0:
            at, text = f'x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}"', minus(f"{tick:g}")
            parts.append(f'<text {at} text-anchor="end" fill="{MUTED}">{text}</text>')
    for power in range(int(last + 1e-9) + 1):
        at = f'x="{x(10**power):.1f}" y="{base + 15}"'
        parts.append(f'<text {at} text-anchor="middle" fill="{MUTED}">{10**power:,}</text>')
    middle = (LEFT + end) / 2
    parts.append(f'<text x="{middle}" y="{HIGH - 4}" text-anchor="middle" fill="{MUTED}">queries</text>')
    for number, (name, points) in reversed(list(enumerate(drawn))):
        colour, dash = COLOURS[number % 2], ' stroke-dasharray="5 3"' if number else ""
        line = " ".join(f"{x(queries):.1f},{y(value):.1f}" for queries, value in points)
        stroke = f'stroke="{colour}" stroke-width="{1.6 if number else 2}" stroke-linejoin="round"{dash}'
        parts.append(f'<polyline points="{line}" fill="none" {stroke}/>')
        queries, value = points[-1]
        parts.append(f'<circle cx="{x(queries):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>')
        # The legend stands where a search begins and no curve is.
        row = TOP + 10 + 15 * number
        parts.append(f'<line x1="{LEFT + 8}" x2="{LEFT + 28}" y1="{row}" y2="{row}" {stroke}/>')
        parts.append(f'<text x="{LEFT + 34}" y="{row + 3.5}" fill="{INK}">{escape(name)}</text>')
    size = f'viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}"'
    about = f'role="img" aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="10"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>{"".join(parts)}</svg>'


def _scale(points: Sequence[Point], metric: str) -> tuple[tuple[float, float], list[tuple[float, str]]]:
    """The values at the top and at the bottom of the curve, and its ticks."""
    match metric:
        case "rank":
            return (0.0, 100.0), [(0.0, "0 %"), (50.0, "50 %"), (100.0, "100 %")]
        case "tau":
            low = -1.0 if any(point.value < -0.05 for point in points) else 0.0
            middle = (1 + low) / 2
            return (1.0, low), [(value, minus(f"{value:g}")) for value in (1.0, middle, low)]
        case _:
            top = _round_up(max((max(point.value, point.high or 0.0) for point in points), default=1.0))
            return (top, 0.0), [(value, f"{value:g}") for value in (top, top / 2, 0.0)]


def _x_axis(budgets: Sequence[float], audited: float, x: Callable[[float], float]) -> list[str]:
    """Ticks in 255ths at the budgets that were run; labels that would touch give way to the audited one."""
    base = HEIGHT - BOTTOM
    placed: list[tuple[float, int]] = []
    parts = [
        f'<line x1="{x(audited):.1f}" x2="{x(audited):.1f}" y1="{TOP}" y2="{base + 3}" '
        f'stroke="{INK}" stroke-width="0.8" stroke-dasharray="2 2"/>'
    ]
    for eps in sorted({audited, *budgets}, key=lambda eps: (not _same(eps, audited), eps)):
        text = format_eps(eps).removesuffix("/255")
        if all(abs(x(eps) - other) > 4 + 3 * (len(text) + length) for other, length in placed):
            placed.append((x(eps), len(text)))
            style = f'fill="{INK}" font-weight="700"' if _same(eps, audited) else f'fill="{MUTED}"'
            parts.append(f'<text x="{x(eps):.1f}" y="{base + 15}" text-anchor="middle" {style}>{text}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT + 7.5}" y="{base + 15}" fill="{MUTED}">/255</text>')
    return parts


def _floats(point: Point) -> Point:
    """The point without an interval that is not finite."""
    low, high = point.low, point.high
    if low is None or high is None or not math.isfinite(low + high):
        return Point(float(point.eps), float(point.value))
    return Point(float(point.eps), float(point.value), float(low), float(high))


def _same(eps: float, other: float) -> bool:
    return abs(eps - other) < 1e-6


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 10 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * (1 - 1e-9))
