"""A figure as plain values, and the images that are drawn from these values alone."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.goals.registry import spec
from rankproof.io import JsonObject, encode_png, utf8, write_atomically, write_json
from rankproof.ranking import Gallery
from rankproof.report.panels import (
    CurvePanel,
    LossPanel,
    Point,
    Series,
    Violin,
    ViolinPanel,
    curve_panels,
    loss_panels,
    violin_panels,
)
from rankproof.report.strip import Strip, Tile, order_strip, strip_of
from rankproof.report.strip_drawing import strip_png
from rankproof.reproduction.cells import TableCell
from rankproof.reproduction.compare import Mark
from rankproof.reproduction.recipe import FigureRecipe, paper_name
from rankproof.reproduction.records import Measurement, ModelFacts
from rankproof.threat import format_eps

CELL_FACTS = ("run", "model", "goal", "eps", "letter", "count", "xi", "method", "visible", "budget")
MEASURED_FACTS = ("trials", "seed", "steps", "seconds", "figures", "notes", "drawing")
UNITS = {"rank": "rank (%)", "shift": "distance"}
# The most pixels along a side of the attacked image and of a place in a ranking: as they are drawn.
SIDES = (224, 112)
TILE_FACTS = ("rank", "label", "chosen", "attacked", "mark", "unseen")

FigureJson = Mapping[str, Any]  # figure.json, or a part of it


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure, whole or in part.

    Args:
        recipe: what is drawn.
        parts: each cell with its record, or with why it has none.
        models: facts of each model by name; None for one without data.
        command: what makes it again.
    """

    recipe: FigureRecipe
    parts: Sequence[tuple[TableCell, Measurement | Mark]]
    models: Mapping[str, ModelFacts | None]
    command: str

    page = "figure.md"

    @property
    def title(self) -> str:
        """Paper and title."""
        return f"{paper_name(self.recipe.paper)}, {self.recipe.title}"

    @property
    def summary(self) -> str:
        """One line of counts."""
        marks = [part for _, part in self.parts if isinstance(part, str)]
        counts = [f"{marks.count(mark)} {mark}" for mark in dict.fromkeys(marks)]
        return f"{len(self.parts)} parts: {', '.join([f'{len(self.parts) - len(marks)} drawn', *counts])}"

    def as_dict(self) -> JsonObject:
        """The figure as a JSON object, from which its images are drawn."""
        return {
            "paper": self.recipe.paper,
            "part": self.recipe.part,
            "title": self.title,
            "drawing": self.recipe.drawing,
            "note": self.recipe.note,
            "models": {name: None if model is None else asdict(model) for name, model in self.models.items()},
            "cells": [
                {"cell": cell.name, **{name: getattr(cell, name) for name in CELL_FACTS}, **_made(part)}
                for cell, part in self.parts
            ],
            "command": self.command,
        }

    def save(self, folder: Path) -> Path:
        """Write figure.json, the images drawn from it, and figure.md that shows them."""
        content = self.as_dict()
        write_json(folder / "figure.json", content, allow_nan=False)
        images = draw(content)
        for name, image in images.items():
            write_atomically(folder / name, image)
        write_atomically(folder / self.page, utf8(self._markdown([*images])))
        return folder / self.page

    def _markdown(self, names: Sequence[str]) -> str:
        shown = [f"![{name}]({name})" for name in names if name.endswith(".png")]
        records = [part for _, part in self.parts if not isinstance(part, str)]
        notes = dict.fromkeys(note for record in records for note in record.notes)
        lines = [
            f"- {name}: {'no data' if model is None else _facts(model)}"
            for name, model in self.models.items()
        ]
        parts = [f"# {self.title}", *filter(None, [self.recipe.note]), *shown, "\n".join(lines)]
        parts += [f"Note: {note}." for note in notes]
        return "\n\n".join([*parts, f"{self.summary}.", f"`{self.command}`"]) + "\n"


def _made(part: Measurement | Mark) -> JsonObject:
    """The drawn values of a record; of a cell without one the reason."""
    if isinstance(part, str):
        return {"missing": part}
    values = {name: getattr(part, name) for name in MEASURED_FACTS}
    return {name: value for name, value in values.items() if value is not None}


def _facts(model: ModelFacts) -> str:
    """A model in a line."""
    recall = "not trained yet" if model.recall_at_1 is None else f"R@1 {model.recall_at_1:.1f}"
    trained = f"{model.schedule} schedule, {model.epochs} epochs"
    return f"{model.data}, {trained}, {recall}, {model.source}"


def draw(content: FigureJson) -> dict[str, bytes]:
    """The files of a figure by name; nothing is drawn of cells without a record.

    Args:
        content: what `Drawing.as_dict` gives, or figure.json holds.
    """
    cells = [cell for cell in content["cells"] if "missing" not in cell]
    if not cells:
        return {}
    match content["drawing"]:
        case "strips" | "order":
            return dict(_strips(cells))
        case "curves":
            made = curve_panels(_curves(content, cells))
        case "losses":
            made = loss_panels([_loss(content, cell) for cell in cells])
        case "weights":
            made = violin_panels(_violins(content, cells))
    return {f"{content['part']}.{ending}": drawn for ending, drawn in made.items()}


def _strips(cells: Sequence[FigureJson]) -> Iterator[tuple[str, bytes]]:
    for cell in cells:
        strips = cell["drawing"]["strips"]
        for number, values in enumerate(strips, 1):
            place = f"-{number}" if len(strips) > 1 else ""
            yield f"{cell['cell']}{place}.png", strip_png(strip_from(values))


def _curves(content: FigureJson, cells: Sequence[FigureJson]) -> list[CurvePanel]:
    """A panel for each goal, a line for each model."""
    panels = []
    for goal in dict.fromkeys(cell["goal"] for cell in cells):
        of_goal = [cell for cell in cells if cell["goal"] == goal]
        metric = spec(goal).metric
        series = [
            Series(
                _model(content, model),
                [Point(cell["eps"], *cell["figures"][metric]) for cell in of_goal if cell["model"] == model],
            )
            for model in dict.fromkeys(cell["model"] for cell in of_goal)
        ]
        panels.append(CurvePanel(spec(goal).title, UNITS[metric], metric == "rank", series))
    return panels


def _model(content: FigureJson, name: str) -> str:
    """A model as the papers call it, with its schedule where that is not the published one."""
    schedule = content["models"][name]["schedule"]
    return name.upper() if schedule == "published" else f"{name.upper()} ({schedule} schedule)"


def _loss(content: FigureJson, cell: FigureJson) -> LossPanel:
    data = content["models"][cell["model"]]["data"]
    title = f"{data}\nε = {format_eps(cell['eps'])}, ξ = {cell['xi']:g}"
    return LossPanel(title, *([tuple(mean) for mean in cell["drawing"][term]] for term in ("total", "keep")))


def _violins(content: FigureJson, cells: Sequence[FigureJson]) -> list[ViolinPanel]:
    """Two panels for each layer, a violin for each model."""
    layers = [cell["drawing"]["layers"] for cell in cells]
    names = [_model(content, cell["model"]).replace(" (", "\n(") for cell in cells]
    panels = []
    for same in zip(*layers, strict=True):
        for kind in ("weight", "bias"):
            violins = [
                Violin(name, part["points"], part["density"], part["quartiles"], part["mean"])
                for name, part in zip(names, (layer[kind] for layer in same), strict=True)
            ]
            panels.append(ViolinPanel(f"{same[0]['layer']}, {kind}", violins))
    return panels


def attack_strips(result: AttackResult, gallery: Gallery, classes: tuple[str, ...]) -> list[Strip]:
    """Every attack of a result as a strip."""
    strips = [strip_of(result[[row]], gallery, classes) for row in range(len(result))]
    return [strip for strip in strips if strip is not None]


def best_order(
    result: AttackResult, gallery: Gallery, visible: int | None, budget: int | None
) -> Strip | None:
    """The attack of a result that came nearest to the wanted order."""
    row = int(result.headline().argmax())
    return order_strip(
        result.original[row],
        result.adversarial[row],
        result.targets[row],
        gallery,
        eps=result.eps,
        visible=visible,
        budget=budget,
    )


def strip_values(strip: Strip) -> JsonObject:
    """A strip as plain values: images as PNG in base64, no larger than they are drawn."""
    return {
        **{name: getattr(strip, name) for name in ("goal", "eps", "wanted", "visible", "budget")},
        "original": _packed(strip.original, SIDES[0]),
        "adversarial": _packed(strip.adversarial, SIDES[0]),
        "query": None if strip.query is None else _packed(strip.query, SIDES[0]),
        **{
            name: [
                {"image": _packed(tile.image, SIDES[1]), **{mark: getattr(tile, mark) for mark in TILE_FACTS}}
                for tile in getattr(strip, name)
            ]
            for name in ("before", "after", "order")
        },
    }


def strip_from(values: JsonObject) -> Strip:
    """The strip of the values that `strip_values` made."""
    images = {
        name: None if values[name] is None else _unpacked(values[name])
        for name in ("original", "adversarial", "query")
    }
    rows = {
        name: tuple(Tile(**{**tile, "image": _unpacked(tile["image"])}) for tile in values[name])
        for name in ("before", "after", "order")
    }
    return Strip(**{**values, **images, **rows})


def _packed(image: Tensor, side: int) -> str:
    """An image (c, h, w) in [0, 1] as text."""
    return base64.b64encode(encode_png((255 * image.float().cpu()).round().byte(), side)).decode()


def _unpacked(text: str) -> Tensor:
    """The image (c, h, w) in [0, 1]."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=np.float32) / 255
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy())
