import json

import pytest

from rankproof.experiments.results import records


@pytest.fixture
def put(tmp_path, monkeypatch):
    """An empty folder of records, and a function that puts one there."""
    monkeypatch.setattr(records, "RECORDS", tmp_path)

    def write(name, record):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))

    return write


@pytest.fixture
def rows():
    """A function that finds the rows of the tables that hold all of some cells."""

    def find(text, *words):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        found = [[part.strip() for part in line.split("|")[1:-1]] for line in lines]
        return [row for row in found if set(words) <= set(row)]

    return find
