"""Data sets of labelled images."""

from rankproof.data.dataset import Dataset
from rankproof.data.download import download
from rankproof.data.load import load
from rankproof.data.queries import load_queries

__all__ = ["Dataset", "download", "load", "load_queries"]
