"""How weights are spread, as violins side by side, in the manner of ECCV figures 63 to 65."""

from collections.abc import Sequence
from typing import NamedTuple

from rankproof.figures.colours import BAND, CHOSEN, INK
from rankproof.figures.sheet import sheet

COLUMNS, SIZE, HALF = 2, (2.6, 1.9), 0.4
COLOURS = (BAND, CHOSEN)


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


def violin_sheet(panels: Sequence[ViolinPanel]) -> dict[str, bytes]:
    """A panel for the weights and one for the bias of each layer; PNG and SVG by ending."""
    with sheet(len(panels), COLUMNS, SIZE) as page:
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
