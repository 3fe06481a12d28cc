"""The options of `rankproof train`, and the recipe they stand for."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import torch

from rankproof.data.dataset import Dataset
from rankproof.errors import RankproofError
from rankproof.models import new_encoder
from rankproof.models.architectures import ARCHITECTURES
from rankproof.threat import parse_eps
from rankproof.training.act import AntiCollapse
from rankproof.training.defenses import (
    Defense,
    EmbeddingShift,
    MinMax,
    SingleStep,
    Suppress,
    Undefended,
    WholeBatch,
)
from rankproof.training.hm import Hardness
from rankproof.training.inner_attack import (
    SMALL_IMAGE,
    InnerAttack,
    act_hm_inner_attack,
    eccv_inner_attack,
)
from rankproof.training.losses import PML, Contrastive, Loss, MetricLearningLoss, Triplet
from rankproof.training.recipe import (
    EPOCHS,
    PUBLISHED_BATCH,
    PUBLISHED_MARGIN,
    Augment,
    Decay,
    Recipe,
    is_published,
)
from rankproof.training.samplers import Balanced, FromSet, InBatch, Sampler

MINED = ("act", "hm")  # the defences that mine their triplets from balanced batches
WHOLE_BATCH_LOSS, WHOLE_BATCH_OPTION = f"{PML}SupConLoss", "temperature=0.3"
FAST_EPOCHS, FAST_BATCH, FAST_STEPS, FAST_WARM_UP = 12, 200, 3, 3.0
LARGE_IMAGE_BATCH = 128  # for images above 32 pixels a side, which need more memory
FAST_PATH = 2.0  # total length of the inner steps of a fast schedule, in units of eps
DEFENSES: dict[str, Callable[..., Defense]] = {
    "est": EmbeddingShift,
    "suppress": Suppress,
    "madry": MinMax,
    "whole-batch": WholeBatch,
    "act": AntiCollapse,
    "hm": Hardness,
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `rankproof train` that make up a recipe, as they were given; None where left out."""

    distance: str | None = None
    loss: str | None = None
    loss_options: Sequence[str] = ()
    miner: str | None = None
    miner_options: Sequence[str] = ()
    sampler: str | None = None
    per_class: int | None = None
    defense: str = "none"
    eps: str | None = None
    inner_steps: int | None = None
    warm_up: float | None = None
    fast: bool = False
    epochs: int | None = None
    batch: int | None = None
    margin: float | None = None
    learning_rate: float = 1e-3
    decay: str | None = None
    shift: int = 0
    flip: bool = False
    precision: str = "single"
    seed: int = 0


def recipe_of(options: Options, data: Dataset, arch: str, device: str = "cpu") -> Recipe:
    """The recipe that options stand for, given the training split.

    Args:
        options: where one is left out, its value is as published, or suits the others.
        data: the training split; batch size and eps depend on the size of its images.
        arch: name of the architecture.
        device: where the parameters of the loss are put.
    Raises:
        RankproofError: an option has an unknown value, or two of them exclude each other.
    """
    distance = options.distance or ("sphere" if options.defense in MINED else "cosine")
    if distance not in PUBLISHED_BATCH:
        raise RankproofError(f"--distance must be {', '.join(PUBLISHED_BATCH)}, got {distance!r}")
    height, width = (int(side) for side in data.images.shape[-2:])
    usual = PUBLISHED_BATCH[distance] if max(height, width) <= SMALL_IMAGE else LARGE_IMAGE_BATCH
    batch = options.batch or (min(FAST_BATCH, usual) if options.fast else usual)
    if not 0 <= options.shift < min(height, width):
        raise RankproofError(
            f"--shift must be 0 to {min(height, width) - 1} for these images, got {options.shift}"
        )
    warm_up = FAST_WARM_UP if options.fast and options.defense != "none" else 0.0
    recipe = Recipe(
        loss=_loss(options, distance, data, arch, device),
        sampler=_sampler(options, batch, data),
        distance=distance,
        defense=_defense(options, width),
        augment=Augment(pad=options.shift, flip=options.flip),
        epochs=options.epochs or (FAST_EPOCHS if options.fast else EPOCHS),
        learning_rate=options.learning_rate,
        decay=_checked("decay", options.decay or ("cosine" if options.fast else "constant"), get_args(Decay)),
        warm_up=warm_up if options.warm_up is None else options.warm_up,
        precision=_checked("precision", options.precision, ("single", "bf16")),
        seed=options.seed,
        schedule="fast" if options.fast else "own",
    )
    return replace(recipe, schedule="published") if is_published(recipe, width) else recipe


def _loss(options: Options, distance: str, data: Dataset, arch: str, device: str) -> Loss:
    margin = PUBLISHED_MARGIN[distance] if options.margin is None else options.margin
    loss, loss_options = _loss_and_options(options)
    if loss.startswith(PML):
        if options.margin is not None:
            raise RankproofError(f"--margin: {loss} has options of its own, set them with --loss-option")
        if options.miner is None and options.miner_options:
            raise RankproofError("--miner-option: choose a miner first, with --miner pml:NAME")
        return MetricLearningLoss(
            loss.removeprefix(PML),
            _parsed("loss-option", loss_options),
            miner=None if options.miner is None else options.miner.removeprefix(PML),
            miner_options=_parsed("miner-option", options.miner_options),
            classes=len(data.classes),
            dimensions=_dimensions(arch, data),
            distance=distance,
            seed=options.seed,
        ).to(device)
    _refuse(
        "is for losses of pytorch-metric-learning (--loss pml:NAME)",
        {"loss-option": loss_options, "miner": options.miner, "miner-option": options.miner_options},
    )
    match loss:
        case "triplet":
            return Triplet(margin=margin)
        case "contrastive":
            return Contrastive(margin=margin)
    raise RankproofError(f"loss {loss!r} is unknown; choose triplet, contrastive or pml:NAME")


def _loss_and_options(options: Options) -> tuple[str, Sequence[str]]:
    """Loss and loss options as given, or the defaults of the defence."""
    if options.loss is not None:
        return options.loss, options.loss_options
    if options.defense == "whole-batch":
        return WHOLE_BATCH_LOSS, [WHOLE_BATCH_OPTION, *options.loss_options]
    return "triplet", options.loss_options


def _sampler(options: Options, batch: int, data: Dataset) -> Sampler:
    balanced = _loss_and_options(options)[0].startswith(PML) or options.defense in MINED
    name = options.sampler or ("balanced" if balanced else "in-batch")
    if options.per_class is not None and options.per_class < 2:
        raise RankproofError(f"--per-class must be at least 2, got {options.per_class}")
    if options.per_class is not None and name != "balanced":
        raise RankproofError(f"--per-class is of the balanced sampler, not of {name}")
    match name:
        case "in-batch":
            return InBatch(batch=batch)
        case "from-set":
            return FromSet(batch=batch)
        case "from-any":
            return FromSet(batch=batch, negatives="any")
        case "balanced":
            # Two of each class, and more where there are too few classes to fill a batch.
            present = int(data.require_labels().bincount().count_nonzero())
            per_class = options.per_class or max(2, 2 * -(-batch // (2 * present)))
            return Balanced(batch=batch - batch % per_class, per_class=per_class)
    raise RankproofError(f"sampler {name!r} is unknown; choose in-batch, from-set, from-any or balanced")


def _defense(options: Options, size: int) -> Defense:
    if options.defense == "none":
        _refuse(
            "is of a defense; choose one with --defense",
            {"eps": options.eps, "inner-steps": options.inner_steps, "warm-up": options.warm_up},
        )
        return Undefended()
    inner = _inner_attack(options, size)
    if options.defense == "single-step":
        if options.inner_steps is not None:
            raise RankproofError("--inner-steps: single-step always has one step")
        return SingleStep(eps=inner.eps)
    if options.defense not in DEFENSES:
        names = ", ".join(("none", *DEFENSES, "single-step"))
        raise RankproofError(f"defense {options.defense!r} is unknown; choose one of {names}")
    return DEFENSES[options.defense](inner=inner)


def _inner_attack(options: Options, size: int) -> InnerAttack:
    """The attack of the defence: as published, or with fewer and longer steps."""
    paper = act_hm_inner_attack(size) if options.defense in MINED else eccv_inner_attack(size)
    eps = paper.eps if options.eps is None else parse_eps(options.eps)
    steps = options.inner_steps or (FAST_STEPS if options.fast else paper.steps)
    if (eps, steps) == (paper.eps, paper.steps):
        return paper
    if options.fast:
        return InnerAttack(eps=eps, steps=steps, step=min(eps, FAST_PATH * eps / steps), start=eps)
    # As published, all steps together are the same multiple of eps.
    path = paper.step * paper.steps / paper.eps
    return InnerAttack(eps=eps, steps=steps, step=min(eps, path * eps / steps))


def _dimensions(arch: str, data: Dataset) -> int:
    """Number of dimensions of an architecture's embeddings."""
    architecture = ARCHITECTURES.get(arch)
    if architecture is not None and not architecture.takes(tuple(data.images.shape[1:])):
        return 1  # the training run reports that the images do not fit
    with torch.inference_mode():
        z = new_encoder(arch).eval()(torch.zeros(1, *data.images.shape[1:]))  # (1, d)
    return int(z.shape[1])


def _parsed(option: str, pairs: Sequence[str]) -> dict[str, object]:
    """The values of NAME=VALUE options: Python literals as such, anything else as text."""
    values: dict[str, object] = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise RankproofError(f"--{option} {text}: expected NAME=VALUE, such as alpha=2")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    return values


def _refuse(reason: str, options: dict[str, object]) -> None:
    """Raise where one of the options was given."""
    for name, value in options.items():
        if value is not None and value != [] and value != ():
            raise RankproofError(f"--{name} {reason}")


def _checked(option: str, value: str, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise RankproofError(f"--{option} must be {' or '.join(choices)}, got {value!r}")
    return cast(Any, value)
