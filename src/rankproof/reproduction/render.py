"""The printed table with our figures beside it, in Markdown, LaTeX, CSV and JSON, and what it is made of."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from rankproof.io import JsonObject, utf8, write_atomically
from rankproof.ranking.metrics import mean_interval
from rankproof.reproduction.cells import Figure, TableCell, is_order
from rankproof.reproduction.compare import MARKS, Mark, Row
from rankproof.reproduction.recipe import TableRecipe, paper_name
from rankproof.reproduction.records import ModelFacts
from rankproof.reproduction.schema import UNREADABLE, Typed
from rankproof.threat import format_eps

NOT_RUN = "not run yet"

HEADER = ("attack", "eps", "figure", "published", "ours [95 %]", "T", "verdict")
BESIDE = {"sp_rank": "C_SP", "before": "start", "mean_rank": "mR"}
BESIDE |= {"seen_before": "start", "unseen_before": "start"}
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "~": r"\textasciitilde{}",
}

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


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are flush right."""
    rule = ["---"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def number(value: float | None, metric: str = "rank") -> str:
    """A rank or a share in %, or tau; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.3f}" if metric == "tau" else f"{value:.2f}"


def with_interval(value: float, ends: Sequence[float | None], metric: str = "rank") -> str:
    """A recorded mean and its 95 % interval, where it has one."""
    low, high = ends
    if low is None or high is None:
        return number(value, metric)
    return f"{number(value, metric)} [{number(low, metric)}, {number(high, metric)}]"


def estimate(values: Sequence[int | float], sign: str = "") -> str:
    """Mean and 95 % interval of one value per attack."""
    center = mean_interval(torch.tensor(values, dtype=torch.float64))
    return f"{center.mean:{sign}.3f} [{center.low:{sign}.3f}, {center.high:{sign}.3f}]"


def mean(values: Sequence[int | float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def nearness(gap: float, tolerance: float) -> str:
    """Whether a figure is near the printed one."""
    if abs(gap) <= tolerance:
        return "agrees"
    return "higher" if gap > 0 else "lower"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that was run, whole or in part.

    Args:
        recipe: what is printed.
        rows: every printed figure with ours.
        models: facts of each model by name; None for one without data.
        command: what makes it again.
    """

    recipe: TableRecipe
    rows: Sequence[Row]
    models: Mapping[str, ModelFacts | None]
    command: str

    page = "table.md"

    @property
    def counts(self) -> dict[Mark, int]:
        """How many figures have each mark; marks that none has are left out."""
        counts = Counter(row.mark for row in self.rows)
        return {mark: counts[mark] for mark in MARKS if counts[mark]}

    @property
    def summary(self) -> str:
        """One line of counts."""
        parts = ", ".join(f"{count} {mark}" for mark, count in self.counts.items())
        return f"{len(self.rows)} printed figures: {parts}"

    @property
    def title(self) -> str:
        """Paper, number and title."""
        return f"{paper_name(self.recipe.paper)}, table {self.recipe.table}: {self.recipe.title}"

    def save(self, folder: Path) -> Path:
        """Write table.md, table.tex, table.csv and table.json."""
        for name, text in (
            (self.page, self.markdown()),
            ("table.tex", self.latex()),
            ("table.csv", self.csv()),
            ("table.json", json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n"),
        ):
            write_atomically(folder / name, utf8(text))
        return folder / self.page

    def markdown(self) -> str:
        """One part for each model, with a table of the models and the counts."""
        parts = [f"# {self.title}", self._preface(), table(("model", *FACTS), self._facts())]
        parts += [f"## {name}\n\n{table(HEADER, rows)}" for name, rows in self._by_model()]
        return "\n\n".join([*parts, f"{self.summary}.", *self._notes(), f"`{self.command}`"]) + "\n"

    def latex(self) -> str:
        """One tabular, for the packages that every article has."""
        lines = [
            f"% {self.title}",
            r"\begin{tabular}{llrrrrl}",
            r"\hline",
            " & ".join(_escaped(word) for word in HEADER) + r" \\",
        ]
        for name, rows in self._by_model():
            lines += [r"\hline", rf"\multicolumn{{7}}{{l}}{{{_escaped(name)}}} \\"]
            lines += [" & ".join(_escaped(word) for word in row) + r" \\" for row in rows]
        return "\n".join([*lines, r"\hline", r"\end{tabular}", f"% {self.summary}"]) + "\n"

    def csv(self) -> str:
        """One line for each printed figure."""
        stream = io.StringIO()
        lines = [self._line(row) for row in self.rows]
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return stream.getvalue()

    def as_dict(self) -> JsonObject:
        """The table as a JSON object."""
        records = [row.record for row in self.rows if row.record is not None]
        return {
            "paper": self.recipe.paper,
            "table": self.recipe.table,
            "title": self.recipe.title,
            "figure": self.recipe.figure,
            # JSON knows no infinity: a table that is not compared has no tolerance.
            "tolerance": self.recipe.tolerance if self.recipe.tolerance < float("inf") else None,
            "counts": self.counts,
            "models": {name: None if model is None else asdict(model) for name, model in self.models.items()},
            "rows": [self._line(row) for row in self.rows],
            "notes": self._notes(),
            "versions": dict(records[0].versions) if records else None,
            "command": self.command,
        }

    def _preface(self) -> str:
        unit = {"rank": "Ranks in %", "tau": "tau, and mR beside", "seconds": "Seconds of one attack"}
        tolerance = self.recipe.tolerance
        if tolerance == float("inf"):
            return f"{unit[self.recipe.figure]}; shown, not compared."
        return (
            f"{unit[self.recipe.figure]}. A figure agrees within {tolerance:g} of the printed one, its 95 % "
            f"interval no wider than that to either side; else it is stronger or weaker as an attack, or has "
            f"too few attacks to tell. {UNREADABLE}: the print cannot be read."
        )

    def _facts(self) -> list[tuple[str, ...]]:
        printed = {spec.name: spec.recall_at_1 for spec in self.recipe.models}
        return [_facts_of(name, model, printed.get(name, "")) for name, model in self.models.items()]

    def _by_model(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        groups: dict[str, list[tuple[str, ...]]] = {}
        for row in self.rows:
            groups.setdefault(self._model(row), []).append(_words(row, self.recipe.figure))
        return list(groups.items())

    def _model(self, row: Row) -> str:
        """The model of a row, after the one its examples were made on, each with its schedule."""
        source = () if row.cell.source is None else (row.cell.source,)
        return " to ".join(self._labelled(name) for name in (*source, row.cell.model))

    def _labelled(self, name: str) -> str:
        model = self.models.get(name)
        return name if model is None else f"{name} ({model.schedule} schedule)"

    def _line(self, row: Row) -> JsonObject:
        """A row of the CSV and JSON files."""
        cell, figure, record = row.cell, row.figure, row.record
        ours, beside = row.measured(figure.name), row.measured(figure.beside)
        return {
            "cell": cell.name,
            "model": self._model(row),
            **{name: getattr(cell, name) for name in ("goal", "eps", "letter", "count", "xi", "method")},
            **{name: getattr(cell, name) for name in ("visible", "budget")},
            "figure": figure.name,
            "published": figure.printed,
            **dict(zip(("ours", "low", "high"), ours or (None,) * 3, strict=True)),
            "beside": figure.beside,
            "beside_published": figure.beside_printed,
            **dict(zip(("beside_ours", "beside_low", "beside_high"), beside or (None,) * 3, strict=True)),
            "mark": row.mark,
            **{
                name: None if record is None else getattr(record, name)
                for name in ("trials", "seed", "steps", "seconds", "model_seconds")
            },
            "published_trials": cell.published_trials,
        }

    def _notes(self) -> list[str]:
        """The notes of all cells, each once, and the time of the attacks."""
        records = {row.cell.name: row.record for row in self.rows if row.record is not None}
        notes = dict.fromkeys(note for record in records.values() for note in record.notes)
        seconds = sum(record.seconds for record in records.values())
        return [f"Note: {note}." for note in notes] + [f"{seconds:,.0f} s of attacks in all."]


FACTS = ("data", "schedule", "epochs", "seed", "R@1 published", "R@1 ours", "from")


def _facts_of(name: str, model: ModelFacts | None, printed: Typed) -> tuple[str, ...]:
    if model is None:
        return (name, "not here", *("",) * 3, str(printed), "", "")
    recall = model.recall_at_1
    return (
        *(name, model.data, model.schedule, str(model.epochs), str(model.seed), str(printed)),
        "" if recall is None else f"{recall:.1f}",
        model.source if recall is not None else "not trained yet",
    )


def _words(row: Row, metric: str) -> tuple[str, ...]:
    """A row of the Markdown and LaTeX tables."""
    cell, figure = row.cell, row.figure
    digits = "rank" if metric == "rank" else "tau"
    beside = () if figure.beside is None else (_shown(row, figure.beside, "rank"),)
    return (
        attack_words(cell),
        eps_words(cell),
        ", ".join(filter(None, (figure.name, BESIDE.get(figure.beside or "")))),
        ", ".join((printed_words(figure.printed), *_beside_printed(figure))),
        ", ".join(filter(None, (_shown(row, figure.name, digits), *beside))),
        f"{row.record.trials:,}" if row.record else "",
        row.mark,
    )


def attack_words(cell: TableCell, *, count: bool = True) -> str:
    """Goal, parameters and method; `count` says whether w, m or k is among them."""
    parts = [cell.goal.upper() if is_order(cell.goal) else cell.goal]
    if count:
        parts.append(f"{cell.letter} = {cell.count}")
    if cell.xi is not None:
        parts.append(f"xi = {cell.xi:g}")
    if cell.visible is not None:
        parts.append(f"N = {cell.visible}, Q = {cell.budget}")
    return ", ".join((*parts, *(() if cell.method == "published" else (cell.method,))))


def eps_words(cell: TableCell) -> str:
    """eps, of the order attack as n/255."""
    return format_eps(cell.eps) if is_order(cell.goal) else f"{cell.eps:g}"


def _shown(row: Row, name: str, metric: str) -> str:
    interval = row.measured(name)
    return "" if interval is None else with_interval(interval[0], interval[1:], metric)


def printed_words(value: float | None) -> str:
    """A printed figure."""
    return UNREADABLE if value is None else f"{value:g}"


def _beside_printed(figure: Figure) -> tuple[str, ...]:
    return () if figure.beside is None else (printed_words(figure.beside_printed),)


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text)


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
    shown = {line: lines[line] for line in order if line in run}
    columns = dict.fromkeys(column for entries in shown.values() for column in entries)
    body = [(*line, *(entries.get(column, "") for column in columns)) for line, entries in shown.items()]
    return table(("model", "attack", "eps", *columns), body)


def _line(cell: TableCell) -> tuple[str, ...]:
    """Model, attack and eps of a line."""
    model = cell.model if cell.source is None else f"{cell.source} to"
    return model, attack_words(cell, count=False), eps_words(cell)


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
    ours = row.measured(row.figure.name)
    text = "" if ours is None else number(ours[0], digits)
    return " ".join(filter(None, (text, f"({printed_words(row.figure.printed)})", SIGNS.get(row.mark, ""))))
