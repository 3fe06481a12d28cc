"""How near the white-box attacks come to the work they cannot avoid: seconds / model_seconds in one run.

    python benchmarks/white_box.py [--data fashion-mnist] [--method strong] [--record]

500 attacks at once on the shipped Fashion-MNIST model; run it on an otherwise idle machine. The attack is
timed three times and the bare work five times, and the best of each counts: the others were disturbed.
"""

import argparse
import json
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rankproof.attacks import attack
from rankproof.attacks.cost import measure
from rankproof.goals import CandidateLower, CandidateRaise, Preserve, QueryLower, QueryRaise, Reorder
from rankproof.io import versions, write_atomically
from rankproof.methods.defaults import published, strong
from rankproof.parallel import keep_freed_memory
from rankproof.system import SystemOptions, open_system
from rankproof.threat import Threat

GOALS = {
    "CA+ w = 1": CandidateRaise(w=1),
    "CA+ w = 10": CandidateRaise(w=10),
    "CA- w = 1": CandidateLower(w=1),
    "CA- w = 10": CandidateLower(w=10),
    "QA+ m = 1": QueryRaise(m=1),
    "QA+ m = 10": QueryRaise(m=10),
    "QA- m = 1": QueryLower(m=1),
    "QA- m = 10": QueryLower(m=10),
    "SP-QA+ m = 1": QueryRaise(m=1) + 1.0 * Preserve(),
    "SP-QA- m = 1": QueryLower(m=1) + 100.0 * Preserve(),
    "OA k = 5": Reorder(k=5),
    "OA k = 25": Reorder(k=25),
}
METHODS = {"pgd": published, "strong": strong}
EPS, TRIALS, REPEATS = 8 / 255, 500, 3


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--method", choices=METHODS, default="strong")
    parser.add_argument("--record", action="store_true", help="write records/benchmarks/white-box.json")
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    target = open_system("zoo:fashion-mnist/c2f1-ct", options.data, SystemOptions(root=root))
    index = target.draw(TRIALS, seed=0)
    images = target.dataset.take(index)
    rows = []
    table = Table("500 attacks at once", "seconds", "bare seconds", "ratio", "seconds per attack")
    for name, goal in GOALS.items():
        method = METHODS[options.method](goal.metric)
        results = [
            attack(target.gallery, images, goal, Threat(EPS), method=method, gallery_ids=index)
            for _ in range(REPEATS)
        ]
        seconds = min(result.seconds for result in results)
        bare = measure(target.gallery, images, goal, results[0].steps).model_seconds
        row = {"name": name, "method": method.name, "seconds": seconds, "model_seconds": bare}
        rows.append({**row, "ratio": seconds / bare, "trials": TRIALS, "steps": results[0].steps})
        table.add_row(
            name, f"{seconds:.2f}", f"{bare:.2f}", f"{seconds / bare:.2f}", f"{seconds / TRIALS:.4f}"
        )
    Console().print(table)
    if options.record:
        record = {"command": "python benchmarks/white_box.py --record", "rows": rows, "versions": versions()}
        write_atomically(
            Path("records/benchmarks/white-box.json"), (json.dumps(record, indent=2) + "\n").encode()
        )


if __name__ == "__main__":
    main()
