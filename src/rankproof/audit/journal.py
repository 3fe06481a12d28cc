"""Finished units of an audit in a file of JSON lines, so that a stopped audit loses none of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankproof.audit.records import Attacks
from rankproof.io import JsonObject, read_json_lines, write_atomically
from rankproof.report.findings import Control

CONTROLS = "@controls", "@doubled"  # end the labels of controls, which are one unit each

Rows = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A finished unit.

    Args:
        rows: which of the images, from the first to the one behind the last.
        seconds: how long it took.
        parts: the attacks of each method.
        controls: what was found of the search itself, in the unit of the controls.
    """

    rows: Rows
    seconds: float
    parts: tuple[Attacks, ...] = ()
    controls: tuple[Control, ...] = ()

    def to_json(self) -> JsonObject:
        """The unit as a line of the file."""
        return {
            "rows": list(self.rows),
            "seconds": self.seconds,
            "parts": [part.to_json() for part in self.parts],
            "controls": [vars(each) for each in self.controls],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Unit":
        """The unit of a line that `to_json` made."""
        begin, end = values["rows"]
        return cls(
            rows=(begin, end),
            seconds=values["seconds"],
            parts=tuple(Attacks.from_json(part) for part in values["parts"]),
            controls=tuple(Control(**each) for each in values["controls"]),
        )


@dataclass
class FinishedUnits:
    """The finished units of one audit, by measurement and rows.

    A unit is appended as one line; a line that a kill has cut off is left out when the file is read, and a
    file that holds other audits loses nothing of them.

    Args:
        path: the file that keeps them, or None.
        fingerprint: what the audit is of; lines of any other are left alone.
        units: what is finished, in the order in which it was.
    """

    path: Path | None
    fingerprint: str
    units: dict[tuple[str, Rows], Unit] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, fingerprint: str) -> "FinishedUnits":
        """The journal of an audit, with what its file holds already."""
        journal = cls(path, fingerprint)
        if path is None or not path.is_file():
            return journal
        for line in read_json_lines(path):
            if line.get("audit") != fingerprint:
                continue
            try:
                unit = Unit.from_json(line)
            except (KeyError, TypeError, ValueError):
                continue  # a line of another version, or a damaged one
            journal.units[line["of"], unit.rows] = unit
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            write_atomically(path, content[: content.rfind(b"\n") + 1])
        return journal

    def add(self, label: str, unit: Unit) -> Unit:
        """Remember a finished unit: append its line; returns the unit as it will be read again."""
        line = json.dumps({"audit": self.fingerprint, "of": label, **unit.to_json()})
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.write(f"{line}\n".encode())
        self.units[label, unit.rows] = read = Unit.from_json(json.loads(line))
        return read

    @property
    def seconds(self) -> float:
        """How long all finished units took."""
        return sum((unit.seconds for unit in self.units.values()), 0.0)

    @property
    def rows(self) -> int | None:
        """How many images were attacked side by side; None where none was."""
        whole = [end - begin for (label, (begin, end)) in self.units if not label.endswith(CONTROLS)]
        return max(whole, default=None)

    def controls(self, label: str) -> list[Unit]:
        """The unit of controls of the most attacks, if any."""
        found = [unit for (other, _), unit in self.units.items() if other == label]
        return [max(found, key=lambda unit: unit.rows)] if found else []

    def of(self, label: str, rows: int, images: int, most: int | None = None) -> list[Unit]:
        """The units of a measurement from the first image on without a gap.

        Args:
            rows: images side by side.
            images: how many there are.
            most: how many attacks are wanted; None is all.
        """
        found: list[Unit] = []
        for span in spans(images if most is None else min(most, images), rows):
            if (unit := self.units.get((label, span))) is None:
                break
            found.append(unit)
        return found


def spans(count: int, rows: int) -> list[Rows]:
    """Units of so many rows that cover `count` images; the last may be smaller."""
    return [(begin, min(begin + rows, count)) for begin in range(0, count, max(1, rows))]
