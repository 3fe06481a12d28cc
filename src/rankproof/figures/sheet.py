"""A sheet of panels in the style of a paper, as PNG and SVG."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rankproof.figures.colours import INK, MUTED, RULE

DPI = 200

Mean = tuple[float, float | None, float | None]
"""A mean and the ends of its 95 % interval."""

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
class Sheet:
    """A figure and its axes, row by row."""

    figure: Any
    axes: Sequence[Any]

    def files(self) -> dict[str, bytes]:
        """The same picture twice, by the ending of its file."""
        found = {}
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            stream = io.BytesIO()
            self.figure.savefig(stream, format=ending, dpi=DPI, metadata=metadata, bbox_inches="tight")
            found[ending] = stream.getvalue()
        return found


@contextmanager
def sheet(panels: int, columns: int, size: tuple[float, float]) -> Iterator[Sheet]:
    """An empty sheet for so many panels.

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
        yield Sheet(figure, grid[:panels])


def line_with_band(axes: Any, x: Sequence[float], means: Sequence[Mean], colour: str, form: str) -> Any:
    """Means as a line with their 95 % intervals as a band; returns the line.

    Args:
        form: marker and dash, as matplotlib abbreviates them.
    """
    (line,) = axes.plot(x, [mean for mean, _, _ in means], form, color=colour, clip_on=False, zorder=3)
    lows = [mean if low is None else low for mean, low, _ in means]
    highs = [mean if high is None else high for mean, _, high in means]
    axes.fill_between(x, lows, highs, color=colour, alpha=0.2, linewidth=0)
    return line


def legend_below(page: Sheet, lines: Sequence[Any], names: Sequence[str]) -> None:
    """One legend for all panels."""
    page.figure.legend(lines, names, loc="outside lower center", ncols=len(names))
