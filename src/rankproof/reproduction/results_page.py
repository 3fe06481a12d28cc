"""docs/results.md: the papers' tables and our own experiments, section by section, from records."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, stdev

from rankproof.goals.registry import order_of, spec
from rankproof.io import JsonObject, utf8, write_atomically, write_json
from rankproof.reproduction.cells import (
    STRONG,
    TableCell,
    cells_of,
    cells_of_block,
    eps_name,
    is_order,
    lowers,
)
from rankproof.reproduction.compare import (
    MARKS,
    Row,
    own_search_in_words,
    recorded_rows,
    recorded_strong,
)
from rankproof.reproduction.recipe import (
    ExperimentRecipe,
    Recipe,
    Section,
    TableRecipe,
    find_recipe,
    known_recipes,
    paper_name,
    read_recipe,
    recipe_folder,
)
from rankproof.reproduction.records import (
    CompletedCells,
    Interval,
    Measurement,
    mean_and_interval,
    read_benchmark,
)
from rankproof.reproduction.render import (
    LEGEND,
    NOT_RUN,
    eps_words,
    estimate,
    grid,
    mean,
    nearness,
    number,
    table,
    with_interval,
)
from rankproof.reproduction.schema import METHODS, ServiceBlock
from rankproof.threat import format_eps

PAPERS = ("eccv20", "iccv21")
EXPERIMENTS = ("baseline", "papers", "stronger", "zoo", "black-box", "services", "training")
COMPARED = ("agrees", "stronger", "weaker", "too few attacks")
CONVERGED = "converged"  # our own search with gradients, until it finds no more
OURS, REFERENCE = "auto", "spsa"  # the black-box searches that are compared everywhere
TOLERANCE = {"rank": 3.0, "tau": 0.05}
UNTOUCHED = {"ca-": "1 to 2.5", "qa-": "0.50"}  # ranks at eps = 0 of goals that choose among the nearest
WITHIN = [f"within-{eps_name(level / 255)}" for level in (0.5, 1, 2, 4, 8, 16, 32)]
WANTED = (1.4, 0.1, 0.05)  # times SPSA's tau where that is above the second, else higher by the third
NEAR = {"fashion-mnist": 2.0, "mnist": 0.7}  # how far R@1 may be from the printed one
WEAKER = 6.0  # by how much a rank may be on the attacker's side of the printed one
MODEL_TABLES = {"fashion-mnist": ("table10", "table3"), "mnist": ("table9", "table2")}


@dataclass(frozen=True, kw_only=True)
class View:
    """What a section shows.

    Args:
        cells: those of its blocks.
        measured: the measurement of each, by name; None where it was not run yet.
        records: all records.
    """

    cells: Sequence[TableCell]
    measured: Mapping[str, Measurement | None]
    records: CompletedCells

    def of(self, cell: TableCell) -> Measurement | None:
        """The measurement of a cell."""
        return self.measured.get(cell.name)

    def present(self) -> list[tuple[TableCell, Measurement]]:
        """The cells that were run."""
        return [(cell, record) for cell in self.cells if (record := self.of(cell)) is not None]

    def like(self, cell: TableCell, method: str) -> Measurement | None:
        """The measurement of the same attack by another method."""
        wanted = _same_attack(cell, method)
        return next((self.of(each) for each in self.cells if _same_attack(each, each.method) == wanted), None)

    def like_of(self, cell: TableCell, method: str) -> Measurement | None:
        """The measurement of the same attack on the same model by another method."""
        wanted = cell.model, _same_attack(cell, method)
        same = (each for each in self.cells if (each.model, _same_attack(each, each.method)) == wanted)
        return next((self.of(each) for each in same), None)

    def benchmark(self, name: str) -> JsonObject | None:
        """The record of a benchmark."""
        return read_benchmark(self.records.root, name)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment of our own, whole or in part.

    Args:
        recipe: what is measured.
        measured: the measurement of each cell by name; None where it was not run yet.
        records: all records.
        command: what makes it again.
    """

    recipe: ExperimentRecipe
    measured: Mapping[str, Measurement | None]
    records: CompletedCells
    command: str = ""

    page = "results.md"

    @property
    def title(self) -> str:
        """The title of the recipe."""
        return self.recipe.title

    @property
    def summary(self) -> str:
        """One line of counts."""
        done = sum(each is not None for each in self.measured.values())
        return f"{done} of {len(self.measured)} measured"

    def sections(self) -> list[str]:
        """Each section in Markdown."""
        return [self._section(section) for section in self.recipe.sections]

    def as_dict(self) -> JsonObject:
        """The experiment as a JSON object."""
        measured = {name: None if each is None else each.to_json() for name, each in self.measured.items()}
        return {"title": self.title, "measured": measured, "command": self.command}

    def save(self, folder: Path) -> Path:
        """Write results.md and results.json."""
        write_json(folder / "results.json", self.as_dict(), allow_nan=False)
        parts = [f"# {self.title}", *self.sections(), f"{self.summary}."]
        write_atomically(folder / self.page, utf8("\n\n".join(parts) + "\n"))
        return folder / self.page

    def _section(self, section: Section) -> str:
        cells = {cell.name: cell for n in section.blocks for cell in cells_of_block(self.recipe, n - 1)}
        view = View(cells=list(cells.values()), measured=self.measured, records=self.records)
        shown = "" if view.cells and not view.present() else VIEWS[section.view](view)
        command = section.command or f"rankproof reproduce {self.recipe.paper}/{self.recipe.part}"
        return _markdown(section.title, section.text, command, shown or f"{NOT_RUN.capitalize()}.")


def page(records: CompletedCells) -> str:
    """docs/results.md."""
    parts = [
        "# Results",
        "Made by `make results` from `records/`; do not edit. Each section names its command.",
        *papers_sections(records),
        *(section for name in EXPERIMENTS for section in experiment(name, records).sections()),
    ]
    return "\n\n".join(parts) + "\n"


def experiment(name: str, records: CompletedCells) -> Experiment:
    """What is recorded of one of our own experiments."""
    recipe = _recipe(f"own/{name}")
    assert isinstance(recipe, ExperimentRecipe)
    measured = {cell.name: records.recorded(f"own/{name}", cell.name) for cell in cells_of(recipe)}
    return Experiment(recipe=recipe, measured=measured, records=records)


def headline(records: CompletedCells) -> str:
    """The small table of the README."""
    rows = []
    stronger = experiment("stronger", records)
    view = View(cells=cells_of(stronger.recipe), measured=stronger.measured, records=records)
    for cell, weak, best in _pairs(view):
        if is_order(cell.goal) and cell.count in (5, 10):
            before, what = "0", f"order of the top {cell.count} (tau)"
        elif cell.letter == "w" and cell.count == 1 and cell.eps > 0.02:
            what = f"{'sink' if lowers(cell.goal) else 'raise'} an item (rank, %)"
            before = number(weak.figures["before"][0])
        else:
            continue
        figures = (number(each.figures[_metric(cell)][0], _metric(cell)) for each in (weak, best))
        after, strong = figures
        rows.append((what, eps_words(cell), before, after, f"**{strong}**"))
    return table(("attack on Fashion-MNIST", "eps", "untouched", "published PGD", "rankproof"), rows)


# -- the papers' tables


def papers_sections(records: CompletedCells) -> Iterator[str]:
    """The sections about the papers' own tables."""
    run, rows = "rankproof reproduce PAPER/TABLE", _paper_rows(records)
    some = any(row.record is not None for table_rows in rows.values() for row in table_rows)
    not_run = f"{NOT_RUN.capitalize()}."
    yield _markdown("The papers' tables", SUMMARY_TEXT, run, paper_summary(records))
    title = "The papers' tables, figure by figure"
    yield _markdown(title, LEGEND, run, paper_tables(records) if some else not_run)
    title, command = "The papers' tables: speed", "python benchmarks/reproduce.py --record"
    yield _markdown(title, SPEED_TEXT, command, paper_speed(records) or not_run)


def paper_summary(records: CompletedCells) -> str:
    """A line for each table: how many printed figures have which mark; then our own search in words."""
    lines, total = [], Counter[str]()
    rows_of = _paper_rows(records)
    for recipe, rows in rows_of.items():
        marks = Counter[str](row.mark for row in rows)
        total += marks
        lines.append((f"{paper_name(recipe.paper)}, {recipe.table}", *_counts(marks)))
    lines.append(("**all**", *_counts(total)))
    header = ("table", "figures", *MARKS, "agree, of those compared")
    return table(header, lines) + own_search_in_words(rows_of.items(), records)


def paper_tables(records: CompletedCells) -> str:
    """The tables that have records, each with its models; what differs stands below those of a paper."""
    parts = []
    for paper in PAPERS:
        for recipe, rows in _paper_rows(records, paper).items():
            if any(row.record is not None for row in rows):
                shown = [*rows, *recorded_strong(recipe, records)]
                title = f"### {paper_name(paper)}, table {recipe.table}: {recipe.title}"
                parts.append(f"{title}\n\n{_models(shown)}\n\n{grid(shown, recipe.figure)}")
        differences = records.root / paper / "differences.md"
        if differences.is_file():
            title = f"### {paper_name(paper)}: what differs, and why"
            parts.append(f"{title}\n\n{differences.read_text().strip()}")
    return "\n\n".join(parts)


def paper_speed(records: CompletedCells) -> str:
    """What a reproduction costs beside its attacks, and what a second worker gains."""
    record = read_benchmark(records.root, "reproduce")
    if record is None:
        return ""
    names = ("wall_seconds", "seconds", "model_seconds")
    rows = [
        (str(row["workers"]), str(row["cells"]), *(f"{row[name]:.1f}" for name in names))
        for row in record["rows"]
    ]
    ratios = record["ratios"]
    text = (
        f"The wall time of one worker is {ratios['wall_over_cells']:.2f} times that of its attacks; "
        f"two workers are {ratios['second_worker']:.2f} times as fast."
    )
    header = ("workers", "cells", "wall seconds", "seconds of the attacks", "bare seconds")
    return f"{table(header, rows)}\n\n{text}"


@cache
def paper_recipes(paper: str) -> tuple[TableRecipe, ...]:
    """The tables of a paper."""
    words = [word for word in known_recipes(recipe_folder()) if word.startswith(f"{paper}/")]
    return tuple(recipe for word in words if isinstance(recipe := _recipe(word), TableRecipe))


def _paper_rows(records: CompletedCells, *papers: str) -> dict[TableRecipe, list[Row]]:
    """Every printed figure, by table."""
    recipes = [recipe for paper in papers or PAPERS for recipe in paper_recipes(paper)]
    return {recipe: recorded_rows(recipe, records) for recipe in recipes}


def _counts(marks: Counter[str]) -> tuple[str, ...]:
    compared = sum(marks[mark] for mark in COMPARED)
    share = f"{100 * marks['agrees'] / compared:.0f} %" if compared else ""
    return (str(marks.total()), *(str(marks[mark] or "") for mark in MARKS), share)


def _models(rows: Sequence[Row]) -> str:
    """The models that were measured, with their schedules."""
    models_by_name = {}
    records = [row.record for row in rows if row.record is not None]
    for model in (model for record in records for model in record.models):
        recall = "" if model.recall_at_1 is None else f", R@1 {model.recall_at_1:.1f}"
        models_by_name[model.name] = f"{model.schedule} schedule, {model.epochs} epochs{recall}"
    trials = sorted({record.trials for record in records})
    models = "; ".join(f"{name}: {model}" for name, model in models_by_name.items())
    return f"{models}. T = {', '.join(f'{count:,}' for count in trials)}."


# -- attacks with gradients


def baseline(view: View) -> str:
    """Figures where nothing may be changed."""
    rows = []
    for cell, record in view.present():
        rank = record.figures.get("mean_rank")
        shown = "" if rank is None else f"{rank[0]:.4f}"
        rows.append((_attack(cell), _untouched(cell), _after(cell, record), shown, f"{record.trials:,}"))
    return _table(("eps = 0", "expected", "measured [95 %]", "mR", "T"), rows)


def _untouched(cell: TableCell) -> str:
    """The expected figure at eps = 0."""
    return UNTOUCHED.get(cell.goal) or number(spec(cell.goal).clean_value, _metric(cell))


def published(view: View) -> str:
    """Our figures beside the printed ones."""
    rows = []
    for cell, record in view.present():
        printed = _printed_figures()[cell.goal, cell.count, cell.eps]
        gap = record.figures[_metric(cell)][0] - printed[0]
        comparison = "agrees" if abs(gap) <= TOLERANCE[_metric(cell)] else "apart"
        beside = "" if "sp_rank" not in record.figures else f"C_SP {record.figures['sp_rank'][0]:.2f}"
        if "mean_rank" in record.figures:
            beside = f"mR {record.figures['mean_rank'][0]:.1f} (published {printed[1]:.1f})"
        difference = f"{gap:+.3f}" if is_order(cell.goal) else f"{gap:+.1f}"
        shown = (f"{printed[0]:g}", _after(cell, record), difference, comparison, beside)
        rows.append((_attack(cell), eps_words(cell), *shown))
    if not rows:
        return ""
    agree = sum(row[5] == "agrees" for row in rows)
    header = ("attack", "eps", "published", "ours [95 %]", "difference", "", "also")
    return f"{table(header, rows)}\n\n{agree} of {len(rows)} figures agree."


def stronger_order(view: View) -> str:
    """The order attack: plain PGD and the strong search."""
    rows = []
    for cell, weak, best in _pairs(view):
        tau, rank = ([each.figures[name][0] for each in (weak, best)] for name in ("tau", "mean_rank"))
        figures = (_after(cell, weak), _after(cell, best), f"{tau[1] / tau[0]:.2f}")
        rows.append((_attack(cell), eps_words(cell), *figures, *(f"{each:.1f}" for each in rank)))
    return _table(("attack", "eps", "PGD tau", "strong tau", "ratio", "PGD mR", "strong mR"), rows)


def stronger_ranks(view: View) -> str:
    """Candidate and query attacks: paired differences."""
    rows = []
    for cell, weak, best in _pairs(view):
        row = [_attack(cell), eps_words(cell)]
        for name in ("rank", "sp_rank"):
            row += [number(each.figures[name][0]) if name in each.figures else "" for each in (weak, best)]
            row.append(_paired(weak, best, name))
        rows.append(row)
    header = ("PGD", "strong", "difference [95 %]", "PGD C_SP", "strong C_SP", "difference [95 %]")
    return _table(("attack", "eps", *header), rows)


def white_box_speed(view: View) -> str:
    """Attack time over the bare work it cannot avoid."""
    record = view.benchmark("white-box")
    rows = [
        (
            *(row["name"], row["method"], f"{row['seconds']:.2f}", f"{row['model_seconds']:.2f}"),
            *(f"{row['ratio']:.2f}", f"{row['seconds'] / row['trials']:.4f}"),
        )
        for row in (record or {"rows": []})["rows"]
    ]
    header = ("500 attacks at once", "method", "seconds", "bare seconds", "ratio", "seconds per attack")
    return _table(header, rows)


def ranking_speed(view: View) -> str:
    """Exact ranks and the examination of an encoder over the bare work."""
    rows = [
        (
            row["name"],
            row["where"],
            *(f"{row[key]:.3f}" for key in ("seconds", "bare")),
            f"{row['ratio']:.2f}",
        )
        for row in (view.benchmark("ranking") or {"rows": []})["rows"]
    ]
    return _table(("work", "on", "seconds", "bare seconds", "ratio"), rows)


def graph_speed(view: View) -> str:
    """An encoder beside its inference graph."""
    rows = []
    for row in (view.benchmark("inference-graph") or {"rows": []})["rows"]:
        interval = f" [{row['low']:+.3f}, {row['high']:+.3f}]" if "low" in row else ""
        given, graph, compared = (f"{row[key]:.3f}" for key in ("given", "graph", "compared"))
        rows.append((row["name"], given, graph, compared + interval))
    return _table(("what", "as given", "inference graph", "ratio, or difference [95 %]"), rows)


def convergence(view: View) -> str:
    """Our searches beside a reference that takes far longer."""
    rows = []
    for row in (view.benchmark("convergence") or {"rows": []})["rows"]:
        digits, scale = (3, 1) if row["metric"] == "tau" else (2, 100)
        ours = row["converged"]
        low, high = (f"{scale * end:+.{digits}f}" for end in ours["fitness_difference_ci95"])
        rows.append(
            (
                str(row["model"]).rsplit("/", 1)[-1],
                spec(row["goal"]).title,
                format_eps(row["eps"]),
                f"{row['attacks']} x {row['starts']}",
                *(f"{row[name][row['metric']]:.{digits}f}" for name in ("strong", "converged", "reference")),
                f"{scale * ours['fitness_difference']:+.{digits}f} [{low}, {high}]",
                *(f"{row[name]['evaluations']:.0f}" for name in ("strong", "converged")),
                str(ours["evaluations_max"]),
            )
        )
    header = ("model", "goal", "eps", "attacks x starts", "strong", "converged", "reference")
    spent = ("evaluations: strong", "converged, mean", "most")
    return _table((*header, "converged - reference [95 %]", *spent), rows)


def smallest_budgets(view: View) -> str:
    """The search for the smallest budget beside ten times its evaluations."""
    rows = []
    for row in (view.benchmark("smallest-budget") or {"rows": []})["rows"]:
        ours, longer = (
            "not reached" if row[key] is None else f"{255 * row[key]:.3g}"
            for key in ("eps_star", "eps_star_reference")
        )
        rows.append(
            (
                row["model"],
                spec(row["goal"]).title,
                str(row["trials"]),
                str(row["free"]),
                f"{row['reached']} / {row['reached_reference']}",
                ours,
                longer,
                "" if row["ratio"] is None else f"{row['ratio']:.3f}",
                *(f"{100 * row[key]:.0f} %" for key in ("within_1_1", "within_1_6")),
                str(row["evaluations_max"]),
                f"{row['saved']} of {row['reached']}",
            )
        )
    head = ("model", "goal", "attacks", "free", "reached / by the longer", "median, 1/255", "of the longer")
    more = ("ratio", "within 1.1 times", "within 1.6 times", "most evaluations", "saved images that hold")
    return _table((*head, *more), rows)


def _pairs(view: View) -> Iterator[tuple[TableCell, Measurement, Measurement]]:
    """The cells that both searches were run for, in the order of the papers."""
    cells = sorted(view.cells, key=lambda cell: (order_of(cell.goal), cell.count, cell.eps))
    for cell in cells:
        weak, best = view.of(cell), view.like(cell, STRONG)
        if cell.method != STRONG and weak is not None and best is not None:
            yield cell, weak, best


def _paired(weak: Measurement, best: Measurement, name: str) -> str:
    """Strong minus published over the attacks that both have; older records hold the difference alone."""
    difference: Interval | None = best.figures.get(f"{name}_difference")
    if name in weak.values and name in best.values:
        pairs = zip(best.values[name], weak.values[name], strict=False)
        difference = mean_and_interval([ours - theirs for ours, theirs in pairs])
    return "" if difference is None else f"{difference[0]:+.3f} [{difference[1]:+.3f}, {difference[2]:+.3f}]"


@cache
def _printed_figures() -> dict[tuple[str, int, float], tuple[float, float]]:
    """What ECCV table 3 and ICCV table 1 print of ct, with its companion, by goal, count and eps."""
    return {
        (cell.goal, cell.count, cell.eps): (figure.printed, figure.beside_printed or 0.0)
        for word in ("eccv20/table3", "iccv21/table1")
        for cell in cells_of(_recipe(word))
        if cell.model == "ct"
        for figure in cell.figures
        if figure.printed is not None
    }


# -- black box


def black_box_table3(view: View) -> str:
    """ICCV table 3 with our figures beside the printed ones."""
    rows = [row for row in _table3_rows(view.records) if row.cell.method in METHODS]
    if not any(row.record for row in rows):
        return ""
    parts = [_by_method(rows)]
    for name, visible in (("N = ∞", "inf"), ("N = 50", 50), ("N = k", "k")):
        block = [row for row in rows if row.cell.visible == visible]
        block.sort(key=lambda row: (*_place(row.cell), METHODS.index(row.cell.method)))
        parts += [f"### {name}", _beside(block)]
    return "\n\n".join(parts)


def _table3_rows(records: CompletedCells) -> list[Row]:
    recipe = _recipe("iccv21/table3")
    assert isinstance(recipe, TableRecipe)
    return recorded_rows(recipe, records)


def _by_method(rows: Sequence[Row]) -> str:
    """One line for each method over all its cells."""
    lines = []
    for method in METHODS:
        gaps, marks, inside = [], [], 0
        for row in (row for row in rows if row.cell.method == method):
            if row.record is None:
                marks.append(NOT_RUN)
                continue
            paper, (ours, low, high) = _print(row), mean_and_interval(row.record.values["tau"])
            gaps.append(ours - paper)
            marks.append(nearness(gaps[-1], TOLERANCE["tau"]))
            inside += low is not None and high is not None and low <= paper <= high
        counts = [str(marks.count(mark)) for mark in ("agrees", "higher", "lower", NOT_RUN)]
        lines.append((method, f"{mean(gaps):+.3f}" if gaps else "", *counts, str(inside)))
    header = ("method", "mean difference", "agrees", "higher", "lower", NOT_RUN, "printed in our interval")
    return table(header, lines)


def _beside(rows: Sequence[Row]) -> str:
    """One line for each cell; with the whole ranking in sight also mR."""
    lines = []
    for row in rows:
        cell, paper, record = row.cell, _print(row), row.record
        line = [f"k = {cell.count}", format_eps(cell.eps), cell.method, f"{paper:.3f}"]
        if record is None:
            line += ["", "", NOT_RUN, ""]
        else:
            tau = record.values["tau"]
            gap = mean(tau) - paper
            line += [estimate(tau), f"{gap:+.3f}", nearness(gap, TOLERANCE["tau"]), str(len(tau))]
        if row.figure.beside_printed is not None:
            rank = "" if record is None else f"{_mean_rank(record):.1f}"
            line += [f"{row.figure.beside_printed:.1f}", rank]
        lines.append(line)
    header = ["", "eps", "method", "printed", "ours [95 %]", "difference", "", "T"]
    if rows[0].figure.beside_printed is not None:
        header += ["printed mR", "our mR"]
    return table(header, lines)


def _mean_rank(record: Measurement) -> float:
    ranks = record.values.get("mean_rank")
    return mean(ranks) if ranks else record.figures["mean_rank"][0]


def _print(row: Row) -> float:
    assert row.figure.printed is not None  # every figure of ICCV table 3 can be read
    return row.figure.printed


def against_spsa(view: View) -> str:
    """The default method beside SPSA in the cells that judge it."""
    rows = []
    for cell in sorted(_of_method(view, REFERENCE), key=lambda cell: (cell.eps, cell.count)):
        best, other = view.like(cell, OURS), view.of(cell)
        budget = f"{cell.budget:,}"
        rows.append((_seen(cell), format_eps(cell.eps), budget, *_versus(best, other), _ratio(best, other)))
    header = ("(k, N)", "eps", "Q", "T", "spsa [95 %]", "auto [95 %]", "difference [95 %]", "ratio")
    notes = [
        f"`{name}`: {note}."
        for name in (OURS, REFERENCE)
        for note in dict.fromkeys(
            note for cell, record in view.present() if cell.method == name for note in record.notes
        )
    ]
    return "\n".join([table(header, rows), "", *notes])


def against_five(view: View) -> str:
    """The default method beside the best of the published ones in every cell of ICCV table 3."""
    theirs = {_same_attack(row.cell, row.cell.method): row.record for row in _table3_rows(view.records)}
    rows, compared, better, worse, above = [], 0, 0, 0, 0
    for cell in sorted(view.cells, key=_place):
        best = view.of(cell)
        theirs_by_name = [(name, theirs.get(_same_attack(cell, name))) for name in METHODS]
        others = [(name, record) for name, record in theirs_by_name if record is not None]
        name, other = _best(others, best)
        setting = (_seen(cell), format_eps(cell.eps), f"{len(others)} of 5", name)
        rows.append((*setting, *_versus(best, other)))
        if best is not None and other is not None:
            gap, low, high = mean_and_interval(_differences(best, other))
            compared, above = compared + 1, above + (gap > 0)
            better, worse = better + ((low or 0.0) > 0), worse + ((high or 0.0) < 0)
    header = ("(k, N)", "eps", "methods run", "best", "T", "its tau [95 %]", "auto [95 %]")
    text = (
        f"Of {compared} cells that were compared, the mean of `auto` is above that of the best published "
        f"method in {above}; the interval is above 0 in {better} and below 0 in {worse}."
    )
    return f"{table((*header, 'difference [95 %]'), rows)}\n\n{text}"


def budgets(view: View) -> str:
    """What a budget buys."""
    rows = [
        (f"{cell.budget:,}", *_versus(view.like(cell, OURS), view.of(cell)))
        for cell in sorted(_of_method(view, REFERENCE), key=lambda cell: cell.budget or 0)
    ]
    header = ("Q", "T", "spsa [95 %]", "auto [95 %]", "difference [95 %]")
    return table(header, rows)


def variants(view: View) -> str:
    """What helps the default method and what does not."""
    rows = []
    for cell, record in view.present():
        whole = view.like(cell, OURS)
        if whole is not None:
            gap = "" if cell.method == OURS else estimate(_differences(record, whole), "+")
            tau = record.values["tau"]
            setting = f"{_seen(cell)} at {format_eps(cell.eps)}"
            rows.append((setting, f"`{cell.method}`", str(len(tau)), estimate(tau), gap))
    return _table(("attack", "method", "T", "tau_S [95 %]", "minus `auto` [95 %]"), rows)


def saved_files(view: View) -> str:
    """Adversarial images that were saved and searched again."""
    rows = []
    for cell, record in view.present():
        tau, again = record.values["tau"], record.values["tau_saved"]
        same = sum(one == other for one, other in zip(tau, again, strict=True))
        setting = (cell.method, _seen(cell), format_eps(cell.eps), f"{cell.budget:,}")
        rows.append((*setting, f"{same:,} of {len(tau):,}", estimate(tau)))
    return _table(("method", "(k, N)", "eps", "Q", "exactly equal", "tau_S reported [95 %]"), rows)


def black_box_speed(view: View) -> str:
    """Time of black-box attacks over their forward passes, and the time of tau_S."""
    record = view.benchmark("black-box")
    if record is None:
        return ""
    recipe = _recipe("iccv21/table4")
    models = {spec.name for spec in recipe.models if spec.data == "fashion-mnist"}
    printed = {
        (cell.count, cell.method): cell.figures[0].printed or 0.0
        for cell in cells_of(recipe)
        if cell.figures and cell.model in models
    }
    rows = [
        (
            *(row["name"], f"{row['trials']:,}", f"{row['queries']:,}", f"{row['seconds']:.1f}"),
            *(f"{row['model_seconds']:.1f}", f"{row['ratio']:.2f}", f"{row['seconds'] / row['trials']:.4f}"),
            f"{printed[5, row['name']]:.3f}" if (5, row["name"]) in printed else "",
        )
        for row in record["rows"]
    ]
    header = ("method", "T", "queries", "seconds", "bare", "ratio", "seconds per attack", "printed")
    lists = [
        (f"k = {row['k']}", f"{row['microseconds']:.2f}", f"{1000 * printed[row['k'], 'src']:.0f}")
        for row in record["lists"]
    ]
    header_lists = (f"{record['lists'][0]['lists']:,} lists of N = 50", "microseconds per list", "printed")
    return f"{table(header, rows)}\n\n{table(header_lists, lists)}"


def _of_method(view: View, method: str) -> list[TableCell]:
    return [cell for cell in view.cells if cell.method == method]


def _same_attack(cell: TableCell, method: str) -> tuple[object, ...]:
    """Equal for cells that differ in the model's name at most."""
    return (cell.run, cell.goal, cell.count, cell.visible, cell.eps, cell.budget, cell.xi, method)


def _place(cell: TableCell) -> tuple[bool, bool, int, float]:
    """Where a cell stands in the paper: the whole ranking first, the k best places last."""
    return cell.visible != "inf", cell.visible == "k", cell.count, cell.eps


def _seen(cell: TableCell) -> str:
    """k and N."""
    visible = {"inf": "∞", "k": cell.count}.get(str(cell.visible), cell.visible)
    return f"({cell.count}, {visible})"


def _differences(record: Measurement, other: Measurement) -> list[float]:
    """tau_S of a method minus that of another, over the attacks that both have."""
    return [mine - theirs for mine, theirs in zip(record.values["tau"], other.values["tau"], strict=False)]


def _versus(best: Measurement | None, other: Measurement | None) -> tuple[str, str, str, str]:
    """T, the other's figure, the default method's, and their difference, over the attacks they share."""
    if best is None or other is None:
        alone = [NOT_RUN if record is None else estimate(record.values["tau"]) for record in (other, best)]
        return "", alone[0], alone[1], ""
    gaps = _differences(best, other)
    figures = [estimate(record.values["tau"][: len(gaps)]) for record in (other, best)]
    return f"{len(gaps)}", figures[0], figures[1], estimate(gaps, "+")


def _ratio(best: Measurement | None, other: Measurement | None) -> str:
    """How many times as large the mean is, where the other's is above 0."""
    if best is None or other is None:
        return ""
    count = len(_differences(best, other))
    below = mean(other.values["tau"][:count])
    return f"{mean(best.values['tau'][:count]) / below:.2f}" if below > 0 else ""


def _best(
    others: Sequence[tuple[str, Measurement]], best: Measurement | None
) -> tuple[str, Measurement | None]:
    """The method with the highest mean over the attacks that all have."""
    if not others:
        return "", None
    records = [*(record for _, record in others), best or others[0][1]]
    count = min(len(record.values["tau"]) for record in records)
    return max(others, key=lambda item: mean(item[1].values["tau"][:count]))


# -- services


def service_tables(view: View) -> str:
    """Five figures of tau_S for each method and data set, beside the print."""
    lines: list[tuple[int, float, tuple[str, ...]]] = [
        (block.k, block.eps, ("printed, another service", REFERENCE, *_five(block)))
        for number in (6, 7)
        for block in _recipe(f"iccv21/table{number}").blocks
        if isinstance(block, ServiceBlock)
    ]
    lines += [
        (cell.count, cell.eps, (cell.model, cell.method, *_spread(view.of(cell)))) for cell in view.cells
    ]
    lines.sort(key=lambda line: line[:2])
    rows = [(f"{k}", format_eps(eps), *more) for k, eps, more in lines]
    header = ("k", "eps", "gallery", "method", "T", "mean [95 %]", "st. dev.", "max", "min", "median")
    return f"{table(header, rows)}\n\n{_as_wanted(view)}"


def service_pipeline(view: View) -> str:
    """What a JPEG file and a smaller size leave of the attack."""
    rows = []
    for cell, record in view.present():
        before, tau, again = (record.values[name] for name in ("tau_before", "tau", "again"))
        gain = [after - start for after, start in zip(again, before, strict=True)]
        same = sum(one == other for one, other in zip(again, tau, strict=True))
        figures = (estimate(tau), estimate(gain, "+"), f"{same} of {len(gain)}")
        eps = format_eps(cell.eps)
        rows.append((cell.model, cell.method, _seen(cell), eps, str(len(gain)), *figures))
    header = ("gallery", "method", "(k, N)", "eps", "T", "tau_S reported [95 %]")
    return _table((*header, "gain when sent again [95 %]", "the same tau_S"), rows)


def service_load(view: View) -> str:
    """What the service costs beside its encoder, and what its indexes cost."""
    record, parts = view.benchmark("service") or {}, []
    if (load := record.get("load")) is not None:
        memory = [f"{megabytes:,.0f}" for _, megabytes in load["memory_mb"]]
        row = (
            *(f"{load['requests']:,}", f"{load['clients']}", f"{load['encoder_per_second']:.1f}/s"),
            *(f"{load['per_second']:.1f}/s", f"{load['ratio']:.2f}", f"{load['p50_ms']:.0f} ms"),
            *(f"{load['p99_ms']:.0f} ms", f"{' '.join(memory)} MB"),
        )
        header = ("requests", "clients", "encoder alone", "service", "ratio", "p50", "p99", "memory")
        parts.append(table(header, [row]))
    if "index" in record:
        times = ("insert_seconds", "build_seconds", "reopen_seconds")
        rows = [
            (
                *(row["name"], f"{row['items']:,}", *(f"{row[name]:.1f} s" for name in times)),
                *(f"{row['search_ms']:.1f} ms", f"{row['recall']:.4f}"),
            )
            for row in record["index"]
        ]
        held = ("index", "items", "insert", "build", "open again", "one search", "recall@50")
        parts.append(table(held, rows))
    return "\n\n".join(parts)


def _five(block: ServiceBlock) -> tuple[str, ...]:
    figures = (block.mean, block.stdev, block.max, block.min, block.median)
    return str(block.trials), *(f"{figure:.3f}" for figure in figures)


def _spread(record: Measurement | None) -> tuple[str, ...]:
    if record is None:
        return "", NOT_RUN, "", "", "", ""
    tau = record.values["tau"]
    others = (stdev(tau), max(tau), min(tau), median(tau))
    return str(len(tau)), estimate(tau), *(f"{figure:.3f}" for figure in others)


def _as_wanted(view: View) -> str:
    """How much better the default method is, cell by cell."""
    ratio, enough, more = WANTED
    rows = []
    for cell in _of_method(view, OURS):
        other = next(
            (view.of(each) for each in _of_method(view, REFERENCE) if _pair_of(each) == _pair_of(cell)),
            None,
        )
        best = view.of(cell)
        if best is None or other is None:
            continue
        ours, below = mean(best.values["tau"]), mean(other.values["tau"])
        met = ours >= ratio * below if below > enough else ours >= below + more
        times = f"{ours / below:.2f}" if below > enough else ""
        gaps = estimate(_differences(best, other), "+")
        rows.append((cell.model, f"{cell.count}", format_eps(cell.eps), gaps, times, "yes" if met else "no"))
    header = ("gallery", "k", "eps", "auto minus spsa [95 %]", "ratio", "as much better as wanted")
    text = (
        f"`auto` is wanted to reach {ratio} times the tau_S of `spsa` where that is above {enough}, and "
        f"{more} more than it elsewhere."
    )
    return f"{text}\n\n{table(header, rows)}"


def _pair_of(cell: TableCell) -> tuple[object, ...]:
    return cell.model, _same_attack(cell, "")


# -- training


def vanilla(view: View) -> str:
    """The papers' undefended models beside the printed R@1."""
    rows = []
    for cell in view.cells:
        data, letters = cell.model.rsplit("-", 1)
        record, paper = _training(view, cell), _printed_recall(data, letters)
        recall, gap, comparison = _recall(record), "", _state(record)
        if recall is not None and paper is not None:
            gap = f"{recall - paper:+.2f}"
            comparison = comparison or nearness(recall - paper, NEAR[data])
        beside = ("" if paper is None else f"{paper:.1f}", gap, comparison)
        more = (number(record.get("accuracy", {}).get(figure)) for figure in ("map", "nmi"))
        rows.append((letters.upper(), data, *_schedule(record), number(recall), *beside, *more))
    header = ("model", "data", "schedule", "epochs", "minutes", "R@1", "printed", "difference", "")
    return table((*header, "mAP", "NMI"), rows) + _failures(view)


def defended(view: View) -> str:
    """The defended models and what attacks leave of them; a printed figure has a row of its own."""
    models, attacks = [], []
    for data in MODEL_TABLES:
        cells = [cell for cell in view.cells if cell.model.startswith(f"{data}-")]
        recall = f"{_printed_recall(data, 'ctd'):.1f}"
        models.append(("CTD, printed", data, "published", "", "", recall, "", ""))
        for cell in cells:
            record = _training(view, cell)
            figures = (number(_recall(record)), _score(record), _state(record))
            models.append((f"`{cell.model}`", data, *_schedule(record), *figures))
        attacks += [(row[0], data, *row[1:]) for row in _defended_attacks(view, data, cells)]
    header = ("model", "data", "schedule", "epochs", "minutes", "R@1", "ERS [95 %]", "")
    header_attacks = ("model", "data", "schedule", "attack", "before", "PGD [95 %]", "strong [95 %]")
    below = table((*header_attacks, "PGD minus printed", ""), attacks)
    return f"{table(header, models)}\n\n{below}{_failures(view)}"


def _defended_attacks(view: View, data: str, cells: Sequence[TableCell]) -> Iterator[tuple[str, ...]]:
    """Each printed attack, and below it the same attack on our models."""
    printed = {
        (cell.goal, cell.eps): cell.figures[0].printed
        for cell in cells_of(_recipe(f"eccv20/{MODEL_TABLES[data][1]}"))
        if cell.model == "ctd" and cell.count == 1 and cell.figures
    }
    for goal in dict.fromkeys(goal for goal, _ in printed):
        before, after = (printed[goal, eps] or 0.0 for eps in (0.0, 0.3))
        named = f"{spec(goal).title}, {spec(goal).letter} = 1"
        yield "CTD, printed", "published", named, f"{before:.1f}", f"{after:.1f}", "", "", ""
        for cell in cells:
            record, name = _training(view, cell), f"`{cell.model}`"
            measured = [
                each for each in record.get("attacks", ()) if each["goal"] in (goal, goal.removeprefix("sp-"))
            ]
            if not measured:
                yield name, "", "", "", "", "", "", _state(record)
                continue
            weak, best = (next(each for each in measured if each["method"] == how) for how in ("pgd", STRONG))
            gap = weak["after"] - after
            attacked = spec(weak["goal"])
            named = f"{attacked.title}, {attacked.letter} = {weak[attacked.letter]}"
            figures = (with_interval(each["after"], each["ci95"], each["metric"]) for each in (weak, best))
            beyond = gap if spec(goal).larger_is_stronger else -gap  # towards the attacker
            yield (
                *(name, _schedule(record)[0], named, number(weak["before"]), *figures, f"{gap:+.2f}"),
                "weaker" if beyond > WEAKER else "as robust",
            )


def better(view: View) -> str:
    """Each defence over its seeds."""
    defenses: dict[str, list[tuple[str, JsonObject]]] = {}
    for cell in view.cells:
        defense, seed = cell.model.removeprefix("fashion-mnist-short-").rsplit("-seed", 1)
        defenses.setdefault(defense, []).append((seed, _training(view, cell)))
    rows = []
    for defense, runs in defenses.items():
        trained = [record for _, record in runs if record.get("robustness")]
        scores = [record["robustness"]["ers"] for record in trained]
        recalls = [record["accuracy"]["recall_at_1"] for record in trained]
        minutes = [f"{record['processor_seconds'] / 60:.1f}" for record in trained]
        schedules, epochs, _ = zip(*map(_schedule, trained), strict=True) if trained else ((), (), ())
        states = [f"seed {seed} {_state(record)}" for seed, record in runs if _state(record)]
        figures = (_mean(recalls), _each(recalls), _mean(scores), _each(scores))
        taken = (", ".join(dict.fromkeys(schedules)), ", ".join(epochs), ", ".join(minutes))
        rows.append((f"`{defense}`", *taken, *figures, "; ".join(states)))
    header = ("defence", "schedule", "epochs", "processor minutes", "mean R@1", "R@1 by seed", "mean ERS")
    return table((*header, "ERS by seed", ""), rows) + _failures(view)


def rejected(view: View) -> str:
    """What became of the defences that the paper rejected, epoch by epoch."""
    rows, epochs = [], []
    for cell in view.cells:
        record, name = _training(view, cell), f"`{cell.model.removeprefix('fashion-mnist-')}`"
        ending = _state(record) or "finished"
        rows.append((name, *_schedule(record), number(_recall(record)), _score(record), ending))
        for epoch in (record.get("model") or {}).get("history", ()):
            figures = (f"{epoch['loss']:.4f}", number(epoch["recall_at_1"]))
            epochs.append((name, f"{epoch['number']:.0f}", *figures))
    header = ("defence", "schedule", "epochs", "minutes", "R@1", "ERS [95 %]", "")
    each = f"\n\n{table(('defence', 'epoch', 'loss', 'R@1'), epochs)}" if epochs else ""
    return table(header, rows) + _failures(view) + each


def photographs(view: View) -> str:
    """Models of photographs."""
    rows = []
    for cell in view.cells:
        data, _, defense = cell.model.partition("-64")
        record = _training(view, cell)
        figures = (number(_recall(record)), number(record.get("chance")), _score(record), _state(record))
        rows.append((data, f"`{defense.removeprefix('-') or 'none'}`", *_schedule(record), *figures))
    header = ("data", "defence", "schedule", "epochs", "minutes", "R@1", "chance", "ERS [95 %]", "")
    return table(header, rows) + _failures(view)


def training_speed(view: View) -> str:
    """Time of an epoch over that of its passes."""
    record = view.benchmark("training")
    if record is None:
        return ""
    rows = [
        (row["name"], f"{row['seconds']:.2f}", f"{row['model_seconds']:.2f}", f"{row['ratio']:.2f}")
        for row in record["rows"]
    ]
    return table((f"an epoch of {record['pictures']:,} images", "seconds", "bare seconds", "ratio"), rows)


def _training(view: View, cell: TableCell) -> JsonObject:
    """What was measured of a trained model, by its names in the record; nothing where it was not run."""
    record = view.of(cell)
    return {} if record is None else record.training


def _schedule(record: JsonObject) -> tuple[str, str, str]:
    """Schedule, epochs done and minutes."""
    model = record.get("model")
    if model is None:  # not even one epoch
        return "", "", ""
    epochs = f"{model['epochs_done']} of {model['settings']['epochs']}"
    return model["settings"]["schedule"], epochs, f"{model['seconds'] / 60:.1f}"


def _recall(record: JsonObject) -> float | None:
    """R@1 of the checkpoint, None where there is none."""
    recall: float | None = record.get("accuracy", {}).get("recall_at_1")
    return recall


def _score(record: JsonObject) -> str:
    """ERS with its interval."""
    score = record.get("robustness")
    return "" if score is None else with_interval(score["ers"], score["ci95"]["ers"])


def _state(record: JsonObject) -> str:
    """Why there are no ordinary figures: not run, failed or collapsed; else empty."""
    if not record:
        return NOT_RUN
    if record["failure"]:
        return "failed"
    return "collapsed" if record.get("robustness", {}).get("collapsed") else ""


def _failures(view: View) -> str:
    """The messages of the trainings that failed, as a list below a table."""
    records = [(cell, _training(view, cell)) for cell in view.cells]
    lines = [f"- `{cell.model}`: {record['failure']}." for cell, record in records if record.get("failure")]
    return "\n\n" + "\n".join(lines) if lines else ""


@cache
def _printed_recall(data: str, model: str) -> float | None:
    """R@1 that ECCV 2020 prints of a model; None where it cannot be read."""
    specs = _recipe(f"eccv20/{MODEL_TABLES[data][0]}").models
    recall = next(spec.recall_at_1 for spec in specs if spec.name == model)
    return recall if isinstance(recall, float) else None


def _mean(values: Sequence[float]) -> str:
    return number(mean(values)) if values else ""


def _each(values: Sequence[float]) -> str:
    return ", ".join(map(number, values))


# -- the zoo: what its models really hold


def zoo_converged(view: View) -> str:
    """The papers' strongest attacks on each model of the zoo: printed, published, strong and converged."""
    rows = []
    for cell, weak in view.present():
        if cell.method != "published":
            continue
        best, strong = view.like_of(cell, CONVERGED), view.like_of(cell, STRONG)
        figures = [_after(cell, record) if record else NOT_RUN for record in (weak, strong, best)]
        printed = number(_printed_of_zoo(cell), _metric(cell))
        beside = [
            number(record.figures["sp_rank"][0])
            for record in (weak, best)
            if record and "sp_rank" in record.figures
        ]
        rows.append(
            (
                *(f"`{cell.model}`", _attack(cell), eps_words(cell), number(weak.figures["before"][0])),
                *(printed, *figures, " → ".join(beside), f"{weak.trials:,}"),
            )
        )
    header = ("model", "attack", "eps", "untouched", "printed", "PGD [95 %]", "strong [95 %]")
    return _table((*header, "converged [95 %]", "C_SP, PGD → converged", "T"), rows)


def zoo_smallest(view: View) -> str:
    """The smallest budgets on each model of the zoo, the defended one beside its twin."""
    rows = []
    for cell in view.cells:
        record = view.of(cell)
        if record is None:
            continue
        median = record.figures.get("eps_star")
        twin = next((view.of(each) for each in view.cells if _undefended_twin(each, cell)), None)
        other = None if twin is None else twin.figures.get("eps_star")
        shares = (f"{100 * record.figures[name][0]:.0f}" for name in WITHIN if name in record.figures)
        counts = (f"{record.figures[name][0]:.0f}" for name in ("reached", "free", "saved"))
        rows.append(
            (
                *(f"`{cell.model}`", _attack(cell), "not reached" if median is None else _levels(median)),
                "" if median is None or other is None else f"{median[0] / other[0]:.1f}",
                *(" / ".join(shares), *counts, f"{record.trials:,}"),
            )
        )
    within = "% within 0.5 / 1 / 2 / 4 / 8 / 16 / 32"
    header = ("model", "wish", "median eps\\* in 1/255 [95 %]", "times its twin's", within)
    return _table((*header, "reached", "free", "8-bit file holds", "T"), rows)


def _levels(interval: Interval) -> str:
    """A budget and its interval in 255ths."""
    value, low, high = (None if end is None else f"{255 * end:.3g}" for end in interval)
    return f"{value} [{low or '–'}, {high or '–'}]"


def _undefended_twin(other: TableCell, cell: TableCell) -> bool:
    """Whether a cell is the same wish on the undefended model of the same data."""
    return cell.model == f"{other.model}d" and (other.goal, other.count) == (cell.goal, cell.count)


def _printed_of_zoo(cell: TableCell) -> float | None:
    """What ECCV 2020 prints of an attack on a model of the zoo; None where it prints nothing."""
    data, letters = cell.model.rsplit("-", 1)
    same = (letters, cell.goal, cell.count, cell.eps)
    return next(
        (
            each.figures[0].printed
            for each in cells_of(_recipe(f"eccv20/{MODEL_TABLES[data][0]}"))
            if (each.model, each.goal, each.count, each.eps) == same and each.figures
        ),
        None,
    )


# -- what several sections need


@cache
def _recipe(word: str) -> Recipe:
    return read_recipe(find_recipe(word, None))


def _markdown(title: str, text: str, command: str, shown: str) -> str:
    return f"## {title}\n\n{text}\n\n```\n{command}\n```\n\n{shown}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; nothing where it has no rows."""
    return table(header, rows) if rows else ""


def _metric(cell: TableCell) -> str:
    return "tau" if is_order(cell.goal) else "rank"


def _attack(cell: TableCell) -> str:
    """The goal and how many are chosen."""
    title = spec(cell.goal).title
    return f"{title}, {cell.letter} = {cell.count}" if cell.letter else title


def _after(cell: TableCell, record: Measurement) -> str:
    """What it reached, with its interval."""
    reached, low, high = record.figures[_metric(cell)]
    return with_interval(reached, (low, high), _metric(cell))


VIEWS: dict[str, Callable[[View], str]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        *(baseline, published, stronger_order, stronger_ranks, convergence, smallest_budgets),
        *(white_box_speed, ranking_speed, graph_speed),
        *(black_box_table3, against_spsa, against_five, budgets, variants, saved_files, black_box_speed),
        *(service_tables, service_pipeline, service_load),
        *(zoo_converged, zoo_smallest),
        *(vanilla, defended, better, rejected, photographs, training_speed),
    )
}
SUMMARY_TEXT = (
    "How many printed figures were measured again, and with what outcome. A figure agrees within the "
    "tolerance that its recipe fixed beforehand (2 points of rank, 0.05 of tau) if its 95 % interval "
    "is no wider to either side; else it is stronger or weaker as an attack, or there were too few "
    "attacks to tell. A recipe of every table is in `recipes/`, its records are in `records/`. "
    "All of ICCV 2021 table 3 was measured on the shipped model: "
    "[the published figures of the black box](#black-box-the-published-figures). Its tables 6 and 7 "
    "in a world of our own are [here](#a-service-100-queries)."
)
SPEED_TEXT = (
    "A part of ECCV table 10 on the shipped model, as whole commands in empty folders: reading and "
    "embedding, attacks, verdicts, records and the table. Each worker has one thread."
)
