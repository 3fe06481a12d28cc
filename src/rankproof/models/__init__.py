"""Encoders: the ones that can be trained here, anybody's own by name, and how they are kept on disk."""

from rankproof.models.architectures import ARCHITECTURES, Architecture, new_encoder
from rankproof.models.c2f1 import C2F1, DigitsEncoder
from rankproof.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, zoo_names
from rankproof.models.huggingface import text_queries
from rankproof.models.preprocess import GreyToColour, Preprocess
from rankproof.models.source import Source, open_encoder
from rankproof.models.weights import Fitted, load_weights

__all__ = [
    "ARCHITECTURES",
    "C2F1",
    "Architecture",
    "Checkpoint",
    "DigitsEncoder",
    "Fitted",
    "GreyToColour",
    "Preprocess",
    "Source",
    "load_checkpoint",
    "load_weights",
    "new_encoder",
    "open_encoder",
    "save_checkpoint",
    "text_queries",
    "zoo_names",
]
