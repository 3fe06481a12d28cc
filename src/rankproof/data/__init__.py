"""Where pictures come from."""

from rankproof.data.dataset import Dataset

__all__ = ["Dataset"]
