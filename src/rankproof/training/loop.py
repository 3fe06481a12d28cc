"""The training loop: batches, triplets, Adam, and R@1 at the end of each epoch."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from rankproof.data.dataset import Dataset
from rankproof.errors import RankproofError
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import recall_at
from rankproof.ranking.ranker import Ranker
from rankproof.training.losses import triplet
from rankproof.training.samplers import random_triplets

PUBLISHED_BATCH = {"cosine": 1000, "euclidean": 500}
PUBLISHED_MARGIN = {"cosine": 0.2, "euclidean": 1.0}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how an encoder is trained; the defaults are the papers' for 28x28 images."""

    distance: str = "cosine"
    loss: str = "triplet"
    epochs: int = 30
    batch: int | None = None
    margin: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-7
    seed: int = 0

    def resolved(self) -> "Settings":
        """The same with the published batch and margin of the distance filled in."""
        if self.loss != "triplet":
            raise RankproofError(f"loss {self.loss!r} is unknown; known: triplet")
        if self.distance not in PUBLISHED_BATCH:
            raise RankproofError(
                f"distance {self.distance!r} is unknown; known: {', '.join(PUBLISHED_BATCH)}"
            )
        values = asdict(self)
        values["batch"] = self.batch or PUBLISHED_BATCH[self.distance]
        values["margin"] = PUBLISHED_MARGIN[self.distance] if self.margin is None else self.margin
        return Settings(**values)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What is known at the end of one epoch."""

    number: int
    loss: float
    recall_at_1: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def train(
    encoder: nn.Module,
    data: Dataset,
    test: Dataset,
    settings: Settings,
    *,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    time_limit: float | None = None,
) -> list[Epoch]:
    """Train `encoder` in place and return what each epoch came to; the last epoch is the result.

    Args:
        test: R@1 is measured on it, leave-one-out; it never influences the weights.
        on_batch: called with batches done and batches in all.
        time_limit: seconds after which no further epoch is started.
    """
    settings = settings.resolved()
    generator = torch.Generator().manual_seed(settings.seed)
    ranker = Ranker(encoder, settings.distance)
    optimizer = torch.optim.Adam(
        encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    batches = -(-len(data) // (settings.batch or 1))
    start, epochs = time.perf_counter(), list[Epoch]()
    for number in range(1, settings.epochs + 1):
        encoder.train()
        total = torch.zeros(())
        order = torch.randperm(len(data), generator=generator)
        for step, rows in enumerate(order.split(settings.batch or 1)):
            total += _step(ranker, optimizer, data, rows, settings, generator)
            on_batch((number - 1) * batches + step + 1, settings.epochs * batches)
        mean = float(total) / batches
        if not torch.isfinite(total):
            raise RankproofError(
                f"the {settings.loss} loss diverged in epoch {number}; try a smaller learning rate"
            )
        recall = measure_recall(encoder, test, settings.distance)
        epoch = Epoch(number=number, loss=mean, recall_at_1=recall, seconds=time.perf_counter() - start)
        epochs.append(epoch)
        on_epoch(epoch)
        if time_limit is not None and epoch.seconds * (number + 1) / number > time_limit:
            break
    encoder.eval()
    return epochs


def _step(
    ranker: Ranker,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    rows: torch.Tensor,
    settings: Settings,
    generator: torch.Generator,
) -> torch.Tensor:
    triplets = random_triplets(data.labels[rows], generator)
    if len(triplets) == 0:
        return torch.zeros(())
    z = ranker.embed(ranker.as_input(data.take(rows)))
    loss = triplet(z, triplets.to(z.device), ranker.distance, settings.margin or 0.0).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach().cpu()


def measure_recall(encoder: nn.Module, test: Dataset, distance: str) -> float:
    """R@1 (%) over a data set, leave-one-out."""
    gallery = Gallery.build(Ranker(encoder, distance), test.pictures, test.labels)
    return 100 * float(recall_at(gallery, 1).mean())
