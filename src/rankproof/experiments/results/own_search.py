"""What our own search came to where a paper's attack was run: against the print, and attack by attack."""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from rankproof.experiments.reproduce.cell import STRONG
from rankproof.experiments.reproduce.recipe import TableRecipe
from rankproof.experiments.reproduce.recorded import recorded_strong
from rankproof.experiments.reproduce.verdict import Row, larger_is_stronger
from rankproof.experiments.results import records
from rankproof.ranking.metrics import summarise

ROUNDING = {"rank": 0.05, "tau": 0.0005}  # of a printed figure: half of its last digit
KINDS = ("undefended", "defended")


def told(tables: Iterable[tuple[TableRecipe, Sequence[Row]]]) -> str:
    """How often it is at least as strong as the print, and as the published method, in sentences.

    Args:
        tables: each with what came of the published method.
    """
    printed, paired = Counter[tuple[str, bool]](), Counter[str]()
    for recipe, published in tables:
        plain = {spec.name for spec in recipe.models if spec.defense == "none"}
        by_published = {row.cell.name: row for row in published}
        for cell, rows in _by_cell(recorded_strong(recipe, records.RECORDS)).items():
            kind = "undefended" if set(rows[0].cell.models) <= plain else "defended"
            for row in rows:
                if row.figure.printed is not None and row.cell.eps:
                    printed[kind, _as_strong(row, row.figure.printed, ROUNDING[recipe.figure])] += 1
            if (found := _paired(rows[0], by_published[cell])) is not None:
                paired[found] += 1
    return _against_print(printed) + _against_method(paired)


def _by_cell(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each cell, by the name that the cell has with the published method."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.cell.name.removesuffix(f"-{STRONG}"), []).append(row)
    return found


def _as_strong(row: Row, printed: float, rounding: float) -> bool:
    own = row.measured(row.figure.name)
    assert own is not None  # only rows with records are asked
    gap = own[0] - printed
    return (gap if larger_is_stronger(row.cell) else -gap) >= -rounding


def _paired(strong: Row, published: Row) -> str | None:
    """How the two compare over the attacks that both have; None where they share none, or eps is 0."""
    ours, theirs = strong.record, published.record
    if not ours or not theirs or not strong.cell.eps or _made_for(ours) != _made_for(theirs):
        return None
    name, n = strong.figure.name, min(ours["trials"], theirs["trials"])
    gap = torch.tensor(ours["values"][name][:n]) - torch.tensor(theirs["values"][name][:n])
    found = summarise(gap if larger_is_stronger(strong.cell) else -gap)
    if found.low > 0:
        return "stronger"
    return "weaker" if found.high < 0 else "level"


def _made_for(record: records.Record) -> tuple[object, ...]:
    """Models and seed: which pictures and items are drawn follows from them."""
    return record["seed"], [(sheet["name"], sheet["sha256"]) for sheet in record["models"]]


def _against_print(counts: Counter[tuple[str, bool]]) -> str:
    parts = [
        f"{counts[kind, True]} of {counts[kind, True] + counts[kind, False]} figures of {kind} models"
        for kind in KINDS
        if counts[kind, True] + counts[kind, False]
    ]
    return f"\n\nOur own search is at least as strong as printed for {' and '.join(parts)}." if parts else ""


def _against_method(counts: Counter[str]) -> str:
    """Same model, pictures and targets: the print may be of a model that is moved more easily."""
    if not counts:
        return ""
    return (
        f" On the same models, pictures and targets as the published method, paired, it is stronger in "
        f"{counts['stronger']} of {counts.total()} cells, weaker in {counts['weaker']}; in the other "
        f"{counts['level']} the 95 % interval of the difference holds 0. What SP-QA keeps in place, or "
        "moves, is not counted here, nor is eps = 0."
    )
