"""The embedded photos: groceries as a shop shows them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from rankproof.data.archive import open_archive
from rankproof.data.image_list import ImageList
from rankproof.errors import RankproofError

GROCERIES = "groceries"
ARCHIVE = Path(str(files("rankproof") / "data" / "groceries.zip"))
SHA256 = "9f9218ec439ad1987d730d99316252d0ce66b9c41dc5dded99cf5ad31a6dbbe4"  # of ARCHIVE


@contextmanager
def open_groceries() -> Iterator[ImageList]:
    """648 photos of 96x96 in 81 classes, 8 each, of the Grocery Store Dataset's test split (MIT).

    Source: Klasson, Zhang and Kjellström, WACV 2019; the archive holds the licence and a page of sources.

    Raises:
        RankproofError: the archive is damaged or missing.
    """
    if not ARCHIVE.is_file() or hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() != SHA256:
        raise RankproofError(
            f"{ARCHIVE}: the embedded groceries, damaged or missing; install rankproof again"
        )
    with open_archive(ARCHIVE) as listed:
        yield replace(listed, kind="the embedded groceries")
