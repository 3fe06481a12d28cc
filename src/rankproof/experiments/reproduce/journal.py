"""Finished cells on disk: written at once, never measured again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankproof.experiments.reproduce.cell import STRONG, Cell
from rankproof.files import write_atomically

# One more whenever what a cell measures changes, so that no older record is taken for a new one.
PROTOCOL, ORDER_BY_STRONG = 1, 2

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


@dataclass
class Journal:
    """The records of a table or figure, one file a cell.

    Args:
        root: folder of all records, by paper and table.
        paper, part: which of it, such as "eccv20" and "table3".
    """

    root: Path
    paper: str
    part: str
    _others: dict[str, Record] | None = field(default=None)

    def path(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self.root / self.paper / self.part / f"{cell.name}.json"

    def find(self, cell: Cell, same: str) -> Record | None:
        """The record of a cell with at least as many attacks, of this part or any other, or None."""
        for record in (_read(self.path(cell)), self._elsewhere().get(same)):
            if record is not None and record["identity"] == same and record["trials_asked"] >= cell.trials:
                return record
        return None

    def recorded(self, cell: Cell) -> Record | None:
        """The record of a cell by its name alone, whatever it was measured with."""
        return _read(self.path(cell))

    def keep(self, cell: Cell, record: Record) -> None:
        """Write a finished cell: all of it or nothing."""
        write_atomically(self.path(cell), (json.dumps(record) + "\n").encode())

    def _elsewhere(self) -> dict[str, Record]:
        """All records by identity, those with the most attacks."""
        if self._others is None:
            self._others = {}
            for path in sorted(self.root.glob("*/*/*.json")):
                record = _read(path)
                if record is None:
                    continue
                known = self._others.get(record["identity"])
                if known is None or known["trials_asked"] < record["trials_asked"]:
                    self._others[record["identity"]] = record
        return self._others


def _read(path: Path) -> Record | None:
    """A record; None where there is none, or nothing that can be read."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"identity", "trials_asked"} <= record.keys() else None
