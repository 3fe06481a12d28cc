"""The examination of an encoder: is it a function of its image, and what does it do beside embedding?

A ranking is a figure about images only if an image has one embedding. Dropout that was left on gives it many,
batch statistics make it depend on its neighbours; both go unnoticed in every figure, so encoders are tried on
a few images before they are used.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.ranking.encoder_rng import EncoderRng
from rankproof.types import ProgressCallback

Kind = Literal["function", "random", "batch"]
Gradient = Literal["reaches", "zero", "none"]

IMAGES = 8  # of the gallery that an encoder is examined on
ALONE = 2  # of them embedded alone
SHARE = 1e-3  # of the median distance: a smaller difference is rounding
ROUNDING = 16  # units in the last place of an embedding's length: a smaller difference is rounding
COARSE = 4  # the same for half, bfloat16 and TF32, whose units are large already
RARE = 32  # further passes of an encoder that draws random numbers without a difference so far
FURTHER_PIXELS = 3 * 224 * 224  # values of all images in such passes of any other encoder, at most
GRAPH = 1e-4  # of the median distance: an inference graph that differs by less is used
GRAPH_GRADIENT = 0.1  # of a gradient's length, likewise: rounding moves a few pixels over the kink of a ReLU
DRAWS = 8  # of which a random encoder's embedding is the mean
TF32 = 2.0**-10  # unit in the last place of the products of single precision on a GPU


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What an encoder was found to be.

    Differences are the largest between two embeddings of the same image, prepared for the ranker's distance,
    in units of the median distance between the examined images.

    Args:
        kind: "function" of its image, "random", or dependent on the other images of its "batch".
        images: how many it was examined on.
        repeat: difference between two passes over the same images.
        order: difference between a pass over all of them and one over half of them, in another order.
        alone: difference between an image alone and among others; None where each passes alone anyway.
        draws: passes of which an embedding is the mean.
        reproducible: whether the random numbers come from torch's generators, and so from the seed.
        draws_numbers: whether it draws from torch's generators.
        changes_input: whether it writes into the images that it is given; it gets copies.
        shares_output: whether a later pass overwrites the embeddings of an earlier one; they are copied.
        changes_state: whether a pass changes its buffers, such as running statistics; they are put back.
        gradient: whether the gradient of an embedding "reaches" the pixels, is "zero", or there is "none".
        dtype: floating type of its weights, in which it is given pixels.
        dimensions: of an embedding.
        graph: largest difference between an embedding by the encoder and by its inference graph, on which
            attacks search; None where they search on the encoder itself.
        folded: batch norms that the inference graph does without.
        implementation: what an encoder says of how it is computed, in its attribute of that name, such as how
            far a converted network agrees with its original; None where it says nothing.
    """

    kind: Kind = "function"
    images: int = 0
    repeat: float = 0.0
    order: float = 0.0
    alone: float | None = None
    draws: int = 1
    reproducible: bool = True
    draws_numbers: bool = False
    changes_input: bool = False
    shares_output: bool = False
    changes_state: bool = False
    gradient: Gradient = "reaches"
    dtype: str = "float32"
    dimensions: int = 0
    graph: float | None = None
    folded: int = 0
    implementation: str | None = None

    @property
    def largest(self) -> float:
        """The largest of the differences."""
        return max(self.repeat, self.order, self.alone or 0.0)

    @property
    def line(self) -> str:
        """The examination as one sentence."""
        return f"examined on {self.images} images: {'; '.join(self._findings())}"

    def to_json(self) -> JsonObject:
        """The object of the key `examination`, with the sentence as `line`."""
        return asdict(self) | {"line": self.line}

    def _findings(self) -> Iterator[str]:
        how = f"largest difference {self.largest:.0e} {UNIT}" if self.largest else "no difference"
        match self.kind:
            case "function":
                each = ", images embedded one at a time" if self.alone is None else ""
                yield f"a function of its image ({how}{each})"
                if self.draws > 1:
                    yield f"embeddings are the mean of {self.draws} draws, as asked for"
            case "batch":
                yield f"an embedding depends on the other images of its batch ({self.largest:.2g} {UNIT})"
            case "random":
                mean = f"embeddings are the mean of {self.draws} draws" if self.draws > 1 else "one draw each"
                yield f"random, an image's embeddings differ by up to {self.repeat:.2g} {UNIT}; {mean}"
                if not self.reproducible:
                    yield "not by torch's random numbers, so that no seed gives the same again"
        if self.kind == "function" and self.draws_numbers:
            yield "draws random numbers, of which no effect was found"
        if self.dtype not in ("float32", "float64"):
            yield f"weights in {self.dtype}"
        if self.changes_input:
            yield "writes into its images, so that it gets copies"
        if self.shares_output:
            yield "overwrites its earlier embeddings, so that they are copied"
        if self.changes_state:
            yield "changes its buffers in a pass, so that they are put back"
        if self.gradient == "zero":
            yield "its gradient is zero at every pixel"
        if self.gradient == "none":
            yield "no gradient reaches the pixels"
        if self.graph is not None:
            norms = f" without its {self.folded} batch norms" if self.folded else ""
            yield f"searched on its inference graph{norms}, {self.graph:.0e} {UNIT} away"
        if self.implementation:
            yield self.implementation


UNIT = "of the median distance"
CAUSES = "batch statistics do that (batch normalisation left or exported in training mode)"
ONE_BY_ONE = "--embed-batch 1 (in Python Ranker(chunk=1))"


def examination_from_json(values: Mapping[str, Any] | None) -> Examination | None:
    """The examination in an object that `to_json` made; None where there was none."""
    if values is None:
        return None
    names = {each.name for each in fields(Examination)}
    return Examination(**{name: value for name, value in values.items() if name in names})


def batch_message(found: Examination) -> str:
    """What to do about an encoder whose embeddings depend on the batch."""
    return (
        f"an image's embedding depends on the others of its batch, by up to {found.largest:.2g} {UNIT}; "
        f"{CAUSES}, and dynamic quantisation: switch them off, or embed one image at a time by {ONE_BY_ONE}"
    )


def sample_of(images: Tensor) -> Tensor:
    """A few images spread over all, in memory of their own; a single one is joined by its negative."""
    chosen = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().long()
    sample = images[chosen.to(images.device)].clone()
    if len(sample) > 1:
        return sample
    return torch.cat([sample, 255 - sample if sample.dtype == torch.uint8 else 1 - sample])


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What is examined.

    Args:
        encode: one pass over images (b, c, h, w) that gives checked embeddings (b, d); each call is a draw.
        prepare: prepares embeddings for the distance.
        rng: the stream that `encode` draws from.
        chunk: images in one pass.
        eps: unit in the last place of the encoder's arithmetic.
        draws_numbers: whether it draws random numbers, which may make a difference rarely.
    """

    encode: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor], Tensor]
    rng: EncoderRng
    chunk: int
    eps: float
    draws_numbers: bool

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (n, d) in passes of `chunk`, in memory of their own; the images stay as they are."""
        return torch.cat([self.encode(part.clone()).clone() for part in images.split(self.chunk)])


def examine(what: Examined, images: Tensor, progress: ProgressCallback) -> Examination:
    """Pass a few images through an encoder in several ways and compare.

    Args:
        images: (n, c, h, w) from `sample_of`.
        progress: called with passes done and passes in all.
    Returns:
        what was found; how it behaves beside embedding, and its gradient, are for others to fill in.
    """
    tell = _Steps(progress, 3)
    what.rng.begin(0)
    first = what.embed(images)
    tell()
    unit = _Unit.of(what.prepare(first), what.eps)
    order = torch.arange(len(images)).flip(0)[: max(2, len(images) // 2)]
    other = what.embed(images[order])
    turned = repeat = unit.difference(what.prepare(other), what.prepare(first[order]))
    tell()
    if turned > unit.exact:
        # Another order is also another pass, and what depends on the batch is the same each time.
        again = ((images, first), (images[order], other))
        repeat = max(_repeated(what, *passed, unit) for passed in again)
    if repeat <= unit.exact:
        repeat = max(repeat, _rarely(what, images[:2], unit))
    alone = None
    if repeat <= unit.exact and what.chunk > 1:
        alone, by_chance = _alone(what, images, first, unit)
        repeat = max(repeat, by_chance)
    tell()
    kind: Kind
    if repeat > unit.exact:
        found = _random(what, images, first, unit)
        kind = "random" if found.depends <= unit.tolerated else "batch"
        alone = found.depends if found.reproducible else None
    else:
        found = _Random(reproducible=True, depends=0.0)
        kind = "batch" if max(turned, alone or 0.0) > unit.tolerated else "function"
    return Examination(
        kind=kind,
        images=len(images),
        repeat=unit.share(repeat),
        order=unit.share(turned),
        alone=None if alone is None else unit.share(alone),
        reproducible=found.reproducible,
        dimensions=first.shape[1],
    )


@dataclass(frozen=True)
class _Unit:
    """The median distance of the examined images, and what counts as equal beside it."""

    median: float
    exact: float
    tolerated: float

    @classmethod
    def of(cls, z: Tensor, eps: float) -> "_Unit":
        """The unit of prepared embeddings (n, d).

        Where all are equal it is their length: of a collapsed encoder, whose images have no distance.
        """
        z = z.double()
        length = float(z.norm(dim=1).max())
        median = float(torch.pdist(z).median()) or length or 1.0
        single = ROUNDING * torch.finfo(torch.float32).eps * length
        units = ROUNDING if eps < TF32 else COARSE
        return cls(median, max(SHARE * median, single), max(SHARE * median, single, units * eps * length))

    def difference(self, z: Tensor, other: Tensor) -> float:
        """The largest distance between two embeddings of the same image."""
        return float((z.double() - other.double()).norm(dim=1).max())

    def share(self, difference: float) -> float:
        """A difference as a share of the median distance."""
        return difference / self.median


class _Steps:
    """Tells how many of the passes are done."""

    def __init__(self, progress: ProgressCallback, total: int) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def _repeated(what: Examined, images: Tensor, first: Tensor, unit: _Unit) -> float:
    """How far the same images, passed again, are from the first time."""
    return unit.difference(what.prepare(what.embed(images)), what.prepare(first))


def _rarely(what: Examined, pair: Tensor, unit: _Unit) -> float:
    """The largest difference in further passes over two images, of what is random only now and then."""
    passes = RARE if what.draws_numbers else min(RARE, FURTHER_PIXELS // pair.numel())
    if not passes:
        return 0.0
    first = what.embed(pair)
    return max(_repeated(what, pair, first, unit) for _ in range(passes))


def _alone(what: Examined, images: Tensor, first: Tensor, unit: _Unit) -> tuple[float, float]:
    """How far images alone are from the same among others, and from themselves alone once more.

    Raises:
        RankproofError: the encoder takes no image alone.
    """
    differences, by_chance = [0.0], [0.0]
    for row in range(ALONE):
        try:
            z = what.embed(images[row, None])
        except RankproofError as error:
            raise RankproofError(
                f"{error}. That was an image alone; {len(images)} at once pass, so that an image's embedding "
                f"depends on the others of its batch: {CAUSES}: switch them off; {ONE_BY_ONE} is no way out "
                f"where an image alone fails"
            ) from error
        differences.append(unit.difference(what.prepare(z), what.prepare(first[row, None])))
        if differences[-1] > unit.exact:
            by_chance.append(_repeated(what, images[row, None], z, unit))
    return max(differences), max(by_chance)


@dataclass(frozen=True)
class _Random:
    """Of a random encoder: whether a seed gives the same again, and how far an image follows the others."""

    reproducible: bool
    depends: float


def _random(what: Examined, images: Tensor, first: Tensor, unit: _Unit) -> _Random:
    """The same random numbers for the same images, and for other neighbours of some of them.

    Equal numbers at equal places of a batch of equal size: what is left of a difference is the neighbours'.
    """
    with _from_the_start(what.rng):
        again = what.embed(images)
    if not what.draws_numbers or unit.difference(what.prepare(again), what.prepare(first)) > unit.exact:
        return _Random(reproducible=False, depends=0.0)
    if what.chunk == 1:
        return _Random(reproducible=True, depends=0.0)
    # How many numbers are drawn may follow the image (of a Poisson distribution, say): then those of the
    # images after it are others. So a difference must also be there where only the last one is another.
    others = images.clone()
    others[1::2] = images[::2][: len(images) // 2]
    last = images.clone()
    last[-1] = images[0]
    stays = (torch.arange(0, len(images), 2), torch.arange(len(images) - 1))
    depends = []
    for neighbours, stay in zip((others, last), stays, strict=True):
        with _from_the_start(what.rng):
            beside = what.embed(neighbours)
        depends.append(unit.difference(what.prepare(beside[stay]), what.prepare(first[stay])))
    return _Random(reproducible=True, depends=min(depends))


@contextmanager
def _from_the_start(rng: EncoderRng) -> Iterator[None]:
    rng.begin(0)
    yield
    rng.begin(0)


def gradient_of(encode: Callable[[Tensor], Tensor], images: Tensor) -> Gradient:
    """Whether the gradient of some combination of the embeddings' values reaches the pixels.

    Args:
        encode: gives embeddings (b, d) of images (b, c, h, w).
    """
    gradient = _gradient(encode, images)
    if gradient is None:
        return "none"
    return "reaches" if bool((gradient != 0).any()) else "zero"


def graph_difference(
    encode: Callable[[Tensor], Tensor],
    graph: Callable[[Tensor], Tensor],
    prepare: Callable[[Tensor], Tensor],
    images: Tensor,
) -> float | None:
    """How far an inference graph embeds images (n, c, h, w) from where the encoder does.

    Args:
        encode, graph: give embeddings (b, d) of images (b, c, h, w).
        prepare: prepares embeddings for the distance.
    Returns:
        the largest difference, in units of the median distance; None where it or the gradient of an image
        differs by more than rounding, or the graph fails.
    """
    try:
        first, again = (prepare(embed(images.clone())) for embed in (encode, graph))
        gradients = [_gradient(embed, images[:1]) for embed in (encode, graph)]
    except Exception:  # what a rewritten encoder raises may be anything; the original is known to work
        return None
    unit = _Unit.of(first, torch.finfo(torch.float32).eps)
    difference = unit.share(unit.difference(first, again))
    there, here = (None if each is None else each.double() for each in gradients)
    if there is not None and (here is None or (here - there).norm() > GRAPH_GRADIENT * there.norm()):
        return None
    return difference if difference < GRAPH else None


def _gradient(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor | None:
    """The gradient of some combination of the embeddings' values; None where there is none."""
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_(True)
        z = encode(pixels)
        if not z.requires_grad:
            return None
        weights = torch.linspace(-1, 2, z.shape[1], device=z.device, dtype=z.dtype)
        try:
            return torch.autograd.grad((z * weights).sum(), pixels, allow_unused=True)[0]
        except RuntimeError:  # cut somewhere inside, such as by tensors of inference_mode
            return None
