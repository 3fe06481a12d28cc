"""How near the white-box attacks come to the work they cannot avoid: seconds / model_seconds in one run.

    python benchmarks/white_box.py [--data fashion-mnist] [--record]

500 attacks at once on the shipped Fashion-MNIST model; run it on an otherwise idle machine.
"""

import argparse
import json
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rankproof.attack import attack
from rankproof.cost import measure
from rankproof.files import write_atomically
from rankproof.goals import CandidateLower, CandidateRaise, Preserve, QueryLower, QueryRaise, Reorder
from rankproof.methods.presets import published, strong
from rankproof.target import open_target
from rankproof.threat import Threat
from rankproof.versions import versions

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
EPS, TRIALS = 8 / 255, 500


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--record", action="store_true", help="write records/benchmarks/white-box.json")
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    target = open_target("zoo:fashion-mnist/c2f1-ct", options.data, root=root)
    index = target.draw(TRIALS, seed=0)
    images = target.dataset.take(index)
    rows = []
    table = Table("500 attacks at once", "method", "seconds", "bare seconds", "ratio", "seconds per attack")
    for name, goal in GOALS.items():
        for method in (published(goal.metric), strong(goal.metric)):
            result = attack(target.gallery, images, goal, Threat(EPS), method=method, index=index)
            bare = measure(target.gallery, images, goal, result.steps)["model_seconds"]
            ratio = result.seconds / bare
            row = {
                "name": name,
                "method": method.name,
                "seconds": result.seconds,
                "model_seconds": bare,
                "ratio": ratio,
            }
            rows.append({**row, "trials": TRIALS, "steps": result.steps})
            cells = (f"{result.seconds:.2f}", f"{bare:.2f}", f"{ratio:.2f}", f"{result.seconds / TRIALS:.4f}")
            table.add_row(name, method.name, *cells)
    Console().print(table)
    if options.record:
        record = {"command": "python benchmarks/white_box.py --record", "rows": rows, "versions": versions()}
        write_atomically(
            Path("records/benchmarks/white-box.json"), (json.dumps(record, indent=2) + "\n").encode()
        )


if __name__ == "__main__":
    main()
