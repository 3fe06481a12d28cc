"""What a model is worth: how well it retrieves, and how much of that is left under attack."""

from rankproof.evaluation.accuracy import Accuracy, accuracy
from rankproof.evaluation.robustness import Robustness, default_eps, robustness_score

__all__ = ["Accuracy", "Robustness", "accuracy", "default_eps", "robustness_score"]
