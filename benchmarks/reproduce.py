"""What `rankproof reproduce` costs beside its attacks, and what a second worker gains.

    python benchmarks/reproduce.py [--trials 500] [--record]

The cells of w = m = 1 of ECCV table 10 on the shipped Fashion-MNIST model, as whole commands in empty
folders: with one worker of one thread, then with two workers. The wall time of the first over the sum of its
cells' `seconds` (their `model_seconds` times their ratios) tells what reading, embedding, verdicts and
records cost. Run it on an otherwise idle machine with two cores.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from rankproof.io import read_json_lines, versions, write_atomically

RECORD = Path("records/benchmarks/reproduce.json")
CELLS = ["eccv20/table10", "--cells", "ct", "--cells", "w1,m1", "--model", "ct=zoo:fashion-mnist/c2f1-ct"]


def run(workers: int, trials: int) -> dict[str, Any]:
    """One command in an empty folder: its wall time, and what its cells say of themselves."""
    root = Path(os.environ.get("RANKPROOF_DATA") or "data").resolve()
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(workers), "RANKPROOF_DATA": str(root)}
    words = [*CELLS, "--trials", str(trials), "--workers", str(workers)]
    with TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "rankproof", "reproduce", *words], cwd=folder, env=surroundings, check=True
        )
        wall = time.perf_counter() - begin
        cells = [cell for path in Path(folder).glob("records/*/*.jsonl") for cell in read_json_lines(path)]
    sums = {name: sum(cell[name] for cell in cells) for name in ("seconds", "model_seconds")}
    return {"workers": workers, "cells": len(cells), "wall_seconds": wall, **sums}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD}")
    options = parser.parse_args()
    rows = [run(workers, options.trials) for workers in (1, 2)]
    one, two = rows
    ratios = {
        "wall_over_cells": one["wall_seconds"] / one["seconds"],
        "second_worker": one["wall_seconds"] / two["wall_seconds"],
    }
    table = Table("workers", "cells", "wall seconds", "seconds of the attacks", "bare seconds")
    for row in rows:
        figures = (f"{row[name]:.1f}" for name in ("wall_seconds", "seconds", "model_seconds"))
        table.add_row(str(row["workers"]), str(row["cells"]), *figures)
    console = Console()
    console.print(table)
    console.print(
        f"one worker: wall time {ratios['wall_over_cells']:.2f} times its attacks; "
        f"two workers: {ratios['second_worker']:.2f} times as fast"
    )
    if options.record:
        record = {
            "command": shlex.join(["python", "benchmarks/reproduce.py", *sys.argv[1:]]),
            "trials": options.trials,
            "rows": rows,
            "ratios": ratios,
            "versions": versions(),
        }
        write_atomically(RECORD, (json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
