"""Which measurement an audit by time goes on with: a pure function of what is done and what it costs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rankproof.audit.measurements import Kind, Measurement
from rankproof.audit.protocol import QUERIES

LEAST = 3  # attacks of each measurement before any gets more
FIRST_SHARE = 0.75  # of the time, for the least attacks of the smallest budgets
SECOND_SHARE = 0.5  # of the rest, for those at the audited eps
CONTROLS_SHARE = 0.25  # of the time that is left
LOOKS = 20  # black-box attacks of few queries, before there are some of more
LOOKS_SHARE = 0.3  # of the time that is left, for as many attacks of more queries
WANTED = {"rank": 3.0, "tau": 0.05, "shift": 0.02, "hit": 0.1, "kept": 0.1, "distance": 0.02}
WANTED_SMALLEST, WANTED_BLACK_BOX = 0.1, 0.15  # octaves of eps; tau_S
CONVERGED = 3.0  # times as wide an interval does for the search that takes long: its images join the others'


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a measurement has come.

    Args:
        measurement: which.
        rows: attacks done.
        most: attacks there can be.
        need: half the width of its interval, as a multiple of the width that is wanted; the widest goes on.
        seconds: what one attack costs.
        step: attacks of the next unit.
    """

    measurement: Measurement
    rows: int
    most: int
    need: float
    seconds: float
    step: int

    @property
    def cost(self) -> float:
        """Seconds of the next unit."""
        return self.seconds * self.step

    @property
    def done(self) -> bool:
        """Whether all images are attacked."""
        return self.rows >= self.most


def next_measurement(standings: Sequence[Standing], left: float, limit: float) -> Standing | None:
    """The measurement that gets the next unit; None where nothing fits into the time that is left.

    First a few attacks of everything, the most telling first: the smallest budget of every goal, every goal
    at the audited budget, the controls, a black box of few queries, the search that goes on until it has
    converged, the controls that search again. Then always the widest interval.

    Args:
        standings: of all measurements, the most telling first.
        left: seconds.
        limit: seconds that the whole audit may take.
    """
    for each in _breadth(standings, left, limit):
        if each.cost <= left:
            return each
    looks = _of(standings, "black-box")
    fitting = (each for each in standings if not each.done and each.cost <= left)
    candidates = [each for each in fitting if _goes_on(each, looks, left)]
    return max(candidates, key=lambda each: each.need, default=None)


def has_breadth(standings: Sequence[Standing], left: float, limit: float) -> bool:
    """Whether every measurement has the attacks it gets before any gets more."""
    return not any(each.cost <= left for each in _breadth(standings, left, limit))


def _breadth(standings: Sequence[Standing], left: float, limit: float) -> Iterator[Standing]:
    """The measurements that still lack their first attacks, in order."""
    smallest, at_eps, converged, controls, doubled, looks = (_of(standings, kind) for kind in _ORDER)
    first, spent = _affordable(smallest, FIRST_SHARE * limit)
    yield from sorted(_below(smallest, first), key=lambda each: each.rows)
    second, _ = _affordable(at_eps, SECOND_SHARE * (limit - spent))
    yield from sorted(_below(at_eps, second), key=lambda each: each.rows)
    yield from _controls(controls, left)
    yield from _below([each for each in looks if each.measurement.budget == QUERIES[0]], LEAST)
    yield from sorted(_below(converged, 1), key=lambda each: each.seconds)
    yield from _controls(doubled, left)


_ORDER: tuple[Kind, ...] = ("smallest", "at-eps", "converged", "controls", "doubled", "black-box")


def _controls(standings: Sequence[Standing], left: float) -> Iterator[Standing]:
    """The controls that were not made, on as many attacks as a part of the time that is left allows."""
    todo = [each for each in standings if not each.rows and each.most]
    for each in todo:
        step = min(each.most, int(CONTROLS_SHARE * left / len(todo) / max(each.seconds, 1e-9)))
        if step:
            yield replace(each, step=step)


def _of(standings: Sequence[Standing], kind: Kind) -> list[Standing]:
    return [each for each in standings if each.measurement.kind == kind]


def _below(standings: Sequence[Standing], count: int) -> list[Standing]:
    return [each for each in standings if each.rows < min(count, each.most)]


def _affordable(standings: Sequence[Standing], seconds: float) -> tuple[int, float]:
    """How many attacks of each fit into some time, at least one and at most the first few; and their cost."""
    for count in range(LEAST, 0, -1):
        units = [math.ceil(min(count, each.most) / max(1, each.step)) * each.cost for each in standings]
        if sum(units) <= seconds or count == 1:
            return count, sum(units, 0.0)
    return 0, 0.0


def _goes_on(each: Standing, looks: Sequence[Standing], left: float) -> bool:
    """Whether a measurement gets more than its first attacks: always, but for controls and black boxes.

    Args:
        looks: all black boxes.
    """
    measurement = each.measurement
    if measurement.is_control:
        return False
    if measurement.budget is None:
        return True
    family = [other for other in looks if other.measurement.key == measurement.key]
    begun = [other for other in family if other.rows and other.measurement.budget != QUERIES[0]]
    enough = min(LOOKS, each.most)
    if measurement.budget == QUERIES[0]:
        return each.rows < enough or not begun
    if each.rows:
        return True
    few = next((other for other in family if other.measurement.budget == QUERIES[0]), None)
    ready = few is None or few.rows >= enough
    return ready and not begun and enough * each.seconds <= LOOKS_SHARE * left


def need_of(measurement: Measurement, values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean, as a multiple of the width that is wanted.

    A spread of the wanted width is taken for granted, so that few attacks that came out alike do not look
    like certainty.

    Args:
        values: of each attack: octaves of eps, or the headline figure.
    """
    if not values:
        return math.inf
    wanted = _wanted(measurement, values)
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return 1.96 * math.sqrt((variance / wanted**2 + 1) / len(values))


def _wanted(measurement: Measurement, values: Sequence[float]) -> float:
    if measurement.kind == "smallest":
        return WANTED_SMALLEST
    if measurement.budget is not None:
        return WANTED_BLACK_BOX
    wanted = WANTED.get(measurement.goal.metric) or 0.05 * max(abs(value) for value in values) or 1.0
    return CONVERGED * wanted if measurement.kind == "converged" else wanted
