"""docs/results.md from records/: `python -m rankproof.experiments.results`, or `make results`."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankproof.files import write_atomically
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
