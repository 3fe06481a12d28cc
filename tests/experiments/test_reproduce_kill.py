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


def started(folder):
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    surroundings.pop("RANKPROOF_DATA", None)
    return subprocess.Popen(
        COMMAND, cwd=folder, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finished(folder):
    process = started(folder)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
    rows = json.loads((folder / "runs" / "reproduce" / "tiny-table1" / "table.json").read_text())["rows"]
    return [{name: value for name, value in row.items() if name not in UNEQUAL} for row in rows]


def written(folder):
    """When each record was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("records/tiny/table1/*.json")}


def states(folder):
    return list(folder.glob("runs/models/*/state/*.json"))


def killed(folder, moment):
    """Start the command and kill it as soon as the moment has come; the records that were there then."""
    process = started(folder)
    try:
        limit = time.monotonic() + 240
        while process.poll() is None and not moment() and time.monotonic() < limit:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return written(folder)


def test_a_run_that_is_killed_comes_to_the_same_table(place):
    whole, torn = finished(place("whole")), place("torn")
    seen = {}
    for moment in (
        lambda: states(torn),  # in the first training
        lambda: len(written(torn)) >= 2,  # between cells
        lambda: len(states(torn)) > 2,  # in the second training
    ):
        now = killed(torn, moment)
        assert seen.items() <= now.items()  # no finished cell was written again
        seen = now
    assert 2 <= len(seen) < 12
    assert finished(torn) == whole
    assert seen.items() <= written(torn).items()
    assert len(written(torn)) == 12


@pytest.mark.slow
def test_ten_random_moments(place):
    begin = time.monotonic()
    whole, torn = finished(place("whole")), place("torn")
    lasts = time.monotonic() - begin
    moments, seen = random.Random(0), {}
    for _ in range(10):
        until = time.monotonic() + moments.uniform(0.2, 0.7) * lasts
        now = killed(torn, lambda until=until: time.monotonic() >= until)
        assert seen.items() <= now.items()
        seen = now
    assert finished(torn) == whole
    assert seen.items() <= written(torn).items()
