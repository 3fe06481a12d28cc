"""Stops a training that diverges (loss not finite) or collapses (all embeddings equal)."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from rankproof.errors import RankproofError

MIN_SPREAD = 1e-4  # see `spread`; below it the embeddings count as equal
PATIENCE = 20  # successive steps with equal embeddings before a training counts as collapsed
STANDARD_ERRORS = 3  # R@1 must exceed chance by this many standard errors of R@1 on the test split
MAX_MARGIN = 0.02  # ... but by no more than this share of the distance from chance to 100 %


class TrainingFailedError(RankproofError):
    """The training diverged or collapsed; the last checkpoint written is kept."""


@dataclass
class DivergenceMonitor:
    """Raises as soon as a training has diverged or collapsed.

    Args:
        description: of loss and defence, for the error message.
        advice: what the error message suggests to try.
        collapsed_steps: successive steps whose embeddings were equal.
    """

    description: str
    advice: str
    collapsed_steps: int = field(default=0)

    def check_step(self, loss: float, embedding_spread: float, epoch: int) -> None:
        """Check the loss of one step and the `spread` of its embeddings.

        Raises:
            TrainingFailedError: the loss is not finite, or the embeddings were equal for `PATIENCE` steps.
        """
        if not math.isfinite(loss):
            raise self.failed("diverged", epoch, f"the loss is {loss}")
        self.collapsed_steps = self.collapsed_steps + 1 if embedding_spread < MIN_SPREAD else 0
        if self.collapsed_steps >= PATIENCE:
            reason = f"all embeddings have been equal for {self.collapsed_steps} steps"
            raise self.failed("collapsed", epoch, reason)

    def check_epoch(self, recall: float, embedding_spread: float, labels: Tensor, epoch: int) -> None:
        """Check R@1 (%) on a test split with these labels (n,), and the `spread` of its embeddings.

        Raises:
            TrainingFailedError: the embeddings are equal, or R@1 is no better than chance.
        """
        if embedding_spread < MIN_SPREAD:
            raise self.failed("collapsed", epoch, "all test images have the same embedding")
        chance = chance_recall(labels)
        headroom = 100 - chance
        noise = STANDARD_ERRORS * math.sqrt(chance * headroom / len(labels))
        if recall <= chance + min(noise, MAX_MARGIN * headroom) and headroom > 0:
            raise self.failed("collapsed", epoch, f"R@1 is {recall:.1f} %, chance is {chance:.1f} %")

    def failed(self, how: str, epoch: int, reason: str) -> TrainingFailedError:
        """The error that ends the training."""
        return TrainingFailedError(f"{self.description} {how} in epoch {epoch} ({reason}); try {self.advice}")


def spread(z: Tensor) -> float:
    """How far embeddings (b, d) are from being all equal, in [0, 1].

    Mean squared distance from their mean, divided by their mean squared length; 0 where all are zero.
    """
    z = z.detach().float()
    squared_length = float(z.square().sum(1).mean())
    return 1 - float(z.mean(0).square().sum()) / squared_length if squared_length > 0 else 0.0


def chance_recall(labels: Tensor) -> float:
    """R@1 (%) of a random ranking, leave-one-out: the mean share of an item's class among all other items."""
    counts = labels.bincount().double()
    return float(100 * (counts * (counts - 1)).sum() / (len(labels) * max(1, len(labels) - 1)))
