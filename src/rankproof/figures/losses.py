"""The two terms of a loss over the steps, in the manner of ICCV figure 3."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rankproof.figures.colours import BAND, CHOSEN
from rankproof.figures.sheet import Mean, legend_below, line_with_band, sheet

COLUMNS, SIZE = 4, (1.95, 1.75)
NAMES = ("total loss $L_{OA}$ (left axis)", "its term $L_{QA+}$ (right axis)")


class LossPanel(NamedTuple):
    """One setting: its title, and both terms (mean and 95 % interval) before each step and after the last."""

    title: str
    total: Sequence[Mean]
    keep: Sequence[Mean]


def loss_sheet(panels: Sequence[LossPanel]) -> dict[str, bytes]:
    """A panel for each setting, an axis of its own for each term; PNG and SVG by ending."""
    with sheet(len(panels), COLUMNS, SIZE) as page:
        for axes, panel in zip(page.axes, panels, strict=True):
            other = axes.twinx()
            other.grid(False)
            other.spines["right"].set_visible(True)
            lines = [
                _drawn(axes, panel.total, BAND, "-"),
                _drawn(other, panel.keep, CHOSEN, "--"),
            ]
            axes.set(title=panel.title, xlabel="step")
        legend_below(page, lines, NAMES)
        return page.files()


def _drawn(axes: Any, means: Sequence[Mean], colour: str, form: str) -> Any:
    """A line on an axis of its own colour."""
    line = line_with_band(axes, [float(step) for step in range(len(means))], means, colour, form)
    axes.tick_params(axis="y", labelcolor=colour)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.yaxis.get_offset_text().set(color=colour, size=6)
    return line
