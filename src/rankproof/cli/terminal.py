"""Output and input of the command line: one-line errors, progress bars, durations, tables, JSON."""

import json
import math
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from rankproof.cli.output import FAILED, complain, echo, print_table
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.attacks.summary import AttackSummary
    from rankproof.io import JsonObject
    from rankproof.types import ProgressCallback

INTERRUPTED = 130
SECONDS = {"s": 1, "m": 60, "h": 3600}


def say(text: str) -> None:
    """Print one line on stderr; stdout is for what a script reads."""
    complain(text)


@contextmanager
def reported(interrupted: Callable[[], str] | str) -> Iterator[None]:
    """Turn bad input, a full disk and Ctrl-C into one line on stderr and an exit code.

    Args:
        interrupted: the line after Ctrl-C: what is left and how to continue.
    """
    try:
        yield
    except RankproofError as error:
        say(f"error: {error}")
        raise typer.Exit(FAILED) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {where}{error.strerror or error}")
        raise typer.Exit(FAILED) from None
    except MemoryError:
        say("error: not enough memory; use fewer trials, a smaller --size or a smaller gallery")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        say(f"stopped: {interrupted if isinstance(interrupted, str) else interrupted()}")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def progress(what: str, unit: str | None = None) -> Iterator[Callable[[float, float], None]]:
    """A progress bar on stderr, on a terminal only; yields a progress callback that takes (done, total).

    Args:
        what: the text beside the bar.
        unit: what is counted, such as "queries", to show the count beside the share.
    """
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    counted = () if unit is None else (MofNCompleteColumn(), TextColumn(unit))
    with Progress(
        *columns, *counted, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def within(limit: float | None, show: Callable[[float, float], None]) -> "ProgressCallback":
    """A progress callback for work that ends after `limit` seconds at the latest, if there is a limit."""
    begin = time.monotonic()

    def progressed(done: int, total: int) -> None:
        elapsed = (time.monotonic() - begin) / limit if limit else 0.0
        show(min(1.0, max(done / total, elapsed)), 1.0)

    return progressed


def duration(text: str | None) -> float | None:
    """The seconds in "90s", "10m" or "1.5h"; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip().lower())
    seconds = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if not seconds:
        raise RankproofError(f"--time {text!r} is no length of time; write 90s, 10m or 1h")
    return seconds


def spoken(seconds: float) -> str:
    """A rounded length of time, such as "40 s" or "12 min"."""
    return f"{max(1, round(seconds))} s" if seconds < 100 else f"{round(seconds / 60)} min"


def at_least_one(option: str, value: int | None) -> None:
    """Raise if an option is given and below 1."""
    if value is not None and value < 1:
        raise RankproofError(f"--{option} must be at least 1, got {value}")


def not_below_zero(option: str, value: float | None) -> None:
    """Raise if an option is given and not a finite number of at least 0."""
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise RankproofError(f"--{option} must be a number of at least 0, got {value}")


def as_typed() -> str:
    """The command as it was typed, for reports."""
    return shlex.join(["rankproof", *sys.argv[1:]])


def writable(folder: Path | None) -> None:
    """Raise if files cannot be written into a folder. The folder need not exist yet and is not created."""
    if folder is None:
        return
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    try:
        if not parent.is_dir():
            raise RankproofError(f"{folder}: cannot be written, {parent} is a file; choose another folder")
        descriptor, probe = tempfile.mkstemp(dir=parent, prefix=".rankproof.")
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        raise RankproofError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def print_json(value: "JsonObject") -> None:
    """Print one JSON object on stdout."""
    echo(json.dumps(value, indent=2, allow_nan=False))


def print_attack(summary: "AttackSummary") -> None:
    """Print the figures of one attack as a table, with its notes."""
    from rankproof.report.format import attack_heading, attack_remarks, attack_table

    echo(attack_heading(summary))
    print_table(attack_table(summary))
    for line in attack_remarks(summary):
        echo(line)
