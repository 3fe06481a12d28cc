"""What is said of smallest budgets, of many attacks, of few, of none that succeeded."""

import pytest
from report_samples import budgets

from rankproof.report.budgets import (
    achieved,
    further,
    in_order_of_ease,
    lead,
    level_text,
    median_interval_text,
    median_text,
    reached_text,
    saved_text,
    success_text,
)

N = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        (0.0, "0"),
        (0.000123, "0.00013"),
        (0.0831, "0.084"),
        (0.5, "0.5"),
        (0.996, "1"),
        (1.0, "1"),
        (1.04, "1.1"),
        (9.96, "10"),
        (10.2, "11"),
        (12.0, "12"),
        (126.2, "127"),
        (255.0, "255"),
    ],
)
def test_a_budget_has_two_digits_and_is_never_less_than_it_is(levels, text):
    assert level_text(levels / 255) == text


def test_the_first_sentence_is_of_what_half_of_all_items_need():
    summaries = [budgets("qa+", 0.9), budgets("ca+", 0.79), budgets("oa", 0.1), budgets("ca-", 0.2)]
    assert lead(summaries) == (
        "Half of all items can be put among the first 10 results of a random query by changing no pixel by "
        "more than 0.79/255."
    )
    assert further(summaries) == [
        "Easier still: after a change of at most 0.1/255 per pixel, the 5 best results stand in an order of "
        "the attacker's choice, for half of all queries."
    ]


def test_a_query_goal_leads_where_it_is_the_easiest_that_raises():
    assert lead([budgets("qa+", 0.9), budgets("ca+", 1.8)]) == (
        "After a change of at most 0.9/255 per pixel, a random item is among the first 10 results, for half "
        "of all queries."
    )


def test_a_budget_that_no_file_holds_is_said_with_the_file_that_does():
    (text,) = further([budgets("ca+", 0.3, saved=22)])
    assert "less than an 8-bit file can hold" in text
    assert "22 of 25 images still do it" in text
    assert further([budgets("ca+", 0.5001)]) == []
    assert further([budgets("ca+", 0.3, saved=None)]) == []


def test_without_a_raised_item_another_goal_leads():
    summaries = [budgets("qa+", 9.0, reached=3), budgets("ca-", 2.0)]
    assert lead(summaries) == (
        "After a change of at most 2/255 per pixel, an item has left the first 10 results of a query that "
        "found it, for half of all items."
    )


def test_few_attacks_are_counted_and_not_taken_for_half_of_all():
    few = budgets("ca+", 0.5, 3)
    assert median_interval_text(few) == ""
    assert lead([few]).startswith("2 of 3 items can be put among the first 10")
    assert further([few]) == ["So few attacks say little of all the others: give the audit more time."]
    pair = budgets("ca+", 0.5, 2)
    assert lead([pair]).startswith("1 of 2 items can")
    assert lead([pair]).endswith(f"{level_text(pair.curve[0][0])}/255.")
    assert pair.curve[0][0] < pair.eps_star
    assert lead([budgets("ca+", 0.5, 1)]).startswith("The only item that was tried can be put")
    assert achieved(budgets("qa+", 0.5, 1)).endswith("for the only query that was tried")


def test_where_the_wish_held_before_the_sentence_is_of_the_others():
    assert lead([budgets("ca+", 0.5, free=4)]).startswith("Half of all items that are not there already can")
    for goal, items in (("oa", "queries"), ("ca-", "items")):
        text = achieved(budgets(goal, 0.5, free=1))
        assert text.endswith(f"half of all {items} where it does not hold already")


def test_what_was_not_reached_is_said_so():
    none = [budgets("ca+", reached=0), budgets("oa", reached=0)]
    assert lead(none).startswith("No attack got what it wanted by any change")
    some = [budgets("ca+", reached=0), budgets("qa-", 10.0, reached=4)]
    assert lead(some).startswith("No goal was reached by more than half of its attacks. The nearest: one of")
    assert "in 4 of 25 attacks, with no pixel changed by more than" in lead(some)
    assert further(none) == further(some) == []
    just_half = budgets("ca+", 1.0, 24, reached=12)
    assert (just_half.eps_star, lead([just_half])[:37]) == (None, "No goal was reached by more than half")


def test_what_is_free_is_no_success():
    free = [budgets(goal, 1.0, 8, free=8) for goal in ("ca+", "oa")]
    assert lead(free).startswith("All that an attacker could wish for holds before anything is changed")
    assert (median_text(free[0]), reached_text(free[0])) == ("free", "8 free")
    assert success_text(free[0], 1.0) == "–"
    assert "0.9/255" in lead([*free, budgets("qa+", 0.9)])


def test_the_texts_of_a_median():
    whole, half = budgets("qa+", 0.9), budgets("qa+", 0.9, reached=14)
    assert median_interval_text(whole) == "[0.66, 1.3]"
    assert median_interval_text(half) == "[0.66, not reached]"
    less = budgets("qa+", 0.9, reached=12)
    assert (less.eps_star, median_text(less)) == (None, "not reached")
    assert reached_text(budgets("qa+", 0.9, free=2, reached=20)) == "20 of 23 reached, 2 free"
    assert saved_text(whole) == "24 of 25 hold as 8-bit files"
    assert saved_text(budgets("qa+", reached=0)) == saved_text(budgets("qa+", saved=None)) == ""


def test_a_share_of_few_attacks_is_a_count():
    assert success_text(budgets("qa+", 1.0, 19), 1 / 255) == "10/19"
    assert success_text(budgets("qa+", 1.0, 20), 1 / 255) == f"50{N}%"
    assert success_text(budgets("qa+", 1.0, 20, reached=0), 1.0) == f"0{N}%"


def test_goals_stand_in_the_order_of_ease():
    summaries = [
        budgets("oa", 1.0, 8, free=8),
        budgets("qa+", 3.0, reached=2),
        budgets("sp-qa+", 3.0, reached=9),
        budgets("ca+", 3.0),
        budgets("ca-", 0.2),
    ]
    assert [each.goal for each in in_order_of_ease(summaries)] == ["ca-", "ca+", "sp-qa+", "qa+", "oa"]
