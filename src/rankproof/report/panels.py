"""Figures of several panels in the style of the papers, as PNG and SVG: curves over eps, losses, violins."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from rankproof.report.colours import BAND, CHOSEN, INK, MUTED, RULE

DPI = 200
COLOURS, FORMS = (BAND, CHOSEN), ("o-", "s-")
CURVE_COLUMNS, CURVE_SIZE = 5, (1.75, 1.8)
FULL = 25.0  # an axis of ranks that go beyond shows all of them
LOSS_COLUMNS, LOSS_SIZE = 4, (1.95, 1.75)
LOSS_NAMES = ("total loss $L_{OA}$ (left axis)", "its term $L_{QA+}$ (right axis)")
VIOLIN_COLUMNS, VIOLIN_SIZE, HALF = 2, (2.6, 1.9), 0.4

Mean = tuple[float, float | None, float | None]
"""A mean and the ends of its 95 % interval."""


class Point(NamedTuple):
    """A mean at one budget, with its 95 % interval where it has one."""

    eps: float
    value: float
    low: float | None = None
    high: float | None = None


STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3,
    "svg.hashsalt": "rankproof",  # names inside the file do not change from one drawing to the next
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class _FigurePage:
    """A figure and its axes, row by row."""

    figure: Any
    axes: Sequence[Any]

    def files(self) -> dict[str, bytes]:
        """The figure as PNG and as SVG, by the ending of its file."""
        files = {}
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            stream = io.BytesIO()
            self.figure.savefig(stream, format=ending, dpi=DPI, metadata=metadata, bbox_inches="tight")
            files[ending] = stream.getvalue()
        return files


@contextmanager
def _figure_page(panels: int, columns: int, size: tuple[float, float]) -> Iterator[_FigurePage]:
    """An empty figure for so many panels.

    Args:
        columns: panels side by side.
        size: inches of one panel.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        wide, high = min(panels, columns), math.ceil(panels / columns)
        figure = Figure(figsize=(wide * size[0], high * size[1]), layout="constrained", facecolor="white")
        grid = figure.subplots(high, wide, squeeze=False).ravel().tolist()
        for empty in grid[panels:]:
            empty.remove()
        yield _FigurePage(figure, grid[:panels])


def _line_with_band(axes: Any, x: Sequence[float], means: Sequence[Mean], colour: str, form: str) -> Any:
    """Means as a line with their 95 % intervals as a band; returns the line.

    Args:
        form: marker and dash, as matplotlib abbreviates them.
    """
    (line,) = axes.plot(x, [mean for mean, _, _ in means], form, color=colour, clip_on=False, zorder=3)
    lows = [mean if low is None else low for mean, low, _ in means]
    highs = [mean if high is None else high for mean, _, high in means]
    axes.fill_between(x, lows, highs, color=colour, alpha=0.2, linewidth=0)
    return line


def _legend_below(page: _FigurePage, lines: Sequence[Any], names: Sequence[str]) -> None:
    """One legend for all panels."""
    page.figure.legend(lines, names, loc="outside lower center", ncols=len(names))


# -- curves over eps, as ECCV figure 2


class Series(NamedTuple):
    """A line of a panel: its name, and its points with their intervals."""

    name: str
    points: Sequence[Point]


class CurvePanel(NamedTuple):
    """Lines that share their axes; of `percent` 100 is the most."""

    title: str
    unit: str
    percent: bool
    series: Sequence[Series]


def curve_panels(panels: Sequence[CurvePanel]) -> dict[str, bytes]:
    """A panel for each goal, a line for each model, 95 % intervals as bands; PNG and SVG by ending."""
    with _figure_page(len(panels), CURVE_COLUMNS, CURVE_SIZE) as page:
        lines: dict[str, Any] = {}
        for axes, panel in zip(page.axes, panels, strict=True):
            for number, series in enumerate(panel.series):
                points = sorted(series.points)
                x, means = [point.eps for point in points], [point[1:] for point in points]
                line = _line_with_band(axes, x, means, COLOURS[number % 2], FORMS[number % 2])
                lines.setdefault(series.name, line)
            largest = max(point.value for series in panel.series for point in series.points)
            axes.set(title=panel.title, xlabel="ε", ylabel=panel.unit)
            axes.set_ylim(bottom=0, top=103 if panel.percent and largest > FULL else None)
            axes.set_xlim(left=0)
        _legend_below(page, list(lines.values()), list(lines))
        return page.files()


# -- the two terms of a loss over the steps, as ICCV figure 3


class LossPanel(NamedTuple):
    """One setting: its title, and both terms (mean and 95 % interval) before each step and after the last."""

    title: str
    total: Sequence[Mean]
    keep: Sequence[Mean]


def loss_panels(panels: Sequence[LossPanel]) -> dict[str, bytes]:
    """A panel for each setting, an axis of its own for each term; PNG and SVG by ending."""
    with _figure_page(len(panels), LOSS_COLUMNS, LOSS_SIZE) as page:
        for axes, panel in zip(page.axes, panels, strict=True):
            other = axes.twinx()
            other.grid(False)
            other.spines["right"].set_visible(True)
            lines = [
                _drawn(axes, panel.total, BAND, "-"),
                _drawn(other, panel.keep, CHOSEN, "--"),
            ]
            axes.set(title=panel.title, xlabel="step")
        _legend_below(page, lines, LOSS_NAMES)
        return page.files()


def _drawn(axes: Any, means: Sequence[Mean], colour: str, form: str) -> Any:
    """A line on an axis of its own colour."""
    line = _line_with_band(axes, [float(step) for step in range(len(means))], means, colour, form)
    axes.tick_params(axis="y", labelcolor=colour)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.yaxis.get_offset_text().set(color=colour, size=6)
    return line


# -- how weights are spread, as ECCV figures 63 to 65


class Violin(NamedTuple):
    """A density at some points, with the quartiles and the mean of what it is of."""

    name: str
    points: Sequence[float]
    density: Sequence[float]
    quartiles: Sequence[float]
    mean: float


class ViolinPanel(NamedTuple):
    """Violins that share their axis."""

    title: str
    violins: Sequence[Violin]


def violin_panels(panels: Sequence[ViolinPanel]) -> dict[str, bytes]:
    """A panel for the weights and one for the bias of each layer; PNG and SVG by ending."""
    with _figure_page(len(panels), VIOLIN_COLUMNS, VIOLIN_SIZE) as page:
        for axes, panel in zip(page.axes, panels, strict=True):
            for place, violin in enumerate(panel.violins):
                widest = max(violin.density)
                half = [HALF * value / widest for value in violin.density]
                sides = [place - width for width in half], [place + width for width in half]
                colour = COLOURS[place % len(COLOURS)]
                axes.fill_betweenx(
                    violin.points, *sides, facecolor=colour, alpha=0.45, edgecolor=colour, linewidth=0.7
                )
                low, middle, high = violin.quartiles
                axes.plot([place, place], [low, high], color=INK, linewidth=2.5, solid_capstyle="butt")
                axes.plot(
                    place,
                    middle,
                    "o",
                    color="white",
                    markersize=2.6,
                    markeredgecolor=INK,
                    markeredgewidth=0.6,
                )
            axes.axhline(0, color=INK, linewidth=0.5)
            axes.set_xticks(range(len(panel.violins)), [violin.name for violin in panel.violins])
            axes.set_xlim(-0.6, len(panel.violins) - 0.4)
            axes.grid(axis="x", visible=False)
            axes.set(title=panel.title)
        return page.files()
