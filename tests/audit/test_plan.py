import math
import sys

import pytest

from rankproof import Gallery, RankproofError, Threat
from rankproof.audit import plan
from rankproof.audit.plan import DEFAULT_TRIALS, LEAST_TRIALS, standard_tasks
from rankproof.methods import SPSA

GOALS = {"ca+", "ca-", "qa+", "qa-", "sp-qa+", "sp-qa-", "oa", "wrong-first", "shift"}
LEVELS = (0, 1, 2, 4, 8, 16)


@pytest.fixture
def unit(monkeypatch):
    """One evaluation takes so many seconds, on any machine."""

    def set_to(seconds):
        monkeypatch.setattr(
            sys.modules["rankproof.audit.plan"], "_seconds_per_evaluation", lambda gallery, images: seconds
        )

    set_to(1e-4)
    per_query = "_seconds_per_query"
    monkeypatch.setattr(sys.modules["rankproof.audit.plan"], per_query, lambda gallery, images, threat: 2e-5)
    return set_to


@pytest.fixture
def gallery(make):
    return Gallery.build(make.ranker(), make.images(60))


def white(tasks):
    return [task for task in tasks if task.budget is None]


def black(tasks):
    return [task for task in tasks if task.budget is not None]


def figures(tasks):
    return [(task.goal.spec.name, task.method.name, round(task.eps * 255, 6)) for task in tasks]


@pytest.mark.parametrize("level", [8.0, 4.0, 3.0, 0.0, 7.65])
def test_every_goal_with_both_methods_and_a_curve(gallery, pictures, unit, level):
    tasks = plan(gallery, pictures, Threat(level / 255)).tasks
    found = figures(white(tasks))
    assert len(set(found)) == len(found)
    assert len({task.label for task in tasks}) == len(tasks)  # what a journal knows them by
    assert {f for f in found if f[1] == "pgd"} == {(goal, "pgd", level) for goal in GOALS}
    wanted = {(goal, "strong", n) for goal in GOALS for n in {*LEVELS, level}}
    assert {f for f in found if f[1] == "strong"} == wanted


@pytest.mark.parametrize("level", [2.0, 1.0, 0.3])
def test_small_budgets_have_a_finer_curve(gallery, pictures, unit, level):
    found = figures(white(plan(gallery, pictures, Threat(level / 255)).tasks))
    assert len(set(found)) == len(found)
    assert {n for _, name, n in found if name == "strong"} == {0, 0.25, 0.5, 1, 2, 4, level}
    assert {n for _, name, n in found if name == "pgd"} == {level}


def test_both_methods_of_a_headline_figure_spend_the_same(gallery, pictures, unit):
    tasks = plan(gallery, pictures, Threat(8 / 255)).tasks
    for goal in GOALS:
        pair = [task for task in white(tasks) if task.goal.spec.name == goal and task.eps == 8 / 255]
        assert sorted(task.method.name for task in pair) == ["pgd", "strong"]
        assert len({(task.passes, task.trials) for task in pair}) == 1
        assert pair[0].passes == (24 if goal == "oa" else 16)
    assert {task.passes for task in tasks if task.eps == 0} == {0}


def test_the_papers_settings(gallery, pictures, unit):
    goals = {task.goal.spec.name: task.goal for task in white(plan(gallery, pictures, Threat(0.03)).tasks)}
    assert goals["ca+"].w == goals["ca-"].w == goals["qa+"].m == goals["qa-"].m == 1
    assert [(weight, term.g) for weight, term in goals["sp-qa+"].terms[1:]] == [(1.0, 5)]
    assert [(weight, term.g) for weight, term in goals["sp-qa-"].terms[1:]] == [(100.0, 5)]
    assert goals["oa"].k == 5


@pytest.mark.parametrize(("size", "g"), [(2, None), (3, 1), (4, 2), (7, 5), (500, 5)])
def test_small_galleries_get_what_fits(size, g):
    tasks = white(standard_tasks(size, Threat(0.03), 10))
    names = {task.goal.spec.name for task in tasks}
    assert names == (GOALS if g else GOALS - {"sp-qa+", "sp-qa-"})
    for task in tasks:
        if task.goal.spec.name.startswith("sp"):
            assert task.goal.terms[1][1].g == g
        if task.goal.spec.name == "oa":
            assert task.goal.k == min(5, size)


@pytest.mark.parametrize(
    ("trials", "headline", "curve"), [(2000, 2000, 400), (1000, 1000, 200), (300, 300, 100), (30, 30, 30)]
)
def test_points_of_a_curve_get_fewer_trials(trials, headline, curve):
    for task in white(standard_tasks(5000, Threat(8 / 255), trials)):
        assert task.trials == (headline if task.eps == 8 / 255 else curve)


# -- black boxes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "ks", "visible"), [(2, [2], 2), (7, [5, 7], 7), (30, [5, 10], 30), (797, [5, 10], 50)]
)
def test_black_boxes_reorder_five_and_ten_of_fifty_as_far_as_there_are(size, ks, visible):
    tasks = black(standard_tasks(size, Threat(8 / 255), 300))
    assert [task.goal.k for task in tasks] == [k for k in ks for _ in range(2)]
    assert [task.method.name for task in tasks] == ["spsa", "own"] * len(ks)
    assert [task.reference_method for task in tasks] == [True, False] * len(ks)
    assert {(task.visible, task.budget, task.eps, task.trials) for task in tasks} == {
        (visible, 61, 8 / 255, 30)
    }


@pytest.mark.parametrize(
    ("trials", "few"), [(5000, 500), (1000, 100), (797, 79), (200, 20), (20, 20), (7, 7)]
)
def test_a_tenth_of_the_trials_looks_at_results_but_at_least_twenty(trials, few):
    assert {task.trials for task in black(standard_tasks(797, Threat(0.03), trials))} == {few}


def test_a_black_box_is_told_apart_by_its_label():
    labels = [task.label for task in black(standard_tasks(797, Threat(8 / 255), 300))]
    assert labels[:2] == [
        "oa k = 5, N = 50, Q = 61 at 8/255 (spsa)",
        "oa k = 5, N = 50, Q = 61 at 8/255",
    ]


def test_a_search_among_8_bit_images_stays_there_and_the_yardstick_as_published():
    spsa, own, *_ = black(standard_tasks(797, Threat(8 / 255), 300))
    assert (spsa.threat(Threat(0.1)).grid, own.threat(Threat(0.1)).grid) == (False, True)
    assert own.threat(Threat(0.1)).eps == 8 / 255
    assert spsa.threat(Threat(0.1, grid=True)).grid


def test_a_yardstick_that_is_the_search_itself_is_run_once(monkeypatch):
    monkeypatch.setattr(sys.modules["rankproof.audit.plan"], "automatic", SPSA)
    tasks = black(standard_tasks(797, Threat(0.03), 300))
    assert [(task.goal.k, task.method.name, task.reference_method) for task in tasks] == [
        (5, "spsa", False),
        (10, "spsa", False),
    ]


# -- trials ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trials", "count"), [(None, 60), (7, 7), (60, 60), (61, 60), (5000, 60)])
def test_never_more_trials_than_images(gallery, pictures, unit, trials, count):
    todo = plan(gallery, pictures, Threat(0.03), trials=trials)
    assert todo.trials == max(task.trials for task in todo.tasks) == count


def test_a_thousand_trials_where_nothing_is_said(gallery, make, unit):
    many = make.images(1500)
    assert plan(gallery, many, Threat(0.03)).trials == DEFAULT_TRIALS == 1000
    assert plan(gallery, many, Threat(0.03), trials=1200).trials == 1200


def test_time_picks_the_trials(gallery, make, unit):
    many = make.images(3000)
    whole = plan(gallery, many, Threat(0.03), trials=3000)
    earlier = math.inf
    for share in (2.0, 0.6, 0.3, 0.1):
        todo = plan(gallery, many, Threat(0.03), time_limit=share * whole.seconds)
        assert todo.seconds <= share * whole.seconds
        assert LEAST_TRIALS <= todo.trials <= 3000
        assert todo.trials < earlier
        assert todo.seconds > 0.7 * min(1.0, share) * whole.seconds  # the time that is given is used
        assert max(task.trials for task in todo.tasks) == todo.trials
        earlier = todo.trials
    assert plan(gallery, many, Threat(0.03), time_limit=10 * whole.seconds).trials == 3000


def test_a_slower_model_gets_fewer_trials_in_the_same_time(gallery, make, unit):
    many, trials = make.images(3000), []
    for seconds in (1e-4, 4e-4):
        unit(seconds)
        trials.append(plan(gallery, many, Threat(0.03), time_limit=60.0).trials)
    assert trials[1] < trials[0] / 2


@pytest.mark.parametrize(
    ("query", "queries"), [(1e-4, 1000), (5e-4, 500), (1.2e-3, 200), (2.5e-3, 100), (1.0, 100)]
)
def test_the_black_box_leaves_half_of_the_time_to_the_white_box(
    gallery, make, unit, monkeypatch, query, queries
):
    module = sys.modules["rankproof.audit.plan"]
    monkeypatch.setattr(module, "BUDGET", 1000)
    monkeypatch.setattr(module, "_seconds_per_query", lambda gallery, images, threat: query)
    if query == 1.0:
        with pytest.raises(RankproofError, match="--time: 10 trials would take"):
            plan(gallery, make.images(3000), Threat(0.03), time_limit=60.0)
        return
    todo = plan(gallery, make.images(3000), Threat(0.03), time_limit=60.0)
    assert {task.budget for task in black(todo.tasks)} == {todo.queries} == {queries}
    assert todo.seconds <= 60
    assert (
        plan(gallery, make.images(30), Threat(0.03), trials=20).queries == 1000
    )  # without a limit as always


def test_queries_that_are_given_stay(gallery, pictures, unit):
    assert plan(gallery, pictures, Threat(0.03), trials=20, queries=17).queries == 17
    with pytest.raises(RankproofError, match="queries must be at least 1, got 0"):
        plan(gallery, pictures, Threat(0.03), trials=20, queries=0)


def test_few_images_are_all_attacked_where_time_allows(gallery, pictures, unit):
    assert plan(gallery, pictures[:3], Threat(0.03), time_limit=1e6).trials == 3
    assert plan(gallery, pictures[:30], Threat(0.03), time_limit=1e6).trials == 30


def test_too_little_time(gallery, pictures, unit):
    unit(1.0)
    with pytest.raises(RankproofError, match=r"--time: 10 trials would take \d+ s; give more time"):
        plan(gallery, pictures, Threat(0.03), time_limit=60.0)


def test_trials_and_time_exclude_each_other(gallery, pictures):
    with pytest.raises(RankproofError, match="give --trials or --time, not both"):
        plan(gallery, pictures, Threat(0.03), trials=20, time_limit=60.0)


@pytest.mark.parametrize("trials", [0, -1])
def test_at_least_one_trial(gallery, pictures, trials):
    with pytest.raises(RankproofError, match=f"trials must be at least 1, got {trials}"):
        plan(gallery, pictures, Threat(0.03), trials=trials)


def test_the_estimate_follows_the_work(gallery, make, pictures, unit, monkeypatch):
    many = make.images(1200)
    small, large = (plan(gallery, many, Threat(8 / 255), trials=n).seconds for n in (600, 1200))
    assert large == pytest.approx(2 * small)
    unit(3e-4)
    monkeypatch.setattr(
        sys.modules["rankproof.audit.plan"], "_seconds_per_query", lambda gallery, images, threat: 6e-5
    )
    assert plan(gallery, many, Threat(8 / 255), trials=600).seconds == pytest.approx(3 * small)


def test_the_queries_are_in_the_estimate(gallery, pictures, unit, monkeypatch):
    module = sys.modules["rankproof.audit.plan"]
    seconds = []
    for one in (0.0, 1.0):
        monkeypatch.setattr(module, "_seconds_per_query", lambda gallery, images, threat, one=one: one)
        seconds.append(plan(gallery, pictures, Threat(8 / 255), trials=20).seconds)
    assert seconds[1] - seconds[0] == pytest.approx(1.2 * 4 * 20 * 61)
    assert plan(gallery, pictures, Threat(0.0), trials=20).seconds < 10  # nothing is sent


def test_one_pass_is_timed_on_the_model_itself(gallery, pictures):
    assert plan(gallery, pictures, Threat(0.03), trials=3).seconds > 0
