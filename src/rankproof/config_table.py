"""Tables of a file that a user writes: every key is known, every value checked by its reader."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rankproof.errors import RankproofError

Read = Callable[[Any], Any]
"""Checks a value and makes of it what is wanted; raises a RankproofError that says what was expected."""


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file in UTF-8, with a byte order mark or without.

    Raises:
        RankproofError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RankproofError(f"{path}: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:  # also of a number with too many digits
        reason = " ".join(str(error).split())
        raise RankproofError(f"{path}: cannot be read as TOML ({reason}); correct it, in UTF-8") from None


def read_table(
    table: Mapping[str, Any], where: str, needed: Mapping[str, Read], more: Mapping[str, Read]
) -> dict[str, Any]:
    """The values of a table, each read by its own reader."""
    readers = {**needed, **more}
    if unknown := [key for key in table if key not in readers]:
        raise RankproofError(f"{where}: {unknown[0]!r} is unknown; known: {', '.join(readers)}")
    if missing := [key for key in needed if key not in table]:
        raise RankproofError(f"{where}: {missing[0]!r} is missing")
    values = {}
    for key, value in table.items():
        try:
            values[key] = readers[key](value)
        except RankproofError as error:
            raise RankproofError(f"{where}: {key}: {error}") from None
    return values
