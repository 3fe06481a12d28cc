"""Data sets of labelled images."""

from rankproof.data.dataset import Dataset
from rankproof.data.download import download
from rankproof.data.load import load

__all__ = ["Dataset", "download", "load"]
