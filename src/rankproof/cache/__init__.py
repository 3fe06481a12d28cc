"""Embedded galleries and decoded images, kept on disk between commands and checked before they are used."""

from rankproof.cache.galleries import Entry, GalleryCache
from rankproof.cache.listing import KeptFile

__all__ = ["Entry", "GalleryCache", "KeptFile"]
