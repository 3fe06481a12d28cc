"""How near the black-box attacks come to the work they cannot avoid, and how long scoring a list takes.

    python benchmarks/black_box.py [--trials 200] [--repeats 1] [--method M ...] [--record]

Order attacks (k = 5, N = 50) at 4/255 with Q = 1,000 on the shipped Fashion-MNIST model; the bare work is the
forward passes of the queries really spent. Run it on an otherwise idle machine: a method takes minutes, so
it is timed once unless --repeats says otherwise, and then the best counts. tau_S is that of 1,000 lists at
once, found in the lists and counted, best of many. Everything is in single precision: bfloat16 convolutions
are slower on processors without units for it.
"""

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rankproof.attacks import attack
from rankproof.attacks.cost import query_seconds
from rankproof.goals import Reorder
from rankproof.io import versions, write_atomically
from rankproof.oracles import LocalOracle
from rankproof.parallel import keep_freed_memory
from rankproof.ranking.metrics import places_in, short_range_tau
from rankproof.reproduction.cells import search_of
from rankproof.system import RetrievalSystem, SystemOptions, open_system
from rankproof.threat import Threat

MODEL = "zoo:fashion-mnist/c2f1-ct"
ALL = {name: search_of(name)[0] for name in ("rand", "beta", "pso", "nes", "spsa", "auto")}
EPS, K, VISIBLE, BUDGET, TRIALS = 4 / 255, 5, 50, 1000, 200
LISTS, SIZES, BEST_OF = 1000, (5, 10, 25), 50


def attack_row(target: RetrievalSystem, name: str, trials: int, repeats: int) -> dict[str, Any]:
    """One method: time of its attacks over the time of their forward passes."""
    method, index = ALL[name], target.draw(trials, seed=0)
    images = target.dataset.take(index)
    results = [
        attack(
            LocalOracle(target.gallery, VISIBLE),
            images,
            Reorder(k=K),
            Threat(EPS, grid=method.grid),
            method=method,
            budget=BUDGET,
            gallery_ids=index,
        )
        for _ in range(repeats)
    ]
    assert results[0].log.spent is not None
    seconds, queries = min(result.seconds for result in results), int(results[0].log.spent.sum())
    bare = query_seconds(target.gallery, images, queries)
    row = {"name": name, "method": method.name, "trials": len(index), "repeats": repeats}
    return {**row, "queries": queries, "seconds": seconds, "model_seconds": bare, "ratio": seconds / bare}


def tau_row(k: int) -> dict[str, Any]:
    """Microseconds to score one list of N ids, of which some are among the k chosen."""
    source = torch.Generator().manual_seed(0)
    lists = torch.stack([torch.randperm(2 * VISIBLE, generator=source)[:VISIBLE] for _ in range(LISTS)])
    watched, times = torch.arange(k)[None], []
    for _ in range(BEST_OF):
        begin = time.perf_counter()
        short_range_tau(places_in(lists, watched), VISIBLE)
        times.append(time.perf_counter() - begin)
    return {"k": k, "visible": VISIBLE, "lists": LISTS, "microseconds": 1e6 * min(times) / LISTS}


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--method", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--trials", type=int, default=TRIALS, help="attacks of each method")
    parser.add_argument("--repeats", type=int, default=1, help="the best of so many counts")
    parser.add_argument("--record", action="store_true", help="write records/benchmarks/black-box.json")
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    target = open_system(MODEL, options.data, SystemOptions(root=root))
    lists, rows = [tau_row(k) for k in SIZES], []
    scoring = Table(f"{LISTS:,} lists of N = {VISIBLE}", "microseconds per list")
    for row in lists:
        scoring.add_row(f"k = {row['k']}", f"{row['microseconds']:.2f}")
    Console().print(scoring)
    searching = Table(
        "attacks", "method", "queries", "seconds", "bare seconds", "ratio", "seconds per attack"
    )
    for name in options.method:
        row = attack_row(target, name, options.trials, options.repeats)
        rows.append(row)
        searching.add_row(
            f"{row['trials']}",
            name,
            f"{row['queries']:,}",
            f"{row['seconds']:.2f}",
            f"{row['model_seconds']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['seconds'] / row['trials']:.4f}",
        )
    Console().print(searching)
    if options.record:
        record = {
            "command": shlex.join(["python", "benchmarks/black_box.py", *sys.argv[1:]]),
            "k": K,
            "visible": VISIBLE,
            "eps": EPS,
            "budget": BUDGET,
            "threads": torch.get_num_threads(),
            "device": target.gallery.ranker.device.type,
            "rows": rows,
            "lists": lists,
            "versions": versions(),
        }
        write_atomically(
            Path("records/benchmarks/black-box.json"), (json.dumps(record, indent=2) + "\n").encode()
        )


if __name__ == "__main__":
    main()
