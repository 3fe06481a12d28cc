"""Paths into JSON documents, such as results[*].item.id."""

import re
from typing import Any

from rankproof.errors import RankproofError

Steps = tuple[str | int | None, ...]
"""The parsed path: member names, list positions, and None for every item of a list."""

STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]|\[(\*)\]")
PATH = re.compile(r"(?:[^.\[\]]+|\[(?:\d+|\*)\])(?:\.[^.\[\]]+|\[(?:\d+|\*)\])*")


def parse_path(path: str) -> Steps:
    """Parse a path.

    Raises:
        RankproofError: the text is not a path.
    """
    if not PATH.fullmatch(path):
        raise RankproofError(f"{path!r} is no path; write one such as results[*].item.id")
    return tuple(
        name if name else None if wildcard else int(position)
        for name, position, wildcard in STEP.findall(path)
    )


def values_at(document: Any, steps: Steps, path: str) -> list[Any]:
    """All values at a path, in document order.

    Args:
        document: decoded JSON.
        steps: the parsed path.
        path: its text, for the error message.
    Raises:
        RankproofError: there is no such value; the message says what is there instead.
    """
    values = [document]
    for step in steps:
        values = [child for value in values for child in _children(value, step, path)]
    return values


def _children(value: Any, step: str | int | None, path: str) -> list[Any]:
    """The values one step below a value."""
    if isinstance(step, str) and isinstance(value, dict) and step in value:
        return [value[step]]
    if step is None and isinstance(value, list):
        return value
    if isinstance(step, int) and isinstance(value, list) and step < len(value):
        return [value[step]]
    wanted = f"no {step!r}" if isinstance(step, str) else "no list" if step is None else f"no item {step}"
    raise RankproofError(f"the answer has no {path}: {wanted} where there is {_describe(value)}")


def _describe(value: Any) -> str:
    """A JSON value in a few words."""
    if isinstance(value, dict):
        names = ", ".join(list(value)[:8])
        return f"an object with {names}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
