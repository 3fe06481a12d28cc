"""The smallest budgets of an audit as a table for a terminal."""

from rich.table import Table

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.report.format import NOTHING, PERCENT, number_text
from rankproof.report.page import ReportPage
from rankproof.threat import LEVELS, format_eps

SHARES_AT = (0.5 / LEVELS, 1 / LEVELS, 2 / LEVELS, 4 / LEVELS, 8 / LEVELS)


def budgets_table(page: ReportPage) -> Table:
    """One line for each goal: its median budget with the interval, and who succeeds within some budgets."""
    title = "smallest change of a pixel at which a wish comes true, in 1/255"
    table = Table(title=title, title_justify="left")
    table.add_column("goal", no_wrap=True)
    for name in ("median", "95 % interval", *(f"at {format_eps(eps)}" for eps in SHARES_AT)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what has come true", ratio=1)
    for each in page.smallest:
        shares = (_share(each.success(eps)) for eps in SHARES_AT)
        trials = f" ({each.trials} attacks{f', {each.free} free' if each.free else ''})"
        table.add_row(
            each.spec.title, _levels(each.eps_star, each), _ends(each), *shares, each.sentence + trials
        )
    return table


def _levels(eps: float | None, of: BudgetSummary) -> str:
    """A budget in grey levels."""
    if eps is None:
        return NOTHING if of.trials == of.free else "not reached"
    return number_text(eps * LEVELS, 2)


def _ends(of: BudgetSummary) -> str:
    low, high = of.eps_star_ci95
    if low is None and high is None:
        return NOTHING
    low_text = NOTHING if low is None else number_text(low * LEVELS, 2)
    return f"{low_text} to {'∞' if high is None else number_text(high * LEVELS, 2)}"


def _share(share: float | None) -> str:
    return NOTHING if share is None else number_text(100 * share, 0) + PERCENT
