"""Encoders: the architectures that can be trained, pretrained models by name, and checkpoints."""

from rankproof.models.architectures import ARCHITECTURES, Architecture, new_encoder
from rankproof.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, zoo_names
from rankproof.models.huggingface import text_queries
from rankproof.models.open import open_encoder
from rankproof.models.preprocess import GreyToColour, Preprocess
from rankproof.models.small_cnns import C2F1, DigitsEncoder
from rankproof.models.source import Source
from rankproof.models.statistics import ReverseChannels
from rankproof.models.weights import LoadedWeights, load_weights

__all__ = [
    "ARCHITECTURES",
    "C2F1",
    "Architecture",
    "Checkpoint",
    "DigitsEncoder",
    "GreyToColour",
    "LoadedWeights",
    "Preprocess",
    "ReverseChannels",
    "Source",
    "load_checkpoint",
    "load_weights",
    "new_encoder",
    "open_encoder",
    "save_checkpoint",
    "text_queries",
    "zoo_names",
]
