"""What came of a cell: one value for each attack, and their mean with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rankproof.ranking.metrics import summarise
from rankproof.result import AttackResult

DIGITS = 6  # of the values that are kept

Summaries = dict[str, tuple[float, float | None, float | None]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of a cell.

    Args:
        values: one value per attack by the name of the figure; per target of a universal cell.
        figures: mean and 95 % interval of each, None for the ends where there is none.
        steps: evaluations or queries of each attack.
        seconds: time of the attacks alone.
        model_seconds: the bare work they cannot avoid.
        gallery_size: |X|.
        device: where it ran.
        notes: what a reader should know.
        attacks: the attacks themselves, by the folder below the cell's where each is saved: "" of a single
            one; none of timed cells.
        drawing: of a figure's cell, what is drawn, as plain values.
    """

    values: dict[str, list[float]]
    figures: Summaries
    steps: int
    seconds: float
    model_seconds: float
    gallery_size: int
    device: str
    notes: tuple[str, ...]
    attacks: Mapping[str, AttackResult] = field(default_factory=dict)
    drawing: dict[str, Any] | None = None


def plain(values: Tensor) -> list[float]:
    """Values as they are kept."""
    return [round(value, DIGITS) for value in values.double().tolist()]


def summary(values: list[float]) -> tuple[float, float | None, float | None]:
    """Mean and 95 % interval, None for the ends where there is none."""
    found = summarise(torch.tensor(values, dtype=torch.float64))
    low, high = found.ends
    return found.mean, low, high
