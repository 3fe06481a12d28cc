"""The measurements behind the black-box part of docs/results.md.

    python -m rankproof.experiments.black_box table3|stronger|curves|ablation [--trials T] [--method M ...]

Each cell goes to records/black-box/ as soon as it is there; a run that is started again skips what is there,
and one with more trials adds the missing ones.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from rankproof.experiments.ordering import METHODS, VARIANTS, Cell, complete
from rankproof.memory import keep_freed_memory
from rankproof.target import open_target

MODEL = "zoo:fashion-mnist/c2f1-ct"
RECORDS = Path("records/black-box")


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
    command = f"python -m rankproof.experiments.black_box {experiment} --data {data} --trials {trials}"
    todo = list(EXPERIMENTS[experiment](methods))
    for number, cell in enumerate(todo, 1):
        path = RECORDS / f"{cell.name}.json"
        record = complete(path, target, cell, trials, seed, command)
        print(f"{number}/{len(todo)} {path} {mean(record['tau']):.3f}", flush=True)


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
