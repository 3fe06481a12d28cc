"""Divergence and collapse, noticed while they happen."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from rankproof.errors import RankproofError

LEAST_SPREAD = 1e-4  # of embeddings around their mean, as a share of their mean squared length
PATIENCE = 20  # steps in a row
ERRORS = 3  # standard errors of R@1 on a test split of that size within which it is that of chance
SHARE = 0.02  # and the largest share of what is left above chance that these may be


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

    def judge(self, recall: float, wide: float, labels: Tensor, epoch: int) -> None:
        """Look at the end of an epoch: R@1 (%) on a test split with these labels, and its `spread`.

        Raises:
            TrainingFailedError: the embeddings are equal, or R@1 is no better than chance.
        """
        if wide < LEAST_SPREAD:
            raise self.failed("collapsed", epoch, "all test pictures have the same embedding")
        chance = chance_recall(labels)
        left = 100 - chance
        noise = ERRORS * math.sqrt(chance * left / len(labels))
        if recall <= chance + min(noise, SHARE * left) and left > 0:
            raise self.failed("collapsed", epoch, f"R@1 is {recall:.1f} %, that of chance {chance:.1f} %")

    def failed(self, how: str, epoch: int, why: str) -> TrainingFailedError:
        """The error that ends a training."""
        return TrainingFailedError(f"{self.what} {how} in epoch {epoch} ({why}); try {self.advice}")


def spread(z: Tensor) -> float:
    """Mean squared distance of embeddings (b, d) from their mean, over mean squared length (0 for 0)."""
    z = z.detach().float()
    total = float(z.square().sum(1).mean())
    return 1 - float(z.mean(0).square().sum()) / total if total > 0 else 0.0


def chance_recall(labels: Tensor) -> float:
    """R@1 (%) of random rankings, leave-one-out: the mean share of an item's class among the others."""
    counts = labels.bincount().double()
    return float(100 * (counts * (counts - 1)).sum() / (len(labels) * max(1, len(labels) - 1)))
