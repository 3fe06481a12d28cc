"""What the words of a command line mean: a recipe, with everything left out filled in."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from rankproof.data.dataset import Dataset
from rankproof.errors import RankproofError
from rankproof.models import new_encoder
from rankproof.models.architectures import ARCHITECTURES
from rankproof.threat import parse_eps
from rankproof.training.augment import Augment
from rankproof.training.defenses import (
    Defense,
    EmbeddingShift,
    MinMax,
    SingleStep,
    Suppress,
    Undefended,
    WholeBatch,
)
from rankproof.training.inner import SMALL_PICTURE, Inner, later_inner, published_inner
from rankproof.training.later_defenses import AntiCollapse, Hardness
from rankproof.training.losses import PML, Contrastive, Loss, MetricLearningLoss, Triplet
from rankproof.training.recipe import EPOCHS, PUBLISHED_BATCH, PUBLISHED_MARGIN, Decay, Recipe, is_published
from rankproof.training.samplers import Balanced, FromSet, InBatch, Sampler

LATER = ("act", "hm")
SUPERVISED, TEMPERATURE = f"{PML}SupConLoss", "temperature=0.3"  # what whole-batch lowers, if not told else
FAST_EPOCHS, FAST_BATCH, FAST_STEPS, FAST_WARM_UP = 12, 200, 3, 3.0
LARGE_BATCH = 128  # pictures above 32 pixels a side fill the memory sooner
REACH = 2.0  # the inner steps of a fast schedule together, in units of eps


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `rankproof train` that decide how, as they were given; None where left out."""

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
    """The recipe that options mean for a data set.

    Raises:
        RankproofError: a word is unknown, or two of them do not go together.
    """
    distance = options.distance or ("sphere" if options.defense in LATER else "cosine")
    if distance not in PUBLISHED_BATCH:
        raise RankproofError(f"--distance must be {', '.join(PUBLISHED_BATCH)}, got {distance!r}")
    side = int(max(data.pictures.shape[-2:]))
    usual = PUBLISHED_BATCH[distance] if side <= SMALL_PICTURE else LARGE_BATCH
    batch = options.batch or (min(FAST_BATCH, usual) if options.fast else usual)
    fast_defense = options.fast and options.defense != "none"
    recipe = Recipe(
        loss=_loss(options, distance, data, arch, device),
        sampler=_sampler(options, batch, data),
        distance=distance,
        defense=_defense(options, int(data.pictures.shape[-1])),
        augment=_augment(options, data),
        epochs=options.epochs or (FAST_EPOCHS if options.fast else EPOCHS),
        learning_rate=options.learning_rate,
        decay=_word("decay", options.decay or ("cosine" if options.fast else "constant"), get_args(Decay)),
        warm_up=options.warm_up if options.warm_up is not None else (FAST_WARM_UP if fast_defense else 0.0),
        precision=_word("precision", options.precision, ("single", "bf16")),
        seed=options.seed,
        schedule="fast" if options.fast else "own",
    )
    same = is_published(recipe, int(data.pictures.shape[-1]))
    return replace(recipe, schedule="published") if same else recipe


def _augment(options: Options, data: Dataset) -> Augment:
    least = int(min(data.pictures.shape[-2:]))
    if not 0 <= options.shift < least:
        raise RankproofError(f"--shift must be 0 to {least - 1} for these pictures, got {options.shift}")
    return Augment(pad=options.shift, flip=options.flip)


def _loss(options: Options, distance: str, data: Dataset, arch: str, device: str) -> Loss:
    margin = PUBLISHED_MARGIN[distance] if options.margin is None else options.margin
    loss, loss_options = _loss_words(options)
    if loss.startswith(PML):
        if options.margin is not None:
            raise RankproofError(f"--margin: {loss} has options of its own, give them with --loss-option")
        if options.miner is None and options.miner_options:
            raise RankproofError("--miner-option: choose a miner first, with --miner pml:NAME")
        return MetricLearningLoss(
            loss.removeprefix(PML),
            _pairs("loss-option", loss_options),
            miner=None if options.miner is None else options.miner.removeprefix(PML),
            miner_options=_pairs("miner-option", options.miner_options),
            classes=len(data.classes),
            dimensions=_dimensions(arch, data),
            distance=distance,
            seed=options.seed,
            device=device,
        )
    for name, given in (
        ("loss-option", loss_options),
        ("miner", options.miner),
        ("miner-option", options.miner_options),
    ):
        if given:
            raise RankproofError(f"--{name} is for losses of pytorch-metric-learning (--loss pml:NAME)")
    match loss:
        case "triplet":
            return Triplet(margin=margin)
        case "contrastive":
            return Contrastive(margin=margin)
        case other:
            raise RankproofError(f"loss {other!r} is unknown; known: triplet, contrastive, pml:NAME")


def _loss_words(options: Options) -> tuple[str, Sequence[str]]:
    """The loss and its options as they were given, or as they suit the defence."""
    if options.loss is not None:
        return options.loss, options.loss_options
    if options.defense == "whole-batch":
        return SUPERVISED, [TEMPERATURE, *options.loss_options]
    return "triplet", options.loss_options


def _sampler(options: Options, batch: int, data: Dataset) -> Sampler:
    balanced = _loss_words(options)[0].startswith(PML) or options.defense in LATER
    word = options.sampler or ("balanced" if balanced else "in-batch")
    if options.per_class is not None and options.per_class < 2:
        raise RankproofError(f"--per-class must be at least 2, got {options.per_class}")
    if options.per_class is not None and word != "balanced":
        raise RankproofError(f"--per-class is of the balanced sampler, not of {word}")
    match word:
        case "in-batch":
            return InBatch(batch=batch)
        case "from-set":
            return FromSet(batch=batch)
        case "from-any":
            return FromSet(batch=batch, negatives="any")
        case "balanced":
            # Two of each class, more where there are too few classes to fill a batch.
            present = int(data.labels.bincount().count_nonzero())
            each = options.per_class or max(2, 2 * -(-batch // (2 * present)))
            return Balanced(batch=batch - batch % each, per_class=each)
        case other:
            raise RankproofError(
                f"sampler {other!r} is unknown; known: in-batch, from-set, from-any, balanced"
            )


def _defense(options: Options, size: int) -> Defense:
    if options.defense == "none":
        for name, given in (
            ("eps", options.eps),
            ("inner-steps", options.inner_steps),
            ("warm-up", options.warm_up),
        ):
            if given is not None:
                raise RankproofError(f"--{name} is of a defense; choose one with --defense")
        return Undefended()
    inner = _inner(options, size)
    match options.defense:
        case "est":
            return EmbeddingShift(inner=inner)
        case "suppress":
            return Suppress(inner=inner)
        case "madry":
            return MinMax(inner=inner)
        case "single-step":
            if options.inner_steps is not None:
                raise RankproofError("--inner-steps: single-step has one step, by its name")
            return SingleStep(eps=inner.eps)
        case "whole-batch":
            return WholeBatch(inner=inner)
        case "act":
            return AntiCollapse(inner=inner)
        case "hm":
            return Hardness(inner=inner)
        case other:
            raise RankproofError(
                f"defense {other!r} is unknown; known: none, est, suppress, madry, single-step, act, hm, "
                "whole-batch"
            )


def _inner(options: Options, size: int) -> Inner:
    """The defence's attack: as published, or with fewer and longer steps."""
    usual = later_inner(size) if options.defense in LATER else published_inner(size)
    eps = usual.eps if options.eps is None else parse_eps(options.eps)
    steps = options.inner_steps or (FAST_STEPS if options.fast else usual.steps)
    if (eps, steps) == (usual.eps, usual.steps):
        return usual
    if options.fast:
        return Inner(eps=eps, steps=steps, step=min(eps, REACH * eps / steps), start=eps)
    # The published steps go the same multiple of eps together.
    reach = usual.step * usual.steps / usual.eps
    return Inner(eps=eps, steps=steps, step=min(eps, reach * eps / steps))


def _dimensions(arch: str, data: Dataset) -> int:
    """How long the embeddings of an architecture are."""
    import torch

    architecture = ARCHITECTURES.get(arch)
    if architecture is not None and not architecture.takes(tuple(data.pictures.shape[1:])):
        return 1  # the run says what is wrong with the pictures
    with torch.inference_mode():
        z = new_encoder(arch).eval()(torch.zeros(1, *data.pictures.shape[1:]))
    return int(z.shape[1])


def _pairs(option: str, given: Sequence[str]) -> dict[str, Any]:
    """The values in NAME=VALUE, numbers and words of Python as such, all else as text."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise RankproofError(f"--{option} {pair}: expected NAME=VALUE, such as alpha=2")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _word(option: str, word: str, known: Sequence[str]) -> Any:
    if word not in known:
        raise RankproofError(f"--{option} must be {' or '.join(known)}, got {word!r}")
    return cast(Any, word)
