"""How far to trust an audit: its checks by kind, its flags in few sentences, the number of its attacks."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankproof.attacks.summary import AttackSummary
from rankproof.goals.registry import order_of, spec
from rankproof.report.findings import Control
from rankproof.report.format import NOTHING, PERCENT, number_text
from rankproof.report.page import Flag, ReportPage, grouped

CHECKS = {
    "gradient": ("The gradient leads downhill", "A search by gradients needs one that lowers its loss."),
    "noise": ("Random noise of the same size", "An attack must do more than noise of the same eps."),
    "doubled": ("Twice the steps, and a restart", "A search that has converged gains nothing by more steps."),
    "eps-1": (
        "Every pixel free (eps = 255/255)",
        "Some image of the gallery fulfils the wish, so a search without a limit must get there.",
    ),
    "best-iterate": (
        "The best image is returned",
        "No image on the way may be better than the one returned.",
    ),
    "png": ("Saved as an 8-bit PNG, read again", "What a file keeps of the attack."),
    "jpeg-90": ("Saved as a JPEG of quality 90", "What is left after a service has compressed the image."),
}
"""What each check is called, and what it asks."""
SHARES = ("eps-1", "gradient")  # checks whose figure is the share of attacks that pass
RESULTS = {True: "passed", False: "failed", None: "a figure"}
BRIEF = 3  # flags of one kind that are told one by one; more are one sentence


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """One check over all goals it was made for.

    Args:
        title, question: what it is called and asks.
        controls: one for each goal, in the order of the standard audit.
        result: "passed", "failed" where one failed, or "a figure" where it is to be read.
    """

    title: str
    question: str
    controls: tuple[Control, ...]
    result: str

    @property
    def count(self) -> str:
        """For how many goals it has this result, and on how many attacks in all."""
        same = sum(RESULTS[control.passed] == self.result for control in self.controls)
        goals = "goal" if len(self.controls) == 1 else "goals"
        trials = sum(control.trials for control in self.controls)
        return f"{same} of {len(self.controls)} {goals}, {trials:,} {'attack' if trials == 1 else 'attacks'}"

    @property
    def failed(self) -> tuple[Control, ...]:
        """Those that did not pass."""
        return tuple(control for control in self.controls if control.passed is False)


def checks(controls: Sequence[Control]) -> list[CheckRow]:
    """The controls by what they check: failed ones first, then those that passed, then mere figures."""
    found: dict[str, list[Control]] = {}
    for control in sorted(controls, key=lambda control: order_of(control.goal)):
        found.setdefault(control.name, []).append(control)
    rows = []
    for name, alike in found.items():
        results = {control.passed for control in alike}
        result = False if False in results else True if True in results else None
        title, question = CHECKS.get(name, (name, ""))
        rows.append(CheckRow(title=title, question=question, controls=tuple(alike), result=RESULTS[result]))
    order, names = ("failed", "passed", "a figure"), list(CHECKS)
    titles = [CHECKS[name][0] for name in names]
    place = {title: number for number, title in enumerate(titles)}
    return sorted(rows, key=lambda row: (order.index(row.result), place.get(row.title, len(place))))


def control_text(control: Control, value: float) -> str:
    """A figure of a control in the unit of its goal."""
    if control.name in SHARES:
        return number_text(100 * value, 0) + PERCENT
    return goal_figure(control.goal, value)


def goal_figure(goal: str, value: float) -> str:
    """A mean headline figure of a goal with its unit."""
    rank = spec(goal).metric == "rank"
    text = number_text(value, 1 if rank else 2)
    return text + PERCENT if rank and text != NOTHING else text


def saved_as(page: ReportPage, attack: AttackSummary) -> list[tuple[str, Control]]:
    """What is left of an attack of the white box in files: the name of the format with its figure."""
    if attack.black_box:
        return []
    names = {"png": "saved as PNG", "jpeg-90": "saved as JPEG 90"}
    return [
        (title, control)
        for name, title in names.items()
        for control in page.controls
        if (control.name, control.goal) == (name, attack.goal)
    ]


@dataclass(frozen=True, kw_only=True)
class FlagGroup:
    """Flags of one kind: told one by one, or as one sentence with what they have in common.

    Args:
        kind: short name of the check.
        flags: each with the attacks that it says the same of.
        cells: the attacks they concern.
    """

    kind: str
    flags: tuple[Flag, ...]
    cells: tuple[str, ...]

    @property
    def brief(self) -> bool:
        """Whether they are many that say nearly the same."""
        return len(self.cells) > BRIEF


def flag_groups(flags: Sequence[Flag]) -> list[FlagGroup]:
    """Flags by kind, those of the whole audit first; of intervals that are wide last."""
    kinds: dict[str, list[Flag]] = {}
    for flag in grouped(flags):
        kinds.setdefault(flag.kind, []).append(flag)
    groups = []
    for kind, alike in kinds.items():
        cells = tuple(dict.fromkeys(flag.cell for flag in flags if flag.kind == kind and flag.cell))
        groups.append(FlagGroup(kind=kind, flags=tuple(alike), cells=cells))
    return sorted(groups, key=lambda group: group.kind == "wide-interval")


def attack_counts(page: ReportPage) -> list[tuple[str, str]]:
    """How many attacks stand behind which figures: ("25 attacks", "behind each smallest budget")."""
    white = [attack.trials for attack in page.cells if not attack.black_box]
    black = [attack.trials for attack in page.cells if attack.black_box]
    counts = (
        ([each.trials for each in page.smallest], "behind each smallest budget"),
        (white, "behind each figure at the audited eps"),
        (black, "behind each figure of the black box"),
    )
    return [(_range(numbers), what) for numbers, what in counts if numbers]


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    count = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f"{count} {'attack' if most == 1 else 'attacks'}"
