"""How encoders are trained."""

from rankproof.training.loop import Epoch, Settings, measure_recall, train

__all__ = ["Epoch", "Settings", "measure_recall", "train"]
