"""What was measured and what the papers print: the only file that knows the folders."""

import json
from functools import cache
from pathlib import Path
from typing import Any

RECORDS = Path("records")
PUBLISHED = Path(__file__).parent.parent / "published"  # figures as printed

Record = dict[str, Any]


def recorded(name: str) -> Record | None:
    """A record by its path below records/, None where it was not run yet."""
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def present(*names: str) -> list[Record]:
    """Those of some records that are there."""
    return [record for name in names if (record := recorded(name)) is not None]


def all_recorded(folder: str) -> list[Record]:
    """All records of a folder below records/, by name."""
    return [json.loads(path.read_text()) for path in sorted((RECORDS / folder).glob("*.json"))]


@cache
def printed(name: str) -> Record:
    """Figures of a paper, as printed."""
    figures: Record = json.loads((PUBLISHED / f"{name}.json").read_text())
    return figures
