"""The sections about the papers' own tables: what agrees, and the tables themselves."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

from rankproof.experiments.reproduce.grid import LEGEND, grid
from rankproof.experiments.reproduce.recipe import (
    TableRecipe,
    find_recipe,
    known_recipes,
    paper_name,
    read_recipe,
    recipe_folder,
)
from rankproof.experiments.reproduce.recorded import recorded_rows, recorded_strong
from rankproof.experiments.reproduce.verdict import MARKS, Row
from rankproof.experiments.results import own_search, records
from rankproof.experiments.results.section import Section
from rankproof.experiments.results.tables import table

RUN = "rankproof reproduce PAPER/TABLE"
PAPERS = ("eccv20", "iccv21")
SPEED_COLUMNS = ("wall_seconds", "seconds", "model_seconds")
COMPARED = ("agrees", "stronger", "weaker", "too few attacks")


@cache
def recipes(paper: str) -> tuple[TableRecipe, ...]:
    """The tables of a paper."""
    words = [word for word in known_recipes(recipe_folder()) if word.startswith(f"{paper}/")]
    found = (read_recipe(find_recipe(word, None)) for word in words)
    return tuple(recipe for recipe in found if isinstance(recipe, TableRecipe))


def measured() -> list[Row]:
    """Every printed figure of both papers that has a record."""
    rows = [row for paper in PAPERS for recipe in recipes(paper) for row in rows_of(recipe)]
    return [row for row in rows if row.record is not None]


def rows_of(recipe: TableRecipe) -> list[Row]:
    """Every printed figure of a table."""
    return recorded_rows(recipe, records.RECORDS)


def summary() -> str:
    """A line for each table: how many printed figures have which mark; then what our own search came to."""
    lines, total = [], Counter[str]()
    found = [(recipe, rows_of(recipe)) for paper in PAPERS for recipe in recipes(paper)]
    for recipe, rows in found:
        marks = Counter[str](row.mark for row in rows)
        total += marks
        lines.append((f"{paper_name(recipe.paper)}, {recipe.table}", *_counts(marks)))
    lines.append(("**all**", *_counts(total)))
    return table(("table", "figures", *MARKS, "agree, of those compared"), lines) + own_search.told(found)


def tables() -> str:
    """The tables that have records, each with its models."""
    parts = []
    for paper in PAPERS:
        for recipe in recipes(paper):
            rows = rows_of(recipe)
            if any(row.record is not None for row in rows):
                title = f"### {paper_name(paper)}, table {recipe.table}: {recipe.title}"
                shown = [*rows, *recorded_strong(recipe, records.RECORDS)]
                parts.append(f"{title}\n\n{_models(shown)}\n\n{grid(shown, recipe.figure)}")
        parts += _differences(paper)
    return "\n\n".join(parts)


def _counts(found: Counter[str]) -> tuple[str, ...]:
    compared = sum(found[mark] for mark in COMPARED)
    share = f"{100 * found['agrees'] / compared:.0f} %" if compared else ""
    return (str(found.total()), *(str(found[mark] or "") for mark in MARKS), share)


def _models(rows: Sequence[Row]) -> str:
    """The models that were measured, with their schedules."""
    found = {}
    for row in rows:
        for sheet in (row.record or {}).get("models", ()):
            recall = "" if sheet["recall_at_1"] is None else f", R@1 {sheet['recall_at_1']:.1f}"
            found[sheet["name"]] = f"{sheet['schedule']} schedule, {sheet['epochs']} epochs{recall}"
    trials = sorted({row.record["trials"] for row in rows if row.record is not None})
    told = "; ".join(f"{name}: {facts}" for name, facts in found.items())
    return f"{told}. T = {', '.join(f'{count:,}' for count in trials)}."


def _differences(paper: str) -> list[str]:
    """What somebody found out about the systematic differences of a paper, as it was written."""
    page = records.RECORDS / paper / "differences.md"
    if not page.is_file():
        return []
    return [f"### {paper_name(paper)}: what differs, and why\n\n{page.read_text().strip()}"]


def speed() -> str:
    """What a reproduction costs beside its attacks, and what a second worker gains."""
    (record,) = records.benchmark("reproduce")
    rows = [
        (str(row["workers"]), str(row["cells"]), *(f"{row[name]:.1f}" for name in SPEED_COLUMNS))
        for row in record["rows"]
    ]
    ratios = record["ratios"]
    told = (
        f"The wall time of one worker is {ratios['wall_over_cells']:.2f} times that of its attacks; "
        f"two workers are {ratios['second_worker']:.2f} times as fast."
    )
    header = ("workers", "cells", "wall seconds", "seconds of the attacks", "bare seconds")
    return f"{table(header, rows)}\n\n{told}"


SECTIONS = (
    Section(
        title="The papers' tables",
        text=(
            "How many printed figures were measured again, and with what outcome. A figure agrees within the "
            "tolerance that its recipe fixed beforehand (2 points of rank, 0.05 of tau) if its 95 % interval "
            "is no wider to either side; else it is stronger or weaker as an attack, or there were too few "
            "attacks to tell. A recipe of every table is in `recipes/`, its records are in `records/`. "
            "All of ICCV 2021 table 3 was measured on the shipped model, too: "
            "[the published figures of the black box](#black-box-the-published-figures). Its tables 6 and 7 "
            "in a world of our own are [here](#a-service-100-queries)."
        ),
        command=RUN,
        records=measured,
        render=summary,
        always=True,
    ),
    Section(
        title="The papers' tables, figure by figure",
        text=LEGEND,
        command=RUN,
        records=measured,
        render=tables,
    ),
    Section(
        title="The papers' tables: speed",
        text=(
            "A part of ECCV table 10 on the shipped model, as whole commands in empty folders: reading and "
            "embedding, attacks, verdicts, records and the table. Each worker has one thread."
        ),
        command="python benchmarks/reproduce.py --record",
        records=lambda: records.benchmark("reproduce"),
        render=speed,
    ),
)
