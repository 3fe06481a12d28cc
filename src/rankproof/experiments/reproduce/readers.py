"""Values as they stand in a recipe file, each checked by its reader."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankproof.errors import RankproofError
from rankproof.tables import Read
from rankproof.threat import Threat, parse_eps

LOST, ABSENT = "?", ""  # of a figure: not readable in print, not printed at all

Typed = float | str  # a figure, LOST or ABSENT
Kind = tuple[Callable[..., Any], Mapping[str, Read], Mapping[str, Read]]
"""What a block becomes, the keys it must have, the keys it may have."""


def tables(value: Any, path: Path, key: str) -> Sequence[Mapping[str, Any]]:
    """A list of tables of the file."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise RankproofError(f"{path}: {key} must be a list of tables")
    return value


def text(value: Any) -> str:
    """A word."""
    if not isinstance(value, str) or not value:
        raise RankproofError(f"expected a word, got {value!r}")
    return value


def one_of(known: Sequence[str]) -> Read:
    """One of some words."""

    def read(value: Any) -> str:
        if value not in known:
            raise RankproofError(f"{value!r} is unknown; known: {', '.join(known)}")
        return str(value)

    return read


def number(value: Any) -> float:
    """A number that may be whole."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RankproofError(f"expected a number, got {value!r}")
    return float(value)


def whole(value: Any) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RankproofError(f"expected a whole number, got {value!r}")
    return value


def count(value: Any) -> int:
    """A whole number from 1."""
    if whole(value) < 1:
        raise RankproofError(f"must be at least 1, got {value}")
    return int(value)


def level(value: Any) -> float:
    """A budget: 0.1, or "4/255"."""
    return parse_eps(value) if isinstance(value, str) else Threat(number(value)).eps


def typed(value: Any) -> Typed:
    """A printed figure, or what stands for one."""
    return str(value) if value in (LOST, ABSENT) else number(value)


def several(read: Read) -> Read:
    """A list, or a single value as a list of one."""
    return lambda value: tuple(read(each) for each in (value if isinstance(value, list) else [value]))


def list_of(read: Read) -> Read:
    """A list that is not empty."""

    def all_of(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise RankproofError(f"expected a list, got {value!r}")
        return tuple(read(each) for each in value)

    return all_of


def visible(value: Any) -> int | str:
    """N: a number, "k" or "inf"."""
    return str(value) if value in ("inf", "k") else count(value)
