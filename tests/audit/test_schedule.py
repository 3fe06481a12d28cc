"""What an audit by time goes on with, without a clock."""

import math
from dataclasses import replace

import pytest

from rankproof.audit.measurements import black_boxes, standard_measurements
from rankproof.audit.protocol import QUERIES
from rankproof.audit.schedule import (
    LEAST,
    LOOKS,
    WANTED_BLACK_BOX,
    Standing,
    has_breadth,
    need_of,
    next_measurement,
)

MEASUREMENTS = (
    *standard_measurements(500, 8 / 255),
    *(box for queries in QUERIES for box in black_boxes(500, queries)),
)
COST = {"smallest": 1.0, "at-eps": 2.0, "converged": 6.0, "controls": 1.0, "doubled": 7.0, "black-box": 0.01}


class Audit:
    """An audit whose attacks take exactly what they cost, from a table."""

    def __init__(self, limit, *, cost=COST, images=40, rows=1, need=None):
        self.limit, self.left, self.cost, self.images, self.rows = limit, limit, cost, images, rows
        self.need = need or {}
        self.done = {each.label: 0 for each in MEASUREMENTS}
        self.made = []

    def standings(self):
        for each in MEASUREMENTS:
            most = min(10, self.images) if each.is_control else self.images
            done, step = self.done[each.label], most if each.is_control else self.rows
            per_attack = self.cost[each.kind] * (each.budget or 1)
            yield Standing(
                measurement=each,
                rows=done,
                most=most,
                need=self.need.get(each.label, 1 / math.sqrt(done) if done else math.inf),
                seconds=per_attack,
                step=min(step, most - done) or step,
            )

    def step(self):
        chosen = next_measurement(list(self.standings()), self.left, self.limit)
        if chosen is not None:
            self.done[chosen.measurement.label] += chosen.step
            self.left -= chosen.cost
            self.made.append(chosen.measurement)
        return chosen

    def run(self):
        while self.step() is not None:
            assert self.left >= 0
        return self

    def counts(self, kind):
        return [self.done[each.label] for each in MEASUREMENTS if each.kind == kind]


def test_a_few_attacks_of_everything_come_first_and_in_order():
    audit = Audit(2000.0)
    goals = len(audit.counts("smallest"))
    for _ in range(goals):
        audit.step()
    assert [each.kind for each in audit.made] == ["smallest"] * goals
    assert len({each.label for each in audit.made}) == goals  # one of each before two of any
    while not has_breadth(list(audit.standings()), audit.left, audit.limit):
        audit.step()
    kinds = list(dict.fromkeys(each.kind for each in audit.made))
    assert kinds == ["smallest", "at-eps", "controls", "black-box", "converged", "doubled"]
    assert set(audit.counts("smallest")) == set(audit.counts("at-eps")) == {LEAST}
    assert set(audit.counts("controls")) == {10}
    assert set(audit.counts("converged")) == {1}
    assert 1 <= min(audit.counts("doubled")) <= max(audit.counts("doubled")) <= 10
    looked = {each.budget for each in audit.made if each.budget}
    assert looked == {QUERIES[0]}


@pytest.mark.parametrize("limit", [0.5, 7.0, 40.0, 150.0, 600.0])
@pytest.mark.parametrize("rows", [1, 4])
def test_nothing_is_begun_that_does_not_fit_and_the_time_is_used(limit, rows):
    audit = Audit(limit, rows=rows).run()
    assert audit.left >= 0
    if limit > 100:
        assert audit.left < 2.0 * rows


def test_little_time_gets_fewer_attacks_of_every_goal_rather_than_fewer_goals():
    goals = len(Audit(0).counts("smallest"))
    audit = Audit(2.0 * goals + 1).run()
    assert min(audit.counts("smallest")) >= 1
    assert max(audit.counts("at-eps")) >= 1


def test_too_little_for_every_goal_gets_the_first_ones():
    audit = Audit(4.0, cost=COST | {"at-eps": 99.0}).run()
    assert audit.counts("smallest")[:4] == [1] * 4
    assert sum(audit.counts("smallest")) == 4


def test_a_goal_that_does_not_fit_does_not_stop_the_others():
    slow = {each.label for each in MEASUREMENTS if each.label == "ca+"}
    audit = Audit(500.0)
    real = audit.standings

    def standings():
        for each in real():
            yield replace(each, seconds=1e9) if each.measurement.label in slow else each

    audit.standings = standings
    audit.run()
    assert audit.done["ca+"] == 0
    assert audit.done["qa+"] >= LEAST


def test_then_the_widest_interval_goes_on():
    audit = Audit(2000.0)
    while not has_breadth(list(audit.standings()), audit.left, audit.limit):
        audit.step()
    for label in audit.done:
        audit.need[label] = 1.0
    for label in ("oa@eps", "qa-", "black-box-10x100"):
        audit.need[label] = 5.0
        assert audit.step().measurement.label == label
        audit.need[label] = 0.5


def test_more_queries_follow_where_enough_attacks_of_few_are_made_and_affordable():
    cost = dict.fromkeys(COST, 0.1) | {"black-box": 0.001}
    poor, rich = Audit(15.0, cost=cost).run(), Audit(600.0, cost=cost, images=25).run()
    assert {each.budget for each in poor.made if each.budget} == {100}
    assert rich.done["black-box-5x1000"] >= LOOKS
    assert rich.done["black-box-5x500"] == 0  # the most that fits, not both
    assert rich.done["black-box-5x100"] == LOOKS


def test_it_ends_when_all_images_are_attacked():
    audit = Audit(1e6, images=5).run()
    assert set(audit.counts("smallest")) == set(audit.counts("at-eps")) == {5}
    assert audit.left > 0


def test_attacks_that_came_out_alike_are_no_certainty():
    box = black_boxes(500, 100)[0]
    assert need_of(box, []) == math.inf
    assert need_of(box, [0.5] * 4) == pytest.approx(0.98)
    assert need_of(box, [0.5] * 16) == pytest.approx(0.49)
    spread = [0.5 - WANTED_BLACK_BOX, 0.5 + WANTED_BLACK_BOX] * 2
    assert need_of(box, spread) == pytest.approx(1.96 * math.sqrt((4 / 3 + 1) / 4))
