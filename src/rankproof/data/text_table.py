"""Tables of words separated by spaces, as CUB and SOP are published with, and checks of their content."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from rankproof.data.folder import read_below
from rankproof.errors import RankproofError

MAX_DIGITS = 18  # of a number in a table


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
    if any("\0" in line for line in lines):
        raise RankproofError(f"{folder / table}: holds a NUL character; fetch the data set again")
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
    if not (word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS):
        shown = word if len(word) <= MAX_DIGITS else f"{word[:MAX_DIGITS]}..."
        raise RankproofError(f"{where}: {column} must be a whole number, got {shown!r}; correct the line")
    return int(word)


class PathCheck:
    """Checks the paths of an untrusted list, each of which must be relative and listed once.

    Args:
        place: what the paths must not leave, for messages: "archive" or "folder".
    """

    def __init__(self, place: str) -> None:
        self.place, self._seen = place, set[str]()

    def __call__(self, path: str, where: str) -> str:
        """Check one path; returns it as `normalised`.

        Args:
            where: its position in the list, for messages.
        """
        if leaves(path):
            raise RankproofError(f"{where}: path {path!r} leaves the {self.place}; do not trust this list")
        if not (name := normalised(path)):
            raise RankproofError(f"{where}: path {path!r} names no file; correct the line")
        if name in self._seen:
            raise RankproofError(f"{where}: {name} is listed twice; remove one of the lines")
        self._seen.add(name)
        return name


def normalised(path: str) -> str:
    """A path as all its spellings are written: `./a//b.png` and `a\\b.png` are `a/b.png`."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def leaves(path: str) -> bool:
    """Whether a path from an untrusted list is absolute or points outside its folder."""
    windows = PureWindowsPath(path)  # splits at both kinds of slashes, and recognises drives
    return bool(windows.anchor or PurePosixPath(path).is_absolute()) or ".." in windows.parts
