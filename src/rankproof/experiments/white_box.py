"""The measurements behind the white-box part of docs/results.md.

    python -m rankproof.experiments.white_box baseline|papers|stronger --data fashion-mnist

Each figure goes to records/white-box/ as soon as it is there; a run that is started again skips those.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankproof.attack import attack
from rankproof.cost import measure
from rankproof.files import write_atomically
from rankproof.goals import (
    CandidateLower,
    CandidateRaise,
    Goal,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
    Sum,
)
from rankproof.goals.names import goal_knobs, goal_name
from rankproof.memory import keep_freed_memory
from rankproof.methods.base import Method
from rankproof.methods.presets import published, strong
from rankproof.ranking.metrics import summarise
from rankproof.result import AttackResult
from rankproof.target import Target, open_target
from rankproof.threat import Threat

MODEL = "zoo:fashion-mnist/c2f1-ct"
RECORDS = Path("records/white-box")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure to measure.

    Args:
        goal, eps, trials: what is attacked how often.
        published: what the papers print, by the names of `rankproof attack --json`.
        versus: whether the strong method is measured beside plain PGD on the same attacks.
    """

    goal: Goal | Sum
    eps: float
    trials: int
    published: dict[str, float] | None = None
    versus: bool = False

    @property
    def name(self) -> str:
        """File name of the record."""
        knobs = "".join(
            f"-{letter}{value:g}" for letter, value in goal_knobs(self.goal).items() if value is not None
        )
        return (
            f"{goal_name(self.goal).replace('+', '-plus')}{knobs}-eps{self.eps:.4f}-T{self.trials}".replace(
                "--", "-minus-"
            )
        )


def raised(m: int = 1) -> Sum:
    """SP-QA+ as published."""
    return QueryRaise(m=m) + 1.0 * Preserve()


def lowered(m: int = 1) -> Sum:
    """SP-QA- as published."""
    return QueryLower(m=m) + 100.0 * Preserve()


def baseline() -> Iterator[Measurement]:
    """What every figure must be when nothing may be changed (T = |X|)."""
    expected = {"ca+": 50.0, "qa+": 50.0, "qa-": 0.5, "oa": 0.0}
    goals = [
        CandidateRaise(),
        CandidateLower(),
        QueryRaise(),
        QueryLower(),
        *(Reorder(k=k) for k in (5, 10, 25)),
    ]
    for goal in goals:
        name = goal_name(goal)
        yield Measurement(
            goal=goal,
            eps=0.0,
            trials=10_000,
            published={"after": expected[name]} if name in expected else None,
        )


def papers() -> Iterator[Measurement]:
    """ECCV table 3 (w = m = 1, vanilla) and ICCV table 1 (k = 5, 4/255)."""
    printed: list[tuple[Goal | Sum, dict[float, float]]] = [
        (CandidateRaise(), {0.01: 36.6, 0.1: 3.7, 0.3: 1.3}),
        (CandidateLower(), {0.01: 5.6, 0.1: 87.2, 0.3: 100.0}),
        (raised(), {0.01: 39.4, 0.1: 7.1, 0.3: 6.3}),
        (lowered(), {0.01: 2.1, 0.1: 10.9, 0.3: 12.6}),
    ]
    for goal, row in printed:
        for eps, value in row.items():
            yield Measurement(goal=goal, eps=eps, trials=2000, published={"after": value})
    yield Measurement(goal=Reorder(), eps=4 / 255, trials=2000, published={"after": 0.412, "mean_rank": 9.1})


def stronger() -> Iterator[Measurement]:
    """The strong method against plain PGD: same evaluations, same targets."""
    for k in (5, 10, 25):
        for level in (4, 8):
            yield Measurement(goal=Reorder(k=k), eps=level / 255, trials=500, versus=True)
    for count in (1, 5):
        for goal in (CandidateRaise(w=count), CandidateLower(w=count), raised(count), lowered(count)):
            for eps in (0.01, 0.03, 0.1):
                yield Measurement(goal=goal, eps=eps, trials=500, versus=True)


EXPERIMENTS = {"baseline": baseline, "papers": papers, "stronger": stronger}


def run(experiment: str, data: str, root: Path, seed: int = 0) -> None:
    """Measure what is not recorded yet."""
    target = open_target(MODEL, data, root=root)
    todo = list(EXPERIMENTS[experiment]())
    for number, measurement in enumerate(todo, 1):
        path = RECORDS / experiment / f"{measurement.name}.json"
        if not path.exists():
            record = _measured(target, measurement, data, seed)
            record["command"] = f"python -m rankproof.experiments.white_box {experiment} --data {data}"
            write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())
        print(f"{number}/{len(todo)} {path}", flush=True)


def _measured(target: Target, measurement: Measurement, data: str, seed: int) -> dict[str, Any]:
    goal = measurement.goal
    weak = _attacked(target, measurement, published(goal.metric), seed)
    context = {"model": MODEL, "data": data}
    images = target.dataset.take(target.draw(measurement.trials, seed))
    costs = measure(target.gallery, images, goal, weak.steps) if weak.steps else {}
    record: dict[str, Any] = {"published": measurement.published, "cell": weak.cell(**context, **costs)}
    if measurement.versus:
        best = _attacked(target, measurement, strong(goal.metric), seed)
        record["strong"] = best.cell(**context, **costs)
        record["difference"] = _differences(weak, best)
    return record


def _attacked(target: Target, measurement: Measurement, method: Method, seed: int) -> AttackResult:
    index = target.draw(measurement.trials, seed)
    return attack(
        target.gallery,
        target.dataset.take(index),
        measurement.goal,
        Threat(measurement.eps),
        method=method,
        seed=seed,
        index=index,
    )


def _differences(weak: AttackResult, best: AttackResult) -> dict[str, list[float]]:
    """Strong minus weak on the same attacks: mean and 95 % interval of each figure."""
    found = {}
    for name in best.after:
        pairs = [values.double() for values in (best.after[name], weak.after[name])]
        rows = [values.mean(1) if values.dim() == 2 else values for values in pairs]
        summary = summarise(rows[0] - rows[1])
        found[name] = [summary.mean, summary.low, summary.high]
    return found


def main() -> None:
    """Parse and run."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run(options.experiment, options.data, Path(os.environ.get("RANKPROOF_DATA") or "data"), options.seed)


if __name__ == "__main__":
    main()
