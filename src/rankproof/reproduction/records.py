"""Completed cells on disk: a line of JSON each, appended at once, never measured again."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from rankproof.errors import RankproofError
from rankproof.io import JsonObject, read_json_lines
from rankproof.ranking.metrics import mean_interval
from rankproof.reproduction.cells import STRONG, TableCell, is_order

# One more whenever what a cell measures changes, so that no older record is taken for a new one.
PROTOCOL, ORDER_BY_STRONG = 1, 2
KEY, REFERENCE = "key", "measured_as"
RECORDS = Path("records")

Interval = tuple[float, float | None, float | None]
"""A mean and its 95 % interval, None for the ends where there is none."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of a model in a record.

    Args:
        name: as the recipe calls it.
        key: of everything that went into it; of a given checkpoint its weights.
        source: "zoo", "trained" or "given".
        schedule, epochs, seed, defense: how it was trained.
        arch, data: what was trained on what.
        recall_at_1: in %; None before it is trained.
        train_seconds, sha256: of its checkpoint.
    """

    name: str = ""
    key: str = ""
    source: str = ""
    schedule: str = ""
    arch: str = ""
    data: str = ""
    defense: str = "none"
    seed: int = 0
    recall_at_1: float | None = None
    epochs: int = 0
    train_seconds: float | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The record of a measured cell.

    Args:
        cell: name of the cell.
        run, model, source, goal, eps, letter, count, xi, method, visible, budget, grid, exclude_self: of the
            cell when it was measured.
        identity: what the figures depend on beside T; equal for cells that measure the same.
        published, published_trials: what is printed.
        trials_asked, trials: T as asked for, and as many as there were.
        figures: mean and 95 % interval of each figure.
        steps: evaluations or queries of each attack.
        seconds, model_seconds, wall_seconds: of the attacks, of the bare work they cannot avoid, of all.
        models: those it needed.
        values: one value for each attack behind the figures.
        drawing: of a figure's cell, what is drawn.
        curve: of a black box, the mean of the best figure so far after so many queries.
        training: of a training, its checkpoint's record and what was measured of the model.
    """

    cell: str
    identity: str = ""
    run: str = ""
    model: str = ""
    source: str | None = None
    goal: str = ""
    eps: float = 0.0
    letter: str = ""
    count: int = 0
    xi: float | None = None
    method: str = "published"
    visible: int | str | None = None
    budget: int | None = None
    grid: bool = False
    exclude_self: bool = False
    published: Mapping[str, float | None] = field(default_factory=dict)
    published_trials: int = 0
    trials_asked: int = 0
    trials: int = 0
    seed: int = 0
    figures: Mapping[str, Interval] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    gallery_size: int = 0
    device: str = ""
    data_sha256: str = ""
    models: Sequence[ModelFacts] = ()
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    values: Mapping[str, Sequence[int | float]] = field(default_factory=dict)
    drawing: Any = None
    training: Any = None
    curve: Sequence[Sequence[int | float]] | None = None
    wall_seconds: float | None = None

    @classmethod
    def from_json(cls, line: JsonObject) -> "Measurement":
        """The measurement of a line; unknown names are ignored."""
        values = {name: line[name] for name in _NAMES if name in line}
        return cls(
            **{
                **values,
                "figures": {name: tuple(ends) for name, ends in line.get("figures", {}).items()},
                "models": tuple(ModelFacts(**model) for model in line.get("models", ())),
                "notes": tuple(line.get("notes", ())),
            }
        )

    def to_json(self) -> JsonObject:
        """The line of the measurement; optional fields without a value are left out."""
        optional = ("drawing", "training", "curve", "wall_seconds", "exclude_self")
        values = {name: getattr(self, name) for name in _NAMES if getattr(self, name) or name not in optional}
        return {**values, "models": [asdict(model) for model in self.models]}


_NAMES = tuple(each.name for each in fields(Measurement))


def identity(cell: TableCell, models: Mapping[str, Sequence[str]], seed: int) -> str:
    """What a cell's figures depend on beside the number of attacks, as a hash.

    Equal for cells of different tables that measure the same.

    Args:
        models: key and data of each model by its part: "model" and, in a transfer, "source".
    """
    parts = {
        "protocol": ORDER_BY_STRONG if is_order(cell.goal) and cell.method == STRONG else PROTOCOL,
        **{name: getattr(cell, name) for name in ("run", "goal", "eps", "letter", "count", "xi", "method")},
        **{name: getattr(cell, name) for name in ("visible", "budget", "grid")},
        "models": models,
        "seed": seed,
        # What older cells do not have stands only where it is not the usual.
        **({"exclude_self": True} if cell.exclude_self else {}),
        **({"attacks": cell.attacks, "robustness": cell.robustness} if cell.run == "training" else {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def mean_and_interval(values: Sequence[int | float]) -> Interval:
    """Mean and 95 % interval of one value for each attack."""
    center = mean_interval(torch.tensor(values, dtype=torch.float64))
    low, high = center.ends
    return center.mean, low, high


def means(values: Mapping[str, Sequence[int | float]]) -> dict[str, Interval]:
    """Mean and 95 % interval of each figure from its values; queries are counted, not averaged."""
    return {name: mean_and_interval(each) for name, each in values.items() if name != "queries"}


class CompletedCells:
    """The records below a folder: PAPER/PART.jsonl has a line for each cell of a table or figure.

    A line has the name of its cell under "key"; the last one of a name counts. A cell that another table
    measured is a line without figures that names the other cell under "measured_as".

    Args:
        root: folder of all records.
    """

    def __init__(self, root: Path = RECORDS) -> None:
        self.root = root
        self._files: dict[Path, tuple[tuple[int, int], dict[str, JsonObject], list[JsonObject]]] = {}
        self._measured: tuple[list[list[JsonObject]], dict[str, JsonObject]] = [], {}

    def find(self, part: str, cell: TableCell, same: str) -> Measurement | None:
        """The measurement of a cell with at least as many attacks, of this part or any other, or None."""
        for line in (self._latest(part).get(cell.name), self._by_identity().get(same)):
            fits = line is not None and line.get("identity") == same and _is_measured(line)
            if line is not None and fits and line["trials_asked"] >= cell.trials:
                return Measurement.from_json(line)
        return None

    def recorded(self, part: str, name: str) -> Measurement | None:
        """The measurement of a cell by its name alone, whatever it was measured with."""
        line = self._latest(part).get(name)
        if line is not None and not _is_measured(line):
            line = self._by_identity().get(line["identity"])
        return None if line is None else Measurement.from_json(line)

    def keep(self, part: str, measurement: Measurement) -> None:
        """Append the measurement of a finished cell."""
        append_line(self._path(part), {KEY: measurement.cell, **measurement.to_json()})

    def refer(self, part: str, cell: TableCell, measurement: Measurement) -> None:
        """Record which measurement is a cell's, unless that is recorded already."""
        if self.recorded(part, cell.name) != measurement:
            reference = {"identity": measurement.identity, REFERENCE: measurement.cell}
            append_line(self._path(part), {KEY: cell.name, "cell": cell.name, **reference})

    def _path(self, part: str) -> Path:
        return self.root / f"{part}.jsonl"

    def _latest(self, part: str) -> dict[str, JsonObject]:
        """The last line of each name."""
        return self._read(self._path(part))[0]

    def _read(self, path: Path) -> tuple[dict[str, JsonObject], list[JsonObject]]:
        """The last line of each name in a file, and all lines; it is read again only where it has changed."""
        try:
            status = path.stat()
        except OSError:
            return {}, []
        version = (status.st_size, status.st_mtime_ns)
        if path not in self._files or self._files[path][0] != version:
            lines = [line for line in read_json_lines(path) if KEY in line]
            self._files[path] = version, {line[KEY]: line for line in lines}, lines
        return self._files[path][1:]

    def _by_identity(self) -> dict[str, JsonObject]:
        """All measurements by identity, those with the most attacks."""
        files = [self._read(path)[1] for path in sorted(self.root.glob("*/*.jsonl"))]
        if [id(lines) for lines in files] != [id(lines) for lines in self._measured[0]]:
            largest: dict[str, JsonObject] = {}
            for line in (line for lines in files for line in lines):
                if _is_measured(line) and "identity" in line:
                    other = largest.get(line["identity"])
                    if other is None or other["trials_asked"] < line["trials_asked"]:
                        largest[line["identity"]] = line
            self._measured = files, largest
        return self._measured[1]


def append_line(path: Path, line: JsonObject) -> None:
    """Append a line whole, whoever else appends; what a killed process left of a line is closed first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            size = stream.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(stream.fileno(), 1, size - 1) != b"\n"
            content = b"\n" * torn + json.dumps(line).encode() + b"\n"
            while content:
                content = content[stream.write(content) :]
    except OSError as error:
        raise RankproofError(f"{path}: cannot be written ({error.strerror})") from None


def read_benchmark(root: Path, name: str) -> JsonObject | None:
    """The record of a benchmark; None where it was not run yet."""
    path = root / "benchmarks" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _is_measured(line: JsonObject) -> bool:
    """Whether a line is a measurement and not only the name of one."""
    return REFERENCE not in line or "figures" in line
