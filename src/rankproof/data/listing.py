"""Pictures that were found but not read yet, and who gets which of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

from rankproof.errors import RankproofError

SplitBy = Literal["auto", "classes", "items", "none"]
SPLITS = ("train", "test")
ENOUGH_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One picture on the list.

    Args:
        file: its name below the folder or in the archive.
        key: its class, a key of `Listing.classes`.
        given: the split its source puts it in, if any.
    """

    file: str
    key: str
    given: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All pictures of a data set, both splits.

    Args:
        name: short name of the data set.
        kind: what was found ("folder of classes"), for the note.
        pictures: the list.
        classes: name of each class by its key, in the order of the labels.
        read: gives the bytes of one file of the list.
        remarks: what else the note should tell.
    """

    name: str
    kind: str
    pictures: tuple[Listed, ...]
    classes: dict[str, str]
    read: Callable[[str], bytes]
    remarks: tuple[str, ...] = ()


def choose(listing: Listing, split: str, split_by: SplitBy) -> tuple[list[Listed], str]:
    """The pictures of one split, and the rule that chose them in words.

    "auto" takes the splits the source gives; without them, halves of the classes where there are at
    least 20, else halves of each class.
    """
    if split_by not in get_args(SplitBy):
        raise RankproofError(f"split_by must be one of {', '.join(get_args(SplitBy))}, got {split_by!r}")
    pictures = listing.pictures
    if split_by == "none":
        return list(pictures), "not divided, every picture is in both splits"
    if split_by == "auto" and pictures and all(picture.given for picture in pictures):
        return [picture for picture in pictures if picture.given == split], "divided as the source says"
    if split_by == "classes" or (split_by == "auto" and len(listing.classes) >= ENOUGH_CLASSES):
        train, rule = _half_the_classes(listing)
    else:
        train, rule = _half_of_each_class(listing)
    return [picture for picture in pictures if (picture.file in train) == (split == "train")], rule


def _half_the_classes(listing: Listing) -> tuple[frozenset[str], str]:
    """The files of the first half of the classes."""
    keys = tuple(listing.classes)
    first = frozenset(keys[: len(keys) // 2])
    rule = f"divided by class: the first {len(first)} of {len(keys)} classes train, the others test"
    return frozenset(picture.file for picture in listing.pictures if picture.key in first), rule


def _half_of_each_class(listing: Listing) -> tuple[frozenset[str], str]:
    """The files whose hash is in the lower half of their class; a class of one goes to test."""
    members: dict[str, list[str]] = {key: [] for key in listing.classes}
    for picture in listing.pictures:
        members[picture.key].append(picture.file)
    train: set[str] = set()
    for files in members.values():
        train.update(sorted(files, key=_digest)[: len(files) // 2])
    return frozenset(train), "divided by picture: half of each class train, half test, by a hash of the name"


def _digest(file: str) -> bytes:
    return sha256(file.encode(errors="surrogateescape")).digest()


def demand_classes(keys: Sequence[str] | Sequence[int], where: str) -> None:
    """Refuse what is empty or holds one class only."""
    if not keys:
        raise RankproofError(f"{where}: no pictures; choose another split, or another way to divide")
    if len(set(keys)) < 2:
        raise RankproofError(f"{where}: one class only; a ranking needs at least two classes")
