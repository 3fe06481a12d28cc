"""Checks of parameters: what the fields of a dataclass say about their values holds, or an error names one.

A goal, a method or a recipe declares what it takes once, in the type of each field: `m: Count`, `xi: Weight`,
`form: Literal["inequality", "distance"]`. `check_parameters` reads that. It is called where such a value is
made, and again where it is used, for those of a user whose class does not call it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rankproof.errors import RankproofError


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where a number may lie.

    Args:
        low, high: bounds.
        above, below: whether the bound itself is excluded.
        text: the range in words; empty where the bounds say it.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    text: str = ""

    def __contains__(self, value: int | float) -> bool:
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.text:
            return self.text
        if self.high == math.inf:
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


ANY, AT_LEAST_ONE = Range(), Range(low=1.0)

Count = Annotated[int, AT_LEAST_ONE]
"""A number of items, steps or images."""

Length = Annotated[int, Range(low=0.0)]
"""A number of pixels, or of anything else that there may be none of."""

Positive = Annotated[float, Range(low=0.0, above=True)]
"""A finite number above 0."""

Weight = Annotated[float, Range(low=0.0)]
"""A finite number, 0 or more."""

Share = Annotated[float, Range(low=0.0, high=1.0)]
"""A share, or a change of a pixel, in [0, 1]."""

PositiveShare = Annotated[float, Range(low=0.0, high=1.0, above=True)]
"""A share, or a change of a pixel, in (0, 1]."""

Percent = Annotated[float, Range(low=0.0, high=100.0)]
"""A share in %, in [0, 100]."""

Momentum = Annotated[float, Range(low=0.0, high=1.0, below=True)]
"""How much of what was is kept, in [0, 1)."""


def check_integer(name: str, value: object, allowed: Range = ANY) -> int:
    """An integer of Python or NumPy as one of Python.

    Raises:
        RankproofError: it is no integer (3.0 and True are none), or not in the range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RankproofError(f"{name} must be an integer, got {_shown(value)}")
    number = int(value)
    if number not in allowed:
        raise RankproofError(f"{name} must be {allowed}, got {number}")
    return number


def check_number(name: str, value: object, allowed: Range = ANY) -> int | float:
    """A finite number of Python or NumPy as one of Python; an int stays one.

    Raises:
        RankproofError: it is no number (True is none), not finite, or not in the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RankproofError(f"{name} must be a number, got {_shown(value)}")
    number = int(value) if isinstance(value, Integral) else float(value)
    if (allowed is ANY or number in allowed) and not math.isfinite(number):
        raise RankproofError(f"{name} must be a finite number, got {number}")
    if number not in allowed:
        raise RankproofError(f"{name} must be {allowed}, got {number}")
    return number


def check_flag(name: str, value: object) -> bool:
    """True or False; anything else, such as the text "no", would count as one of them."""
    if not isinstance(value, bool):
        raise RankproofError(f"{name} must be True or False, got {_shown(value)}")
    return value


def check_parameters(values: object) -> None:
    """Raise unless every field of a dataclass holds what its type says; numbers of NumPy become Python's.

    Looked at are integers, numbers, flags and choices, each of them or None where the type allows it; a type
    of several others is left alone. Where the types of a class cannot be read, its numbers must be finite.

    Raises:
        RankproofError: a field holds something else; the message names the field.
    """
    kind: Any = type(values)
    if isinstance(values, type) or not is_dataclass(values):
        return
    for name, check in _checks(kind).items():
        given = getattr(values, name)
        if (checked := check(name, given)) is not given:
            object.__setattr__(values, name, checked)


class Checked:
    """Base of dataclasses whose parameters are checked when they are made."""

    def __post_init__(self) -> None:
        check_parameters(self)


Check = Callable[[str, Any], Any]


@cache
def _checks(kind: Any) -> dict[str, Check]:
    """The check of each field of a dataclass that has one."""
    names = [field.name for field in fields(kind)]
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError, AttributeError):  # types that are only imported for a type checker
        return dict.fromkeys(names, _finite)
    return {name: check for name in names if (check := _check_of(hints[name])) is not None}


def _check_of(hint: Any) -> Check | None:
    """The check that a type stands for; None where it is left alone."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        check = _check_of(float if kinds in ([int, float], [float, int]) else kinds[0])
        if check is None or (len(kinds) > 1 and set(kinds) != {int, float}):
            return None
        optional = len(kinds) < len(get_args(hint))
        return lambda name, value: None if optional and value is None else check(name, value)
    if get_origin(hint) is Annotated:
        kind, *more = get_args(hint)
        allowed = next((each for each in more if isinstance(each, Range)), ANY)
        return _number_check(kind, allowed) or _check_of(kind)
    if get_origin(hint) is Literal:
        return lambda name, value: _choice(name, value, get_args(hint))
    return check_flag if hint is bool else _number_check(hint, ANY)


def _number_check(kind: Any, allowed: Range) -> Check | None:
    if kind is int:
        return lambda name, value: check_integer(name, value, allowed)
    if kind is float:
        return lambda name, value: check_number(name, value, allowed)
    return None


def _choice(name: str, value: object, choices: tuple[object, ...]) -> object:
    if value not in choices:
        raise RankproofError(f"{name} must be {' or '.join(map(str, choices))}, got {_shown(value)}")
    return value


def _finite(name: str, value: object) -> object:
    return check_number(name, value) if isinstance(value, float) else value


def _shown(value: object) -> str:
    """A value on one line, short enough for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
