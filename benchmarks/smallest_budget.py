"""How near the smallest budgets found in a few evaluations are to those of ten times as many.

    python benchmarks/smallest_budget.py [--models c2f1-ct,c2f1-ctd] [--goals qa+,qa-] [--pieces N]

For each model and goal the search that goes with the goal, and as reference the same with ten times the
evaluations; of both the smaller budget counts, attack by attack. It runs in pieces of 25 attacks, which
records/benchmarks/smallest-budget.json keeps as they are done: the same command goes on where it was ended.
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from rankproof.attacks.smallest_budget import smallest_budget
from rankproof.goals.registry import parse
from rankproof.io import versions, write_atomically
from rankproof.methods.defaults import smallest
from rankproof.methods.white_box.budget_search import BudgetSearch
from rankproof.parallel import keep_freed_memory
from rankproof.system import RetrievalSystem, SystemOptions, open_system

MODELS = {
    "c2f1-ct": ("zoo:fashion-mnist/c2f1-ct", "fashion-mnist", 100),
    "c2f1-ctd": ("zoo:fashion-mnist/c2f1-ctd", "fashion-mnist", 100),
    "efficientnet-lite0": ("efficientnet-lite0", "groceries", 25),
}
GOALS = ("qa+", "qa-", "ca-", "wrong-first", "ca+", "oa", "sp-qa-", "sp-qa+")
PIECE, TIMES = 25, 10
RECORD = Path("records/benchmarks/smallest-budget.json")

Piece = dict[str, Any]


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--goals", default=",".join(GOALS))
    parser.add_argument("--pieces", type=int, default=10**6, help="end after so many")
    options = parser.parse_args()
    pieces: list[Piece] = json.loads(RECORD.read_text())["pieces"] if RECORD.exists() else []
    pieces = [piece for piece in pieces if piece["search"] == repr(_search(piece["goal"]))]
    done = {(piece["model"], piece["goal"], piece["first"]) for piece in pieces}
    systems: dict[str, RetrievalSystem] = {}
    left = [
        piece for piece in _wanted(options.models.split(","), options.goals.split(",")) if piece not in done
    ]
    for model, goal, first in left[: options.pieces]:
        system = systems.setdefault(model, _open(model)) if model not in systems else systems[model]
        pieces.append(_measure(system, model, goal, first))
        _write(pieces)
        print(json.dumps({key: pieces[-1][key] for key in ("model", "goal", "first", "seconds")}), flush=True)


def _wanted(models: list[str], goals: list[str]) -> Iterator[tuple[str, str, int]]:
    """Every piece, those with the first attacks first."""
    for first in range(0, max(MODELS[model][2] for model in models), PIECE):
        for goal in goals:
            for model in models:
                if first < MODELS[model][2]:
                    yield model, goal, first


def _open(model: str) -> RetrievalSystem:
    name, data, _ = MODELS[model]
    return open_system(name, data, SystemOptions(root=Path(os.environ.get("RANKPROOF_DATA") or "data")))


def _measure(system: RetrievalSystem, model: str, name: str, first: int) -> Piece:
    """The smallest budgets of 25 attacks, by the search and by its reference."""
    begin, goal = perf_counter(), parse(name)
    index = system.draw(MODELS[model][2], seed=0)[first : first + PIECE]
    images = system.dataset.take(index)
    search = _search(name)
    longer = replace(search, evaluations=TIMES * search.evaluations)  # type: ignore[type-var]
    found, reference = (
        smallest_budget(system.gallery, images, goal, gallery_ids=index, search=each)
        for each in (search, longer)
    )
    return {
        "model": model,
        "goal": name,
        "first": first,
        "search": repr(search),
        "eps_star": _numbers(found.eps_star.tolist()),
        "reference": _numbers(reference.eps_star.tolist()),
        "evaluations": found.evaluations.tolist(),
        "saved_eps": _numbers(found.saved_eps.tolist()),
        "seconds": round(perf_counter() - begin, 1),
    }


def _search(name: str) -> BudgetSearch:
    """The search that goes with a goal."""
    goal = parse(name)
    return smallest(goal.metric, goal.spec.direction, goal.spec.family, keeps=goal.spec.keeps)


def _numbers(values: list[float]) -> list[float | None]:
    """Numbers as JSON has them: None where a wish did not come true."""
    return [None if math.isnan(value) else value for value in values]


def _write(pieces: list[Piece]) -> None:
    record = {
        "command": "python benchmarks/smallest_budget.py",
        "rows": [_row(model, goal, pieces) for model in MODELS for goal in GOALS if _of(model, goal, pieces)],
        "versions": versions(),
        "pieces": pieces,
    }
    write_atomically(RECORD, (json.dumps(record) + "\n").encode())


def _of(model: str, goal: str, pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if (piece["model"], piece["goal"]) == (model, goal)]


def _row(model: str, goal: str, pieces: list[Piece]) -> dict[str, Any]:
    """How the search compares with the smaller of both budgets, over all pieces of a model and a goal."""
    mine = _of(model, goal, pieces)
    found, reference, saved = (
        [math.inf if value is None else value for piece in mine for value in piece[key]]
        for key in ("eps_star", "reference", "saved_eps")
    )
    evaluations = [value for piece in mine for value in piece["evaluations"]]
    paid = [(eps, min(eps, best)) for eps, best in zip(found, reference, strict=True) if eps != 0]
    least = [best for _, best in paid]
    ratios = [eps / best for eps, best in paid if math.isfinite(best)]
    ours, theirs = _median([eps for eps, _ in paid]), _median(least)
    return {
        "model": model,
        "goal": goal,
        "trials": len(found),
        "free": len(found) - len(paid),
        "reached": sum(math.isfinite(eps) for eps, _ in paid),
        "reached_reference": len(ratios),
        "eps_star": ours,
        "eps_star_reference": theirs,
        "ratio": None if ours is None or theirs is None else ours / theirs,
        "within_1_1": sum(ratio <= 1.1 for ratio in ratios) / max(1, len(ratios)),
        "within_1_6": sum(ratio <= 1.6 for ratio in ratios) / max(1, len(ratios)),
        "evaluations_max": max(evaluations),
        "saved": sum(math.isfinite(eps) for eps in saved),
    }


def _median(values: list[float]) -> float | None:
    ordered, n = sorted(values), len(values)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else math.inf
    return middle if math.isfinite(middle) else None


if __name__ == "__main__":
    main()
