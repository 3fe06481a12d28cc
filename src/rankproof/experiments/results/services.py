"""The sections about services that are asked over a wire."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from statistics import mean, median, stdev

from rankproof.experiments.ordering import Cell
from rankproof.experiments.reproduce.blocks import ServiceBlock
from rankproof.experiments.reproduce.recipe import find_recipe, read_recipe
from rankproof.experiments.results.records import Record, benchmark, present, recorded
from rankproof.experiments.results.section import Section
from rankproof.experiments.results.tables import NOT_RUN, differences, estimate, table
from rankproof.experiments.services import DATA, JPEG, METHODS, SEEN, pipelines, tables
from rankproof.threat import format_eps

RUN = "python -m rankproof.experiments.services"
WANTED = (1.4, 0.1, 0.05)  # times SPSA's tau where that is above the second, else higher by the third


def table_6_and_7() -> str:
    """Five figures of tau_S for each method and data set, beside the print."""
    told: list[tuple[int, float, tuple[str, ...]]] = [
        (block.k, block.eps, ("printed, another service", "spsa", *_five(block))) for block in _published()
    ]
    told += [
        (cell.k, cell.level / 255, (data, _word(cell), *_spread(_record(data, cell))))
        for cell, data in _cells()
    ]
    told.sort(key=lambda row: row[:2])
    rows = [(f"{k}", format_eps(eps), *more) for k, eps, more in told]
    header = ("k", "eps", "gallery", "method", "T", "mean [95 %]", "st. dev.", "max", "min", "median")
    return f"{table(header, rows)}\n\n{_versus()}"


def through_a_pipeline() -> str:
    """What a JPEG file and a smaller size leave of the attack."""
    rows = []
    for data in DATA:
        for cell in pipelines():
            record = recorded("own/services", f"{data}/jpeg{JPEG}-{cell.name}")
            if record is not None:
                pairs = zip(record["again"], record["tau_before"], strict=True)
                gain = [after - before for after, before in pairs]
                same = sum(a == b for a, b in zip(record["again"], record["tau"], strict=True))
                told = (estimate(record["tau"]), estimate(gain, "+"), f"{same} of {len(gain)}")
                eps = format_eps(cell.level / 255)
                rows.append((data, _word(cell), f"({cell.k}, {cell.visible})", eps, str(len(gain)), *told))
    header = (
        *("gallery", "method", "(k, N)", "eps", "T", "tau_S reported [95 %]"),
        *("gain when sent again [95 %]", "the same tau_S"),
    )
    return table(header, rows)


def load() -> str:
    """What the service costs beside its encoder, and what its indexes cost."""
    (record,) = benchmark("service")
    parts = []
    if "load" in record:
        asked = ("requests", "clients", "encoder alone", "service", "ratio", "p50", "p99", "memory")
        parts.append(table(asked, [_load(record["load"])]))
    if "index" in record:
        held = ("index", "items", "insert", "build", "open again", "one search", "recall@50")
        parts.append(table(held, [_index(row) for row in record["index"]]))
    return "\n\n".join(parts)


def _load(row: Record) -> tuple[str, ...]:
    memory = [f"{megabytes:,.0f}" for _, megabytes in row["memory_mb"]]
    return (
        *(f"{row['requests']:,}", f"{row['clients']}", f"{row['encoder_per_second']:.1f}/s"),
        *(f"{row['per_second']:.1f}/s", f"{row['ratio']:.2f}", f"{row['p50_ms']:.0f} ms"),
        *(f"{row['p99_ms']:.0f} ms", f"{' '.join(memory)} MB"),
    )


def _index(row: Record) -> tuple[str, ...]:
    times = ("insert_seconds", "build_seconds", "reopen_seconds")
    return (
        *(row["name"], f"{row['items']:,}", *(f"{row[name]:.1f} s" for name in times)),
        *(f"{row['search_ms']:.1f} ms", f"{row['recall']:.4f}"),
    )


@cache
def _published() -> tuple[ServiceBlock, ...]:
    recipes = [read_recipe(find_recipe(f"iccv21/table{number}", None)) for number in (6, 7)]
    return tuple(block for recipe in recipes for block in recipe.blocks if isinstance(block, ServiceBlock))


def _five(block: ServiceBlock) -> tuple[str, ...]:
    figures = (block.mean, block.stdev, block.max, block.min, block.median)
    return str(block.trials), *(f"{figure:.3f}" for figure in figures)


def _spread(record: Record | None) -> tuple[str, ...]:
    if record is None:
        return "", NOT_RUN, "", "", "", ""
    tau = record["tau"]
    others = (stdev(tau), max(tau), min(tau), median(tau))
    return str(len(tau)), estimate(tau), *(f"{figure:.3f}" for figure in others)


def _cells() -> Iterator[tuple[Cell, str]]:
    for data in DATA:
        for cell in tables():
            yield cell, data


def _record(data: str, cell: Cell) -> Record | None:
    return recorded("own/services", f"{data}/{cell.name}")


def _word(cell: Cell) -> str:
    return cell.method.removesuffix("-on-grid")


def _versus() -> str:
    """How much better the default method is, cell by cell."""
    ratio, enough, more = WANTED
    rows = []
    for cell, data in _cells():
        best, other = _record(data, cell), _record(data, replace(cell, method=METHODS[0]))
        if cell.method == METHODS[0] or best is None or other is None:
            continue
        gaps = differences(best, other)
        own, below = mean(best["tau"]), mean(other["tau"])
        met = own >= ratio * below if below > enough else own >= below + more
        times = f"{own / below:.2f}" if below > enough else ""
        row = (data, f"{cell.k}", format_eps(cell.level / 255), estimate(gaps, "+"), times)
        rows.append((*row, "yes" if met else "no"))
    header = ("gallery", "k", "eps", "auto minus spsa [95 %]", "ratio", "as much better as wanted")
    told = (
        f"`auto` is wanted to reach {ratio} times the tau_S of `spsa` where that is above {enough}, and "
        f"{more} more than it elsewhere."
    )
    return f"{told}\n\n{table(header, rows)}"


SECTIONS = (
    Section(
        title="A service: 100 queries",
        text=(
            "The setting of ICCV 2021 tables 6 and 7: the first 50 results in sight, Q = 100, 8-bit pictures "
            "for both methods. The papers asked JD SnapShop (1/255) and Bing (8/255), whose models and "
            "galleries nobody knows; here the gallery is the test split of photographs of 128 x 128 pixels, "
            f"and a ResNet-18 trained on the other split sees them at {SEEN} x {SEEN}. A query's own copy "
            "counts nowhere, as if it were not in the gallery. Asked through the local oracle, which a test "
            "shows to be the service to the bit. The figures of the paper are no yardstick for ours, but "
            "show how hard their service was."
        ),
        command=f"{RUN} tables --trials 100",
        records=lambda: [record for cell, data in _cells() if (record := _record(data, cell)) is not None],
        render=table_6_and_7,
    ),
    Section(
        title="A service that stores JPEG",
        text=(
            f"`rankproof serve` as a process of its own, which makes a JPEG file of quality {JPEG} of each "
            f"upload and shrinks it to {SEEN} x {SEEN} before it is embedded, attacked over HTTP with "
            "Q = 100. Afterwards the picture that was found was sent once more, and what came back is "
            "compared with the order before the attack. The own copy is in the gallery."
        ),
        command=f"{RUN} pipeline --trials 50",
        records=lambda: present(
            "own/services", *(f"{data}/jpeg{JPEG}-{cell.name}" for data in DATA for cell in pipelines())
        ),
        render=through_a_pipeline,
    ),
    Section(
        title="A service: load and indexes",
        text=(
            "An untrained ResNet-18 on pictures of 128 x 128 pixels behind `rankproof serve`, and 16 clients "
            "that send PNG files as fast as they are answered; clients and service share the cores. Beside "
            "it the encoder alone at batch 16, in the same run. Memory is the server's, after each tenth of "
            "the requests. Below, embeddings of 512 dimensions in groups of fifty in each index; recall@50 "
            "is against the exact ranking."
        ),
        command="python benchmarks/service.py --record",
        records=lambda: benchmark("service"),
        render=load,
    ),
)
