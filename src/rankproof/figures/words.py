"""Goals and budgets as a page prints them."""


def eps_text(eps: float) -> str:
    """A budget in [0, 1] as n/255."""
    return f"{round(eps * 255, 2):g}/255"


def goal_name(goal: str) -> str:
    """A goal as the papers print it: "qa-" is QA−."""
    if goal == "shift":
        return "Shift"
    return goal.upper()[:-1] + "−" if goal.endswith("-") else goal.upper()
