"""One attack as a terminal shows it."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from rankproof.attacks.summary import AttackSummary
from rankproof.report.format import (
    attack_heading,
    attack_remarks,
    attack_table,
    figure_text,
    interval_text,
    number_text,
    second_figure,
    setting_text,
)

QA = AttackSummary(
    goal="sp-qa+",
    method="pgd",
    eps=8 / 255,
    m=2,
    g=5,
    xi=1.0,
    steps=16,
    trials=1000,
    seed=3,
    device="cpu",
    metric="rank",
    before=50.04,
    after=13.44,
    ci95=(13.1, 13.8),
    sp_rank=1.37,
    seconds=12.5,
    model_seconds=10.0,
    peak_mb=1300.0,
    notes=("the queries are given",),
)
OA = replace(
    QA,
    goal="oa",
    metric="tau",
    **dict.fromkeys(("m", "g", "xi", "sp_rank", "model_seconds")),
    k=5,
    visible=50,
    budget=1000,
    before=-0.004,
    after=0.37,
    ci95=(0.29, 0.45),
    mean_rank_before=2.0,
    mean_rank=7.65,
    queries_spent=871.44,
    queries_max=1000,
    curve=((1, 0.01), (2, 0.02), (10, 0.1), (50, 0.2), (100, 0.25), (1000, 0.37)),
    notes=(),
)


def drawn(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text().replace("\N{NO-BREAK SPACE}", " ")


def test_a_heading_says_what_was_attacked_and_how():
    assert attack_heading(QA).splitlines() == [
        "SP-QA+ m = 2, g = 5, ξ = 1 at 8/255: pgd, 16 steps, 1,000 trials, seed 3",
        "As QA+, while 5 top results stay in place so that nobody notices.",
    ]
    assert attack_heading(OA).splitlines() == [
        "OA k = 5, N = 50 at 8/255: pgd, 1,000 queries each, 1,000 trials, seed 3",
        "The query is changed so that its 5 top results come in a chosen order; "
        "all that is seen are the first 50 results of 1,000 queries.",
    ]
    stopped = replace(QA, evaluations=9.6, evaluations_max=16)
    assert "pgd, 10 steps on average, 16 at most, 1,000 trials" in attack_heading(stopped)
    assert "pgd, 1 query each, 1,000 trials" in attack_heading(replace(OA, budget=1))


def test_the_table_has_a_line_for_each_figure():
    rows = drawn(attack_table(QA)).splitlines()
    assert any("rank of the chosen" in row and "50.0 %" in row and "[13.1, 13.8]" in row for row in rows)
    assert any("rank of those to keep" in row and "1.4 %" in row for row in rows)
    assert not any("mean rank mR" in row for row in rows)
    rows = drawn(attack_table(OA)).splitlines()
    assert any("tau_S of what is seen" in row and "0.00" in row and "[0.29, 0.45]" in row for row in rows)
    assert any("mean rank mR" in row and "2.0" in row and "7.7" in row for row in rows)
    white_box = replace(OA, visible=None, budget=None, mean_rank=None)
    assert "Kendall's tau" in drawn(attack_table(white_box))


def test_the_figure_of_images_asked_again_is_shown_where_answers_differ():
    same = replace(OA, checks=200, checks_differing=0, tau_again=0.37)
    assert (
        attack_remarks(same)[1]
        == "200 queries asked an image again; the answer differed in 0 of 1,000 attacks"
    )
    assert "asked again" not in drawn(attack_table(same))
    other = replace(same, checks_differing=970, tau_again=-0.02)
    rows = drawn(attack_table(other)).splitlines()
    assert any("the same images, asked again" in row and "−0.02" in row for row in rows)
    assert "the answer differed in 970 of 1,000 attacks" in attack_remarks(other)[1]


@pytest.mark.parametrize(
    ("goal", "metric", "label"),
    [
        ("shift", "shift", "distance moved"),
        ("mismatch", "distance", "distance to the target"),
        ("misrank", "hit", "R@1, as a share"),
        ("top4", "kept", "nearest still in the first 4, as a share"),
    ],
)
def test_each_goal_has_its_own_label(goal, metric, label):
    assert label in drawn(attack_table(replace(QA, goal=goal, metric=metric, sp_rank=None)))


def test_remarks_tell_queries_time_and_notes():
    assert attack_remarks(QA) == [
        "12.50 s, 1.25 times the bare work, 1,300 MB",
        "note: the queries are given",
    ]
    assert attack_remarks(OA) == [
        "871.4 queries on average, 1,000 at most",
        "best tau_S by queries: 0.10 after 10, 0.20 after 50, 0.25 after 100, 0.37 after 1,000",
        "12.50 s, 1,300 MB",
    ]


def test_settings_by_the_papers_letters():
    assert setting_text(OA) == "k = 5, N = 50, Q = 1,000"
    assert setting_text(replace(OA, visible="inf"), budget=False) == "k = 5, N = ∞"
    assert setting_text(replace(QA, m=None, g=None, xi=None, w=10)) == "w = 10"


def test_what_is_not_finite_is_a_dash_or_left_out():
    unknown = replace(QA, after=float("nan"), ci95=(None, None))
    assert (figure_text(unknown, unknown.after), interval_text(unknown)) == ("–", "")
    assert (number_text(float("inf")), number_text(None), number_text(-0.001, 2)) == ("–", "–", "0.00")
    assert second_figure(replace(QA, sp_rank=None)) is None
    assert second_figure(replace(OA, mean_rank_before=None)) == ("mR", "7.7")
