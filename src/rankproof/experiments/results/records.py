"""What was measured and what the papers print: the only file that knows the folders."""

import json
from functools import cache
from pathlib import Path

from rankproof.experiments.reproduce.journal import CompletedCells, Record

RECORDS = Path("records")
PUBLISHED = Path(__file__).parent.parent / "published"  # figures as printed


def recorded(part: str, name: str) -> Record | None:
    """The record of a name in PART.jsonl, None where it was not run yet."""
    return _cells(RECORDS).recorded(part, name)


def present(part: str, *names: str) -> list[Record]:
    """Those of some records that are there."""
    return [record for name in names if (record := recorded(part, name)) is not None]


def all_recorded(part: str) -> list[Record]:
    """All records of a part, by name."""
    return _cells(RECORDS).all(part)


def benchmark(name: str) -> list[Record]:
    """The record of a benchmark, if there is one."""
    path = RECORDS / "benchmarks" / f"{name}.json"
    return [json.loads(path.read_text())] if path.is_file() else []


@cache
def printed(name: str) -> Record:
    """Figures of a paper, as printed."""
    figures: Record = json.loads((PUBLISHED / f"{name}.json").read_text())
    return figures


@cache
def _cells(root: Path) -> CompletedCells:
    return CompletedCells(root)
