"""Which images form a batch, and which of its triplets are compared."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.parameters import Count
from rankproof.training.global_rng import global_rng
from rankproof.training.settings import RecipePart
from rankproof.training.triplets import random_triplets

S = TypeVar("S", bound="BatchSampler")


@dataclass(frozen=True)
class Batch:
    """Images that are embedded together.

    Args:
        rows: (b,) their positions in the data set.
        triplets: (t, 3) positions in the batch of anchor, positive, negative; (0, 3) where none is needed.
    """

    rows: Tensor
    triplets: Tensor


@runtime_checkable
class Sampler(Protocol):
    """Divides a data set into the batches of one epoch."""

    @property
    def name(self) -> str:
        """Used on the command line and in records."""
        ...

    @property
    def batch(self) -> int:
        """The batch size that a user chooses."""
        ...

    def batches(self, labels: Tensor, rng: torch.Generator) -> Iterator[Batch]:
        """The batches of one epoch; equal generators give equal batches."""
        ...

    def count(self, labels: Tensor) -> int:
        """Number of batches in an epoch."""
        ...

    def settings(self) -> JsonObject:
        """All parameters, for the record."""
        ...

    def shared(self, processes: int) -> "Sampler":
        """The sampler of one of several processes that compute each batch together."""
        ...


@dataclass(frozen=True, kw_only=True)
class BatchSampler(RecipePart):
    """Base of the samplers below.

    Args:
        batch: images, or triplets, in one batch.
    """

    batch: Count

    def count(self, labels: Tensor) -> int:
        """Number of batches in an epoch; the last one may be smaller."""
        return -(-len(labels) // self.batch)

    def shared(self: S, processes: int) -> S:
        """This sampler with batches of 1 / `processes` the size."""
        if self.batch % processes:
            raise RankproofError(
                f"a batch of {self.batch} cannot be split evenly among {processes} processes; take a multiple"
            )
        return replace(self, batch=self.batch // processes)


@dataclass(frozen=True, kw_only=True)
class InBatch(BatchSampler):
    """Each image once per epoch; triplets are drawn inside the batch (ECCV, 28x28 images).

    Args:
        batch: images in one batch.
    """

    name = "in-batch"

    def batches(self, labels: Tensor, rng: torch.Generator) -> Iterator[Batch]:
        """A random order, split into batches."""
        order = torch.randperm(len(labels), generator=rng)
        for rows in order.split(self.batch):
            yield Batch(rows, random_triplets(labels[rows], rng))


@dataclass(frozen=True, kw_only=True)
class FromSet(BatchSampler):
    """One triplet for each image, drawn from the whole data set (ICCV Fashion-MNIST; SOP).

    The positive is uniform in the anchor's class (another image of it where there is one); the negative is
    uniform over all images of other classes, or over all images.

    Args:
        batch: triplets in one batch, three images each.
        negatives: from "other" classes (ICCV Fashion-MNIST), or "any" image (published for SOP, where the
            anchor's own class is not excluded).
    """

    negatives: Literal["other", "any"] = "other"

    name = "from-set"

    def batches(self, labels: Tensor, rng: torch.Generator) -> Iterator[Batch]:
        """Each image is an anchor once."""
        order = torch.randperm(len(labels), generator=rng)
        by_class = labels.argsort(stable=True)
        counts = labels.bincount()
        starts = counts.cumsum(0) - counts  # where each class begins in `by_class`
        position = torch.empty_like(by_class)  # of each image in `by_class`
        position[by_class] = torch.arange(len(labels))
        for anchors in order.split(self.batch):
            start, size = starts[labels[anchors]], counts[labels[anchors]]
            # Another image of the class: 1 .. size - 1 places further, cyclically.
            step = 1 + _random_below((size - 1).clamp(min=1), rng)
            positives = by_class[start + (position[anchors] - start + step) % size]
            if self.negatives == "any":
                negatives = torch.randint(len(labels), (len(anchors),), generator=rng)
            else:
                outside = _random_below(len(labels) - size, rng)
                negatives = by_class[torch.where(outside < start, outside, outside + size)]
            rows = torch.cat([anchors, positives, negatives])
            yield Batch(rows, torch.arange(len(rows)).view(3, -1).t())  # (t, 3)


@dataclass(frozen=True, kw_only=True)
class Balanced(BatchSampler):
    """The same number of images of each class in a batch, by the sampler of pytorch-metric-learning.

    Args:
        batch: images in one batch.
        per_class: images of each class in a batch.
    """

    per_class: Count = 2

    name = "balanced"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_class < 2 or self.batch % self.per_class:
            raise RankproofError(
                f"balanced: a batch of {self.batch} cannot hold {self.per_class} images of each class; "
                "take at least 2 of each class and a batch that is a multiple of it"
            )

    def batches(self, labels: Tensor, rng: torch.Generator) -> Iterator[Batch]:
        """As many batches as contain each image about once."""
        from pytorch_metric_learning.samplers import MPerClassSampler

        size = self.count(labels) * self.batch
        sampler = MPerClassSampler(labels, self.per_class, self.batch, length_before_new_iter=size)
        with global_rng(rng):
            order = list(sampler)
        for rows in torch.tensor(order).split(self.batch):
            yield Batch(rows, random_triplets(labels[rows], rng))

    def count(self, labels: Tensor) -> int:
        """Number of batches in an epoch, all of full size."""
        return max(1, len(labels) // self.batch)


def check_classes(labels: Tensor, classes: tuple[str, ...], sampler: Sampler) -> None:
    """Check that triplets can be formed: two classes, two images of each, batches that can be filled.

    Raises:
        RankproofError: they cannot; the message says what is missing.
    """
    counts = labels.bincount(minlength=len(classes))
    present = int((counts > 0).sum())
    if present < 2:
        raise RankproofError("training needs images of at least two classes")
    singles = (counts == 1).nonzero()[:, 0].tolist()
    if singles:
        names = ", ".join(classes[label] if label < len(classes) else str(label) for label in singles[:3])
        raise RankproofError(
            f"{len(singles)} classes have one image only ({names}), and a triplet needs two of a class; "
            "add images or remove these classes"
        )
    if isinstance(sampler, Balanced) and sampler.batch < 2 * sampler.per_class:
        raise RankproofError(
            f"balanced: a batch of {sampler.batch} with {sampler.per_class} images of each class holds one "
            "class only; take a larger batch or fewer images of each class"
        )
    if isinstance(sampler, Balanced) and sampler.batch > sampler.per_class * present:
        raise RankproofError(
            f"balanced: {present} classes with {sampler.per_class} images each do not fill a "
            f"batch of {sampler.batch}; take a smaller batch or more images of each class"
        )
    if sampler.batch < 4:
        raise RankproofError(
            f"a batch of {sampler.batch} cannot hold two images of two classes; take at least 4, better 100"
        )


def _random_below(limits: Tensor, rng: torch.Generator) -> Tensor:
    """One uniform integer in [0, limit) for each limit."""
    drawn = torch.rand(limits.shape, generator=rng, dtype=torch.float64)
    return (drawn * limits).long().minimum(limits - 1)
