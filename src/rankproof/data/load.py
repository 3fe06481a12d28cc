"""The one door: whatever a path leads to, as a data set."""

from dataclasses import replace
from pathlib import Path

from rankproof.data.archive import TABLE, opened_listing
from rankproof.data.cub import holds_cub, list_cub
from rankproof.data.dataset import Dataset
from rankproof.data.digits import load_digits
from rankproof.data.download import SOURCES, where_to_put
from rankproof.data.folder import list_folder
from rankproof.data.gather import gather
from rankproof.data.idx import holds_idx, load_idx
from rankproof.data.listing import SPLITS, SplitBy, Listing, demand_classes
from rankproof.data.pictures import Progress, as_size, resize
from rankproof.data.sop import holds_sop, list_sop
from rankproof.errors import RankproofError

EMBEDDED = "digits"


def load(
    path: str | Path | None = None,
    split: str = "test",
    *,
    size: int | tuple[int, int] | None = None,
    split_by: SplitBy = "auto",
    root: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load one split of a data set and say in its note what was found.

    Args:
        path: None or "digits" for the embedded digits; a folder of idx files, a folder with one sub-folder
            per class, a zip or folder with metadata.csv, Stanford Online Products or CUB-200-2011 as
            published; or the name of one of these below `root`.
        split: "train" or "test".
        size: side or (height, width) in pixels every picture is resized to.
        divide: who gets which picture: "auto" (as the source says, else halves of the classes from 20
            classes on, else halves of each class), "classes", "items", or "none" (all in both splits).
        root: folder that holds data sets by name.
        progress: called with (done, total) while pictures are decoded.
    Returns:
        the split, with labels that mean the same class in both splits.
    Raises:
        RankproofError: in one line, what is wrong and what to do.
    """
    if split not in SPLITS:
        raise RankproofError(f"split must be train or test, got {split!r}")
    wanted = as_size(size)
    place = None if path is None or str(path) == EMBEDDED else find(path, root)
    if place is not None and not holds_idx(place):
        return _load_listed(place, split, wanted, split_by, progress)
    if split_by != "auto":
        raise RankproofError(f"{path or EMBEDDED}: comes with its own split; leave `divide` at auto")
    dataset = load_digits(split) if place is None else load_idx(place, split)
    demand_classes(dataset.labels.tolist(), f"{dataset.name}, {split} split")
    return dataset if wanted is None else _resized(dataset, wanted)


def find(path: str | Path, root: Path | None) -> Path:
    """The path itself if it exists, else the folder or zip of that name below `root`."""
    name = str(path)
    candidates = [Path(path)] + ([root / name, root / f"{name}.zip"] if root is not None else [])
    for candidate in candidates:
        if candidate.exists():
            return candidate
    if name in SOURCES:
        raise RankproofError(
            f"{name}: not found; `rankproof data {name}` downloads it, or {where_to_put(name, root)}"
        )
    below = "" if root is None else f", nor below {root}"
    raise RankproofError(f"{name}: no such file or folder{below}; check the path")


def _load_listed(
    place: Path, split: str, size: tuple[int, int] | None, split_by: SplitBy, progress: Progress | None
) -> Dataset:
    """A data set of single picture files, listed by tables or by their folders."""
    if place.is_file() or (place / TABLE).is_file():
        with opened_listing(place) as listing:
            return gather(listing, split, size=size, split_by=split_by, progress=progress)
    return gather(_listed(place), split, size=size, split_by=split_by, progress=progress)


def _listed(folder: Path) -> Listing:
    """What a folder without metadata.csv holds."""
    if holds_sop(folder):
        return list_sop(folder)
    return list_cub(folder) if holds_cub(folder) else list_folder(folder)


def _resized(dataset: Dataset, size: tuple[int, int]) -> Dataset:
    if tuple(dataset.pictures.shape[2:]) == size:
        return dataset
    height, width = size
    return replace(
        dataset,
        pictures=resize(dataset.pictures, size),
        note=f"{dataset.note}; resized to {height}x{width} as asked",
    )
