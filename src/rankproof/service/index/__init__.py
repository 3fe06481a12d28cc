"""Where the nearest items are looked up."""

from rankproof.service.index.base import Index

__all__ = ["Index"]
