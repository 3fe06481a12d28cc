"""Folders of idx files, as MNIST and Fashion-MNIST are published (.gz or not)."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from rankproof.data.dataset import Dataset, as_labels
from rankproof.errors import RankproofError

UNSIGNED_BYTE = 8
MAX_BYTES = 16 * 2**30
PREFIX = {"train": "train", "test": "t10k"}
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def find_idx(folder: Path, split: str, kind: str) -> Path | None:
    """The file of a split and kind ("images-idx3" or "labels-idx1") in `folder`, compressed or not."""
    stem = f"{PREFIX[split]}-{kind}-ubyte"
    for name in (f"{stem}.gz", stem, f"{stem.replace('-idx', '.idx')}.gz", stem.replace("-idx", ".idx")):
        if (folder / name).is_file():
            return folder / name
    return None


def is_idx(folder: Path) -> bool:
    """Whether a folder looks like idx files: at least one of the four exists."""
    kinds = ("images-idx3", "labels-idx1")
    return any(find_idx(folder, split, kind) is not None for split in PREFIX for kind in kinds)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array in an idx file of unsigned bytes with that many dimensions."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            shape = _read_shape(stream.read(4 + 4 * dimensions), path, dimensions)
            declared = int(np.prod(shape, dtype=object))
            if declared > MAX_BYTES:
                raise RankproofError(f"{path}: header declares {declared:,} bytes, too many; fetch it again")
            raw = stream.read(declared + 1)  # one byte more shows that the file is too long
    except (OSError, EOFError, zlib.error) as error:
        raise RankproofError(f"{path}: cannot be read as an idx file ({error}); fetch it again") from None
    if len(raw) != declared:
        actual = "more" if len(raw) > declared else f"{len(raw):,}"
        raise RankproofError(
            f"{path}: header declares {declared:,} bytes, the file has {actual}; fetch it again"
        )
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _read_shape(header: bytes, path: Path, dimensions: int) -> tuple[int, ...]:
    """The sizes in an idx header: two zeros, the type, the number of dimensions, each size in 4 bytes."""
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
        raise RankproofError(
            f"{path}: damaged header, not an idx file of {dimensions} dimensions; fetch it again"
        )
    return tuple(int(size) for size in np.frombuffer(header, ">u4", dimensions, 4))


def load_idx(folder: Path, split: str) -> Dataset:
    """A split of an idx folder; a folder with "fashion" in its name gets the class names of Fashion-MNIST."""
    image_file, label_file = find_idx(folder, split, "images-idx3"), find_idx(folder, split, "labels-idx1")
    if image_file is None or label_file is None:
        names = f"{PREFIX[split]}-images-idx3-ubyte.gz and {PREFIX[split]}-labels-idx1-ubyte.gz"
        raise RankproofError(f"{folder}: the {split} split needs {names}")
    pixels, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if len(pixels) != len(labels):
        raise RankproofError(f"{folder}: {len(pixels)} images but {len(labels)} labels; fetch both again")
    if pixels.size == 0:
        raise RankproofError(f"{folder}: no images in {image_file.name}; fetch it again")
    count = int(labels.max()) + 1
    fashion = "fashion" in folder.resolve().name.lower() and count == len(FASHION_CLASSES)
    classes = FASHION_CLASSES if fashion else tuple(str(number) for number in range(count))
    height, width = pixels.shape[1:]
    return Dataset(
        images=torch.from_numpy(pixels.copy())[:, None],  # (n, 1, h, w)
        labels=as_labels(labels.astype(np.int64)),
        classes=classes,
        name=folder.resolve().name,
        split=split,
        note=f"idx files, {split} split: {len(pixels)} images of {height}x{width} in {count} classes",
    )
