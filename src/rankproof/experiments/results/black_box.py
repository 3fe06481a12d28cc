"""The black-box sections."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from rankproof.experiments.black_box import ablation, curves, stronger, table3
from rankproof.experiments.ordering import VARIANTS, Cell
from rankproof.experiments.results.records import Record, benchmark, present, printed, recorded
from rankproof.experiments.results.section import Section
from rankproof.experiments.results.tables import NOT_RUN, TOLERANCE, differences, estimate, mark, mean, table
from rankproof.ranking.metrics import summarise
from rankproof.threat import format_eps

FIVE = ("rand", "beta", "pso", "nes", "spsa")  # the published methods, in the order of the paper
RUN = "python -m rankproof.experiments.black_box {} --data fashion-mnist"


def printed_cell(cell: Cell) -> tuple[float, float | None]:
    """tau_S that ICCV table 3 prints for a cell, and mR where it does."""
    paper = printed("iccv21_table3")
    shown = "inf" if cell.visible is None else "k" if cell.visible == cell.k else str(cell.visible)
    figures, column = paper["cells"][shown][cell.method], paper["levels"].index(cell.level)
    ranks = figures.get("mean_rank")
    return figures["tau"][str(cell.k)][column], ranks and ranks[str(cell.k)][column]


def measured(cell: Cell) -> Record | None:
    """The record of a cell, None where it was not run yet."""
    return recorded("own/black-box", cell.name)


def _place(cell: Cell) -> tuple[bool, bool, int, int]:
    """Where a cell stands in the paper: the whole ranking first, the k best places last."""
    return cell.visible is not None, cell.visible == cell.k, cell.k, cell.level


def _shown(cell: Cell) -> str:
    return "∞" if cell.visible is None else str(cell.visible)


def table_3() -> str:
    """ICCV table 3 with our figures beside the printed ones."""
    cells = [(cell, measured(cell)) for cell in table3(list(FIVE))]
    parts = [_methods(cells)]
    for name, chosen in (
        ("N = ∞", lambda cell: cell.visible is None),
        ("N = 50", lambda cell: cell.visible == 50),
        ("N = k", lambda cell: cell.visible == cell.k),
    ):
        block = [(cell, record) for cell, record in cells if chosen(cell)]
        block.sort(key=lambda item: (*_place(item[0]), FIVE.index(item[0].method)))
        parts += [f"### {name}", _beside(block)]
    return "\n\n".join(parts)


def _methods(cells: list[tuple[Cell, Record | None]]) -> str:
    """One row for each method over all its cells."""
    rows = []
    for method in FIVE:
        gaps, marks, inside = [], [], 0
        for cell, record in cells:
            if cell.method != method:
                continue
            if record is None:
                marks.append(NOT_RUN)
                continue
            paper, _ = printed_cell(cell)
            found = summarise(torch.tensor(record["tau"], dtype=torch.float64))
            gaps.append(found.mean - paper)
            marks.append(mark(gaps[-1], TOLERANCE["tau"]))
            inside += found.low <= paper <= found.high
        counts = [str(marks.count(mark)) for mark in ("agrees", "higher", "lower", NOT_RUN)]
        rows.append((method, f"{mean(gaps):+.3f}" if gaps else "", *counts, str(inside)))
    header = ("method", "mean difference", "agrees", "higher", "lower", NOT_RUN, "printed in our interval")
    return table(header, rows)


def _beside(cells: list[tuple[Cell, Record | None]]) -> str:
    """One row for each cell; with the whole ranking in sight also mR."""
    rows = []
    for cell, record in cells:
        paper, rank = printed_cell(cell)
        row = [f"k = {cell.k}", format_eps(cell.level / 255), cell.method, f"{paper:.3f}"]
        if record is None:
            row += ["", "", NOT_RUN, ""]
        else:
            gap = mean(record["tau"]) - paper
            row += [
                estimate(record["tau"]),
                f"{gap:+.3f}",
                mark(gap, TOLERANCE["tau"]),
                str(len(record["tau"])),
            ]
        if rank is not None:
            row += [f"{rank:.1f}", "" if record is None else f"{mean(record['mean_rank']):.1f}"]
        rows.append(row)
    header = ["", "eps", "method", "printed", "ours [95 %]", "difference", "", "T"]
    if cells[0][0].visible is None:
        header += ["printed mR", "our mR"]
    return table(header, rows)


def against_spsa() -> str:
    """The default method beside SPSA in the cells that judge it."""
    rows = []
    for cell in sorted(stronger(["spsa"]), key=lambda cell: (cell.level, cell.k)):
        setting = f"({cell.k}, {_shown(cell)})"
        best, other = measured(replace(cell, method="auto")), measured(cell)
        row = (setting, format_eps(cell.level / 255), f"{cell.budget:,}", *_versus(best, other))
        rows.append((*row, _ratio(best, other)))
    header = ("(k, N)", "eps", "Q", "T", "spsa [95 %]", "auto [95 %]", "difference [95 %]", "ratio")
    notes = [f"`{name}`: {note}." for name in ("auto", "spsa") for note in _notes(name)]
    return "\n".join([table(header, rows), "", *notes])


def _notes(method: str) -> list[str]:
    """What the records of a method say of how it searched."""
    records = [record for cell in stronger([method]) if (record := measured(cell)) is not None]
    return list(dict.fromkeys(note for record in records for note in record["notes"]))


def _versus(best: Record | None, other: Record | None) -> tuple[str, str, str, str]:
    """T, the other's figure, the default method's, and their difference, over the attacks they share."""
    if best is None or other is None:
        alone = [NOT_RUN if record is None else estimate(record["tau"]) for record in (other, best)]
        return "", alone[0], alone[1], ""
    gaps = differences(best, other)
    count = len(gaps)
    figures = [estimate(record["tau"][:count]) for record in (other, best)]
    return f"{count}", figures[0], figures[1], estimate(gaps, "+")


def _ratio(best: Record | None, other: Record | None) -> str:
    """How many times as large the mean is, where the other's is above 0."""
    if best is None or other is None:
        return ""
    count = len(differences(best, other))
    below = mean(other["tau"][:count])
    return f"{mean(best['tau'][:count]) / below:.2f}" if below > 0 else ""


def against_five() -> str:
    """The default method beside the best of the published ones in every cell of table 3."""
    rows, compared, better, worse, above = [], 0, 0, 0, 0
    for cell in sorted(table3(["auto"]), key=_place):
        best = measured(cell)
        found = [(name, measured(replace(cell, method=name))) for name in FIVE]
        others = [(name, record) for name, record in found if record is not None]
        setting = (f"({cell.k}, {_shown(cell)})", format_eps(cell.level / 255), f"{len(others)} of 5")
        name, other = _best(others, best)
        rows.append((*setting, name, *_versus(best, other)))
        if best is not None and other is not None:
            paired = summarise(torch.tensor(differences(best, other), dtype=torch.float64))
            compared, above = compared + 1, above + (paired.mean > 0)
            better, worse = better + (paired.low > 0), worse + (paired.high < 0)
    header = (
        "(k, N)",
        "eps",
        "methods run",
        "best",
        "T",
        "its tau [95 %]",
        "auto [95 %]",
        "difference [95 %]",
    )
    told = (
        f"Of {compared} cells that were compared, the mean of `auto` is above that of the best published "
        f"method in {above}; the interval is above 0 in {better} and below 0 in {worse}."
    )
    return f"{table(header, rows)}\n\n{told}"


def _best(others: list[tuple[str, Record]], best: Record | None) -> tuple[str, Record | None]:
    """The method with the highest mean over the attacks that all have."""
    if not others:
        return "", None
    count = min(len(record["tau"]) for record in [*(record for _, record in others), best or others[0][1]])
    return max(others, key=lambda item: mean(item[1]["tau"][:count]))


def budgets() -> str:
    """What a budget buys."""
    rows = []
    for cell in sorted(curves(["spsa"]), key=lambda cell: cell.budget):
        best, other = measured(replace(cell, method="auto")), measured(cell)
        rows.append((f"{cell.budget:,}", *_versus(best, other)))
    return table(("Q", "T", "spsa [95 %]", "auto [95 %]", "difference [95 %]"), rows)


def variants() -> str:
    """What helps the default method and what does not."""
    rows = []
    for cell in ablation(list(VARIANTS)):
        record, whole = measured(cell), measured(replace(cell, method="auto"))
        if record is not None and whole is not None:
            gap = "" if cell.method == "auto" else estimate(differences(record, whole), "+")
            setting = f"({cell.k}, {_shown(cell)}) at {cell.level}/255"
            rows.append((setting, f"`{cell.method}`", str(len(record["tau"])), estimate(record["tau"]), gap))
    return table(("attack", "method", "T", "tau_S [95 %]", "minus `auto` [95 %]"), rows)


def speed() -> str:
    """Time of black-box attacks over their forward passes, and the time of tau_S."""
    (record,) = benchmark("black-box")
    paper = printed("iccv21_table4")["seconds"]
    rows = [
        (
            row["name"],
            f"{row['trials']:,}",
            f"{row['queries']:,}",
            f"{row['seconds']:.1f}",
            f"{row['model_seconds']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['seconds'] / row['trials']:.4f}",
            f"{paper['5'][row['name']]:.3f}" if row["name"] in paper["5"] else "",
        )
        for row in record["rows"]
    ]
    header = ("method", "T", "queries", "seconds", "bare", "ratio", "seconds per attack", "printed")
    lists = [
        (f"k = {row['k']}", f"{row['microseconds']:.2f}", f"{1000 * paper[str(row['k'])]['src']:.0f}")
        for row in record["lists"]
    ]
    header_lists = (f"{record['lists'][0]['lists']:,} lists of N = 50", "microseconds per list", "printed")
    return f"{table(header, rows)}\n\n{table(header_lists, lists)}"


def saved_files() -> str:
    """Adversarial pictures that were saved and searched again."""
    (record,) = present("own/saved", "saved")
    same = f"{record['equal']:,} of {record['trials']:,}"
    setting = f"({record['k']}, {record['visible']})"
    row = (
        record["method"],
        setting,
        format_eps(record["eps"]),
        f"{record['budget']:,}",
        same,
        estimate(record["tau"]),
    )
    return table(("method", "(k, N)", "eps", "Q", "exactly equal", "tau_S reported [95 %]"), [row])


def _all(cells: Callable[[list[str]], Iterator[Cell]], *methods: str) -> Callable[[], list[Record]]:
    """What is recorded of an experiment, as a call."""
    return lambda: present("own/black-box", *(cell.name for cell in cells(list(methods))))


SECTIONS = (
    Section(
        title="Black box: the published figures",
        text=(
            "The model above, seen from outside: only the places of the k chosen among the first N results. "
            "tau_S after at most Q = 1,000 queries, the clean image included, beside ICCV 2021 table 3; T "
            "attacks each, the same queries and wanted orders for every method. A figure agrees when it is "
            "within 0.05, else it is higher or lower than the printed one; with few attacks the interval "
            "alone is wider than that. A row with fewer T than the command asks for is not complete yet; the "
            "command adds what is missing. mR is of the image whose tau_S is told; the published settings "
            "differ in this."
        ),
        command=f"{RUN.format('table3')} --trials 100",
        records=_all(table3, *FIVE),
        render=table_3,
    ),
    Section(
        title="Black box: stronger than SPSA",
        text=(
            "`auto`, the default, and `spsa` on the same attacks with the same budget. The difference is "
            "`auto` minus `spsa`, paired over the T attacks that both have; means and ratio are of these, "
            "too. A row with fewer T than the command asks for is not complete yet."
        ),
        command=f"{RUN.format('stronger')} --method auto spsa --trials 200",
        records=_all(stronger, "auto", "spsa"),
        render=against_spsa,
    ),
    Section(
        title="Black box: against the best of the five",
        text=(
            "`auto` beside that published method which did best in the same cell. It is chosen by these very "
            "attacks, in its favour. The difference is `auto` minus it, paired over the T attacks both have."
        ),
        command=f"{RUN.format('table3')} --trials 100",
        records=_all(table3, "auto"),
        render=against_five,
    ),
    Section(
        title="Black box: what a budget buys",
        text="tau_S of (5, 50) at 4/255; each budget is a search of its own, which knew it from the start.",
        command=RUN.format("curves"),
        records=_all(curves, "auto", "spsa"),
        render=budgets,
    ),
    Section(
        title="Black box: what helps and what does not",
        text=(
            "The default method with one thing changed, and published ones in a space of 7 x 7 variables, "
            "bilinearly enlarged; on the same attacks with Q = 1,000, the difference paired. What each name "
            "stands for is `VARIANTS` in `experiments/ordering.py`; [black-box.md](black-box.md) tells more."
        ),
        command=RUN.format("ablation"),
        records=_all(ablation, *VARIANTS),
        render=variants,
    ),
    Section(
        title="Black box: the saved file",
        text=(
            "Each adversarial picture was written as a PNG file, read back by the decoder that reads every "
            "picture here, and searched again by itself with an oracle that had seen nothing. Counted is "
            "where tau_S is exactly the reported one: what is reported holds for a file that can be sent."
        ),
        command="python -m rankproof.experiments.eight_bit",
        records=lambda: present("own/saved", "saved"),
        render=saved_files,
    ),
    Section(
        title="Black box: speed",
        text=(
            "(5, 50) at 4/255 with Q = 1,000: time of the attacks over the time of the forward passes of the "
            "queries really spent, in the same run. Below, the time to find the k chosen in a list of ids "
            "and to count tau_S. Printed are the seconds for an attack, and for its 1,000 lists, in ICCV "
            "2021 table 4, on another machine (Xeon 5118, GTX 1080 Ti) with another implementation of "
            "everything."
        ),
        command="python benchmarks/black_box.py --record --trials 100",
        records=lambda: benchmark("black-box"),
        render=speed,
    ),
)
