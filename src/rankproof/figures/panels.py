"""Curves over eps in panels side by side, in the manner of ECCV figure 2."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rankproof.figures.colours import BAND, CHOSEN
from rankproof.figures.curve import Point
from rankproof.figures.sheet import legend_below, line_with_band, sheet

COLUMNS, SIZE = 5, (1.75, 1.8)
FULL = 25.0  # ranks that go beyond have an axis that shows all of them
COLOURS, FORMS = (BAND, CHOSEN), ("o-", "s-")


class Series(NamedTuple):
    """A line of a panel: its name, and its points with their intervals."""

    name: str
    points: Sequence[Point]


class Panel(NamedTuple):
    """Lines that share their axes; of `percent` 100 is the most."""

    title: str
    unit: str
    percent: bool
    series: Sequence[Series]


def panel_sheet(panels: Sequence[Panel]) -> dict[str, bytes]:
    """A panel for each goal, a line for each model, 95 % intervals as bands; PNG and SVG by ending."""
    with sheet(len(panels), COLUMNS, SIZE) as page:
        lines: dict[str, Any] = {}
        for axes, panel in zip(page.axes, panels, strict=True):
            for number, series in enumerate(panel.series):
                points = sorted(series.points)
                x, means = [point.eps for point in points], [point[1:] for point in points]
                line = line_with_band(axes, x, means, COLOURS[number % 2], FORMS[number % 2])
                lines.setdefault(series.name, line)
            largest = max(point.value for series in panel.series for point in series.points)
            axes.set(title=panel.title, xlabel="ε", ylabel=panel.unit)
            axes.set_ylim(bottom=0, top=103 if panel.percent and largest > FULL else None)
            axes.set_xlim(left=0)
        legend_below(page, list(lines.values()), list(lines))
        return page.files()
