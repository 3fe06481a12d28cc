"""The pictures of a figure from its plain values alone, so that it can be drawn again from figure.json."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankproof.experiments.reproduce.strips import from_values
from rankproof.figures import (
    LossPanel,
    Panel,
    Point,
    Series,
    Violin,
    ViolinPanel,
    goal_name,
    loss_sheet,
    panel_sheet,
    strip_png,
    violin_sheet,
)
from rankproof.threat import format_eps

Told = Mapping[str, Any]
UNITS = {"rank": "rank (%)", "shift": "distance"}


def sheets(told: Told) -> dict[str, bytes]:
    """The files of a figure by name; nothing is drawn of cells without a record.

    Args:
        told: what `Drawing.as_dict` gives, or figure.json holds.
    """
    cells = [cell for cell in told["cells"] if "missing" not in cell]
    if not cells:
        return {}
    match told["drawing"]:
        case "strips" | "order":
            return dict(_strips(cells))
        case "curves":
            made = panel_sheet(_curves(told, cells))
        case "losses":
            made = loss_sheet([_loss(told, cell) for cell in cells])
        case "weights":
            made = violin_sheet(_violins(told, cells))
    return {f"{told['part']}.{ending}": content for ending, content in made.items()}


def _strips(cells: Sequence[Told]) -> Iterator[tuple[str, bytes]]:
    for cell in cells:
        strips = cell["drawing"]["strips"]
        for number, values in enumerate(strips, 1):
            place = f"-{number}" if len(strips) > 1 else ""
            yield f"{cell['cell']}{place}.png", strip_png(from_values(values))


def _curves(told: Told, cells: Sequence[Told]) -> list[Panel]:
    """A panel for each goal, a line for each model."""
    panels = []
    for goal in dict.fromkeys(cell["goal"] for cell in cells):
        own = [cell for cell in cells if cell["goal"] == goal]
        metric = "shift" if goal == "shift" else "rank"
        series = [
            Series(
                _model(told, model),
                [Point(cell["eps"], *cell["figures"][metric]) for cell in own if cell["model"] == model],
            )
            for model in dict.fromkeys(cell["model"] for cell in own)
        ]
        panels.append(Panel(goal_name(goal), UNITS[metric], metric == "rank", series))
    return panels


def _model(told: Told, name: str) -> str:
    """A model as the papers call it, with its schedule where that is not the published one."""
    schedule = told["models"][name]["schedule"]
    return name.upper() if schedule == "published" else f"{name.upper()} ({schedule} schedule)"


def _loss(told: Told, cell: Told) -> LossPanel:
    data = told["models"][cell["model"]]["data"]
    title = f"{data}\nε = {format_eps(cell['eps'])}, ξ = {cell['xi']:g}"
    return LossPanel(title, *([tuple(mean) for mean in cell["drawing"][term]] for term in ("total", "keep")))


def _violins(told: Told, cells: Sequence[Told]) -> list[ViolinPanel]:
    """Two panels for each layer, a violin for each model."""
    layers = [cell["drawing"]["layers"] for cell in cells]
    names = [_model(told, cell["model"]).replace(" (", "\n(") for cell in cells]
    panels = []
    for same in zip(*layers, strict=True):
        for kind in ("weight", "bias"):
            violins = [
                Violin(name, part["points"], part["density"], part["quartiles"], part["mean"])
                for name, part in zip(names, (layer[kind] for layer in same), strict=True)
            ]
            panels.append(ViolinPanel(f"{same[0]['layer']}, {kind}", violins))
    return panels
