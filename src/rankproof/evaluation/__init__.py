"""What a model is worth: how well it retrieves, and how much of that is left under attack."""

from rankproof.evaluation.accuracy import Accuracy, accuracy
from rankproof.evaluation.queries import retrieve
from rankproof.evaluation.robustness import Robustness, default_eps, robustness_score
from rankproof.ranking.separate_queries import SeparateQueries

__all__ = [
    "Accuracy",
    "Robustness",
    "SeparateQueries",
    "accuracy",
    "default_eps",
    "retrieve",
    "robustness_score",
]
