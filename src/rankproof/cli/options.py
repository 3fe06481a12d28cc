"""Options that several commands share, and the values that groups of them stand for."""

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from rankproof.cli.terminal import at_least_one, not_below_zero, progress, say, writable
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.data.image_list import Keep
    from rankproof.goals.base import Goal
    from rankproof.methods.black_box.subspace import Subspace
    from rankproof.methods.registry import Kind
    from rankproof.system import LoadedTask, RetrievalSystem, Stage

MAX_BUDGET = 1_000_000

# What help pages write in place of these; see `RegistryCommand`.
GOALS, GOAL_LIST, WHITE_BOX, BLACK_BOX = (
    "{goals}",
    "{goal list}",
    "{white-box methods}",
    "{black-box methods}",
)

# -- the retrieval system


def parse_size(text: str) -> "int | Keep":
    """The side in pixels that `--size` names, or "keep"."""
    if text == "keep":
        return "keep"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no side in pixels; write a whole number, or keep") from None


IMAGES = (
    "Images: a folder of idx files, a folder with one sub-folder per class, a folder of images without "
    "classes, a zip or folder with metadata.csv, or the name of one of these below $RANKPROOF_DATA (else "
    "./data). "
)
Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help=f"{IMAGES}Two sets are embedded: groceries, 648 photos, the default, and digits, scikit-learn's "
        "scanned digits, the default for an encoder of grey images.",
        show_default=False,
    ),
]
TrainingData = Annotated[
    str, typer.Option(metavar="PATH", help=f"{IMAGES}Embedded: digits, scikit-learn's scanned digits.")
]
Queries = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Images that are searched for in the data and are no part of it: a folder with or without "
        "classes, a zip, or one image file. Classes are those of the data by name. Default: images of "
        "the data, each among all others.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="efficientnet-lite0, -lite1 or -lite2 (trained on ImageNet, from the extra photos), a folder "
        "written by `rankproof train`, a name that `rankproof zoo` lists, hf:FOLDER-OR-NAME, timm:NAME, "
        "torchvision:NAME, your own FILE.py:FUNCTION, a network FILE.onnx, or a program FILE.pt2, .pt, .ts.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Resize every image to N x N pixels. Default: the input size of the "
        "model if it is known, else their own size, or 128 if they differ.",
        show_default=False,
    ),
]
SizeOrKeep = Annotated[
    Any,
    typer.Option(
        metavar="N|keep",
        parser=parse_size,
        help="Resize every image to N x N pixels. Default: the input size of the model if it is known, else "
        "their own size, or 128 if they differ. With keep each image is attacked at its own resolution, and "
        "the resizing to the model's input is part of what is attacked.",
        show_default=False,
    ),
]
SplitBy = Annotated[
    str,
    typer.Option(
        "--divide",
        metavar="HOW",
        help="How data without splits is split into train and test: by classes, by items of each class, none "
        "(every image is in both), or auto (by classes if there are at least 20, else by items).",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        metavar="",
        help="Open a model that is a program (.pt2, .pt, .ts). Such a file can execute code of its author.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The tensor of an ONNX file that is the embedding. Default: its only output, or the only "
        "one that is (batch, dimensions).",
        show_default=False,
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The attacked service resizes the shorter side to N pixels; images are attacked in their own "
        "size.",
        show_default=False,
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The attacked service takes the central N x N pixels, after --resize.",
        show_default=False,
    ),
]
Jpeg = Annotated[
    int | None,
    typer.Option(
        metavar="Q",
        help="The attacked service first compresses images as JPEG of quality Q.",
        show_default=False,
    ),
]
Draws = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Embed an image by the mean of N passes, for a random encoder. Default: 8 if the encoder is "
        "found to be random, else 1.",
        show_default=False,
    ),
]
EmbedBatch = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of images that pass the encoder together; with 1 an embedding cannot depend on other "
        "images. Default: as many as suit their size.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda",
        help="Where to compute; auto uses a GPU if there is one.",
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        metavar="",
        help="Embed the gallery again, and keep nothing on disk; see `rankproof cache`.",
    ),
]

Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights for the network that --model names, such as resnet18, resnet50, mobilenet_v2 or "
        "efficientnet-lite0: a state dict with torchvision's or timm's names (.pth, .safetensors).",
        show_default=False,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="0.485,0.456,0.406",
        help="Subtracted from pixels in [0, 1]: one number for each channel as the encoder takes them, or "
        "one for all; 104/255 is a number, too. Default: what belongs to the model.",
        show_default=False,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="0.229,0.224,0.225",
        help="What is left is divided by this; as --mean.",
        show_default=False,
    ),
]
Bgr = Annotated[
    bool,
    typer.Option("--bgr", metavar="", help="The encoder takes colours in the order blue, green, red."),
]

# -- runs

Seed = Annotated[int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="Seed of all random choices.")]
Trials = Annotated[
    int | None,
    typer.Option(metavar="T", help="Number of images of the test split that are attacked. Default: 1000."),
]
Eps = Annotated[
    str,
    typer.Option(
        metavar="E",
        help="Perturbation budget: the largest change of a pixel, as 8/255 or 0.03; 0 changes nothing. "
        "With `attack`, `smallest` finds the smallest one of each attack.",
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
        help=f"What the attacker wants: {GOALS}.",
        show_default=False,
    ),
]
K = Annotated[
    int | None,
    typer.Option("--k", metavar="N", help="oa: number of results to reorder. Default: 5."),
]
WantedOrder = Annotated[
    str | None,
    typer.Option(
        metavar="3,1,0,2,4",
        help="oa: wanted order, by present places counted from 0. Default: drawn at random for each query.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class SystemArguments:
    """The options that name a retrieval system: its model, its images, and their preprocessing."""

    PANEL: ClassVar = "Model and data"

    model: Model = "efficientnet-lite0"
    data: Data = None
    device: Device = "auto"
    size: SizeOrKeep = None
    split_by: SplitBy = "auto"
    jpeg: Jpeg = None
    resize: Resize = None
    crop: Crop = None
    trust: Trust = False
    output: Output = None
    draws: Draws = None
    embed_batch: EmbedBatch = None
    weights: Weights = None
    mean: Mean = None
    std: Std = None
    bgr: Bgr = False
    no_cache: NoCache = False

    def open(self, stage: "Stage" = progress) -> "LoadedTask":
        """Load the model and the test split."""
        from rankproof.cache import GalleryCache
        from rankproof.models.statistics import parse_statistic
        from rankproof.system import SystemOptions, load_task, preprocess_of

        at_least_one("draws", self.draws)
        at_least_one("embed-batch", self.embed_batch)
        options = SystemOptions(
            device=self.device,
            size=self.size,
            split_by=self.split_by,
            root=data_root(),
            trust=self.trust,
            output=self.output,
            preprocess=preprocess_of(self.resize, self.crop, self.jpeg),
            draws=self.draws,
            embed_batch=self.embed_batch,
            weights=self.weights,
            mean=parse_statistic("mean", self.mean),
            std=parse_statistic("std", self.std),
            bgr=self.bgr,
            cache=None if self.no_cache else GalleryCache(log=say),
            queries=self.searched,
        )
        return load_task(self.model, self.data, options, stage=stage)

    def embed(self, *, labelled: bool = False, one_size: bool = False) -> "RetrievalSystem":
        """Load the model and the test split, embed the gallery, and print the line about the data.

        Args:
            labelled: whether images must have classes, and queries are not attacked; checked before anything
                is embedded.
            one_size: whether the attacked images must have one size; so is this.
        """
        from rankproof.system import without_attacks

        task = self.open()
        if labelled:
            task.dataset.require_labels()
            task = without_attacks(task)
        if one_size:
            (task.dataset.queries or task.dataset).one_size()
        say(task.dataset.note)
        return task.embedded(progress)

    @property
    def searched(self) -> str | None:
        """The images that are searched for, where they are given."""
        return None


@dataclass(frozen=True, kw_only=True)
class SearchedArguments(SystemArguments):
    """The same with the images that are searched for."""

    queries: Queries = None

    @property
    def searched(self) -> str | None:
        """The images that are searched for, where they are given."""
        return self.queries


@dataclass(frozen=True, kw_only=True)
class GoalArguments:
    """The options that name a goal and its parameters."""

    PANEL: ClassVar = "Goal"

    goal: GoalName
    w: Annotated[
        int | None,
        typer.Option("--w", metavar="N", help="ca: number of queries. Default: 1."),
    ] = None
    m: Annotated[
        int | None,
        typer.Option("--m", metavar="N", help="qa, sp-qa: number of chosen candidates. Default: 1."),
    ] = None
    k: K = None
    order: WantedOrder = None
    g: Annotated[
        int | None,
        typer.Option("--g", metavar="N", help="sp-qa: number of results to keep in place. Default: 5."),
    ] = None
    xi: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="sp-qa, oa: weight of keeping results in place (sp-qa) or near the top (oa). Default: 1 for "
            "sp-qa+, 100 for sp-qa-, 10 for oa.",
        ),
    ] = None

    def parse(self) -> "Goal":
        """The goal. An option that is left out has its default; one of another goal is an error."""
        from rankproof.goals import registry
        from rankproof.goals.base import LETTERS

        *counts, weight = LETTERS
        for letter in counts:
            at_least_one(letter, getattr(self, letter))
        not_below_zero(weight, self.xi)
        values = {letter: getattr(self, letter) for letter in LETTERS}
        values["order"] = parse_order(self.order)
        chosen = {letter: value for letter, value in values.items() if value is not None}
        if self.goal not in (names := registry.names()):  # a distance-based form has a spec, but is no option
            raise RankproofError(f"--goal {self.goal!r} is unknown; known: {', '.join(names)}")
        allowed = registry.spec(self.goal).parameters
        if unknown := [letter for letter in chosen if letter not in allowed]:
            letters = ", ".join(f"--{letter}" for letter in allowed) or "none"
            raise RankproofError(f"--{unknown[0]} is no parameter of goal {self.goal}; it has: {letters}")
        return registry.parse(self.goal, **chosen)


@dataclass(frozen=True, kw_only=True)
class BlackBoxArguments:
    """The options of a black-box search."""

    PANEL: ClassVar = "Black box"

    visible: Annotated[
        str | None,
        typer.Option(
            metavar="N|k|inf",
            help="Number of results that the attacker sees; k is as many as are reordered, inf is all. "
            "Default: 50 of a model; of a service as many as it shows.",
            show_default=False,
        ),
    ] = None
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="Q",
            help="Query budget: the largest number of queries in each attack, the clean image included. "
            "Default: 1000; 100 on a service.",
            show_default=False,
        ),
    ] = None
    space: Annotated[
        str | None,
        typer.Option(
            metavar="auto|full|blocks:32|bilinear:7|cosine:16",
            help="Subspace that is searched: every pixel (full), or so many latents along each side that are "
            "enlarged to the image. Default: auto, the method's own choice.",
            show_default=False,
        ),
    ] = None
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Save the state of the search here; after Ctrl-C the same command resumes it. Default: "
            "not saved; a folder below runs/wire for a service.",
            show_default=False,
        ),
    ] = None

    def check(self) -> None:
        """Raise if the budget is out of range or the journal cannot be written."""
        at_least_one("budget", self.budget)
        if self.budget is not None and self.budget > MAX_BUDGET:
            raise RankproofError(f"--budget must be at most {MAX_BUDGET:,}, since every score is stored")
        writable(self.journal)

    @property
    def subspace(self) -> "Subspace | None":
        """Where to search; None is the method's own choice."""
        from rankproof.methods.black_box.subspace import parse_subspace

        try:
            return None if self.space is None or self.space == "auto" else parse_subspace(self.space)
        except RankproofError as error:  # names the parameter of Python
            raise RankproofError(str(error).replace("subspace", "--space", 1)) from None


@contextmanager
def about_option() -> Iterator[None]:
    """Name the option in an error of a registry: "goal 'x' is unknown" is about --goal."""
    try:
        yield
    except RankproofError as error:
        raise RankproofError(f"--{error}") from None


def parse_order(text: str | None) -> tuple[int, ...] | None:
    """The places in "3,1,0,2,4"; None stays None."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\s*,\s*[0-9]{1,9})*", text.strip()):
        raise RankproofError(f"--order {text!r} is no order; write places from 0, such as 3,1,0,2,4")
    return tuple(int(place) for place in text.split(","))


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
        command: its parameters are options, or dataclasses of options such as `SystemArguments`.
    """
    parameters = inspect.signature(command).parameters
    groups: dict[str, Any] = {
        name: each.annotation for name, each in parameters.items() if is_dataclass(each.annotation)
    }
    options: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        options += _options_of(groups[name]) if name in groups else [parameter]
    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]

    @functools.wraps(command)
    def call(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **values)

    vars(call)["__signature__"] = inspect.Signature(options)
    return call


def _options_of(group: Any) -> Iterator[inspect.Parameter]:
    """The fields of a group as parameters, shown in a panel of their own on the help page."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        kind, option = get_args(hints[field.name])
        option = copy(option)
        option.rich_help_panel = group.PANEL
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


class RegistryCommand(TyperCommand):
    """A command whose help page lists the goals and methods that are registered."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page; only this needs the registries, which import torch."""
        from rankproof.goals import registry as goals

        names = goals.names()
        texts = {
            GOALS: ", ".join(names),
            GOAL_LIST: "\n".join(f"- **{name}**: {goals.spec(name).describe({})}" for name in names),
            WHITE_BOX: _method_list("white-box"),
            BLACK_BOX: _method_list("black-box"),
        }
        parts: tuple[Any, ...] = (self, *self.params)
        for part in parts:
            for placeholder, text in texts.items():
                part.help = part.help and part.help.replace(placeholder, text)
        super().format_help(ctx, formatter)


def _method_list(kind: "Kind") -> str:
    """The methods of a kind, those of papers last."""
    from rankproof.methods import registry

    names = registry.names(kind)
    published = [name for name in names if registry.spec(name).published]
    others = [name for name in names if name not in published]
    return f"{', '.join(others)}; as published {', '.join(published)}"
