"""Embedded galleries, kept on disk between commands and checked before they are used."""

from rankproof.cache.galleries import Entry, GalleryCache, KeptGallery

__all__ = ["Entry", "GalleryCache", "KeptGallery"]
