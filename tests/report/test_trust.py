"""Checks by kind, flags in few sentences, what the first glance says of both."""

from report_samples import audit, budgets, cell, control, seen

from rankproof.report.cards import cards
from rankproof.report.page import Flag
from rankproof.report.trust import attack_counts, checks, control_text, flag_groups, goal_figure, saved_as

N = "\N{NO-BREAK SPACE}"


def test_checks_stand_together_and_what_failed_comes_first():
    controls = [
        control("jpeg-90", "oa", passed=None),
        control("noise", "qa+"),
        control("doubled", "oa", passed=False),
        control("noise", "ca+"),
        control("doubled", "ca+"),
        control("of my own", "ca+"),
    ]
    rows = checks(controls)
    assert [(row.title, row.result, row.count) for row in rows] == [
        ("Twice the steps, and a restart", "failed", "1 of 2 goals, 20 attacks"),
        ("Random noise of the same size", "passed", "2 of 2 goals, 20 attacks"),
        ("of my own", "passed", "1 of 1 goal, 10 attacks"),
        ("Saved as a JPEG of quality 90", "a figure", "1 of 1 goal, 10 attacks"),
    ]
    assert [each.goal for each in rows[0].failed] == ["oa"]
    assert [each.goal for each in rows[1].controls] == ["ca+", "qa+"]
    assert checks([]) == []


def test_figures_of_checks_have_the_unit_of_their_goal():
    assert control_text(control("noise", "qa+"), 3.14) == f"3.1{N}%"
    assert control_text(control("noise", "oa"), 0.314) == "0.31"
    assert control_text(control("eps-1", "oa"), 0.9) == control_text(control("gradient"), 0.9) == f"90{N}%"
    assert goal_figure("qa+", float("nan")) == "–"


def test_files_stand_beside_their_own_goal_alone():
    page = audit(controls=(control("png", "qa+"), control("jpeg-90", "ca+"), control("noise", "qa+")))
    assert [title for title, _ in saved_as(page, cell("qa+"))] == ["saved as PNG"]
    assert saved_as(page, seen()) == []


def test_flags_of_a_kind_are_one_group_and_wide_intervals_come_last():
    flags = [Flag(kind="wide-interval", text="Wide.", cell=f"qa+ at {n}/255") for n in range(4)]
    flags += [Flag(kind="ties", text="Many."), Flag(kind="wide-interval", text="Wider.", cell="oa")]
    ties, wide = flag_groups(flags)
    assert (ties.kind, ties.brief, ties.cells) == ("ties", False, ())
    assert (wide.kind, wide.brief, len(wide.cells)) == ("wide-interval", True, 5)


def test_the_numbers_of_attacks_are_a_range_where_they_differ():
    page = audit(
        smallest=(budgets("qa+", trials=9), budgets("oa", trials=40)), cells=(cell("qa+", trials=1),)
    )
    assert attack_counts(page) == [
        ("9 to 40 attacks", "behind each smallest budget"),
        ("1 attack", "behind each figure at the audited eps"),
    ]


def lines(page, title):
    (card,) = [card for card in cards(page) if card.title == title]
    return [(line.label, line.figure, line.note) for line in card.lines]


def test_an_insider_has_the_easiest_goal_of_each_kind():
    smallest = (
        budgets("qa+", 0.9),
        budgets("ca+", 0.5, 3),
        budgets("oa", reached=0),
        budgets("ca-", free=25),
    )
    assert lines(audit(smallest=smallest), "An insider") == [
        ("Onto the first page", "0.5/255", "CA+ of 3: too few for an interval"),
        ("Out of sight", "free", "holds before anything is changed"),
        ("Into a chosen order", "not reached", "OA: 0 of 25 reached"),
    ]


def test_a_stranger_who_was_not_measured_is_no_good_news():
    assert lines(audit(cells=(cell("qa+"),)), "A stranger")[0][1] == "not measured"
    assert lines(audit(), "A stranger") == [
        ("Order of the top 5", "0.37", "tau_S [0.29, 0.45]"),
        ("Order of the top 10", "0.31", "tau_S [0.23, 0.39]"),
    ]


def test_trust_counts_what_passed_and_never_calls_the_unchecked_good():
    failed = (control("noise", "qa+"), control("doubled", "qa+", passed=False), control("png", passed=None))
    flags = (Flag(kind="wide-interval", text="a"), Flag(kind="ties", text="b"))
    page = audit(controls=failed, flags=flags, missing=("The black box was not measured.",))
    assert lines(page, "How far to trust it") == [
        ("Checks of the search", "✗ 1 of 2", "passed"),
        ("Reasons to doubt", "2", "1 of them: too few attacks"),
        ("Not measured", "1", ""),
    ]
    assert lines(audit(controls=()), "How far to trust it")[0][1] == "not made"
    (card,) = [card for card in cards(audit(controls=())) if card.anchor == "trust"]
    assert "pass" not in {line.style for line in card.lines}
