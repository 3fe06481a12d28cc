"""Whatever kills a reproduction, the same command goes on and comes to the same table."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

RECIPE = """
paper = "tiny"
table = "1"
title = "To be killed"
figure = "rank"
tolerance = 2.0
trials = 40
published_trials = 10000

[[models]]
name = "ct"
data = "digits"
arch = "digits"
distance = "cosine"
loss = "triplet"
defense = "none"
epochs = 3
batch = 100

[[models]]
name = "ctd"
data = "digits"
arch = "digits"
distance = "cosine"
loss = "triplet"
defense = "est"
epochs = 2
batch = 200

[[blocks]]
model = "ct"
goal = "sp-qa+"
knob = "m"
knobs = [1, 2]
xi = 1.0
eps = [0.0, 0.1]
published = [[50, 50], [20.0, 30.0]]

[[blocks]]
model = "ctd"
goal = "ca-"
knob = "w"
knobs = [1, 2]
eps = [0.1, 0.3]
published = [[5.0, 5.0], [10.0, "?"]]

[[blocks]]
kind = "transfer"
goal = "ca+"
eps = 0.3
from = ["ct", "ctd"]
to = ["ct", "ctd"]
before = [[50, ""], ["", 50]]
published = [[2.0, 40.0], [30.0, 30.0]]
"""
COMMAND = (sys.executable, "-m", "rankproof", "reproduce", "tiny/table1", "--recipes", "recipes")
UNEQUAL = ("seconds", "model_seconds")


@pytest.fixture
def place(tmp_path):
    """A function that makes a folder with the recipe."""

    def make(name):
        (tmp_path / name / "recipes" / "tiny").mkdir(parents=True)
        (tmp_path / name / "recipes" / "tiny" / "table1.toml").write_text(RECIPE)
        return tmp_path / name

    return make


def started(folder, workers):
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    surroundings.pop("RANKPROOF_DATA", None)
    return subprocess.Popen(
        (*COMMAND, "--workers", str(workers)),
        cwd=folder,
        env=surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finished(folder, workers=1):
    process = started(folder, workers)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
    rows = json.loads((folder / "runs" / "reproduce" / "tiny-table1" / "table.json").read_text())["rows"]
    return [{name: value for name, value in row.items() if name not in UNEQUAL} for row in rows]


def written(folder):
    """Every line that was written to its end, with its place; a cell has one at most."""
    file = folder / "records" / "tiny" / "table1.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    found = {json.loads(line)["key"]: line for line in whole if _readable(line)}
    assert len(found) == sum(map(_readable, whole))
    return found


def _readable(line):
    try:
        return bool(json.loads(line))
    except ValueError:
        return False


def stopped(folder, moment, workers, blow=signal.SIGKILL):
    """Start the command and strike it and its workers as soon as the moment has come.

    Returns:
        the records that were there then, and what was said on stderr.
    """
    process = started(folder, workers)
    try:
        limit = time.monotonic() + 240
        while process.poll() is None and not moment() and time.monotonic() < limit:
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, blow)
        _, said = process.communicate()
    return written(folder), said.decode()


def test_two_workers_that_are_killed_come_to_the_table_of_one(place):
    whole, torn = finished(place("whole")), place("torn")
    seen, said = {}, ""
    for moment, workers, blow in (
        (lambda: len(written(torn)) >= 2, 2, signal.SIGKILL),  # between cells
        (lambda: len(written(torn)) >= 4, 2, signal.SIGINT),  # Ctrl-C, which a terminal sends to all of them
    ):
        now, said = stopped(torn, moment, workers, blow)
        assert seen.items() <= now.items()  # no finished cell was written again
        seen = now
    assert said.splitlines()[-1].startswith("stopped: finished cells and epochs are kept")
    assert "Traceback" not in said
    assert 4 <= len(seen) < 12
    assert finished(torn, 2) == whole
    assert seen.items() <= written(torn).items()
    assert len(written(torn)) == 12


@pytest.mark.slow
def test_ten_random_moments(place):
    begin = time.monotonic()
    whole, torn = finished(place("whole")), place("torn")
    lasts = time.monotonic() - begin
    moments, seen = random.Random(0), {}
    for number in range(10):
        until = time.monotonic() + moments.uniform(0.2, 0.7) * lasts
        now, _ = stopped(torn, lambda until=until: time.monotonic() >= until, 1 + number % 2)
        assert seen.items() <= now.items()
        seen = now
    assert finished(torn) == whole
    assert seen.items() <= written(torn).items()
