"""Training of encoders, with or without a defence."""

from rankproof.training.act import AntiCollapse
from rankproof.training.defenses import (
    EmbeddingShift,
    MinMax,
    SingleStep,
    Suppress,
    Undefended,
    WholeBatch,
)
from rankproof.training.divergence import TrainingFailedError
from rankproof.training.hm import Hardness
from rankproof.training.inner_attack import InnerAttack
from rankproof.training.loop import Epoch, Training, train
from rankproof.training.losses import Contrastive, MetricLearningLoss, Triplet
from rankproof.training.recipe import Augment, Recipe, published
from rankproof.training.samplers import Balanced, FromSet, InBatch

__all__ = [
    "AntiCollapse",
    "Augment",
    "Balanced",
    "Contrastive",
    "EmbeddingShift",
    "Epoch",
    "FromSet",
    "Hardness",
    "InBatch",
    "InnerAttack",
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
