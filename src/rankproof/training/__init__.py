"""How encoders are trained."""

from rankproof.training.defenses import (
    EmbeddingShift,
    MinMax,
    SingleStep,
    Suppress,
    Undefended,
    WholeBatch,
)
from rankproof.training.health import TrainingFailedError
from rankproof.training.inner import Inner
from rankproof.training.later_defenses import AntiCollapse, Hardness
from rankproof.training.loop import Epoch, Training, train
from rankproof.training.losses import Contrastive, MetricLearningLoss, Triplet
from rankproof.training.recipe import Recipe, published
from rankproof.training.samplers import Balanced, FromSet, InBatch

__all__ = [
    "AntiCollapse",
    "Balanced",
    "Contrastive",
    "EmbeddingShift",
    "Epoch",
    "FromSet",
    "Hardness",
    "InBatch",
    "Inner",
    "MetricLearningLoss",
    "MinMax",
    "Recipe",
    "SingleStep",
    "Suppress",
    "Training",
    "TrainingFailedError",
    "Triplet",
    "Undefended",
    "WholeBatch",
    "published",
    "train",
]
