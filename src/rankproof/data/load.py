"""Loads any supported data set, whatever its layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import torch

from rankproof.data.archive import open_archive
from rankproof.data.csv_table import TABLE
from rankproof.data.cub import is_cub, list_cub
from rankproof.data.dataset import Dataset, MixedDataset, as_labels
from rankproof.data.download import SOURCES, manual_download
from rankproof.data.folder import list_folder, read_below
from rankproof.data.groceries import GROCERIES, open_groceries
from rankproof.data.idx import is_idx, load_idx
from rankproof.data.image_list import (
    KEEP,
    SPLITS,
    ImageList,
    Keep,
    KeptPixels,
    SplitBy,
    read_split,
    require_two_classes,
    resized_note,
)
from rankproof.data.images import as_size, resize
from rankproof.data.market import is_market, list_market
from rankproof.data.sop import is_sop, list_sop
from rankproof.data.tree import folder_tree
from rankproof.errors import RankproofError
from rankproof.types import ProgressCallback, no_progress

DIGITS = "digits"
EMBEDDED = (GROCERIES, DIGITS)
DIGITS_TRAIN_SIZE = 1000


@overload
def load(
    path: str | Path | None = None,
    split: str = "test",
    *,
    size: int | tuple[int, int] | None = None,
    split_by: SplitBy = "auto",
    root: Path | None = None,
    progress: ProgressCallback = no_progress,
    kept: KeptPixels | None = None,
) -> Dataset: ...


@overload
def load(
    path: str | Path | None = None,
    split: str = "test",
    *,
    size: Keep,
    split_by: SplitBy = "auto",
    root: Path | None = None,
    progress: ProgressCallback = no_progress,
    kept: KeptPixels | None = None,
) -> Dataset | MixedDataset: ...


def load(
    path: str | Path | None = None,
    split: str = "test",
    *,
    size: int | tuple[int, int] | Keep | None = None,
    split_by: SplitBy = "auto",
    root: Path | None = None,
    progress: ProgressCallback = no_progress,
    kept: KeptPixels | None = None,
) -> Dataset | MixedDataset:
    """Load one split of a data set; its note says what was found and how it was split.

    Args:
        path: None or "groceries" for the embedded photos, "digits" for the embedded digits; a folder of idx
            files, a folder with one sub-folder per class or of images without classes, a zip of such a
            folder, a zip or folder with metadata.csv, Stanford Online Products, CUB-200-2011 or Market-1501
            as published; or the name of one of these below `root`.
        split: "train" or "test".
        size: side or (height, width) in pixels that every image is resized to; "keep" leaves each image at
            its own, and gives a `MixedDataset` where they differ; None takes the size that all images
            share, or 128x128 where they differ.
        split_by: which images belong to which split: "auto" (as the source says, else halves of the classes
            from 20 classes on, else halves of each class), "classes", "items", or "none" (all in both
            splits).
        root: folder that contains data sets by name.
        progress: called with (done, total) while images are decoded.
        kept: where decoded pixels are kept, such as `GalleryCache().pixels`; None keeps nothing.
    Returns:
        the split, with labels that mean the same class in both splits.
    Raises:
        RankproofError: in one line, what is wrong and what to do.
    """
    if split not in SPLITS:
        raise RankproofError(f"split must be train or test, got {split!r}")
    wanted = check_size(size)
    if path is None or str(path) == GROCERIES:
        with open_groceries() as listed:
            return read_split(listed, split, size=wanted, split_by=split_by, progress=progress)
    place = None if str(path) == DIGITS else find(path, root)
    if place is not None and not is_idx(place):
        with listing(place) as listed:
            return read_split(listed, split, size=wanted, split_by=split_by, progress=progress, kept=kept)
    if split_by != "auto":
        raise RankproofError(f"{path}: comes with its own split; leave --divide at auto")
    dataset = _load_digits(split) if place is None else load_idx(place, split)
    require_two_classes(dataset.require_labels().tolist(), f"{dataset.name}, {split} split")
    if wanted is None or wanted == KEEP or tuple(dataset.images.shape[2:]) == wanted:
        return dataset
    note = f"{dataset.note}; {resized_note(wanted)}"
    return replace(dataset, images=resize(dataset.images, wanted), note=note)


def check_size(size: int | tuple[int, int] | Keep | None) -> tuple[int, int] | Keep | None:
    """A size as (height, width), or "keep"."""
    if not isinstance(size, str):
        return as_size(size)
    if size != KEEP:
        raise RankproofError(f"size: give a side in pixels, (height, width) or {KEEP!r}, got {size!r}")
    return size


@contextmanager
def listing(place: Path) -> Iterator[ImageList]:
    """The images of a folder or zip of any layout but idx files; they can be read while this is open."""
    if place.is_file() or (place / TABLE).is_file():
        with open_archive(place) as listed:
            yield listed
    else:
        yield _list_images(place)


def find(path: str | Path, root: Path | None) -> Path:
    """The path itself if it exists, else the folder or zip of that name below `root`."""
    name = str(path)
    if not name:  # Path("") is the folder of the command
        raise RankproofError("'': no name of a data set; give a path, or leave it out")
    candidates = [Path(path)] + ([root / name, root / f"{name}.zip"] if root is not None else [])
    for candidate in candidates:
        if candidate.exists():
            return candidate
    if name in SOURCES:
        raise RankproofError(
            f"{name}: not found; `rankproof data {name}` downloads it, or {manual_download(name, root)}"
        )
    below = "" if root is None else f", nor below {root}"
    raise RankproofError(f"{name}: no such file or folder{below}; check the path")


def _list_images(folder: Path) -> ImageList:
    """The images of a folder without metadata.csv."""
    if is_sop(folder):
        return list_sop(folder)
    if is_cub(folder):
        return list_cub(folder)
    top = folder_tree(folder)
    if is_market(top):
        return list_market(top, folder.resolve().name, lambda file: read_below(folder, file))
    return list_folder(folder)


def _load_digits(split: str) -> Dataset:
    """The embedded data set: 1,797 scanned digits of 8x8; the first 1,000 train, the last 797 test.

    Source: UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), test part, as shipped
    with scikit-learn; its 16 grey levels are scaled to 8 bits.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = slice(None, DIGITS_TRAIN_SIZE) if split == "train" else slice(DIGITS_TRAIN_SIZE, None)
    pixels = np.rint(digits.images[part] * (255 / 16)).astype(np.uint8)
    return Dataset(
        images=torch.from_numpy(pixels)[:, None],  # (n, 1, 8, 8)
        labels=as_labels(digits.target[part]),
        classes=tuple(str(name) for name in digits.target_names),
        name=DIGITS,
        split=split,
        note=f"the embedded digits, {split} split: {len(pixels)} images of 8x8 in 10 classes",
    )
