import json
import math
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import RankproofError
from rankproof.parameters import (
    ANY,
    AT_LEAST_ONE,
    Checked,
    Count,
    Length,
    Momentum,
    Positive,
    PositiveShare,
    Range,
    Share,
    Weight,
    check_flag,
    check_integer,
    check_number,
    check_parameters,
)

if TYPE_CHECKING:
    from decimal import Decimal as Unknown


@dataclass(frozen=True, kw_only=True)
class Settings(Checked):
    """One field of each kind; this module's types are not checked by anything else."""

    count: Count = 1
    length: Length = 0
    any_integer: int = -3
    positive: Positive = 0.1
    weight: Weight = 0.0
    share: Share = 1.0
    positive_share: PositiveShare = 1.0
    momentum: Momentum = 0.0
    any_number: float = -0.5
    either: int | float = 2
    optional: Count | None = None
    flag: bool = False
    choice: Literal["one", "two"] = "one"
    mixed: int | str = "free"
    others: tuple[float, ...] = (math.nan,)
    made: list[int] = field(default_factory=list)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 0, "count must be at least 1, got 0"),
        ("count", 3.0, r"count must be an integer, got 3\.0"),
        ("count", True, "count must be an integer, got True"),
        ("count", math.nan, "count must be an integer, got nan"),
        ("count", None, "count must be an integer, got None"),
        ("count", "3", "count must be an integer, got '3'"),
        ("length", -1, "length must be at least 0, got -1"),
        ("any_integer", 0.5, r"any_integer must be an integer, got 0\.5"),
        ("positive", 0.0, r"positive must be above 0, got 0\.0"),
        ("positive", math.inf, "positive must be a finite number, got inf"),
        ("weight", -1e-9, "weight must be at least 0, got -1e-09"),
        ("weight", math.nan, "weight must be at least 0, got nan"),
        ("share", 1.5, r"share must be in \[0, 1\], got 1\.5"),
        ("positive_share", 0.0, r"positive_share must be in \(0, 1\], got 0\.0"),
        ("momentum", 1.0, r"momentum must be in \[0, 1\), got 1\.0"),
        ("any_number", math.nan, "any_number must be a finite number, got nan"),
        ("any_number", -math.inf, "any_number must be a finite number, got -inf"),
        ("any_number", False, "any_number must be a number, got False"),
        ("any_number", 1j, "any_number must be a number, got 1j"),
        ("any_number", torch.tensor(0.5), r"any_number must be a number, got tensor\(0\.5"),
        ("either", "a", "either must be a number, got 'a'"),
        ("optional", 0, "optional must be at least 1, got 0"),
        ("optional", 2.0, r"optional must be an integer, got 2\.0"),
        ("flag", "no", "flag must be True or False, got 'no'"),
        ("flag", 1, "flag must be True or False, got 1"),
        ("choice", "three", "choice must be one or two, got 'three'"),
        ("choice", None, "choice must be one or two, got None"),
    ],
)
def test_a_field_that_does_not_hold_what_its_type_says_is_named(name, value, message):
    with pytest.raises(RankproofError, match=f"^{message}"):
        Settings(**{name: value})


def test_what_fits_is_left_as_it_is():
    Settings()
    settings = Settings(count=7, weight=2, optional=None, any_number=-3.5, mixed="x", choice="two", flag=True)
    assert (settings.count, settings.weight, settings.any_number) == (7, 2, -3.5)
    assert isinstance(settings.weight, int)  # as it was written, so that records do not change


def test_numbers_of_numpy_become_those_of_python():
    settings = Settings(count=np.int32(4), weight=np.float32(0.5), share=Fraction(1, 4), optional=np.uint8(9))
    assert json.loads(json.dumps(asdict(settings)))["count"] == 4
    assert [type(each) for each in (settings.count, settings.weight, settings.share, settings.optional)] == [
        int, float, float, int,
    ]  # fmt: skip


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=2)))
def test_what_is_taken_is_finite_and_in_its_range(value):
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        assert Settings(share=value).share == value
    else:
        with pytest.raises(RankproofError, match=r"^share must be [^\n]*$"):
            Settings(share=value)


@dataclass
class Unreadable:
    """Its types exist for a type checker only."""

    what: "Unknown | None" = None
    number: float = 0.0


def test_numbers_must_be_finite_where_types_cannot_be_read():
    check_parameters(Unreadable(number=-2.0))
    with pytest.raises(RankproofError, match="number must be a finite number, got nan"):
        check_parameters(Unreadable(number=math.nan))


@dataclass
class OwnWay:
    """A class that checks nothing itself."""

    step: float


@pytest.mark.parametrize("value", [None, 3, "pgd", object(), OwnWay, Settings])
def test_what_has_no_fields_has_nothing_to_check(value):
    check_parameters(value)


def test_a_class_that_checks_nothing_is_checked_where_it_is_used():
    with pytest.raises(RankproofError, match="step must be a finite number"):
        check_parameters(OwnWay(math.inf))


@pytest.mark.parametrize("value", [1.0, True, "1", None, math.nan, torch.tensor(1)])
def test_what_is_no_integer(value):
    with pytest.raises(RankproofError, match=r"^seed must be an integer"):
        check_integer("seed", value)


def test_ranges():
    assert check_integer("seed", -5) == -5
    assert check_integer("k", 1, AT_LEAST_ONE) == 1
    assert check_number("x", -1e300) == -1e300
    assert 0 in ANY
    assert str(Range(low=0.0, high=1.0, above=True)) == "in (0, 1]"
    with pytest.raises(RankproofError, match="flag must be True or False"):
        check_flag("flag", None)
