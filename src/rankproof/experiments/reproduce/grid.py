"""A table as compactly as it is printed: a line for each attack and eps, a column for each w, m or k."""

from collections.abc import Sequence
from dataclasses import replace

from rankproof.experiments.reproduce.cell import Cell
from rankproof.experiments.reproduce.table import attack_words, eps_words, printed_words
from rankproof.experiments.reproduce.verdict import Mark, Row
from rankproof.experiments.results.tables import number, table

SIGNS: dict[Mark, str] = {
    "agrees": "=",
    "stronger": "+",
    "weaker": "−",
    "too few attacks": "~",
}
LEGEND = (
    "Ours, the printed figure in brackets, and how they compare as attacks: = agrees, + stronger, − weaker, "
    "~ too few attacks to tell; ? cannot be read."
)


def grid(rows: Sequence[Row], metric: str) -> str:
    """Markdown; lines without any record are left out, those of our own search follow the published ones.

    Args:
        metric: "rank", "tau" or "seconds".
    """
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    run, follows = set[tuple[str, ...]](), dict[tuple[str, ...], tuple[str, ...]]()
    for row in rows:
        line = _line(row.cell)
        follows[line] = _line(replace(row.cell, method="published"))
        lines.setdefault(line, {})[_column(row)] = _entry(row, metric)
        if row.record is not None:
            run.add(line)
    place = {line: number for number, line in enumerate(lines)}
    order = sorted(lines, key=lambda line: place.get(follows[line], place[line]))
    kept = {line: lines[line] for line in order if line in run}
    columns = dict.fromkeys(column for entries in kept.values() for column in entries)
    body = [(*line, *(entries.get(column, "") for column in columns)) for line, entries in kept.items()]
    return table(("model", "attack", "eps", *columns), body)


def _line(cell: Cell) -> tuple[str, ...]:
    """Model, attack and eps of a line."""
    model = cell.model if cell.source is None else f"{cell.source} to"
    return model, attack_words(cell, knob=False), eps_words(cell)


def _column(row: Row) -> str:
    match row.cell.run:
        case "transfer":
            return row.cell.model
        case "universal" | "service":
            return row.figure.name
        case _:
            return f"{row.cell.letter} = {row.cell.count}"


def _entry(row: Row, metric: str) -> str:
    """Ours, the printed figure and the sign of the verdict; C_SP and mR are in the records."""
    digits = "rank" if metric == "rank" else "tau"
    own = row.measured(row.figure.name)
    ours = "" if own is None else number(own[0], digits)
    return " ".join(filter(None, (ours, f"({printed_words(row.figure.printed)})", SIGNS.get(row.mark, ""))))
