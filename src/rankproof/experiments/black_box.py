"""The measurements behind the black-box part of docs/results.md.

    python -m rankproof.experiments.black_box table3|stronger|curves|ablation [--trials T] [--method M ...]

Each cell goes to records/black-box/ as soon as it is there; a run that is started again skips what is there,
and one with more trials adds the missing ones.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankproof.attack import attack
from rankproof.files import write_atomically
from rankproof.goals import Reorder
from rankproof.memory import keep_freed_memory
from rankproof.methods import NES, PSO, SPSA, Beta, Rand, Thompson
from rankproof.methods.presets import automatic
from rankproof.methods.search import BlackBox
from rankproof.methods.space import Space
from rankproof.oracle import LocalOracle
from rankproof.result import AttackResult
from rankproof.target import Target, open_target
from rankproof.threat import Threat
from rankproof.versions import versions

MODEL = "zoo:fashion-mnist/c2f1-ct"
RECORDS = Path("records/black-box")
PIECE = 50  # attacks between two writings
BILINEAR = Space("bilinear", 7)
METHODS: dict[str, BlackBox] = {
    **{"rand": Rand(), "beta": Beta(), "pso": PSO(), "nes": NES(), "spsa": SPSA()},
    "auto": automatic(),
}
VARIANTS: dict[str, tuple[BlackBox, Space | None, bool]] = {
    **{name: (method, None, method.grid) for name, method in METHODS.items()},
    "spsa-bilinear7": (SPSA(), BILINEAR, False),
    "nes-bilinear7": (NES(), BILINEAR, False),
    "auto-bilinear7": (Thompson(), BILINEAR, True),
    "auto-off-grid": (Thompson(), None, False),
    "auto-side7": (Thompson(side=7), None, True),
    "auto-side20": (Thompson(side=20), None, True),
    "auto-flat-prior": (Thompson(decay=0.0), None, True),
    "auto-steep-prior": (Thompson(decay=3.0), None, True),
    "auto-noise2": (Thompson(noise=2.0), None, True),
    "auto-whole-ball": (Thompson(first=1.0), None, True),
    "auto-rounds-of-25": (Thompson(population=25), None, True),
    "auto-steps6": (Thompson(steps=6), None, True),
    "beta-rate6": (Beta(rate=6.0), None, False),
}
"""Methods by name with where they search (None: their own rule) and whether on the 8-bit grid."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure to measure.

    Args:
        method, k, visible, level, budget: who orders how many of how many visible results within level/255.
    """

    method: str
    k: int
    visible: int | None
    level: int
    budget: int = 1000

    @property
    def name(self) -> str:
        """File name of the record."""
        shown = "inf" if self.visible is None else self.visible
        return f"{self.method}-k{self.k}-N{shown}-eps{self.level}-Q{self.budget}"


def table3(methods: list[str]) -> Iterator[Cell]:
    """ICCV table 3, Fashion-MNIST."""
    for level in (4, 8, 2, 16):
        for k in (5, 10, 25):
            for visible in (None, 50, k):
                for method in methods:
                    yield Cell(method=method, k=k, visible=visible, level=level)


def stronger(methods: list[str]) -> Iterator[Cell]:
    """The default method against SPSA: the cells that judge it."""
    for level in (4, 8):
        for k in (5, 10, 25):
            for visible, budget in ((50, 1000), (k, 1000), (50, 100)):
                for method in methods:
                    yield Cell(method=method, k=k, visible=visible, level=level, budget=budget)


def curves(methods: list[str]) -> Iterator[Cell]:
    """What a budget buys: (5, 50) at 4/255."""
    for budget in (100, 200, 500, 1000, 5000, 50):
        for method in methods:
            yield Cell(method=method, k=5, visible=50, level=4, budget=budget)


def ablation(methods: list[str]) -> Iterator[Cell]:
    """What helps our method and what does not: where all is in sight, and where little is."""
    for k, visible, level in ((10, 50, 4), (5, 5, 16)):
        for method in VARIANTS:
            yield Cell(method=method, k=k, visible=visible, level=level)


EXPERIMENTS = {"table3": table3, "stronger": stronger, "curves": curves, "ablation": ablation}


def run(experiment: str, data: str, root: Path, methods: list[str], trials: int, seed: int = 0) -> None:
    """Measure what is not recorded yet."""
    target = open_target(MODEL, data, root=root)
    todo = list(EXPERIMENTS[experiment](methods))
    for number, cell in enumerate(todo, 1):
        path = RECORDS / f"{cell.name}.json"
        record = json.loads(path.read_text()) if path.exists() else {"tau": []}
        while len(record["tau"]) < trials:
            piece = _measured(target, cell, len(record["tau"]), min(trials, len(record["tau"]) + PIECE), seed)
            record = _joined(record, piece)
            record["command"] = (
                f"python -m rankproof.experiments.black_box {experiment} --data {data} --trials {trials}"
            )
            write_atomically(path, (json.dumps(record) + "\n").encode())
        mean = sum(record["tau"]) / len(record["tau"])
        print(f"{number}/{len(todo)} {path} {mean:.3f}", flush=True)


def _measured(target: Target, cell: Cell, first: int, last: int, seed: int) -> dict[str, Any]:
    """The values of attacks first .. last - 1."""
    index = target.draw(last, seed)[first:]
    method, space, grid = VARIANTS[cell.method]
    result = attack(
        LocalOracle(target.gallery, cell.visible),
        target.dataset.take(index),
        Reorder(k=cell.k),
        Threat(cell.level / 255, grid=grid),
        method=method,
        space=space,
        budget=cell.budget,
        seed=seed,
        index=index,
    )
    return {
        **{name: result.cell(model=MODEL, data=target.dataset.name)[name] for name in KEPT},
        "curve": result.curve(),
        **{name: [round(value, 6) for value in values.tolist()] for name, values in _values(result).items()},
    }


KEPT = (
    "goal",
    "method",
    "eps",
    "k",
    "visible",
    "budget",
    "seed",
    "model",
    "device",
    "seconds",
    "notes",
    "versions",
)


def _values(result: AttackResult) -> dict[str, Any]:
    assert result.queries is not None
    return {"tau": result.tau, "mean_rank": result.mean_rank, "queries": result.queries}


def _joined(record: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """Both pieces as one record."""
    if not record["tau"]:
        return piece
    before, more = len(record["tau"]), len(piece["tau"])
    joined = {
        **record,
        **{name: record[name] + piece[name] for name in ("tau", "mean_rank", "queries", "seconds")},
    }
    joined["curve"] = [
        [queries, (before * old + more * new) / (before + more)]
        for (queries, old), (_, new) in zip(record["curve"], piece["curve"], strict=True)
    ]
    return {**joined, "versions": versions()}


def main() -> None:
    """Parse and run."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    run(options.experiment, options.data, root, options.method, options.trials, options.seed)


if __name__ == "__main__":
    main()
