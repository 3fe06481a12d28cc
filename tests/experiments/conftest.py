import json

import pytest

from rankproof.experiments.reproduce.journal import append_line
from rankproof.experiments.results import records
from rankproof.files import write_atomically


@pytest.fixture
def put(tmp_path, monkeypatch):
    """An empty folder of records, and a function that puts one there."""
    monkeypatch.setattr(records, "RECORDS", tmp_path)

    def write(part, name, record):
        append_line(tmp_path / f"{part}.jsonl", {"key": name, **record})

    return write


@pytest.fixture
def benchmark(put, tmp_path):
    """A function that puts the record of a benchmark there."""

    def write(name, record):
        write_atomically(tmp_path / "benchmarks" / f"{name}.json", json.dumps(record).encode())

    return write


@pytest.fixture
def rows():
    """A function that finds the rows of the tables that hold all of some cells."""

    def find(text, *words):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        found = [[part.strip() for part in line.split("|")[1:-1]] for line in lines]
        return [row for row in found if set(words) <= set(row)]

    return find
