"""Pictures: attacks as strips, curves, violins. Nothing else imports matplotlib."""

from rankproof.figures.curve import Line, Point, curve_svg, query_svg
from rankproof.figures.losses import LossPanel, loss_sheet
from rankproof.figures.panels import Panel, Series, panel_sheet
from rankproof.figures.strip import SCALE, strip_png
from rankproof.figures.violins import Violin, ViolinPanel, violin_sheet
from rankproof.figures.words import eps_text, goal_name

__all__ = [
    "SCALE",
    "Line",
    "LossPanel",
    "Panel",
    "Point",
    "Series",
    "Violin",
    "ViolinPanel",
    "curve_svg",
    "eps_text",
    "goal_name",
    "loss_sheet",
    "panel_sheet",
    "query_svg",
    "strip_png",
    "violin_sheet",
]
