"""Completed cells on disk: a line of JSON each, appended at once, never measured again."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rankproof.errors import RankproofError
from rankproof.experiments.reproduce.cell import STRONG, Cell

# One more whenever what a cell measures changes, so that no older record is taken for a new one.
PROTOCOL, ORDER_BY_STRONG = 1, 2
KEY, REFERENCE = "key", "measured_as"

Record = dict[str, Any]


def identity(cell: Cell, models: Mapping[str, Any], seed: int) -> str:
    """What a cell's figures depend on beside the number of attacks, as a hash.

    Equal for cells of different tables that measure the same.

    Args:
        models: key and data of each model by its part: "model" and, in a transfer, "source".
    """
    parts = {
        "protocol": ORDER_BY_STRONG if (cell.goal, cell.method) == ("oa", STRONG) else PROTOCOL,
        **{name: getattr(cell, name) for name in ("run", "goal", "eps", "letter", "count", "xi", "method")},
        **{name: getattr(cell, name) for name in ("visible", "budget", "grid")},
        "models": models,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


class CompletedCells:
    """The records below a folder: PAPER/PART.jsonl has a line for each cell of a table or figure.

    A line has the name of its cell under "key"; the last one of a name counts. A cell that another table
    measured is a line without figures that names the other cell under "measured_as".

    Args:
        root: folder of all records.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[Path, tuple[tuple[int, int], dict[str, Record], list[Record]]] = {}

    def find(self, part: str, cell: Cell, same: str) -> Record | None:
        """The record of a cell with at least as many attacks, of this part or any other, or None."""
        mine = self._lines(part)[0].get(cell.name)
        for record in (mine, self._by_identity().get(same)):
            fits = record is not None and record.get("identity") == same and _is_measured(record)
            if fits and record["trials_asked"] >= cell.trials:
                return record
        return None

    def recorded(self, part: str, name: str) -> Record | None:
        """The record of a cell by its name alone, whatever it was measured with."""
        record = self._lines(part)[0].get(name)
        if record is None or _is_measured(record):
            return record
        return self._by_identity().get(record["identity"])

    def all(self, part: str) -> list[Record]:
        """All records of a part, by name."""
        found = (self.recorded(part, name) for name in sorted(self._lines(part)[0]))
        return [record for record in found if record is not None]

    def keep(self, part: str, name: str, record: Record) -> None:
        """Append the record of a finished cell."""
        append_line(self._path(part), {KEY: name, **record})

    def refer(self, part: str, cell: Cell, record: Record) -> None:
        """Remember that a cell is measured by a record, unless it is known already."""
        if self.recorded(part, cell.name) != record:
            reference = {"identity": record["identity"], REFERENCE: record["cell"]}
            append_line(self._path(part), {KEY: cell.name, "cell": cell.name, **reference})

    def _path(self, part: str) -> Path:
        return self.root / f"{part}.jsonl"

    def _lines(self, part: str) -> tuple[dict[str, Record], list[Record]]:
        """The last line of each name, and all lines."""
        return self._read(self._path(part))

    def _read(self, path: Path) -> tuple[dict[str, Record], list[Record]]:
        try:
            facts = path.stat()
        except OSError:
            return {}, []
        version = (facts.st_size, facts.st_mtime_ns)
        if path not in self._files or self._files[path][0] != version:
            lines = list(read_lines(path))
            self._files[path] = version, {line[KEY]: line for line in lines}, lines
        return self._files[path][1:]

    def _by_identity(self) -> dict[str, Record]:
        """All records by identity, those with the most attacks."""
        found: dict[str, Record] = {}
        for path in sorted(self.root.glob("*/*.jsonl")):
            for record in self._read(path)[1]:
                if _is_measured(record) and "identity" in record:
                    other = found.get(record["identity"])
                    if other is None or other["trials_asked"] < record["trials_asked"]:
                        found[record["identity"]] = record
        return found


def append_line(path: Path, record: Record) -> None:
    """Append a line whole, whoever else appends; what a killed process left of a line is closed first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            size = stream.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(stream.fileno(), 1, size - 1) != b"\n"
            content = b"\n" * torn + json.dumps(record).encode() + b"\n"
            while content:
                content = content[stream.write(content) :]
    except OSError as error:
        raise RankproofError(f"{path}: cannot be written ({error.strerror})") from None


def read_lines(path: Path) -> Iterator[Record]:
    """The records of a file; a line that was not written to its end is left out."""
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and KEY in record:
            yield record


def _is_measured(record: Record) -> bool:
    """Whether a line is a measurement and not only the name of one."""
    return REFERENCE not in record or "figures" in record
