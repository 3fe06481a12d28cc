"""Pictures for reports: attacks as strips, curves over eps and queries. Nothing else imports matplotlib."""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rankproof.audit.result import Strip, Tile

Picture = Float[Tensor, "c h w"]
Length = int | float

INK, MUTED, RULE, BAND = "#1f2a37", "#667281", "#dde3e9", "#2f6f9f"
CHOSEN, ATTACKED = "#d9761a", "#2f6f9f"
SCALE = 2  # strips are drawn at twice their size on the page
DPI = 72 * SCALE  # so that one point of type is one pixel of the page
LARGE, SMALL = 112, 56  # picture sides on the page: first row, rankings
MARGIN, SPACE, CUT = 12, 10, 22


def eps_text(eps: float) -> str:
    """A budget in [0, 1] as n/255."""
    return f"{round(eps * 255, 2):g}/255"


def goal_name(goal: str) -> str:
    """A goal as the papers print it: "qa-" is QA−."""
    if goal == "shift":
        return "Shift"
    return goal.upper()[:-1] + "−" if goal.endswith("-") else goal.upper()


def strip_png(strip: Strip) -> bytes:
    """One attack in pictures, as PNG: what was changed, and the ranking before and after it.

    First row: original, the change amplified around grey (by the factor in its title), adversarial.
    Then the two rankings, each led by its query; the chosen and the attacked items are framed, the rank
    stands above each picture and "…" where ranks were left out. Of a black-box attack the wanted order
    stands between the two, and what is out of sight is pale. Twice the size it is meant to be shown at.
    """
    return _Sheet(strip).draw()


class _Sheet:
    """The layout of a strip; lengths in pixels of the page, the origin at the top left."""

    def __init__(self, strip: Strip) -> None:
        from matplotlib.figure import Figure

        self.strip = strip
        self.large, self.small = _box(strip.original, LARGE), _box(strip.original, SMALL)
        rankings = [tiles for tiles in (strip.before, strip.order, strip.after) if tiles]
        labels = any(tile.label or tile.mark for tiles in rankings for tile in tiles)
        self.row_height = 32 + self.small[1] + (16 if labels else 4)
        widest = max((self._ranking_width(tiles) for tiles in rankings), default=0)
        self.width = math.ceil(max(widest, 3 * (self.large[0] + 2 * SPACE) + 150) + 2 * MARGIN)
        self.height = math.ceil(2 * MARGIN + 22 + self.large[1] + len(rankings) * (self.row_height + SPACE))
        self.figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=DPI, facecolor="white")

    def draw(self) -> bytes:
        strip, y = self.strip, float(MARGIN)
        self._first_row(y)
        y += 22 + self.large[1] + SPACE
        for tiles, title, query in (
            (strip.before, "Ranking before", strip.original if strip.query is None else strip.query),
            (strip.order, "Wanted order", None),
            (strip.after, "Ranking after", strip.adversarial if strip.query is None else strip.query),
        ):
            if tiles:
                self._ranking(y, title, query, tiles)
                y += self.row_height + SPACE
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a label in a script the font does not know
            self.figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
        return stream.getvalue()

    def _first_row(self, y: Length) -> None:
        strip, step = self.strip, self.large[0] + 2 * SPACE
        change, factor = _amplified(strip.original, strip.adversarial)
        titles = "original", f"change × {factor}", "adversarial"
        pictures = strip.original, change, strip.adversarial
        for column, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
            x = MARGIN + column * step
            self._text(x, y + 6, title, color=MUTED, size=9)
            self._picture(x, y + 16, self.large, picture)
        x, y = MARGIN + 3 * step, y + 16
        self._text(x, y + 8, goal_name(strip.goal), size=13, weight="bold")
        self._text(x, y + 25, f"at most {eps_text(strip.eps)} per pixel", color=MUTED, size=9)
        tiles = strip.before + strip.after
        y += 46
        if strip.visible is not None:
            seen = f"sees the first {strip.visible}, {strip.budget:,} times"
            self._text(x, y - 6, seen, color=MUTED, size=9)
            y += 15
        for shown, colour, word in (
            (any(tile.attacked for tile in tiles), ATTACKED, "the changed item"),
            (any(tile.chosen and not tile.attacked for tile in tiles), CHOSEN, "chosen by the attacker"),
        ):
            if shown:
                self._frame(x + 1, y - 4, (9, 9), colour, 1.8)
                self._text(x + 17, y + 1, word, size=9)
                y += 16
        if any(tile.unseen for tile in tiles):
            self._text(x, y + 1, "pale: out of sight", color=MUTED, size=9)

    def _ranking(self, y: Length, title: str, query: Picture | None, tiles: tuple[Tile, ...]) -> None:
        width, height = self.small
        self._text(MARGIN, y + 6, title, size=9.5, weight="bold")
        top, x = y + 32, float(MARGIN)
        if query is not None:
            self._text(x + width / 2, top - 8, "query", color=MUTED, size=8.5, align="center")
            self._picture(x, top, self.small, query)
        x += width + SPACE
        self._rule(x, top, height)
        x += SPACE
        for tile, cut in zip(tiles, _cuts(tiles), strict=True):
            if cut:
                middle = x + (CUT - SPACE) / 2
                self._text(middle, top + height / 2, "…", color=MUTED, size=14, align="center")
                x += CUT
            self._tile(x, top, tile)
            x += width + SPACE

    def _tile(self, x: Length, top: Length, tile: Tile) -> None:
        width, height = self.small
        colour = MUTED if tile.unseen else ATTACKED if tile.attacked else CHOSEN if tile.chosen else None
        middle, weight = x + width / 2, "bold" if colour else "normal"
        self._text(
            middle, top - 8, f"{tile.rank:,}", size=8.5, align="center", color=colour or MUTED, weight=weight
        )
        self._picture(x, top, self.small, 0.6 + 0.4 * tile.image if tile.unseen else tile.image)
        if colour and not tile.unseen:
            self._frame(x - 1.5, top - 1.5, (width + 3, height + 3), colour, 3)
        below = top + height + 8
        if tile.mark:
            self._text(middle, below + 1, tile.mark, color=INK, size=10, weight="bold", align="center")
        elif tile.label:
            self._text(middle, below, _short(tile.label), color=MUTED, size=7.5, align="center")

    def _ranking_width(self, tiles: tuple[Tile, ...]) -> int:
        return (len(tiles) + 1) * (self.small[0] + SPACE) + SPACE + CUT * sum(_cuts(tiles))

    def _picture(self, x: Length, y: Length, box: tuple[int, int], picture: Picture) -> None:
        """Pixels go to the sheet as they are: a small picture stays crisp."""
        pixels = _pixels(picture, box)
        below = self.height * SCALE - round(y * SCALE) - pixels.shape[0]
        self.figure.figimage(pixels, xo=round(x * SCALE), yo=below, origin="upper")
        self._frame(x, y, box, RULE, 0.5)

    def _frame(self, x: Length, y: Length, box: tuple[Length, Length], colour: str, width: Length) -> None:
        from matplotlib.patches import Rectangle
        from matplotlib.transforms import IdentityTransform

        corner = (x * SCALE, (self.height - y - box[1]) * SCALE)
        size = box[0] * SCALE, box[1] * SCALE
        shape = Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width)
        shape.set_transform(IdentityTransform())
        self.figure.add_artist(shape)

    def _rule(self, x: Length, y: Length, height: Length) -> None:
        self._frame(x, y, (0, height), RULE, 1)

    def _text(
        self, x: Length, y: Length, text: str, *, align: str = "left", color: str = INK, **style: Any
    ) -> None:
        """Text centred on the line at `y`; a "$" in it is a "$"."""
        plain: dict[str, Any] = {"va": "center", "parse_math": False, "family": "DejaVu Sans"}
        self.figure.text(x / self.width, 1 - y / self.height, text, ha=align, color=color, **plain, **style)


def _box(picture: Picture, side: int) -> tuple[int, int]:
    """Width and height on the page: whole multiples of a small picture's pixels, else fitted to `side`."""
    height, width = picture.shape[-2:]
    longest = max(height, width)
    scale = max(1, round(side / longest)) if longest <= side else side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def _pixels(picture: Picture, box: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) bytes of a picture of any number of channels, at the size of the sheet."""
    channels = np.moveaxis(picture.detach().float().cpu().numpy(), 0, -1)
    colours = channels[..., :3] if channels.shape[-1] >= 3 else channels[..., :1].repeat(3, axis=-1)
    image = Image.fromarray(np.rint(255 * colours.clip(0, 1)).astype(np.uint8))
    size = (box[0] * SCALE, box[1] * SCALE)
    crisp = size[0] % image.width == 0 and size[1] % image.height == 0
    return np.asarray(image.resize(size, Image.Resampling.NEAREST if crisp else Image.Resampling.LANCZOS))


def _amplified(original: Picture, adversarial: Picture) -> tuple[Picture, int]:
    """The change around grey, times the largest whole number that keeps it in [0, 1]."""
    change = (adversarial - original).detach().float().cpu()
    largest = float(change.abs().max())
    factor = max(1, int(0.5 / largest + 1e-3)) if largest > 0 else 1
    return 0.5 + factor * change, factor


def _cuts(tiles: tuple[Tile, ...]) -> list[bool]:
    """Whether ranks are left out in front of each tile."""
    ranks = [-1, *(tile.rank for tile in tiles)]
    return [rank - earlier > 1 for earlier, rank in pairwise(ranks)]


def _short(label: str, longest: int = 12) -> str:
    words = " ".join(label.split())
    return words if len(words) <= longest else words[: longest - 1] + "…"


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
    kept = sorted(
        (_floats(point) for point in points if math.isfinite(point.value)), key=lambda point: point.eps
    )
    ends, ticks = _scale(kept, metric)
    last = max([math.log2(1 + 255 * eps) for eps in (audited, *(point.eps for point in kept))]) or 1.0

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
    parts += _x_axis([point.eps for point in kept], audited, x)
    lower = [(point.eps, point.low) for point in kept if point.low is not None]
    upper = [(point.eps, point.high) for point in kept if point.high is not None]
    if len(lower) > 1:
        outline = " ".join(f"{x(eps):.1f},{y(end):.1f}" for eps, end in lower + upper[::-1])
        parts.append(f'<polygon points="{outline}" fill="{BAND}" fill-opacity="0.2"/>')
    line = " ".join(f"{x(point.eps):.1f},{y(point.value):.1f}" for point in kept)
    stroke = f'stroke="{BAND}" stroke-width="1.6" stroke-linejoin="round"'
    parts.append(f'<polyline points="{line}" fill="none" {stroke}/>')
    for point in kept:
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
    kept = [
        (line.name, sorted((float(q), float(v)) for q, v in line.points if q >= 1 and math.isfinite(v)))
        for line in lines
    ]
    kept = [(name, points) for name, points in kept if points]
    values = [value for _, points in kept for _, value in points] or [0.0]
    most = max((points[-1][0] for _, points in kept), default=1.0)
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
            at, text = f'x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}"', _minus(f"{tick:g}")
            parts.append(f'<text {at} text-anchor="end" fill="{MUTED}">{text}</text>')
    for power in range(int(last + 1e-9) + 1):
        at = f'x="{x(10**power):.1f}" y="{base + 15}"'
        parts.append(f'<text {at} text-anchor="middle" fill="{MUTED}">{10**power:,}</text>')
    middle = (LEFT + end) / 2
    parts.append(f'<text x="{middle}" y="{HIGH - 4}" text-anchor="middle" fill="{MUTED}">queries</text>')
    for number, (name, points) in reversed(list(enumerate(kept))):
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
            return (1.0, low), [(value, _minus(f"{value:g}")) for value in (1.0, middle, low)]
        case _:
            top = _round_up(max((max(point.value, point.high or 0.0) for point in points), default=1.0))
            return (top, 0.0), [(value, f"{value:g}") for value in (top, top / 2, 0.0)]


def _x_axis(budgets: Sequence[float], audited: float, x: Callable[[float], float]) -> list[str]:
    """Ticks in 255ths at the budgets that were run; labels that would touch give way to the audited one."""
    base = HEIGHT - BOTTOM
    placed: list[float] = []
    parts = [
        f'<line x1="{x(audited):.1f}" x2="{x(audited):.1f}" y1="{TOP}" y2="{base + 3}" '
        f'stroke="{INK}" stroke-width="0.8" stroke-dasharray="2 2"/>'
    ]
    for eps in sorted({audited, *budgets}, key=lambda eps: (not _same(eps, audited), eps)):
        text = eps_text(eps).removesuffix("/255")
        if all(abs(x(eps) - other) > 5 + 3 * len(text) for other in placed):
            placed.append(x(eps))
            style = f'fill="{INK}" font-weight="700"' if _same(eps, audited) else f'fill="{MUTED}"'
            parts.append(f'<text x="{x(eps):.1f}" y="{base + 15}" text-anchor="middle" {style}>{text}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT + 7.5}" y="{base + 15}" fill="{MUTED}">/255</text>')
    return parts


def _floats(point: Point) -> Point:
    """The same point without an interval that is not finite."""
    low, high = point.low, point.high
    if low is None or high is None or not math.isfinite(low + high):
        return Point(float(point.eps), float(point.value))
    return Point(float(point.eps), float(point.value), float(low), float(high))


def _same(eps: float, other: float) -> bool:
    return abs(eps - other) < 1e-6


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 10 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * (1 - 1e-9))
