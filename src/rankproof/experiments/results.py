"""docs/results.md from records/: `python -m rankproof.experiments.results`, or `make results`."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from rankproof.experiments.black_box import VARIANTS, Cell, ablation, curves, stronger, table3
from rankproof.files import write_atomically
from rankproof.ranking.metrics import summarise
from rankproof.threat import format_eps

RECORDS, PAGE, README = Path("records"), Path("docs/results.md"), Path("README.md")
HEADLINE = re.compile(r"(<!-- results:headline -->\n).*?(<!-- /results -->)", re.DOTALL)
NAMES = {
    "ca+": "CA+",
    "ca-": "CA-",
    "qa+": "QA+",
    "qa-": "QA-",
    "sp-qa+": "SP-QA+",
    "sp-qa-": "SP-QA-",
    "oa": "OA",
}
TOLERANCE = {"rank": 3.0, "tau": 0.05}
PUBLISHED = Path(__file__).parent / "published"  # figures as printed
FIVE = ("rand", "beta", "pso", "nes", "spsa")  # the published black-box methods, in the order of the paper
NOT_RUN = "not run yet"
RUN = "python -m rankproof.experiments.black_box {} --data fashion-mnist"

Record = dict[str, Any]


def read(folder: str) -> list[Record]:
    """All records of an experiment, in the order of the papers."""
    records = [json.loads(path.read_text()) for path in sorted((RECORDS / folder).glob("*.json"))]
    order = list(NAMES)
    return sorted(
        records, key=lambda r: (order.index(r["cell"]["goal"]), _count(r["cell"]), r["cell"]["eps"])
    )


def _count(cell: Record) -> int:
    return int(cell["w"] or cell["m"] or cell["k"] or 0)


def _setting(cell: Record) -> str:
    letter = next((letter for letter in ("w", "m", "k") if cell[letter]), "")
    return f"{NAMES[cell['goal']]}, {letter} = {cell[letter]}" if letter else NAMES[cell["goal"]]


def _eps(cell: Record) -> str:
    return f"{cell['eps']:g}" if cell["goal"] != "oa" else format_eps(cell["eps"])


def _number(value: float | None, metric: str = "rank") -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if metric == "tau" else f"{value:.2f}"


def _with_interval(cell: Record) -> str:
    low, high = cell["ci95"]
    metric = cell["metric"]
    return f"{_number(cell['after'], metric)} [{_number(low, metric)}, {_number(high, metric)}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are flush right."""
    rule = ["---"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def baseline(records: list[Record]) -> str:
    """Figures where nothing may be changed."""
    rows = []
    for record in records:
        cell, published = record["cell"], record["published"] or {}
        expected = "1 to 2.5" if cell["goal"] == "ca-" else _number(published.get("after"), cell["metric"])
        rank = "" if cell["mean_rank"] is None else f"{cell['mean_rank']:.4f}"
        rows.append((_setting(cell), expected, _with_interval(cell), rank, f"{cell['trials']:,}"))
    return table(("eps = 0", "expected", "measured [95 %]", "mR", "T"), rows)


def papers(records: list[Record]) -> str:
    """Our figures beside the printed ones."""
    rows = []
    for record in records:
        cell, published = record["cell"], record["published"]
        gap = cell["after"] - published["after"]
        verdict = "agrees" if abs(gap) <= TOLERANCE[cell["metric"]] else "apart"
        also = "" if cell["sp_rank"] is None else f"C_SP {cell['sp_rank']:.2f}"
        if cell["mean_rank"] is not None:
            also = f"mR {cell['mean_rank']:.1f} (published {published['mean_rank']:.1f})"
        gap_text = f"{gap:+.3f}" if cell["metric"] == "tau" else f"{gap:+.1f}"
        rows.append(
            (
                _setting(cell),
                _eps(cell),
                f"{published['after']:g}",
                _with_interval(cell),
                gap_text,
                verdict,
                also,
            )
        )
    header = ("attack", "eps", "published", "ours [95 %]", "difference", "", "also")
    agreeing = sum("agrees" in row for row in rows)
    return f"{table(header, rows)}\n\n{agreeing} of {len(rows)} figures agree."


def order(records: list[Record]) -> str:
    """The order attack: plain PGD and the strong search."""
    rows = []
    for record in records:
        weak, best = record["cell"], record["strong"]
        if weak["goal"] != "oa":
            continue
        rows.append(
            (
                _setting(weak),
                _eps(weak),
                _with_interval(weak),
                _with_interval(best),
                f"{best['tau'] / weak['tau']:.2f}",
                f"{weak['mean_rank']:.1f}",
                f"{best['mean_rank']:.1f}",
            )
        )
    return table(("attack", "eps", "PGD tau", "strong tau", "ratio", "PGD mR", "strong mR"), rows)


def ranks(records: list[Record]) -> str:
    """CA and SP-QA: paired differences."""
    rows = []
    for record in records:
        weak, best, difference = record["cell"], record["strong"], record["difference"]
        if weak["goal"] == "oa":
            continue
        rows.append(
            (
                _setting(weak),
                _eps(weak),
                _number(weak["after"]),
                _number(best["after"]),
                _paired(difference["rank"]),
                _number(weak["sp_rank"]),
                _number(best["sp_rank"]),
                _paired(difference.get("sp_rank")),
            )
        )
    header = (
        "attack",
        "eps",
        "PGD",
        "strong",
        "difference [95 %]",
        "PGD C_SP",
        "strong C_SP",
        "difference [95 %]",
    )
    return table(header, rows)


def _paired(values: list[float] | None) -> str:
    return "" if values is None else f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}]"


def speed(records: list[Record]) -> str:
    """Attack time over the bare work it cannot avoid."""
    (record,) = records
    rows = [
        (
            row["name"],
            row["method"],
            f"{row['seconds']:.2f}",
            f"{row['model_seconds']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['seconds'] / row['trials']:.4f}",
        )
        for row in record["rows"]
    ]
    header = ("500 attacks at once", "method", "seconds", "bare seconds", "ratio", "seconds per attack")
    return table(header, rows)


SECTIONS: tuple[tuple[str, str, str, Callable[[list[Record]], str]], ...] = (
    (
        "Nothing may be changed",
        "white-box/baseline",
        "Every test image of Fashion-MNIST once. With eps = 0 a figure is the starting point of its attack; "
        "a wrong rank, a wrong choice of targets or a lost own copy would show here.",
        baseline,
    ),
    (
        "The published figures",
        "white-box/papers",
        "`zoo:fashion-mnist/c2f1-ct`: C2F1, cosine distance, triplet loss, trained by `rankproof train` "
        "with the published settings for 24 epochs; R@1 88.87 with its half-precision weights (published: "
        "30 epochs, 88.8). PGD as published; T = 2,000. Ranks in %, from ECCV 2020 table 3; OA from "
        "ICCV 2021 table 1. A figure agrees when it is within 3 points, or 0.05 of tau.",
        papers,
    ),
    (
        "Stronger: the order attack",
        "white-box/stronger",
        "The same 500 queries and wanted orders, the same 24 evaluations.",
        order,
    ),
    (
        "Stronger: candidate and query attacks",
        "white-box/stronger",
        "The same 500 images and targets, the same number of evaluations. The difference is strong minus "
        'PGD, paired; a negative one is better for "+" attacks and for C_SP, a positive one for "-" attacks.',
        ranks,
    ),
    (
        "Speed",
        "benchmarks/white-box",
        "Time of the attack over the time of the bare work: the encoder's forward and backward passes and, "
        "for query goals, one product with the gallery and its backward pass, in the same run. Best of three "
        "over best of five: a machine with neighbours disturbs single runs by a fifth and more.",
        speed,
    ),
)


@cache
def printed(name: str) -> Record:
    """A table of a paper, as printed."""
    table: Record = json.loads((PUBLISHED / f"{name}.json").read_text())
    return table


def printed_cell(cell: Cell) -> tuple[float, float | None]:
    """tau_S that ICCV table 3 prints for a cell, and mR where it does."""
    paper = printed("iccv21_table3")
    shown = "inf" if cell.visible is None else "k" if cell.visible == cell.k else str(cell.visible)
    figures, column = paper["cells"][shown][cell.method], paper["levels"].index(cell.level)
    ranks = figures.get("mean_rank")
    return figures["tau"][str(cell.k)][column], ranks and ranks[str(cell.k)][column]


def recorded(cell: Cell) -> Record | None:
    """The record of a black-box cell, None where it was not run yet."""
    path = RECORDS / "black-box" / f"{cell.name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _place(cell: Cell) -> tuple[bool, bool, int, int]:
    """Where a cell stands in the paper: the whole ranking first, the k best places last."""
    return cell.visible is not None, cell.visible == cell.k, cell.k, cell.level


def _shown(cell: Cell) -> str:
    return "∞" if cell.visible is None else str(cell.visible)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _estimate(values: Sequence[float], sign: str = "") -> str:
    """Mean and 95 % interval of one value per attack."""
    found = summarise(torch.tensor(values, dtype=torch.float64))
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _differences(record: Record, other: Record) -> list[float]:
    """tau_S of a method minus that of another, over the attacks that both have."""
    return [mine - yours for mine, yours in zip(record["tau"], other["tau"], strict=False)]


def table_3() -> str:
    """ICCV table 3 with our figures beside the printed ones."""
    cells = [(cell, recorded(cell)) for cell in table3(list(FIVE))]
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
            marks.append(_mark(gaps[-1]))
            inside += found.low <= paper <= found.high
        counts = [str(marks.count(mark)) for mark in ("agrees", "higher", "lower", NOT_RUN)]
        rows.append((method, f"{_mean(gaps):+.3f}" if gaps else "", *counts, str(inside)))
    header = ("method", "mean difference", "agrees", "higher", "lower", NOT_RUN, "printed in our interval")
    return table(header, rows)


def _mark(gap: float) -> str:
    if abs(gap) <= TOLERANCE["tau"]:
        return "agrees"
    return "higher" if gap > 0 else "lower"


def _beside(cells: list[tuple[Cell, Record | None]]) -> str:
    """One row for each cell; with the whole ranking in sight also mR."""
    rows = []
    for cell, record in cells:
        paper, rank = printed_cell(cell)
        row = [f"k = {cell.k}", format_eps(cell.level / 255), cell.method, f"{paper:.3f}"]
        if record is None:
            row += ["", "", NOT_RUN, ""]
        else:
            gap = _mean(record["tau"]) - paper
            row += [_estimate(record["tau"]), f"{gap:+.3f}", _mark(gap), str(len(record["tau"]))]
        if rank is not None:
            row += [f"{rank:.1f}", "" if record is None else f"{_mean(record['mean_rank']):.1f}"]
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
        best, other = recorded(replace(cell, method="auto")), recorded(cell)
        row = (setting, format_eps(cell.level / 255), f"{cell.budget:,}", *_versus(best, other))
        rows.append((*row, _ratio(best, other)))
    header = ("(k, N)", "eps", "Q", "T", "spsa [95 %]", "auto [95 %]", "difference [95 %]", "ratio")
    notes = [f"`{name}`: {note}." for name in ("auto", "spsa") for note in _notes(name)]
    return "\n".join([table(header, rows), "", *notes])


def _notes(method: str) -> list[str]:
    """What the records of a method say of how it searched."""
    records = [record for cell in stronger([method]) if (record := recorded(cell)) is not None]
    return list(dict.fromkeys(note for record in records for note in record["notes"]))


def _versus(best: Record | None, other: Record | None) -> tuple[str, str, str, str]:
    """T, the other's figure, the default method's, and their difference, over the attacks they share."""
    if best is None or other is None:
        alone = [NOT_RUN if record is None else _estimate(record["tau"]) for record in (other, best)]
        return "", alone[0], alone[1], ""
    differences = _differences(best, other)
    count = len(differences)
    figures = [_estimate(record["tau"][:count]) for record in (other, best)]
    return f"{count}", figures[0], figures[1], _estimate(differences, "+")


def _ratio(best: Record | None, other: Record | None) -> str:
    """How many times as large the mean is, where the other's is above 0."""
    if best is None or other is None:
        return ""
    count = len(_differences(best, other))
    below = _mean(other["tau"][:count])
    return f"{_mean(best['tau'][:count]) / below:.2f}" if below > 0 else ""


def against_five() -> str:
    """The default method beside the best of the published ones in every cell of table 3."""
    rows, compared, better, worse, above = [], 0, 0, 0, 0
    for cell in sorted(table3(["auto"]), key=_place):
        best = recorded(cell)
        found = [(name, recorded(replace(cell, method=name))) for name in FIVE]
        others = [(name, record) for name, record in found if record is not None]
        setting = (f"({cell.k}, {_shown(cell)})", format_eps(cell.level / 255), f"{len(others)} of 5")
        name, other = _best(others, best)
        rows.append((*setting, name, *_versus(best, other)))
        if best is not None and other is not None:
            paired = summarise(torch.tensor(_differences(best, other), dtype=torch.float64))
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
    return max(others, key=lambda item: _mean(item[1]["tau"][:count]))


def budgets() -> str:
    """What a budget buys."""
    rows = []
    for cell in sorted(curves(["spsa"]), key=lambda cell: cell.budget):
        best, other = recorded(replace(cell, method="auto")), recorded(cell)
        rows.append((f"{cell.budget:,}", *_versus(best, other)))
    return table(("Q", "T", "spsa [95 %]", "auto [95 %]", "difference [95 %]"), rows)


def variants() -> str:
    """What helps the default method and what does not."""
    rows = []
    for cell in ablation(list(VARIANTS)):
        record, whole = recorded(cell), recorded(replace(cell, method="auto"))
        if record is not None and whole is not None:
            gap = "" if cell.method == "auto" else _estimate(_differences(record, whole), "+")
            setting = f"({cell.k}, {_shown(cell)}) at {cell.level}/255"
            rows.append((setting, f"`{cell.method}`", str(len(record["tau"])), _estimate(record["tau"]), gap))
    return table(("attack", "method", "T", "tau_S [95 %]", "minus `auto` [95 %]"), rows)


def black_box_speed() -> str:
    """Time of black-box attacks over their forward passes, and the time of tau_S."""
    (record,) = _plain("benchmarks/black-box")
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
    (record,) = _plain("black-box-saved")
    same = f"{record['equal']:,} of {record['trials']:,}"
    setting = f"({record['k']}, {record['visible']})"
    row = (
        record["method"],
        setting,
        format_eps(record["eps"]),
        f"{record['budget']:,}",
        same,
        _estimate(record["tau"]),
    )
    return table(("method", "(k, N)", "eps", "Q", "exactly equal", "tau_S reported [95 %]"), [row])


def black_box() -> Iterator[str]:
    """The sections of the black box; what was not run yet says so."""
    for title, text, command, records, render in BLACK_BOX:
        yield f"## {title}"
        yield text
        yield f"```\n{command}\n```"
        yield render() if records() else f"{NOT_RUN.capitalize()}."


def _all(cells: Callable[[list[str]], Iterator[Cell]], *methods: str) -> Callable[[], list[Record]]:
    """What is recorded of an experiment, as a call."""
    return lambda: [record for cell in cells(list(methods)) if (record := recorded(cell)) is not None]


BLACK_BOX: tuple[tuple[str, str, str, Callable[[], list[Record]], Callable[[], str]], ...] = (
    (
        "Black box: the published figures",
        "The model above, seen from outside: only the places of the k chosen among the first N results. "
        "tau_S after at most Q = 1,000 queries, the clean image included, beside ICCV 2021 table 3; "
        "T attacks each, the same queries and wanted orders for every method. A figure agrees when it is "
        "within 0.05, else it is higher or lower than the printed one; with few attacks the interval alone "
        "is wider than that. mR is of the image whose tau_S is told; the published settings differ in this.",
        RUN.format("table3"),
        _all(table3, *FIVE),
        table_3,
    ),
    (
        "Black box: stronger than SPSA",
        "`auto`, the default, and `spsa` on the same attacks with the same budget. The difference is `auto` "
        "minus `spsa`, paired over the T attacks that both have; means and ratio are of these, too.",
        RUN.format("stronger"),
        _all(stronger, "auto", "spsa"),
        against_spsa,
    ),
    (
        "Black box: against the best of the five",
        "`auto` beside that published method which did best in the same cell. It is chosen by these very "
        "attacks, in its favour. The difference is `auto` minus it, paired over the T attacks both have.",
        RUN.format("table3"),
        _all(table3, "auto"),
        against_five,
    ),
    (
        "Black box: what a budget buys",
        "tau_S of (5, 50) at 4/255; each budget is a search of its own, which knew it from the start.",
        RUN.format("curves"),
        _all(curves, "auto", "spsa"),
        budgets,
    ),
    (
        "Black box: what helps and what does not",
        "The default method with one thing changed, and published ones in a space of 7 x 7 variables, "
        "bilinearly enlarged; on the same attacks with Q = 1,000, the difference paired. What each name "
        "stands for is `VARIANTS` in `experiments/black_box.py`; [black-box.md](black-box.md) tells more.",
        RUN.format("ablation"),
        _all(ablation, *VARIANTS),
        variants,
    ),
    (
        "Black box: the saved file",
        "Each adversarial picture was written as a PNG file, read back by the decoder that reads "
        "every picture here, and searched again by itself with an oracle that had seen nothing. Counted is "
        "where tau_S is exactly the reported one: what is reported holds for a file that can be sent.",
        "python -m rankproof.experiments.eight_bit",
        lambda: _plain("black-box-saved"),
        saved_files,
    ),
    (
        "Black box: speed",
        "(5, 50) at 4/255 with Q = 1,000: time of the attacks over the time of the forward passes of the "
        "queries really spent, in the same run. Below, the time to find the k chosen in a list of ids and to "
        "count tau_S. Printed are the seconds for an attack, and for its 1,000 lists, in ICCV 2021 table 4, "
        "on another machine (Xeon 5118, GTX 1080 Ti) with another implementation of everything.",
        "python benchmarks/black_box.py --record",
        lambda: _plain("benchmarks/black-box"),
        black_box_speed,
    ),
)


def page() -> str:
    """The whole page."""
    parts = [
        "# Results",
        "Made by `make results` from `records/`; do not edit. Each section names its command.",
    ]
    for title, folder, text, render in SECTIONS:
        records = read(folder) if not folder.startswith("benchmarks") else _plain(folder)
        if records:
            command = records[0]["command"]
            parts += [f"## {title}", text, f"```\n{command}\n```", render(records)]
    parts += black_box()
    return "\n\n".join(parts) + "\n"


def _plain(name: str) -> list[Record]:
    path = RECORDS / f"{name}.json"
    return [json.loads(path.read_text())] if path.is_file() else []


def headline() -> str:
    """The small table of the README."""
    rows = []
    for record in read("white-box/stronger"):
        weak, best = record["cell"], record["strong"]
        if weak["goal"] == "oa" and weak["k"] in (5, 10):
            before, what = "0", f"order of the top {weak['k']} (tau)"
        elif weak["goal"] in ("ca+", "ca-") and weak["w"] == 1 and weak["eps"] > 0.02:
            what = "raise an item (rank, %)" if weak["goal"] == "ca+" else "sink an item (rank, %)"
            before = _number(weak["before"])
        else:
            continue
        rows.append(
            (
                what,
                _eps(weak),
                before,
                _number(weak["after"], weak["metric"]),
                f"**{_number(best['after'], weak['metric'])}**",
            )
        )
    return table(("attack on Fashion-MNIST", "eps", "untouched", "published PGD", "rankproof"), rows)


def main() -> None:
    """Write docs/results.md and the README's table."""
    write_atomically(PAGE, page().encode())
    readme = README.read_text()
    write_atomically(
        README, HEADLINE.sub(lambda found: f"{found[1]}{headline()}\n{found[2]}", readme).encode()
    )
    print(f"{PAGE} and the table in {README} are up to date")


if __name__ == "__main__":
    main()
