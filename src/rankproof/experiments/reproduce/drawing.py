"""A figure that was run, and what is drawn of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankproof.experiments.reproduce.cell import Cell
from rankproof.experiments.reproduce.journal import Record
from rankproof.experiments.reproduce.recipe import FigureRecipe, paper_name
from rankproof.experiments.reproduce.sheets import sheets
from rankproof.experiments.reproduce.verdict import Mark
from rankproof.files import write_atomically

KEPT = ("run", "model", "goal", "eps", "letter", "count", "xi", "method", "visible", "budget")
MADE = ("trials", "seed", "steps", "seconds", "figures", "notes", "drawing")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure, whole or in part.

    Args:
        recipe: what is drawn.
        parts: each cell with its record, or with why it has none.
        models: what is known of each model, by name; None for one without data.
        command: what makes it again.
    """

    recipe: FigureRecipe
    parts: Sequence[tuple[Cell, Record | Mark]]
    models: Mapping[str, Mapping[str, Any] | None]
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

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values: what the pictures are drawn from."""
        return {
            "paper": self.recipe.paper,
            "part": self.recipe.part,
            "title": self.title,
            "drawing": self.recipe.drawing,
            "note": self.recipe.note,
            "models": {name: None if facts is None else dict(facts) for name, facts in self.models.items()},
            "cells": [
                {"cell": cell.name, **{name: getattr(cell, name) for name in KEPT}, **_made(part)}
                for cell, part in self.parts
            ],
            "command": self.command,
        }

    def save(self, folder: Path) -> Path:
        """Write figure.json, the pictures drawn from it, and figure.md that shows them."""
        told = self.as_dict()
        content = (json.dumps(told, allow_nan=False) + "\n").encode()
        write_atomically(folder / "figure.json", content)
        pictures = sheets(told)
        for name, picture in pictures.items():
            write_atomically(folder / name, picture)
        write_atomically(folder / self.page, self._markdown([*pictures]).encode())
        return folder / self.page

    def _markdown(self, names: Sequence[str]) -> str:
        shown = [f"![{name}]({name})" for name in names if name.endswith(".png")]
        records = [part for _, part in self.parts if not isinstance(part, str)]
        notes = dict.fromkeys(note for record in records for note in record["notes"])
        facts = [
            f"- {name}: {'no data' if facts is None else _facts(facts)}"
            for name, facts in self.models.items()
        ]
        parts = [f"# {self.title}", *filter(None, [self.recipe.note]), *shown, "\n".join(facts)]
        parts += [f"Note: {note}." for note in notes]
        return "\n\n".join([*parts, f"{self.summary}.", f"`{self.command}`"]) + "\n"


def _made(part: Record | Mark) -> dict[str, Any]:
    """What a record has to draw; of a cell without one the reason."""
    if isinstance(part, str):
        return {"missing": part}
    return {name: part[name] for name in MADE if name in part}


def _facts(facts: Mapping[str, Any]) -> str:
    """A model in a line."""
    recall = "not trained yet" if facts["recall_at_1"] is None else f"R@1 {facts['recall_at_1']:.1f}"
    schooling = f"{facts['schedule']} schedule, {facts['epochs']} epochs"
    return f"{facts['data']}, {schooling}, {recall}, {facts['source']}"
