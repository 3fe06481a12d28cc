"""What is kept, as it is listed."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankproof.cache.folder import CacheFolder
from rankproof.cache.tensor_file import head

Kind = Literal["embeddings", "pixels", "damaged"]
EMBEDDINGS: Kind = "embeddings"
PIXELS: Kind = "pixels"
DAMAGED: Kind = "damaged"


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """One file.

    Args:
        key: digest of all that it was made from, and the name of the file.
        kind: "embeddings" of a gallery, decoded "pixels", or "damaged".
        model, data: as they were called; pixels have no model.
        items: number of embeddings or images.
        dimensions: of each embedding, or values of each image.
        bytes: size of the file.
        used: when it was last used, in seconds since 1970.
    """

    key: str
    kind: Kind
    model: str
    data: str
    items: int
    dimensions: int
    bytes: int
    used: float


def listing(folder: CacheFolder) -> list[KeptFile]:
    """All that is kept, the most recently used first."""
    found = []
    for file in folder.files():
        try:
            status = file.stat()
        except OSError:  # removed meanwhile
            continue
        found.append(_described(file, status.st_size, status.st_mtime))
    return found


def _described(file: Path, size: int, used: float) -> KeptFile:
    """What the head of a file says; its values are not read."""
    for kind in (EMBEDDINGS, PIXELS):
        try:
            metadata, shape = head(file, kind)
        except ValueError:
            continue
        if len(shape) < 2:
            break
        return KeptFile(
            key=file.stem,
            kind=kind,
            model=metadata.get("model", ""),
            data=metadata.get("data", ""),
            items=shape[0],
            dimensions=math.prod(shape[1:]),
            bytes=size,
            used=used,
        )
    return KeptFile(
        key=file.stem, kind=DAMAGED, model="", data="", items=0, dimensions=0, bytes=size, used=used
    )
