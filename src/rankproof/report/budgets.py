"""What a report says of smallest budgets: their figures as text, the sentence it begins with, a few words."""

import math
from collections.abc import Sequence

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.goals.base import GoalSpec
from rankproof.report.format import NOTHING, PERCENT
from rankproof.threat import LEVELS

LEVELS_SHOWN = (0.5, 1, 2, 4, 8, 16)  # budgets in 1/255 at which a table says how many attacks succeed
HALF_LEVEL = 0.5 / LEVELS  # what an 8-bit file cannot hold
FEW = 20  # attacks, below which a share is printed as a count
NO_INTERVAL = 6  # attacks, below which a median has no interval
WITHIN = "among the first"

KINDS = {"raise": "raise", "lower": "lower", "reorder": "order"}
"""What a goal does to the results, by its direction; all others are "other"."""
KIND_TITLES = {
    "raise": "Onto the first page",
    "lower": "Out of sight",
    "order": "Into a chosen order",
    "other": "Other",
}
KIND_NOTES = {"raise": "something rises", "lower": "something sinks", "order": "the top is reordered"}


def level_text(eps: float) -> str:
    """eps in 1/255 with two significant digits, rounded up: what is said of a budget stays true."""
    levels = eps * LEVELS
    if levels <= 0:
        return "0"
    places = max(0, 1 - math.floor(math.log10(levels) + 1e-9))
    scale = 10.0**places
    text = f"{math.ceil(levels * scale - 1e-6) / scale:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def budget_text(eps: float) -> str:
    """eps as "0.83/255", rounded up."""
    return f"{level_text(eps)}/{LEVELS}"


def kind(spec: GoalSpec) -> str:
    """What the goal does to the results: "raise", "lower", "order" or "other"."""
    return "other" if spec.family == "embedding" else KINDS.get(spec.direction, "other")


def legend(summaries: Sequence[BudgetSummary]) -> list[tuple[str, str]]:
    """The kinds of goals that have a curve, each with what its colour means."""
    titles: dict[str, list[str]] = {}
    for each in summaries:
        if each.curve:
            titles.setdefault(kind(each.spec), []).append(each.spec.title)
    return [(name, KIND_NOTES.get(name, ", ".join(titles[name]))) for name in KIND_TITLES if name in titles]


def attacks(summary: BudgetSummary) -> int:
    """How many attacks there were to do: those whose wish did not hold before."""
    return summary.trials - summary.free


def median_text(summary: BudgetSummary) -> str:
    """The median smallest budget in 1/255; what stands there where there is none."""
    if summary.eps_star is not None:
        return level_text(summary.eps_star)
    return "not reached" if attacks(summary) else "free"


def median_interval_text(summary: BudgetSummary) -> str:
    """Its 95 % interval in brackets, "not reached" for an end that was not; empty where there is none."""
    low, high = summary.eps_star_ci95
    if low is None and high is None:
        return ""
    ends = ("not reached" if end is None else level_text(end) for end in (low, high))
    return f"[{', '.join(ends)}]"


def success_text(summary: BudgetSummary, eps: float) -> str:
    """The share of attacks that succeed within a budget; of few attacks how many."""
    share, count = summary.success(eps), attacks(summary)
    if share is None:
        return NOTHING
    return f"{round(share * count)}/{count}" if count < FEW else f"{100 * share:.0f}{PERCENT}"


def reached_text(summary: BudgetSummary) -> str:
    """How many attacks reached their wish, and how many had it before: "24 of 25 reached, 3 free"."""
    count = attacks(summary)
    texts = [f"{summary.reached:,} of {count:,} reached"] if count else []
    return ", ".join(texts + ([f"{summary.free:,} free"] if summary.free else []))


def saved_text(summary: BudgetSummary) -> str:
    """How many of those reached hold as a file; empty where that was not tried."""
    if summary.saved is None or not summary.reached:
        return ""
    return f"{summary.saved:,} of {summary.reached:,} hold as 8-bit files"


def in_order_of_ease(summaries: Sequence[BudgetSummary]) -> list[BudgetSummary]:
    """The easiest goal first; then those reached in half of the attacks or fewer; then what is free."""

    def ease(summary: BudgetSummary) -> tuple[bool, float, float]:
        none = attacks(summary) == 0
        share = 0.0 if none else summary.reached / attacks(summary)
        return none, math.inf if summary.eps_star is None else summary.eps_star, -share

    return sorted(summaries, key=ease)


def easiest(summaries: Sequence[BudgetSummary], *kinds: str) -> BudgetSummary | None:
    """The goal of some kinds with the smallest median; None where none was reached by half of its attacks."""
    found = [each for each in summaries if each.eps_star is not None and kind(each.spec) in kinds]
    return min(found, key=lambda each: each.eps_star or 0.0, default=None)


# -- sentences -------------------------------------------------------------------------------------


def lead(summaries: Sequence[BudgetSummary]) -> str:
    """The most alarming sentence that is true: what half of all attacks reach, raised items first."""
    tried = [each for each in summaries if attacks(each)]
    if not tried:
        return (
            "All that an attacker could wish for holds before anything is changed: the gallery is too small "
            "for these goals."
        )
    chosen = easiest(tried, "raise") or easiest(tried, *KIND_TITLES)
    if chosen is not None:
        return f"{achieved(chosen)}."
    most = max(tried, key=lambda each: (each.reached / attacks(each), each.reached))
    if not most.reached:
        return (
            "No attack got what it wanted by any change: either this ranking withstands them, or the search "
            "failed."
        )
    return (
        f"No goal was reached by more than half of its attacks. The nearest: {most.sentence} in "
        f"{most.reached:,} of {attacks(most):,} attacks, with no pixel changed by more than "
        f"{budget_text(most.curve[-1][0])}."
    )


def further(summaries: Sequence[BudgetSummary]) -> list[str]:
    """What belongs to the first sentence: the file that holds it, and what is easier still."""
    first = easiest(summaries, "raise") or easiest(summaries, *KIND_TITLES)
    if first is None or first.eps_star is None:
        return []
    texts = []
    if attacks(first) < NO_INTERVAL:
        return ["So few attacks say little of all the others: give the audit more time."]
    if first.eps_star < HALF_LEVEL and first.saved is not None:
        texts.append(
            "That is less than an 8-bit file can hold; saved as such a file, changed by a grey level or two, "
            f"{first.saved:,} of {first.reached:,} images still do it."
        )
    other = easiest([each for each in summaries if kind(each.spec) != kind(first.spec)], *KIND_TITLES)
    if other is not None and other.eps_star is not None and other.eps_star < first.eps_star:
        texts.append(f"Easier still: {_lower_first(achieved(other))}.")
    return texts


def achieved(summary: BudgetSummary) -> str:
    """What half of the attacks, or so many of a few, reach with the median budget; a sentence without end."""
    assert summary.eps_star is not None
    count, eps = attacks(summary), budget_text(summary.eps_star)
    items = "items" if summary.spec.family == "candidate" else "queries"
    if count < NO_INTERVAL:
        # The median of an even number lies between two attacks: the smaller one is what was seen.
        some, eps = (count + 1) // 2, budget_text(summary.curve[(count - 1) // 2][0])
        only = f"the only {'item' if items == 'items' else 'query'} that was tried"
        who = only if count == 1 else f"{some} of {count} {items}"
    else:
        who = f"half of all {items}"
    wish = summary.sentence
    if wish.startswith(f"an item is {WITHIN}"):
        who += " that are not there already" if summary.free else ""
        place = wish.removeprefix("an item is ")
        return f"{who[0].upper()}{who[1:]} can be put {place} by changing no pixel by more than {eps}"
    who += " where it does not hold already" if summary.free else ""
    return f"After a change of at most {eps} per pixel, {wish}, for {who}"


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]
