"""Tables of words separated by spaces, as some data sets bring them along, line by line and checked."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rankproof.data.archive import leaves
from rankproof.data.folder import read_below
from rankproof.errors import RankproofError


def read_columns(
    folder: Path, table: str, columns: Sequence[str], *, head: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Each line as its place ("TABLE, line 3") and one word per column.

    Args:
        folder: where the table lies.
        table: its file name.
        columns: what the words of a line are.
        head: whether the first line names the columns.
    """
    try:
        lines = read_below(folder, table).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise RankproofError(f"{folder / table}: not a UTF-8 table; fetch the data set again") from None
    wanted = " ".join(columns)
    if head and (not lines or lines[0].split() != list(columns)):
        raise RankproofError(f"{folder / table}: its first line must be {wanted!r}; fetch the data set again")
    for number, line in enumerate(lines[head:], start=1 + head):
        words, where = line.split(), f"{folder / table}, line {number}"
        if not words:
            continue
        if len(words) != len(columns):
            raise RankproofError(
                f"{where}: {len(words)} words where {wanted!r} is expected; correct the line"
            )
        yield where, words


def as_number(word: str, where: str, column: str) -> int:
    """The whole number a word stands for."""
    if not (word.isascii() and word.isdecimal()):
        raise RankproofError(f"{where}: {column} must be a whole number, got {word!r}; correct the line")
    return int(word)


def demand_inside(path: str, where: str) -> None:
    """Refuse a path that points outside the data set."""
    if leaves(path):
        raise RankproofError(f"{where}: path {path!r} leaves the folder; do not trust this list")
