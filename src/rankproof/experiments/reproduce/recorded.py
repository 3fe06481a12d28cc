"""A table from its records alone: no data, no model, nothing is run."""

from pathlib import Path

from rankproof.data.download import SOURCES
from rankproof.experiments.reproduce.cell import Cell
from rankproof.experiments.reproduce.cells import by_published_schedule, cells_of, strong_cells
from rankproof.experiments.reproduce.journal import CompletedCells, Record
from rankproof.experiments.reproduce.recipe import TableRecipe
from rankproof.experiments.reproduce.verdict import Mark, Row, row_of


def recorded_rows(recipe: TableRecipe, root: Path) -> list[Row]:
    """Every printed figure with ours; the published schedule of a defence goes before the fast one.

    Args:
        root: folder of all records.
    """
    records, part, cells = CompletedCells(root), f"{recipe.paper}/{recipe.part}", cells_of(recipe)
    rows = []
    for cell, slow in zip(cells, by_published_schedule(recipe, cells), strict=True):
        record = records.recorded(part, slow.name) or records.recorded(part, cell.name)
        rows += [
            row_of(cell, each, record, recipe.tolerance, _missing(recipe, cell)) for each in cell.figures
        ]
    return rows


def recorded_strong(recipe: TableRecipe, root: Path) -> list[Row]:
    """The printed figures that our own search was run for, with what it came to."""
    records, part, rows = CompletedCells(root), f"{recipe.paper}/{recipe.part}", list[Row]()
    cells = cells_of(recipe)
    slower = strong_cells(by_published_schedule(recipe, cells))  # named as they are measured
    for cell, slow in zip(strong_cells(cells), slower, strict=True):
        record: Record | None = records.recorded(part, slow.name) or records.recorded(part, cell.name)
        if record is not None:
            rows += [row_of(cell, each, record, recipe.tolerance) for each in cell.figures]
    return rows


def _missing(recipe: TableRecipe, cell: Cell) -> Mark:
    """Why a cell has no record: some data sets have to be asked for."""
    data = {spec.data for spec in recipe.models if spec.name in cell.models}
    return "not run" if data <= SOURCES.keys() else "no data"
