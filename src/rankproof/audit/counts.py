"""How many attacks are behind each figure of an audit, as a text that `--trials` takes and a report prints.

    24                                  24 for each figure; a black box makes min(24, 20) of 1,000 queries
    24,at-eps=12                        12 for each figure at the audited budget
    24,converged=0                      none by the search that goes on until it has converged
    24,oa=40,oa@eps=6                   40 for the smallest budget of one goal, 6 for the same at the budget
    24,black-box=6x200                  6 black-box attacks of 200 queries for k = 5, and for k = 10
    24,black-box-5=20x100+6x1000        20 of 100 queries for k = 5, and 6 of 1,000
    24,controls=3,doubled=0,rows=4      three attacks for the controls, none for those of more evaluations;
                                        images are attacked four at a time

The images attacked side by side (`rows`) belong to it, since they decide the last digit of an embedding.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rankproof.attacks.black_box import BUDGET
from rankproof.audit.measurements import (
    CONTROLLED,
    Measurement,
    black_boxes,
    standard_measurements,
)
from rankproof.errors import RankproofError

AT_EPS, CONVERGED, CONTROLS, DOUBLED = "at-eps", "converged", "controls", "doubled"
BLACK_BOX, ROWS = "black-box", "rows"
BLACK_BOX_SHARE, BLACK_BOX_LEAST = 10, 20
MOST = 1_000_000  # of anything that is counted
EXAMPLE = "write a number, or such as 24,at-eps=12,oa=40,black-box=6x200"

Looks = tuple[tuple[int, int], ...]
"""Attacks and queries of black boxes: ((6, 200),)."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many attacks are behind each figure.

    Args:
        trials: attacks of each figure that nothing else is said of.
        given: other numbers by key: a goal, a goal with "@eps", "@converged", "@controls" or "@doubled";
            "at-eps", "converged", "controls" or "doubled" for all of these.
        looks: black boxes by key, "black-box" or such as "black-box-5".
        rows: images attacked side by side; None is as many as suit the encoder.
    """

    trials: int
    given: Mapping[str, int] = field(default_factory=dict)
    looks: Mapping[str, Looks] = field(default_factory=dict)
    rows: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Counts":
        """The counts in a text.

        Raises:
            RankproofError: the text is no such list.
        """
        first, *parts = text.split(",")
        trials = _number("trials", first, least=1)
        given: dict[str, int] = {}
        looks: dict[str, Looks] = {}
        for part in parts:
            key, equals, value = part.partition("=")
            if not (key and equals and value):
                raise RankproofError(f"trials: {part!r} is not KEY=NUMBER; {EXAMPLE}")
            if key in given or key in looks:
                raise RankproofError(f"trials: {key} is given twice")
            if key == BLACK_BOX or key.startswith(f"{BLACK_BOX}-"):
                looks[key] = _looks(key, value)
            else:
                given[key] = _number(key, value, least=int(key == ROWS))
        rows = given.pop(ROWS, None)
        return cls(trials=trials, given=given, looks=looks, rows=rows)

    def __str__(self) -> str:
        parts = [str(self.trials), *(f"{key}={count}" for key, count in self.given.items())]
        for key, looks in self.looks.items():
            parts.append(f"{key}={'+'.join(f'{count}x{queries}' for count, queries in looks) or 0}")
        return ",".join(parts + ([] if self.rows is None else [f"{ROWS}={self.rows}"]))

    def measurements(self, size: int, eps: float, images: int) -> list[tuple[Measurement, int]]:
        """Each measurement with its number of attacks, those without any too; black boxes at last.

        Args:
            size: how many items can stand in a ranking.
            eps: the audited budget.
            images: how many there are to attack.
        Raises:
            RankproofError: a key is unknown.
        """
        standard, boxes = standard_measurements(size, eps), black_boxes(size, BUDGET) if eps > 0 else ()
        known = {AT_EPS, CONVERGED, CONTROLS, DOUBLED, BLACK_BOX, *(each.key for each in (*standard, *boxes))}
        for key in (*self.given, *self.looks):
            if key not in known and (eps > 0 or not key.startswith(BLACK_BOX)):
                raise RankproofError(f"trials: {key!r} is unknown; known: {', '.join(sorted(known))}, {ROWS}")
        found = [(each, min(self._count(each), images)) for each in standard]
        for number, each in enumerate(boxes):
            looks = self._looks(each.key)
            found += [(black_boxes(size, queries)[number], min(count, images)) for count, queries in looks]
            found += [] if looks else [(each, 0)]
        return found

    def _count(self, measurement: Measurement) -> int:
        if measurement.key in self.given:
            return self.given[measurement.key]
        if measurement.kind in (CONTROLS, DOUBLED):
            usual = self.given.get(CONTROLS, min(self.trials, CONTROLLED))
            return self.given.get(DOUBLED, usual) if measurement.kind == DOUBLED else usual
        at_eps = self.given.get(AT_EPS, self.trials)
        if measurement.kind == CONVERGED:
            return self.given.get(CONVERGED, at_eps)
        return at_eps if measurement.kind == AT_EPS else self.trials

    def _looks(self, key: str) -> Looks:
        return self.looks.get(key, self.looks.get(BLACK_BOX, default_looks(self.trials)))


def default_looks(trials: int) -> Looks:
    """The black boxes of an audit of so many trials: fewer attacks, since each sends a thousand queries."""
    return ((max(min(trials, BLACK_BOX_LEAST), trials // BLACK_BOX_SHARE), BUDGET),)


def counts_of(done: Sequence[tuple[Measurement, int]], rows: int | None) -> Counts:
    """The shortest counts that name exactly these numbers of attacks.

    Args:
        done: every measurement with its number of attacks, zero too.
        rows: images attacked side by side, where that is not what suits the encoder.
    """
    by_kind = {
        kind: [(each.key, count) for each, count in done if each.kind == kind]
        for kind in ("smallest", AT_EPS, CONVERGED, CONTROLS, DOUBLED)
    }
    trials = max(1, _usual(by_kind["smallest"] or by_kind[AT_EPS]))
    given = {key: count for key, count in by_kind["smallest"] if count != trials}
    controlled, at_eps = _usual(by_kind[CONTROLS]), _usual(by_kind[AT_EPS])
    defaults = {AT_EPS: trials, CONVERGED: at_eps, CONTROLS: min(trials, CONTROLLED), DOUBLED: controlled}
    for kind, default in defaults.items():
        usual = _usual(by_kind[kind])
        given |= {} if usual == default or not by_kind[kind] else {kind: usual}
        given |= {key: count for key, count in by_kind[kind] if count != usual}
    looks: dict[str, Looks] = {each.key: () for each, _ in done if each.kind == BLACK_BOX}
    for each, count in done:
        if each.budget is not None and count:
            looks[each.key] = (*looks[each.key], (count, each.budget))
    if len(set(looks.values())) == 1:
        looks = {BLACK_BOX: next(iter(looks.values()))}
    looks = {key: value for key, value in looks.items() if value != default_looks(trials)}
    return Counts(trials=trials, given=given, looks=looks, rows=rows)


def _usual(counts: Iterable[tuple[str, int]]) -> int:
    """The most frequent count; the larger one of several."""
    found = Counter(count for _, count in counts)
    return max(found, key=lambda count: (found[count], count), default=0)


def _number(key: str, text: str, *, least: int) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise RankproofError(f"{key}: {text!r} is no whole number; {EXAMPLE}")
    if not least <= int(text) <= MOST:
        raise RankproofError(f"{key} must be at least {least} and at most {MOST:,}, got {int(text)}")
    return int(text)


def _looks(key: str, text: str) -> Looks:
    """The black boxes in "6x200", "20x100+6x1000" or "0"."""
    if text == "0":
        return ()
    found = []
    for part in text.split("+"):
        count, times, queries = part.partition("x")
        if not times:
            raise RankproofError(f"{key}: {part!r} is not ATTACKSxQUERIES, such as 6x200")
        found.append((_number(key, count, least=1), _number(key, queries, least=1)))
    if len({queries for _, queries in found}) < len(found):
        raise RankproofError(f"{key}: a number of queries is given twice")
    return tuple(found)
