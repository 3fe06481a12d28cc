"""Paths into JSON, such as results[*].item.id."""

import re
from typing import Any

from rankproof.errors import RankproofError

Steps = tuple[str | int | None, ...]
"""Names, positions in a list, and None for every item of a list."""

STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]|\[(\*)\]")
PATH = re.compile(r"(?:[^.\[\]]+|\[(?:\d+|\*)\])(?:\.[^.\[\]]+|\[(?:\d+|\*)\])*")


def steps_of(path: str) -> Steps:
    """The steps of a path.

    Raises:
        RankproofError: the text is no path.
    """
    if not PATH.fullmatch(path):
        raise RankproofError(f"{path!r} is no path; write one such as results[*].item.id")
    return tuple(
        name if name else None if every else int(number) for name, number, every in STEP.findall(path)
    )


def values_at(value: Any, steps: Steps, path: str) -> list[Any]:
    """All values that stand at a path, in their order.

    Raises:
        RankproofError: nothing stands there; the message tells what does.
    """
    found = [value]
    for step in steps:
        found = [inner for outer in found for inner in _inside(outer, step, path)]
    return found


def _inside(value: Any, step: str | int | None, path: str) -> list[Any]:
    """What one step leads to."""
    if isinstance(step, str) and isinstance(value, dict) and step in value:
        return [value[step]]
    if step is None and isinstance(value, list):
        return value
    if isinstance(step, int) and isinstance(value, list) and step < len(value):
        return [value[step]]
    wanted = f"no {step!r}" if isinstance(step, str) else "no list" if step is None else f"no item {step}"
    raise RankproofError(f"the answer has no {path}: {wanted} where there is {_kind(value)}")


def _kind(value: Any) -> str:
    """A JSON value in a few words."""
    if isinstance(value, dict):
        names = ", ".join(list(value)[:8])
        return f"an object with {names}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
