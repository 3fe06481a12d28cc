"""Divergence and collapse, noticed while they happen."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rankproof.errors import RankproofError

LEAST_SPREAD = 1e-4  # of embeddings around their mean, as a share of their mean squared length
PATIENCE = 20  # steps in a row
LEAST_GAIN = 1.2  # R@1 over what random rankings have


class TrainingFailedError(RankproofError):
    """The encoder cannot become better any more; the last good checkpoint is kept."""


@dataclass
class Health:
    """Watches a training and stops it once it is lost.

    Args:
        what: names loss and defence in messages.
        advice: what to try.
        low: steps in a row whose embeddings were nearly equal.
    """

    what: str
    advice: str
    low: int = field(default=0)

    def watch(self, loss: float, wide: float, epoch: int) -> None:
        """Look at one step, its loss and the `spread` of its embeddings.

        Raises:
            TrainingFailedError: the loss is not finite, or all embeddings have been equal for a while.
        """
        if not math.isfinite(loss):
            raise self.failed("diverged", epoch, f"the loss is {loss}")
        self.low = self.low + 1 if wide < LEAST_SPREAD else 0
        if self.low >= PATIENCE:
            raise self.failed("collapsed", epoch, f"all embeddings are equal for {self.low} steps")

    def judge(self, recall: float, chance: float, epoch: int) -> None:
        """Look at R@1 (%) at the end of an epoch; `chance` (%) is that of random rankings.

        Raises:
            TrainingFailedError: it is no better than chance.
        """
        if recall <= LEAST_GAIN * chance:
            raise self.failed("collapsed", epoch, f"R@1 is {recall:.1f} %, that of chance {chance:.1f} %")

    def failed(self, how: str, epoch: int, why: str) -> TrainingFailedError:
        """The error that ends a training."""
        return TrainingFailedError(f"{self.what} {how} in epoch {epoch} ({why}); try {self.advice}")


def spread(z: Tensor) -> float:
    """Mean squared distance of embeddings (b, d) from their mean over mean squared length, in [0, 1]."""
    z = z.detach().float()
    total = z.square().sum(1).mean()
    return float(1 - z.mean(0).square().sum() / total.clamp(min=torch.finfo(z.dtype).tiny))


def chance_recall(labels: Tensor) -> float:
    """R@1 (%) of random rankings, leave-one-out: the mean share of an item's class among the others."""
    counts = labels.bincount().double()
    return float(100 * (counts * (counts - 1)).sum() / (len(labels) * max(1, len(labels) - 1)))
