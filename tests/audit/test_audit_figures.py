from unittest.mock import MagicMock

import pytest

from rankproof import QueryRaise, Reorder, Threat
from rankproof.audit import figures
from rankproof.audit.job import Job
from rankproof.audit.measurements import Measurement
from rankproof.audit.records import Attacks

SEVERAL = 6


def measured(name, goal, count):
    """Attacks as far as the choice of what is compared looks at them."""
    attacks = MagicMock(spec=Attacks, result=name)
    attacks.__len__.return_value = count
    measurement = Measurement(kind="black-box", goal=goal, visible=50, budget=100)
    return figures.Measured(measurement=measurement, attacks=(attacks,))


@pytest.fixture
def compared(monkeypatch):
    """The white boxes that a black box is compared with."""
    found = []
    monkeypatch.setattr(figures, "check_attack", lambda *_, **__: [])
    monkeypatch.setattr(figures.AttackFigures, "of", lambda result: result)
    monkeypatch.setattr(figures, "check_knowledge", lambda black, white, label: found.append(white) or [])
    return found


@pytest.mark.parametrize(
    ("converged", "expected"),
    [
        ([("long", Reorder(), SEVERAL)], ["long"]),
        ([("long", Reorder(), SEVERAL - 1)], ["fixed"]),  # too few to be compared
        ([("other", QueryRaise(), 20)], ["fixed"]),  # none of this goal
        ([], ["fixed"]),
    ],
)
def test_a_black_box_is_compared_with_the_strongest_white_box_that_has_enough_attacks(
    compared, converged, expected
):
    whites = [measured(*each) for each in (*converged, ("fixed", Reorder(), 20))]
    job = MagicMock(spec=Job, threat=Threat(2 / 255))
    figures._black_box_doubts(job, measured("black", Reorder(), 20), whites)
    assert compared == expected
