"""What a reader must know in half a minute: an insider, a stranger, and how far to trust it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.report.budgets import (
    KIND_NOTES,
    KIND_TITLES,
    NO_INTERVAL,
    attacks,
    budget_text,
    easiest,
    kind,
    median_interval_text,
    reached_text,
)
from rankproof.report.format import figure_text, interval_text
from rankproof.report.page import ReportPage, rows, visible_text
from rankproof.report.trust import checks
from rankproof.threat import format_eps

UNKNOWN = "how much of the worst case a stranger reaches is not known"


@dataclass(frozen=True)
class Line:
    """One figure of a card.

    Args:
        label: what it says.
        figure: the figure, printed large.
        note: what stands below in small letters.
        style: class of its colour.
    """

    label: str
    figure: str
    note: str = ""
    style: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One of the three answers.

    Args:
        title, note: who, and what they know.
        anchor: the section with the whole answer.
        lines: its figures.
    """

    title: str
    note: str
    anchor: str
    lines: tuple[Line, ...]


def cards(page: ReportPage) -> list[Card]:
    """The cards below the first sentence."""
    found = []
    if insider := _insider(page.smallest):
        note = "knows the model; half of the attacks succeed without changing any pixel by more than"
        found.append(Card(title="An insider", note=note, anchor="budgets", lines=insider))
    found.append(_stranger(page))
    trust = "what was checked, and what was not"
    found.append(Card(title="How far to trust it", note=trust, anchor="trust", lines=_trust(page)))
    return found


def _insider(summaries: Sequence[BudgetSummary]) -> tuple[Line, ...]:
    """The easiest goal of each kind."""
    lines = []
    for name, title in KIND_TITLES.items():
        alike = [each for each in summaries if kind(each.spec) == name]
        tried = [each for each in alike if attacks(each)]
        if (best := easiest(alike, name)) is not None and best.eps_star is not None:
            few = f"of {attacks(best)}: too few for an interval" if attacks(best) < NO_INTERVAL else ""
            title = title if name in KIND_NOTES else f"{best.sentence[:1].upper()}{best.sentence[1:]}"
            note = " ".join(filter(None, (best.spec.title, median_interval_text(best), few)))
            lines.append(Line(title, budget_text(best.eps_star), note, name))
        elif tried:
            most = max(tried, key=lambda each: each.reached / attacks(each))
            lines.append(Line(title, "not reached", f"{most.spec.title}: {reached_text(most)}"))
        elif alike:
            lines.append(Line(title, "free", "holds before anything is changed"))
    return tuple(lines)


def _stranger(page: ReportPage) -> Card:
    """What a black box reached."""
    black = [row.attack for row in rows(page) if row.attack.black_box]
    title, anchor = "A stranger", "stranger"
    if not black:
        missing = Line("The black box", "not measured", UNKNOWN)
        return Card(title=title, note="sees only the results", anchor=anchor, lines=(missing,))
    first = black[0]
    note = (
        f"sees only {visible_text(first)}, sends {first.budget:,} queries and changes pixels by at most "
        f"{format_eps(first.eps)}; 1 is exactly the order they want, 0 is chance"
    )
    lines = tuple(
        Line(
            f"Order of the top {attack.k}" if attack.k else attack.spec.title,
            figure_text(attack, attack.after),
            f"tau_S {interval_text(attack)}".strip(),
            "order",
        )
        for attack in black
    )
    return Card(title=title, note=note, anchor=anchor, lines=lines)


def _trust(page: ReportPage) -> tuple[Line, ...]:
    """Checks, reasons to doubt, and what is missing."""
    judged = [control for row in checks(page.controls) for control in row.controls]
    judged = [control for control in judged if control.passed is not None]
    passed = sum(bool(control.passed) for control in judged)
    lines = []
    if judged:
        mark = "✓" if passed == len(judged) else "✗"
        style = "pass" if passed == len(judged) else "fail"
        lines.append(Line("Checks of the search", f"{mark} {passed} of {len(judged)}", "passed", style))
    else:
        lines.append(Line("Checks of the search", "not made", "the search may have failed unseen", "warn"))
    flags = len(page.flags)
    narrow = sum(flag.kind == "wide-interval" for flag in page.flags)
    note = f"{narrow} of them: too few attacks" if narrow else ""
    lines.append(Line("Reasons to doubt", f"{flags}", note, "warn" if flags else "pass" if judged else ""))
    if page.missing:
        lines.append(Line("Not measured", f"{len(page.missing)}", "", "warn"))
    return tuple(lines)
