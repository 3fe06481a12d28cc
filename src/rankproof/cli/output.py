"""Printing that never ends a command: characters that cannot be shown, closed pipes, full disks."""

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING

import typer

from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rich.table import Table

CLOSED = 1  # exit code where whoever read the output has stopped, as that of click and rich
FAILED = 2
READABLE = "rankproof.readable"  # an error handler of text streams
IN_ASCII = {
    **dict.fromkeys("−–—‐‑─━═", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}", " "),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”„", '"'),
    **{"±": "+-", "→": "->", "≤": "<=", "≥": ">=", "×": "x", "…": "...", "•": "*", "≈": "~"},
    **{"∞": "inf", "ξ": "xi", "τ": "tau", "ε": "eps"},
}


def in_ascii(text: str) -> str:
    """A text in ASCII: signs as they are typed, box drawing as + - |, other letters as escapes."""

    def ascii_of(letter: str) -> str:
        if "─" <= letter <= "╿":
            return IN_ASCII.get(letter, "+")
        return IN_ASCII.get(letter, letter.encode("ascii", "backslashreplace").decode())

    return "".join(map(ascii_of, text))


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """What a stream writes in place of the characters that its encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


def readable(text: str) -> str:
    """A text with its control characters escaped, so that a name cannot move the cursor of a terminal."""
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t"
        else letter
        for letter in text
    )


@contextmanager
def whole_output() -> Iterator[None]:
    """Make stdout and stderr take any character; where they cannot be written, end in one line or quietly.

    A file name that is no text, or an encoding without ± and →, is then never an error.
    """
    codecs.register_error(READABLE, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=READABLE)
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _discard()
        sys.exit(CLOSED)
    except OSError as error:
        _discard()
        complain(f"error: {_unwritten(error)}")
        sys.exit(FAILED)


def echo(text: object) -> None:
    """Print on stdout what a script or a reader asked for.

    Raises:
        RankproofError: it cannot be written; results have been saved before.
    """
    with _printing():
        _write(str(text))


def print_table(table: "Table") -> None:
    """Print a table on stdout, never narrower than its figures: a terminal wraps them, but cuts none off."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    whole = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(console.width, whole)
    with _printing():
        console.print(table)


def complain(text: str) -> None:
    """Print one line on stderr; where nobody can read it the work goes on."""
    with suppress(OSError, ValueError):
        _write(" ".join(text.split()), err=True)


def _write(text: str, *, err: bool = False) -> None:
    """Write a line; the stream is named because click writes UTF-8 where it is left to choose."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:  # None where a program was started without one
        typer.echo(readable(text), file=stream)


@contextmanager
def _printing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _discard()
        raise typer.Exit(CLOSED) from None
    except OSError as error:
        _discard()
        raise RankproofError(_unwritten(error)) from None


def _unwritten(error: OSError) -> str:
    return f"the output cannot be written ({error.strerror or error}); what was saved is kept"


def _discard() -> None:
    """Let what is left of stdout go nowhere, so that nothing fails on it once more at the end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    sys.stdout = StringIO()
