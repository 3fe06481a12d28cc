"""The white-box sections, and the README's table, which is made of them."""

from rankproof.experiments.results.attacks import NAMES, after, budget, setting
from rankproof.experiments.results.records import Record, all_recorded, benchmark
from rankproof.experiments.results.section import Section
from rankproof.experiments.results.tables import TOLERANCE, number, table

RUN = "python -m rankproof.experiments.white_box {} --data fashion-mnist"


def measured(experiment: str) -> list[Record]:
    """All records of an experiment, in the order of the papers."""
    order = list(NAMES)
    return sorted(
        all_recorded(f"own/{experiment}"),
        key=lambda r: (order.index(r["cell"]["goal"]), _count(r["cell"]), r["cell"]["eps"]),
    )


def _count(cell: Record) -> int:
    return int(cell["w"] or cell["m"] or cell["k"] or 0)


def baseline() -> str:
    """Figures where nothing may be changed."""
    rows = []
    for record in measured("baseline"):
        cell, published = record["cell"], record["published"] or {}
        expected = "1 to 2.5" if cell["goal"] == "ca-" else number(published.get("after"), cell["metric"])
        rank = "" if cell["mean_rank"] is None else f"{cell['mean_rank']:.4f}"
        rows.append((setting(cell), expected, after(cell), rank, f"{cell['trials']:,}"))
    return table(("eps = 0", "expected", "measured [95 %]", "mR", "T"), rows)


def papers() -> str:
    """Our figures beside the printed ones."""
    rows = []
    for record in measured("papers"):
        cell, published = record["cell"], record["published"]
        gap = cell["after"] - published["after"]
        verdict = "agrees" if abs(gap) <= TOLERANCE[cell["metric"]] else "apart"
        also = "" if cell["sp_rank"] is None else f"C_SP {cell['sp_rank']:.2f}"
        if cell["mean_rank"] is not None:
            also = f"mR {cell['mean_rank']:.1f} (published {published['mean_rank']:.1f})"
        gap_text = f"{gap:+.3f}" if cell["metric"] == "tau" else f"{gap:+.1f}"
        rows.append(
            (
                setting(cell),
                budget(cell),
                f"{published['after']:g}",
                after(cell),
                gap_text,
                verdict,
                also,
            )
        )
    header = ("attack", "eps", "published", "ours [95 %]", "difference", "", "also")
    agreeing = sum("agrees" in row for row in rows)
    return f"{table(header, rows)}\n\n{agreeing} of {len(rows)} figures agree."


def order() -> str:
    """The order attack: plain PGD and the strong search."""
    rows = []
    for record in measured("stronger"):
        weak, best = record["cell"], record["strong"]
        if weak["goal"] != "oa":
            continue
        rows.append(
            (
                setting(weak),
                budget(weak),
                after(weak),
                after(best),
                f"{best['tau'] / weak['tau']:.2f}",
                f"{weak['mean_rank']:.1f}",
                f"{best['mean_rank']:.1f}",
            )
        )
    return table(("attack", "eps", "PGD tau", "strong tau", "ratio", "PGD mR", "strong mR"), rows)


def ranks() -> str:
    """CA and SP-QA: paired differences."""
    rows = []
    for record in measured("stronger"):
        weak, best, difference = record["cell"], record["strong"], record["difference"]
        if weak["goal"] == "oa":
            continue
        rows.append(
            (
                setting(weak),
                budget(weak),
                number(weak["after"]),
                number(best["after"]),
                _paired(difference["rank"]),
                number(weak["sp_rank"]),
                number(best["sp_rank"]),
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


def speed() -> str:
    """Attack time over the bare work it cannot avoid."""
    (record,) = benchmark("white-box")
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


def headline() -> str:
    """The small table of the README."""
    rows = []
    for record in measured("stronger"):
        weak, best = record["cell"], record["strong"]
        if weak["goal"] == "oa" and weak["k"] in (5, 10):
            before, what = "0", f"order of the top {weak['k']} (tau)"
        elif weak["goal"] in ("ca+", "ca-") and weak["w"] == 1 and weak["eps"] > 0.02:
            what = "raise an item (rank, %)" if weak["goal"] == "ca+" else "sink an item (rank, %)"
            before = number(weak["before"])
        else:
            continue
        rows.append(
            (
                what,
                budget(weak),
                before,
                number(weak["after"], weak["metric"]),
                f"**{number(best['after'], weak['metric'])}**",
            )
        )
    return table(("attack on Fashion-MNIST", "eps", "untouched", "published PGD", "rankproof"), rows)


SECTIONS = (
    Section(
        title="Nothing may be changed",
        text=(
            "Every test image of Fashion-MNIST once. With eps = 0 a figure is the starting point of its "
            "attack; a wrong rank, a wrong choice of targets or a lost own copy would show here."
        ),
        command=RUN.format("baseline"),
        records=lambda: measured("baseline"),
        render=baseline,
    ),
    Section(
        title="The published figures",
        text=(
            "`zoo:fashion-mnist/c2f1-ct`: C2F1, cosine distance, triplet loss, trained by `rankproof train` "
            "with the published settings for 24 epochs; R@1 88.87 with its half-precision weights "
            "(published: 30 epochs, 88.8). PGD as published; T = 2,000. Ranks in %, from ECCV 2020 table 3; "
            "OA from ICCV 2021 table 1. A figure agrees when it is within 3 points, or 0.05 of tau."
        ),
        command=RUN.format("papers"),
        records=lambda: measured("papers"),
        render=papers,
    ),
    Section(
        title="Stronger: the order attack",
        text="The same 500 queries and wanted orders, the same 24 evaluations.",
        command=RUN.format("stronger"),
        records=lambda: measured("stronger"),
        render=order,
    ),
    Section(
        title="Stronger: candidate and query attacks",
        text=(
            "The same 500 images and targets, the same number of evaluations. The difference is strong minus "
            'PGD, paired; a negative one is better for "+" attacks and for C_SP, a positive one for "-" '
            "attacks."
        ),
        command=RUN.format("stronger"),
        records=lambda: measured("stronger"),
        render=ranks,
    ),
    Section(
        title="Speed",
        text=(
            "Time of the attack over the time of the bare work: the encoder's forward and backward passes "
            "and, for query goals, one product with the gallery and its backward pass, in the same run. Best "
            "of three over best of five: a machine with neighbours disturbs single runs by a fifth and more."
        ),
        command="python benchmarks/white_box.py --record",
        records=lambda: benchmark("white-box"),
        render=speed,
    ),
)
