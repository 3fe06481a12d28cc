"""Encoders, and how they are kept on disk."""

from rankproof.models.c2f1 import C2F1, DigitsEncoder
from rankproof.models.checkpoint import Checkpoint, load_checkpoint, new_encoder, save_checkpoint, zoo_names

__all__ = [
    "C2F1",
    "Checkpoint",
    "DigitsEncoder",
    "load_checkpoint",
    "new_encoder",
    "save_checkpoint",
    "zoo_names",
]
