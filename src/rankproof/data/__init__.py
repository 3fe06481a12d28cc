"""Data sets of labelled images."""

from rankproof.data.dataset import Dataset, MixedDataset
from rankproof.data.download import download
from rankproof.data.load import load
from rankproof.data.queries import load_queries
from rankproof.ranking.mixed_images import MixedImages

__all__ = ["Dataset", "MixedDataset", "MixedImages", "download", "load", "load_queries"]
