import json

import pytest

from rankproof.io import write_atomically
from rankproof.reproduction.records import CompletedCells, Measurement


@pytest.fixture
def records(tmp_path):
    """An empty folder of records."""
    return CompletedCells(tmp_path)


@pytest.fixture
def put(records):
    """A function that records the measurement of a cell."""

    def write(part, name, **facts):
        records.keep(part, Measurement(cell=name, **facts))

    return write


@pytest.fixture
def benchmark(records):
    """A function that puts the record of a benchmark there."""

    def write(name, record):
        write_atomically(records.root / "benchmarks" / f"{name}.json", json.dumps(record).encode())

    return write


@pytest.fixture
def rows():
    """A function that finds the rows of the tables that hold all of some cells."""

    def find(text, *words):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        found = [[part.strip() for part in line.split("|")[1:-1]] for line in lines]
        return [row for row in found if set(words) <= set(row)]

    return find
