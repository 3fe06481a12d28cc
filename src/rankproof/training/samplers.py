"""Which pictures make a batch, and which triplets of it are compared."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.training.borrowed import global_numbers


@dataclass(frozen=True)
class Batch:
    """Pictures that are seen together.

    Args:
        rows: (b,) their positions in the data set.
        triplets: (t, 3) positions in the batch of anchor, positive, negative; (0, 3) where none is needed.
    """

    rows: Tensor
    triplets: Tensor


@runtime_checkable
class Sampler(Protocol):
    """A rule that divides a data set into the batches of one epoch."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in records."""
        ...

    def batches(self, labels: Tensor, source: torch.Generator) -> Iterator[Batch]:
        """The batches of one epoch; equal generators give equal batches."""
        ...

    def count(self, labels: Tensor) -> int:
        """How many batches an epoch has."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that defines it, for the record."""
        ...

    def shared(self, processes: int) -> "Sampler":
        """The same for one of several processes that make each batch together."""
        ...


@dataclass(frozen=True, kw_only=True)
class InBatch:
    """Every picture once in an epoch; triplets are drawn inside the batch (ECCV, 28x28 pictures).

    Args:
        batch: pictures in one step.
    """

    batch: int

    name = "in-batch"

    def batches(self, labels: Tensor, source: torch.Generator) -> Iterator[Batch]:
        """A random order, cut into pieces."""
        order = torch.randperm(len(labels), generator=source)
        for rows in order.split(self.batch):
            yield Batch(rows, random_triplets(labels[rows], source))

    def count(self, labels: Tensor) -> int:
        """The last one may be smaller."""
        return -(-len(labels) // self.batch)

    def settings(self) -> dict[str, Any]:
        """The size."""
        return {"name": self.name, **asdict(self)}

    def shared(self, processes: int) -> "InBatch":
        """Smaller batches."""
        return InBatch(batch=_share(self.batch, processes))


@dataclass(frozen=True, kw_only=True)
class FromSet:
    """One triplet for every picture, drawn from the whole data set (ICCV Fashion-MNIST; SOP).

    The positive is uniform in the anchor's class (another picture of it where there is one); the negative is
    uniform over all pictures of other classes, or over all pictures.

    Args:
        batch: triplets in one step; three pictures each.
        negatives: "other" classes (ICCV Fashion-MNIST) or "any" picture (published for SOP, where the
            anchor's own class is not left out).
    """

    batch: int
    negatives: Literal["other", "any"] = "other"

    name = "from-set"

    def batches(self, labels: Tensor, source: torch.Generator) -> Iterator[Batch]:
        """Every picture is an anchor once."""
        order = torch.randperm(len(labels), generator=source)
        grouped = labels.argsort(stable=True)
        counts = labels.bincount()
        first = counts.cumsum(0) - counts  # where each class begins in `grouped`
        place = torch.empty_like(grouped)
        place[grouped] = torch.arange(len(labels))
        for anchors in order.split(self.batch):
            own, size = labels[anchors], counts[labels[anchors]]
            # One of the others of the class: a step of 1 .. size - 1 further round in it.
            step = 1 + _below((size - 1).clamp(min=1), source)
            positives = grouped[first[own] + (place[anchors] - first[own] + step) % size]
            if self.negatives == "any":
                negatives = torch.randint(len(labels), (len(anchors),), generator=source)
            else:
                outside = _below(len(labels) - size, source)
                negatives = grouped[torch.where(outside < first[own], outside, outside + size)]
            rows = torch.cat([anchors, positives, negatives])
            yield Batch(rows, torch.arange(len(rows)).view(3, -1).t())

    def count(self, labels: Tensor) -> int:
        """The last one may be smaller."""
        return -(-len(labels) // self.batch)

    def settings(self) -> dict[str, Any]:
        """Size and rule."""
        return {"name": self.name, **asdict(self)}

    def shared(self, processes: int) -> "FromSet":
        """Fewer triplets."""
        return FromSet(batch=_share(self.batch, processes), negatives=self.negatives)


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """The same number of pictures of each class in a batch: pytorch-metric-learning's own sampler.

    Args:
        batch: pictures in one step.
        per_class: pictures of each class in a batch.
    """

    batch: int
    per_class: int = 2

    name = "balanced"

    def __post_init__(self) -> None:
        if self.per_class < 2 or self.batch % self.per_class:
            raise RankproofError(
                f"balanced: a batch of {self.batch} cannot hold {self.per_class} pictures of each class; "
                "take at least 2 of each and a batch that is a multiple"
            )

    def batches(self, labels: Tensor, source: torch.Generator) -> Iterator[Batch]:
        """As many as hold every picture about once."""
        order = torch.tensor(list(self._sampler(labels, source)))
        for rows in order.split(self.batch):
            yield Batch(rows, random_triplets(labels[rows], source))

    def count(self, labels: Tensor) -> int:
        """Whole batches only."""
        return max(1, len(labels) // self.batch)

    def settings(self) -> dict[str, Any]:
        """Sizes."""
        return {"name": self.name, **asdict(self)}

    def shared(self, processes: int) -> "Balanced":
        """Fewer classes in a batch."""
        return Balanced(batch=_share(self.batch, processes), per_class=self.per_class)

    def _sampler(self, labels: Tensor, source: torch.Generator) -> Iterator[int]:
        from pytorch_metric_learning.samplers import MPerClassSampler

        size = self.count(labels) * self.batch
        sampler = MPerClassSampler(labels, self.per_class, self.batch, length_before_new_iter=size)
        with global_numbers(source):
            return iter(list(sampler))


def random_triplets(labels: Tensor, source: torch.Generator) -> Tensor:
    """As many random triplets as the batch has pictures, an equal share for each class, without mining.

    Anchor and positive are drawn from the class, the negative from the rest of the batch, each uniformly
    and with replacement: the published sampling for 28x28 pictures. Classes alone in the batch are skipped.

    Args:
        labels: (b,) class of each picture of the batch.
    Returns:
        (t, 3) positions of anchor, positive, negative; t is about b.
    """
    classes = labels.unique()
    share = max(1, len(labels) // len(classes))
    parts = []
    for label in classes:
        own, other = (labels == label).nonzero()[:, 0], (labels != label).nonzero()[:, 0]
        if len(own) < 2 or len(other) == 0:
            continue
        anchor, positive = own[torch.randint(len(own), (2, share), generator=source)]
        negative = other[torch.randint(len(other), (share,), generator=source)]
        parts.append(torch.stack([anchor, positive, negative], dim=1))
    return torch.cat(parts) if parts else labels.new_empty(0, 3)


def check_classes(labels: Tensor, classes: tuple[str, ...], sampler: Sampler) -> None:
    """Raise unless triplets can be made: two classes, two pictures of each, batches that can be filled.

    Raises:
        RankproofError: what is missing, by name.
    """
    counts = labels.bincount(minlength=len(classes))
    present = counts > 0
    if int(present.sum()) < 2:
        raise RankproofError("training needs pictures of at least two classes")
    lonely = ((counts == 1) & present).nonzero()[:, 0].tolist()
    if lonely:
        names = ", ".join(classes[label] if label < len(classes) else str(label) for label in lonely[:3])
        raise RankproofError(
            f"{len(lonely)} classes have one picture only ({names}): a triplet needs two of a class; "
            "add pictures or leave these classes out"
        )
    batch = int(sampler.settings()["batch"])
    if isinstance(sampler, Balanced) and batch < 2 * sampler.per_class:
        raise RankproofError(
            f"balanced: a batch of {batch} with {sampler.per_class} pictures of each class holds one class; "
            "take a larger batch or fewer of each class"
        )
    if isinstance(sampler, Balanced) and batch > sampler.per_class * int(present.sum()):
        raise RankproofError(
            f"balanced: {int(present.sum())} classes with {sampler.per_class} pictures each do not fill a "
            f"batch of {batch}; take a smaller batch or more of each class"
        )
    if batch < 4:
        raise RankproofError(
            f"a batch of {batch} cannot hold two pictures of two classes; take at least 4, better 100"
        )


def _below(limits: Tensor, source: torch.Generator) -> Tensor:
    """One uniform integer in [0, limit) for each limit."""
    drawn = torch.rand(limits.shape, generator=source, dtype=torch.float64)
    return (drawn * limits).long().minimum(limits - 1)


def _share(batch: int, processes: int) -> int:
    if batch % processes:
        raise RankproofError(
            f"a batch of {batch} cannot be shared evenly by {processes} processes; take a multiple"
        )
    return batch // processes
