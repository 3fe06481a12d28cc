"""One figure of an order attack as a black box: what is asked, and its record, which grows piece by piece."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankproof.attack import attack
from rankproof.files import write_atomically
from rankproof.goals import Reorder
from rankproof.methods import NES, PSO, SPSA, Beta, Rand, Thompson
from rankproof.methods.presets import automatic
from rankproof.methods.search import BlackBox
from rankproof.methods.space import Space
from rankproof.oracle import LocalOracle
from rankproof.result import AttackResult
from rankproof.target import Target
from rankproof.threat import Threat
from rankproof.versions import versions

PIECE = 50  # attacks between two writings
KEPT = (
    *("goal", "method", "eps", "k", "visible", "budget", "seed", "model", "device"),
    *("seconds", "notes", "versions"),
)
BILINEAR = Space("bilinear", 7)
METHODS: dict[str, BlackBox] = {
    **{"rand": Rand(), "beta": Beta(), "pso": PSO(), "nes": NES(), "spsa": SPSA()},
    "auto": automatic(),
}
VARIANTS: dict[str, tuple[BlackBox, Space | None, bool]] = {
    **{name: (method, None, method.grid) for name, method in METHODS.items()},
    "spsa-on-grid": (SPSA(), None, True),
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
        own_copy: of `rankproof.attack`: "drop" where the query is not in the gallery, as far as anybody sees.
    """

    method: str
    k: int
    visible: int | None
    level: int
    budget: int = 1000
    own_copy: str = "keep"

    @property
    def name(self) -> str:
        """File name of the record."""
        shown = "inf" if self.visible is None else self.visible
        return f"{self.method}-k{self.k}-N{shown}-eps{self.level}-Q{self.budget}"


def complete(path: Path, target: Target, cell: Cell, trials: int, seed: int, command: str) -> dict[str, Any]:
    """The record of a cell with that many attacks at least; what is missing is measured and written.

    A record of another model is measured anew.

    Args:
        path: of the record, which need not be there.
        command: what is typed to measure it.
    """
    model = target.record.get("sha256")
    record = json.loads(path.read_text()) if path.exists() else {"tau": []}
    if record.get("model_sha256", model) != model:
        record = {"tau": []}
    while len(record["tau"]) < trials:
        done = len(record["tau"])
        piece = _measured(target, cell, done, min(trials, done + PIECE), seed)
        record = _joined(record, piece) | {"model_sha256": model, "command": command}
        write_atomically(path, (json.dumps(record) + "\n").encode())
    return record


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
        own_copy=cell.own_copy,
    )
    told = result.cell(model=target.gallery.ranker.name, data=target.dataset.name)
    return {
        **{name: told[name] for name in KEPT},
        "curve": result.curve(),
        **{name: [round(value, 6) for value in values.tolist()] for name, values in _values(result).items()},
    }


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
