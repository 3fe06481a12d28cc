"""What an audit will measure, on how many images, and how long that takes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from rankproof.attacks.cost import bare_seconds
from rankproof.audit.counts import Counts
from rankproof.audit.journal import spans
from rankproof.audit.measurements import (
    CONTROL_SEARCHES,
    CONTROLLED,
    SUFFIXES,
    Measurement,
    black_boxes,
    standard_measurements,
)
from rankproof.audit.protocol import DEFAULT_EPS, QUERIES
from rankproof.audit.schedule import FIRST_SHARE, LEAST, Standing, need_of, next_measurement
from rankproof.checks import check_images
from rankproof.errors import RankproofError
from rankproof.parameters import AT_LEAST_ONE, Range, check_integer, check_number
from rankproof.ranking.gallery import Gallery
from rankproof.threat import Threat
from rankproof.types import ImagesLike

DEFAULT_SECONDS = 600.0
ROWS = 16  # images attacked side by side
FEWER_ROWS = (32, 16, 8, 4, 3, 2, 1)  # of an audit by time; one alone takes as long as two or three together
UNIT_SHARE, UNIT_SECONDS = 0.12, 30.0  # the longest unit takes at most so much of the time, and so long
TIMED = 4  # images in the pass that is timed
OVERHEAD = 1.2  # of an attack beside its passes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an audit will measure.

    Args:
        threat: the audited budget.
        size: how many items can stand in a ranking.
        images: how many there are to attack.
        rows: images attacked side by side.
        usual_rows: as many as suit the encoder, where nobody says a number.
        counts: how many attacks are behind each figure; None leaves it to the time.
        time_limit: seconds that the attacks and the report may take; None where counts are given.
        per_pass: seconds of one evaluation of one image, gradient included.
    """

    threat: Threat
    size: int
    images: int
    rows: int
    usual_rows: int
    counts: Counts | None
    time_limit: float | None
    per_pass: float

    @property
    def wanted(self) -> list[tuple[Measurement, int]]:
        """Every measurement with the most attacks it can get."""
        if self.counts is not None:
            return self.counts.measurements(self.size, self.threat.eps, self.images)
        found = [
            (each, min(self.images, CONTROLLED) if each.is_control else self.images)
            for each in standard_measurements(self.size, self.threat.eps)
        ]
        if self.threat.eps > 0:
            boxes = [box for queries in QUERIES for box in black_boxes(self.size, queries)]
            found += [(box, self.images) for box in boxes]
        return found

    def expected(self) -> list[tuple[Measurement, int, float]]:
        """Every measurement with the attacks it is likely to get, and their seconds."""
        costs = Costs(per_pass=self.per_pass, eps=self.threat.eps)
        if self.time_limit is None:
            return [(each, count, count * costs.of(each)) for each, count in self.wanted]
        done = dict.fromkeys((each.label for each, _ in self.wanted), 0)
        left = self.time_limit
        while True:
            standings = [
                standing(each, done[each.label], most, costs, rows=self.rows, values=[0.0] * done[each.label])
                for each, most in self.wanted
            ]
            chosen = next_measurement(standings, left, self.time_limit)
            if chosen is None:
                break
            done[chosen.measurement.label] += chosen.step
            left -= max(chosen.cost, 1e-6 * self.time_limit)
        return [(each, done[each.label], done[each.label] * costs.of(each)) for each, _ in self.wanted]

    @property
    def seconds(self) -> float:
        """An estimate of the whole audit."""
        return sum((seconds for _, _, seconds in self.expected()), 0.0)


@dataclass
class Costs:
    """What an attack of each measurement costs: as estimated until one was done.

    Args:
        per_pass: seconds of one evaluation of one image.
        eps: the audited budget.
        seen: for each label the images attacked, and the seconds they took.
    """

    per_pass: float
    eps: float
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _predicted: float = 0.0
    _spent: float = 0.0

    def add(self, measurement: Measurement, rows: int, seconds: float) -> None:
        """Learn from a finished unit."""
        before = self.seen.get(measurement.label, (0, 0.0))
        self.seen[measurement.label] = before[0] + rows, before[1] + seconds
        self._predicted += rows * self._estimate(measurement)
        self._spent += seconds

    def overrun(self, measurement: Measurement, rows: int, seconds: float) -> None:
        """Learn from a unit that was given up after so long: it takes at least twice as long."""
        self.seen[measurement.label] = rows, 2 * seconds

    def of(self, measurement: Measurement) -> float:
        """Seconds of one attack; controls search as often as they do what the goal's own search took."""
        if measurement.label in self.seen:
            rows, seconds = self.seen[measurement.label]
            return seconds / rows
        kind = "at-eps" if measurement.kind == "controls" else "converged"
        search = f"{measurement.goal.spec.name}{SUFFIXES[kind]}"
        if measurement.is_control and search in self.seen:
            rows, seconds = self.seen[search]
            return CONTROL_SEARCHES[measurement.kind] * seconds / rows
        scale = self._spent / self._predicted if self._predicted else 1.0
        return scale * self._estimate(measurement)

    def _estimate(self, measurement: Measurement) -> float:
        return OVERHEAD * measurement.evaluations(self.eps) * self.per_pass


def standing(
    measurement: Measurement,
    done: int,
    most: int,
    costs: Costs,
    *,
    rows: int,
    values: Sequence[float],
) -> Standing:
    """How far a measurement has come.

    Args:
        done: attacks done.
        most: attacks there can be.
        rows: images attacked side by side.
        values: of each attack, for its interval.
    """
    step = most if measurement.is_control else rows
    return Standing(
        measurement=measurement,
        rows=done,
        most=most,
        need=need_of(measurement, values),
        seconds=costs.of(measurement),
        step=min(step, most - done) or step,
    )


def in_rounds(wanted: Iterable[tuple[Measurement, int]], rows: int) -> list[tuple[Measurement, int, int]]:
    """The units of an audit of given counts, a few attacks of every measurement before more of any."""
    units = [
        (
            each.is_control,
            number,
            place,
            each,
            span,
        )  # the controls at last: they compare with attacks
        for place, (each, count) in enumerate(wanted)
        for number, span in enumerate(spans(count, count if each.is_control else rows))
    ]
    return [(each, *span) for *_, each, span in sorted(units, key=lambda unit: unit[:3])]


def plan(
    gallery: Gallery,
    images: ImagesLike,
    threat: Threat | None = None,
    *,
    own: bool = True,
    trials: int | str | None = None,
    time_limit: float | None = None,
    rows: int | None = None,
) -> Plan:
    """Decide what to run; two passes of a few images are timed for the estimate.

    Args:
        images: (b, c, h, w) the images that may be attacked, floats in [0, 1] or 8-bit values.
        threat: the audited budget; None is 2/255.
        own: whether the images are items of the gallery, which are left out of their own rankings.
        trials: attacks behind each figure, or counts as a text (`rankproof.audit.counts`).
        time_limit: seconds; None is ten minutes where there are no `trials`.
        rows: images attacked side by side by an audit that is gone on with.
    Raises:
        RankproofError: both are given, or one is no such value.
    """
    if trials is not None and time_limit is not None:
        raise RankproofError("give --trials or --time, not both")
    counts = None if trials is None else counts_from(trials)
    if counts is None:
        time_limit = float(
            check_number("time_limit", DEFAULT_SECONDS if time_limit is None else time_limit, Range(low=0.0))
        )
    threat, images = Threat(DEFAULT_EPS) if threat is None else threat, check_images("images", images)
    gallery.ranker.begin(images)
    gallery.ranker.check_gradient()
    size, usual = len(gallery) - own, min(ROWS, gallery.ranker.chunk)
    per_pass = _seconds_per_pass(gallery, images)
    if counts is not None:
        rows = counts.rows or usual
        counts.measurements(size, threat.eps, len(images))  # what is unknown is refused
    elif rows is None:
        rows = _rows_by_time(gallery.ranker.chunk, size, threat.eps, per_pass, time_limit or 0.0)
    return Plan(
        threat=threat,
        size=size,
        images=len(images),
        rows=rows,
        usual_rows=usual,
        counts=counts,
        time_limit=time_limit,
        per_pass=per_pass,
    )


def counts_from(trials: int | str) -> Counts:
    """The counts of a number, or of a text."""
    if isinstance(trials, str):
        return Counts.parse(trials)
    return Counts(trials=check_integer("trials", trials, AT_LEAST_ONE))


def _rows_by_time(chunk: int, size: int, eps: float, per_pass: float, limit: float) -> int:
    """Images side by side: as many as make units that are short beside the time there is."""
    costs = Costs(per_pass=per_pass, eps=eps)
    budgets = [costs.of(each) for each in standard_measurements(size, eps) if each.kind == "smallest"]
    most = min(UNIT_SHARE * limit, UNIT_SECONDS)

    def fits(rows: int) -> bool:
        return rows * max(budgets) <= most or (rows <= LEAST and rows * sum(budgets) <= FIRST_SHARE * limit)

    return next((rows for rows in FEWER_ROWS if rows <= chunk and fits(rows)), 1)


def _seconds_per_pass(gallery: Gallery, images: torch.Tensor) -> float:
    """Time of one evaluation of one image, the product with the gallery included."""
    sample = gallery.ranker.as_input(images[: min(TIMED, gallery.ranker.chunk)])
    return bare_seconds(gallery, sample, 1, whole_gallery=True) / len(sample)
