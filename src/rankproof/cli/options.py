"""Options that several commands share, and the values that groups of them stand for."""

import functools
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from rankproof.cli.terminal import at_least_one, not_below_zero, progress, say
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.goals import Goal, Sum
    from rankproof.methods import BlackBox, Method
    from rankproof.methods.space import Space
    from rankproof.target import Stage, Subject, Target

SYSTEM_PANEL, GOAL_PANEL, BLACK_BOX_PANEL = "Model and data", "Goal", "Black box"
GOALS = "ca+|ca-|qa+|qa-|sp-qa+|sp-qa-|oa|shift|mismatch|misrank|nearest-other|top4"
BLACK_BOX_METHODS = "auto|rand|beta|pso|nes|spsa"
METHODS = f"pgd|strong|{BLACK_BOX_METHODS}"

# -- the retrieval system

Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Images: a folder of idx files, a folder with one sub-folder per class, a zip or folder with "
        "metadata.csv, or the name of one of these below $RANKPROOF_DATA (else ./data). "
        "Default: scikit-learn's scanned digits.",
        show_default=False,
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="A folder written by `rankproof train`, a name that `rankproof zoo` lists, hf:FOLDER-OR-NAME, "
        "timm:NAME, torchvision:NAME, your own FILE.py:FUNCTION, or a program FILE.pt2, .pt, .ts.",
        show_default=False,
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Resize every image to N x N pixels.",
        show_default=False,
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Divide = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How data without splits is divided: by classes, by items of each class, none (all is both "
        "train and test), or auto (classes from 20 on).",
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        metavar="",
        help="Open a model that is a program. Such a file can run code of its author.",
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The attacked service resizes the shorter side to N pixels; images are attacked as loaded.",
        show_default=False,
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The attacked service crops the central N x N pixels.",
        show_default=False,
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Jpeg = Annotated[
    int | None,
    typer.Option(
        metavar="Q",
        help="The attacked service first stores images as JPEG of that quality.",
        show_default=False,
        rich_help_panel=SYSTEM_PANEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda",
        help="Where to compute; auto uses a GPU if there is one.",
        rich_help_panel=SYSTEM_PANEL,
    ),
]

# -- runs

Seed = Annotated[
    int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="Seed of all choices and random numbers.")
]
Trials = Annotated[
    int | None,
    typer.Option(metavar="T", help="How many images of the test split are attacked. Default: 1000."),
]
Eps = Annotated[
    str,
    typer.Option(
        metavar="E",
        help="Perturbation budget: the largest change of a pixel, as 8/255 or 0.03; 0 changes nothing.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar="", help="Only print what would be done and how long it takes."),
]
AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout and nothing else.")
]

# -- attacks

GoalName = Annotated[
    str,
    typer.Option(
        metavar="GOAL",
        help=f"What the attacker wants: {GOALS.replace('|', ', ')}.",
        show_default=False,
        rich_help_panel=GOAL_PANEL,
    ),
]
K = Annotated[
    int | None,
    typer.Option("--k", metavar="N", help="oa: items to reorder. Default: 5.", rich_help_panel=GOAL_PANEL),
]
Order = Annotated[
    str | None,
    typer.Option(
        metavar="3,1,0,2,4",
        help="oa: wanted order by present places from 0. Default: drawn for each query.",
        show_default=False,
        rich_help_panel=GOAL_PANEL,
    ),
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        metavar="auto|full|blocks:32|bilinear:7|cosine:16",
        help="Search every pixel, or fewer variables along each side that are enlarged. "
        "Default: auto, the method's own choice.",
        show_default=False,
        rich_help_panel=BLACK_BOX_PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class SystemOptions:
    """The options that name a retrieval system: its model, its images, and what happens to an image first."""

    model: Model
    data: Data = None
    device: Device = "auto"
    size: Size = None
    divide: Divide = "auto"
    jpeg: Jpeg = None
    resize: Resize = None
    crop: Crop = None
    trust: Trust = False

    def open(self, stage: "Stage" = progress) -> "Subject":
        """Load the model and the test split."""
        from rankproof.target import open_subject, preprocess_of

        return open_subject(
            self.model,
            self.data,
            device=self.device,
            size=self.size,
            divide=self.divide,
            root=data_root(),
            trust=self.trust,
            preprocess=preprocess_of(self.resize, self.crop, self.jpeg),
            stage=stage,
        )

    def embed(self) -> "Target":
        """Load the model and the test split, embed the gallery, and print the line about the data."""
        target = self.open().embedded(progress)
        say(target.dataset.note)
        return target

    @property
    def data_name(self) -> str:
        """The data set as reports name it."""
        from rankproof.data.load import EMBEDDED

        return self.data or EMBEDDED


@dataclass(frozen=True, kw_only=True)
class GoalOptions:
    """The options that name a goal and its parameters."""

    goal: GoalName
    w: Annotated[
        int | None,
        typer.Option("--w", metavar="N", help="ca: queries. Default: 1.", rich_help_panel=GOAL_PANEL),
    ] = None
    m: Annotated[
        int | None,
        typer.Option(
            "--m", metavar="N", help="qa, sp-qa: chosen candidates. Default: 1.", rich_help_panel=GOAL_PANEL
        ),
    ] = None
    k: K = None
    order: Order = None
    g: Annotated[
        int | None,
        typer.Option(
            "--g", metavar="N", help="sp-qa: items to keep in place. Default: 5.", rich_help_panel=GOAL_PANEL
        ),
    ] = None
    xi: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Weight of keeping items in place or in sight. Default: 1 for sp-qa+, 100 for sp-qa-, 10 "
            "for oa.",
            rich_help_panel=GOAL_PANEL,
        ),
    ] = None

    def parse(self) -> "Goal | Sum":
        """The goal; an option that is left out takes its default, one of another goal is an error."""
        for letter in ("w", "m", "k", "g"):
            at_least_one(letter, getattr(self, letter))
        not_below_zero("xi", self.xi)
        given = {letter: getattr(self, letter) for letter in ("w", "m", "k", "g", "xi")}
        return _goal_of(self.goal, {**given, "order": parse_order(self.order)})


def _goal_of(name: str, given: dict[str, Any]) -> "Goal | Sum":
    """The goal of a name, with the parameters that are not None."""
    from rankproof import CandidateLower, CandidateRaise, MaxShift, Preserve, QueryLower, QueryRaise, Reorder
    from rankproof.goals import LeaveTop, Mismatch, Misrank, NearestOther

    known: list[str] = []

    def parameter(letter: str, default: int | float | None) -> Any:
        known.append(letter)
        value = given.pop(letter)
        return default if value is None else value

    goal: Goal | Sum
    match name:
        case "ca+":
            goal = CandidateRaise(w=parameter("w", 1))
        case "ca-":
            goal = CandidateLower(w=parameter("w", 1))
        case "qa+":
            goal = QueryRaise(m=parameter("m", 1))
        case "qa-":
            goal = QueryLower(m=parameter("m", 1))
        case "sp-qa+":
            goal = QueryRaise(m=parameter("m", 1)) + parameter("xi", 1.0) * Preserve(g=parameter("g", 5))
        case "sp-qa-":
            goal = QueryLower(m=parameter("m", 1)) + parameter("xi", 100.0) * Preserve(g=parameter("g", 5))
        case "oa":
            size = 5 if given["order"] is None else len(given["order"])
            goal = Reorder(k=parameter("k", size), xi=parameter("xi", 10.0), order=parameter("order", None))
        case "shift":
            goal = MaxShift()
        case "mismatch":
            goal = Mismatch()
        case "misrank":
            goal = Misrank()
        case "nearest-other":
            goal = NearestOther()
        case "top4":
            goal = LeaveTop()
        case _:
            raise RankproofError(f"--goal {name!r} is unknown; known: {GOALS.replace('|', ', ')}")
    if unknown := [letter for letter, value in given.items() if value is not None]:
        letters = ", ".join(f"--{letter}" for letter in known) or "none"
        raise RankproofError(f"--{unknown[0]} is no parameter of goal {name}; it has: {letters}")
    return goal


def parse_order(text: str | None) -> tuple[int, ...] | None:
    """The places in "3,1,0,2,4"; None stays None."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\s*,\s*[0-9]{1,9})*", text.strip()):
        raise RankproofError(f"--order {text!r} is no order; write places from 0, such as 3,1,0,2,4")
    return tuple(int(place) for place in text.split(","))


def parse_method(name: str, goal: str, steps: int | None = None) -> "Method | BlackBox":
    """The method of a name; one with gradients has the steps of the goal's paper unless `steps` are given."""
    from rankproof.methods import NES, PSO, SPSA, Beta, Rand
    from rankproof.methods.presets import automatic, published, strong

    metric = {"oa": "tau", "shift": "shift"}.get(goal, "rank")
    match name:
        case "pgd":
            return published(metric, steps)
        case "strong":
            return strong(metric, steps)
        case "auto":
            return automatic()
        case "rand":
            return Rand()
        case "beta":
            return Beta()
        case "pso":
            return PSO()
        case "nes":
            return NES()
        case "spsa":
            return SPSA()
        case _:
            raise RankproofError(f"--method {name!r} is unknown; known: {METHODS.replace('|', ', ')}")


def parse_space(text: str | None) -> "Space | None":
    """The search space of a black-box method; None is the method's own choice."""
    from rankproof.methods import space

    return None if text in (None, "auto") else space.parse_space(text)


def parse_visible(text: str | None, k: int) -> int | None:
    """The number of visible results in "50", "k" or "inf", None for all; without a text the default.

    Raises:
        RankproofError: the text is not a number of results, or fewer than k results are visible.
    """
    from rankproof.goals.order import VISIBLE

    if text == "inf":
        return None
    if text not in (None, "k") and not re.fullmatch("[0-9]{1,9}", text):
        raise RankproofError(f"--visible {text!r} is no number of results; write 50, k or inf")
    visible = VISIBLE if text is None else k if text == "k" else int(text)
    if visible < k:
        raise RankproofError(
            f"k = {k} results cannot be ordered where only N = {visible} are visible; try --visible {k}"
        )
    return visible


def data_root() -> Path:
    """The folder that holds data sets."""
    return Path(os.environ.get("RANKPROOF_DATA") or "data")


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer reads it: a parameter that is a group of options becomes these options.

    Args:
        command: its parameters are options, or dataclasses such as `SystemOptions` whose fields are options.
    """
    groups: dict[str, type] = {}
    options: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        group = parameter.annotation
        if not is_dataclass(group):
            options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        assert isinstance(group, type)
        groups[name] = group
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            option = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
            )
            options.append(option)

    @functools.wraps(command)
    def call(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **values)

    vars(call)["__signature__"] = inspect.Signature(options)
    return call
