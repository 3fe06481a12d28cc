import pytest

from rankproof import PGD, RankproofError
from rankproof.methods.white_box.pgd import eccv20, iccv21


@pytest.mark.parametrize(
    ("eps", "step", "steps"),
    [(0.01, 1 / 255, 10), (0.03, 1 / 255, 15), (0.06, 0.006, 20), (0.1, 0.01, 20), (0.3, 0.01, 30)],
)
def test_eccv_schedule_is_the_published_one(eps, step, steps):
    schedule = eccv20(eps)
    assert (schedule.steps, schedule.step) == (steps, pytest.approx(step))


@pytest.mark.parametrize("levels", [1, 2, 4, 8, 16, 32])
def test_iccv_schedule_is_24_steps_of_one_level_whatever_the_budget(levels):
    schedule = iccv21(levels / 255)
    assert (schedule.steps, schedule.step) == (24, 1 / 255)


def test_pgd_follows_its_rule_unless_told_otherwise():
    assert PGD().schedule(0.03) == eccv20(0.03)
    assert PGD(rule="iccv21").schedule(0.03) == iccv21(0.03)
    assert PGD(rule="iccv21", steps=3).schedule(0.03).steps == 3
    assert PGD(rule="iccv21", steps=3).schedule(0.03).step == 1 / 255
    assert PGD(step=0.5).schedule(0.03).step == 0.5
    assert PGD(step=0.5).passes(0.03) == 15


def test_no_steps_are_refused():
    with pytest.raises(RankproofError, match="steps must be at least 1, got 0"):
        PGD(steps=0)
