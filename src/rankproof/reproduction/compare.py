"""Measured figures beside printed ones: whether they agree, and how our own search compares."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from rankproof.data.download import SOURCES
from rankproof.goals.registry import spec
from rankproof.ranking.metrics import mean_interval
from rankproof.reproduction.cells import (
    STRONG,
    Figure,
    TableCell,
    by_published_schedule,
    cells_of,
    strong_cells,
)
from rankproof.reproduction.recipe import TableRecipe
from rankproof.reproduction.records import CompletedCells, Interval, Measurement

Mark = Literal[
    "agrees",
    "stronger",
    "weaker",
    "too few attacks",
    "not run",
    "no data",
    "training failed",
    "unreadable in print",
    "not compared",
]
MARKS: tuple[Mark, ...] = (
    *("agrees", "stronger", "weaker", "too few attacks", "unreadable in print"),
    *("not compared", "not run", "no data", "training failed"),
)
SLACK = 1e-9  # of differences of decimals
ROUNDING = {"rank": 0.05, "tau": 0.0005}  # of a printed figure: half of its last digit
KINDS = ("undefended", "defended")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One printed figure with ours beside.

    Args:
        cell, figure: which.
        record: what was measured; None where nothing was.
        mark: how the two compare.
    """

    cell: TableCell
    figure: Figure
    record: Measurement | None
    mark: Mark

    def measured(self, name: str | None) -> Interval | None:
        """Mean and interval of a figure of the cell; None where there is none."""
        if self.record is None or name is None:
            return None
        return self.record.figures.get(name)


def row_of(
    cell: TableCell,
    figure: Figure,
    record: Measurement | None,
    tolerance: float,
    missing: Mark = "not run",
) -> Row:
    """A figure and its verdict; `missing` says why there is no record."""
    if record is None:
        return Row(cell=cell, figure=figure, record=None, mark=missing)
    if not cell.comparable:
        mark: Mark = "not compared"
    elif figure.printed is None:
        mark = "unreadable in print"
    else:
        mean, low, high = record.figures[figure.name]
        half = None if low is None or high is None else (high - low) / 2
        mark = compare(mean - figure.printed, half, tolerance, rises=spec(cell.goal).larger_is_stronger)
    return Row(cell=cell, figure=figure, record=record, mark=mark)


def compare(gap: float, half: float | None, tolerance: float, *, rises: bool) -> Mark:
    """The verdict on a figure.

    It agrees within the tolerance if its 95 % interval is no wider than that to either side. It is stronger
    or weaker if it lies beyond, and a wide interval does as well.

    Args:
        gap: measured minus printed.
        half: half the width of the interval; None where a single attack has none.
        rises: whether a stronger attack has a larger figure.
    """
    sure = half is not None and half <= tolerance + SLACK
    if abs(gap) <= tolerance + SLACK:
        return "agrees" if sure else "too few attacks"
    if not sure and (half is None or abs(gap) <= tolerance + half + SLACK):
        return "too few attacks"
    return "stronger" if (gap > 0) == rises else "weaker"


def recorded_rows(recipe: TableRecipe, records: CompletedCells) -> list[Row]:
    """Every printed figure with ours, from records alone; the published schedule of a defence goes first."""
    part, cells = f"{recipe.paper}/{recipe.part}", cells_of(recipe)
    rows = []
    for cell, slow in zip(cells, by_published_schedule(recipe, cells), strict=True):
        record = records.recorded(part, slow.name) or records.recorded(part, cell.name)
        rows += [
            row_of(cell, each, record, recipe.tolerance, _missing(recipe, cell)) for each in cell.figures
        ]
    return rows


def recorded_strong(recipe: TableRecipe, records: CompletedCells) -> list[Row]:
    """The printed figures that our own search was run for, with what it came to."""
    part, rows, cells = f"{recipe.paper}/{recipe.part}", list[Row](), cells_of(recipe)
    slower = strong_cells(by_published_schedule(recipe, cells))  # named as they are measured
    for cell, slow in zip(strong_cells(cells), slower, strict=True):
        record = records.recorded(part, slow.name) or records.recorded(part, cell.name)
        if record is not None:
            rows += [row_of(cell, each, record, recipe.tolerance) for each in cell.figures]
    return rows


def _missing(recipe: TableRecipe, cell: TableCell) -> Mark:
    """Why a cell has no record: some data sets have to be asked for."""
    data = {spec.data for spec in recipe.models if spec.name in cell.models}
    return "not run" if data <= SOURCES.keys() else "no data"


def own_search_in_words(tables: Iterable[tuple[TableRecipe, Sequence[Row]]], records: CompletedCells) -> str:
    """How often it is at least as strong as the print, and as the published method, in sentences.

    Args:
        tables: each with its rows by the published method.
    """
    printed, paired = Counter[tuple[str, bool]](), Counter[str]()
    for recipe, published in tables:
        plain = {spec.name for spec in recipe.models if spec.defense == "none"}
        by_published = {row.cell.name: row for row in published}
        for cell, rows in _by_cell(recorded_strong(recipe, records)).items():
            kind = "undefended" if set(rows[0].cell.models) <= plain else "defended"
            for row in rows:
                if row.figure.printed is not None and row.cell.eps:
                    printed[kind, _as_strong(row, row.figure.printed, ROUNDING[recipe.figure])] += 1
            if (comparison := _paired(rows[0], by_published[cell])) is not None:
                paired[comparison] += 1
    return _against_print(printed) + _against_method(paired)


def _by_cell(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each cell, by the name that the cell has with the published method."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.cell.name.removesuffix(f"-{STRONG}"), []).append(row)
    return groups


def _as_strong(row: Row, printed: float, rounding: float) -> bool:
    ours = row.measured(row.figure.name)
    assert ours is not None  # all rows here have records
    gap = ours[0] - printed
    return (gap if spec(row.cell.goal).larger_is_stronger else -gap) >= -rounding


def _paired(strong: Row, published: Row) -> str | None:
    """How the two compare over the attacks that both have; None where they share none, or eps is 0."""
    ours, theirs = strong.record, published.record
    if not ours or not theirs or not strong.cell.eps or _made_for(ours) != _made_for(theirs):
        return None
    name, n = strong.figure.name, min(ours.trials, theirs.trials)
    gap = torch.tensor(ours.values[name][:n]) - torch.tensor(theirs.values[name][:n])
    gain = mean_interval(gap if spec(strong.cell.goal).larger_is_stronger else -gap)
    if gain.low > 0:
        return "stronger"
    return "weaker" if gain.high < 0 else "level"


def _made_for(record: Measurement) -> tuple[object, ...]:
    """Models and seed: which images and items are drawn follows from them."""
    return record.seed, [(model.name, model.sha256) for model in record.models]


def _against_print(counts: Counter[tuple[str, bool]]) -> str:
    parts = [
        f"{counts[kind, True]} of {counts[kind, True] + counts[kind, False]} figures of {kind} models"
        for kind in KINDS
        if counts[kind, True] + counts[kind, False]
    ]
    return f"\n\nOur own search is at least as strong as printed for {' and '.join(parts)}." if parts else ""


def _against_method(counts: Counter[str]) -> str:
    """Same model, images and targets: the print may be of a model that is moved more easily."""
    if not counts:
        return ""
    return (
        f" On the same models, images and targets as the published method, paired, it is stronger in "
        f"{counts['stronger']} of {counts.total()} cells, weaker in {counts['weaker']}; in the other "
        f"{counts['level']} the 95 % interval of the difference holds 0. What SP-QA keeps in place, or "
        "moves, is not counted here, nor is eps = 0."
    )
