"""The figures of an attack as text, and one attack as a heading, a table and remarks for a terminal."""

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.attacks.summary import AttackSummary
from rankproof.threat import format_eps

NOTHING, PERCENT = "–", "\N{NO-BREAK SPACE}%"


def number_text(value: float | None, places: int = 1) -> str:
    """A number with that many decimals and a proper minus; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.{places}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else minus(text)


def minus(text: str) -> str:
    """A number as text with a proper minus."""
    return text.replace("-", "−")


def decimals(attack: AttackSummary) -> int:
    """How many decimals the headline figure of an attack gets."""
    return 1 if attack.metric == "rank" else 2


def figure_text(attack: AttackSummary, value: float | None) -> str:
    """A headline figure, `attack.before` or `attack.after`, with its unit."""
    text = number_text(value, decimals(attack))
    return text + PERCENT if attack.metric == "rank" and text != NOTHING else text


def interval_text(attack: AttackSummary) -> str:
    """The 95 % interval in brackets, empty where there is none."""
    return ends_text(attack.interval, decimals(attack))


def ends_text(ends: Sequence[float | None] | None, places: int = 1) -> str:
    """The ends of an interval in brackets, empty where there is none."""
    if ends is None or None in ends:
        return ""
    return f"[{', '.join(number_text(end, places) for end in ends)}]"


def half_width_text(attack: AttackSummary) -> str:
    """Half the width of the 95 % interval as " ± 0.2", empty where there is none."""
    ends = attack.interval
    return "" if ends is None else f" ± {number_text((ends[1] - ends[0]) / 2, decimals(attack))}"


def unchanged_text(attack: AttackSummary) -> str:
    """The figure of untouched images drawn again: "unchanged 41.9 %"; empty where there is none."""
    return "" if attack.unchanged is None else f"unchanged {figure_text(attack, attack.unchanged)}"


def second_figure(attack: AttackSummary) -> tuple[str, str] | None:
    """What must be read with the headline figure, as a name and a value: the rank of C_SP, or mR."""
    if attack.metric == "rank" and attack.sp_rank is not None:
        return "C_SP", number_text(attack.sp_rank) + PERCENT
    if attack.metric == "tau" and attack.mean_rank is not None:
        before, after = number_text(attack.mean_rank_before), number_text(attack.mean_rank)
        return "mR", after if attack.mean_rank_before is None else f"{before} → {after}"
    return None


def letter_texts(attack: AttackSummary | BudgetSummary) -> list[str]:
    """The papers' letters with their values: ["m = 1", "g = 5", "ξ = 1"]."""
    letters = {"w": attack.w, "m": attack.m, "k": attack.k, "g": attack.g, "ξ": attack.xi}
    return [f"{letter} = {value:g}" for letter, value in letters.items() if value is not None]


def setting_text(attack: AttackSummary, *, budget: bool = True) -> str:
    """The parameters of an attack, by the papers' letters: "k = 5, N = 50, Q = 1,000".

    Args:
        budget: whether Q is among them.
    """
    texts = letter_texts(attack)
    if attack.visible is not None:
        texts.append("N = ∞" if attack.visible == "inf" else f"N = {attack.visible:,}")
    if budget and attack.budget is not None:
        texts.append(f"Q = {attack.budget:,}")
    return ", ".join(texts)


# -- one attack on a terminal ----------------------------------------------------------------------


def attack_heading(attack: AttackSummary) -> str:
    """What was attacked and how, in two lines."""
    name = " ".join(filter(None, (attack.spec.title, setting_text(attack, budget=False))))
    if attack.budget is None:
        spent = f"{attack.steps} steps"
        if attack.evaluations is not None and attack.evaluations < attack.steps:
            spent = f"{attack.evaluations:.0f} steps on average, {attack.steps} at most"
    else:
        spent = "1 query each" if attack.budget == 1 else f"{attack.budget:,} queries each"
    how = f"{attack.method}, {spent}, {attack.trials:,} trials, seed {attack.seed}"
    return f"{name} at {format_eps(attack.eps)}: {how}\n{attack.sentence}"


def attack_table(attack: AttackSummary) -> Table:
    """The figures of an attack: one line for each, before and after."""
    table = Table()
    table.add_column("figure", no_wrap=True)
    for column in ("before", "after", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    of_visible = attack.black_box and attack.metric == "tau"
    label = "tau_S of what is seen" if of_visible else attack.spec.figure_label
    before, after = (figure_text(attack, value) for value in (attack.before, attack.after))
    table.add_row(label, before, after, escape(interval_text(attack)))
    if attack.checks_differing:
        table.add_row("the same images, asked again", "", figure_text(attack, attack.tau_again), "")
    if attack.unchanged is not None:
        table.add_row("untouched, drawn again", "", figure_text(attack, attack.unchanged), "")
    if attack.sp_rank is not None:
        table.add_row("rank of those to keep", "", f"{number_text(attack.sp_rank)} %", "")
    if attack.metric == "tau":
        before, after = number_text(attack.mean_rank_before), number_text(attack.mean_rank)
        table.add_row("mean rank mR", before, after, "")
    return table


def attack_remarks(attack: AttackSummary) -> list[str]:
    """Queries, time and notes of an attack, a line for each."""
    lines = []
    if attack.queries_spent is not None:
        lines.append(f"{attack.queries_spent:,.1f} queries on average, {attack.queries_max:,} at most")
    if attack.checks is not None:
        different = f"{attack.checks_differing:,} of {attack.trials:,} attacks"
        lines.append(f"{attack.checks:,} queries asked an image again; the answer differed in {different}")
    if attack.curve:
        lines.append(_curve_text(attack.curve))
    costs = [f"{attack.seconds:.2f} s"]
    if attack.model_seconds:
        costs.append(f"{attack.seconds / attack.model_seconds:.2f} times the bare work")
    if attack.peak_mb is not None:
        costs.append(f"{attack.peak_mb:,.0f} MB")
    examination = () if attack.examination is None else (f"the encoder: {attack.examination.line}",)
    return [*lines, ", ".join(costs), *examination, *(f"note: {note}" for note in attack.notes)]


def _curve_text(curve: tuple[tuple[int, float], ...]) -> str:
    """The best figure after some numbers of queries: 10, 50, 100, 200, 500 and so on, and the last."""
    last = curve[-1][0]
    points = [(queries, best) for queries, best in curve if queries in (10, 50, last) or queries >= 100]
    texts = [f"{number_text(best, 2)} after {queries:,}" for queries, best in points]
    return f"best tau_S by queries: {', '.join(texts)}"
