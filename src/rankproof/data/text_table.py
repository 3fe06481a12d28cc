"""Tables of words separated by spaces, as CUB and SOP are published with, and checks of their content."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from rankproof.data.folder import read_below
from rankproof.errors import RankproofError


def read_table(
    folder: Path, table: str, columns: Sequence[str], *, head: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Each line as its position for messages ("TABLE, line 3") and its words, one for each column.

    Args:
        folder: of the table.
        table: its file name.
        columns: names of the columns.
        head: whether the first line names the columns.
    """
    try:
        lines = read_below(folder, table).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise RankproofError(f"{folder / table}: not a UTF-8 table; fetch the data set again") from None
    expected = " ".join(columns)
    if head and (not lines or lines[0].split() != list(columns)):
        raise RankproofError(
            f"{folder / table}: its first line must be {expected!r}; fetch the data set again"
        )
    for number, line in enumerate(lines[head:], start=1 + head):
        words, where = line.split(), f"{folder / table}, line {number}"
        if not words:
            continue
        if len(words) != len(columns):
            raise RankproofError(
                f"{where}: {len(words)} words where {expected!r} is expected; correct the line"
            )
        yield where, words


def as_number(word: str, where: str, column: str) -> int:
    """A word as a whole number."""
    if not (word.isascii() and word.isdecimal()):
        raise RankproofError(f"{where}: {column} must be a whole number, got {word!r}; correct the line")
    return int(word)


class PathCheck:
    """Checks the paths of an untrusted list, each of which must be relative and listed once.

    Args:
        place: what the paths must not leave, for messages: "archive" or "folder".
    """

    def __init__(self, place: str) -> None:
        self.place, self._seen = place, set[str]()

    def __call__(self, path: str, where: str) -> None:
        """Check one path; `where` is its position in the list, for messages."""
        if leaves(path):
            raise RankproofError(f"{where}: path {path!r} leaves the {self.place}; do not trust this list")
        if path in self._seen:
            raise RankproofError(f"{where}: {path} is listed twice; remove one of the lines")
        self._seen.add(path)


def leaves(path: str) -> bool:
    """Whether a path from an untrusted list is absolute or points outside its folder."""
    windows = PureWindowsPath(path)  # splits at both kinds of slashes, and recognises drives
    return bool(windows.anchor or PurePosixPath(path).is_absolute()) or ".." in windows.parts
