"""Folders of idx files, as MNIST and Fashion-MNIST are published (.gz or not)."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from rankproof.data.dataset import Dataset, as_labels
from rankproof.errors import RankproofError

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
    """The file of that split and kind ("images-idx3" or "labels-idx1") in `folder`, compressed or not."""
    stem = f"{PREFIX[split]}-{kind}-ubyte"
    for name in (f"{stem}.gz", stem, f"{stem.replace('-idx', '.idx')}.gz", stem.replace("-idx", ".idx")):
        if (folder / name).is_file():
            return folder / name
    return None


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array in one idx file of unsigned bytes with that many dimensions."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise RankproofError(f"{path}: cannot be read as an idx file ({error}); fetch it again") from None
    header = 4 + 4 * dimensions
    if len(raw) < header or raw[:3] != b"\x00\x00\x08" or raw[3] != dimensions:
        raise RankproofError(f"{path}: damaged header, not an idx file of {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", dimensions, 4))
    if len(raw) - header != int(np.prod(shape, dtype=object)):
        raise RankproofError(
            f"{path}: header promises {'x'.join(map(str, shape))} bytes, the file has {len(raw) - header}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def load_idx(folder: Path, split: str) -> Dataset:
    """The split of an idx folder; the names of Fashion-MNIST's classes are known by the folder's name."""
    image_file, label_file = find_idx(folder, split, "images-idx3"), find_idx(folder, split, "labels-idx1")
    if image_file is None or label_file is None:
        wanted = f"{PREFIX[split]}-images-idx3-ubyte.gz and {PREFIX[split]}-labels-idx1-ubyte.gz"
        raise RankproofError(f"{folder}: the {split} split needs {wanted}")
    pictures, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if len(pictures) != len(labels) or len(pictures) == 0:
        raise RankproofError(f"{folder}: {len(pictures)} pictures but {len(labels)} labels")
    count = int(labels.max()) + 1
    fashion = "fashion" in folder.resolve().name.lower() and count == len(FASHION_CLASSES)
    classes = FASHION_CLASSES if fashion else tuple(str(number) for number in range(count))
    height, width = pictures.shape[1:]
    return Dataset(
        pictures=torch.from_numpy(pictures.copy())[:, None],
        labels=as_labels(labels.astype(np.int64)),
        classes=classes,
        name=folder.resolve().name,
        split=split,
        note=f"idx files, {split} split: {len(pictures)} pictures of {height}x{width} in {count} classes",
    )
