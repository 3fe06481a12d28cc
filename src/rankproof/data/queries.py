"""Images that are searched for in a gallery and are no part of it: `--queries`."""

import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from rankproof.data.dataset import Dataset, LabelledImages, MixedDataset, as_labels
from rankproof.data.folder import read_below
from rankproof.data.idx import is_idx
from rankproof.data.image_list import (
    QUERY,
    ImageList,
    Keep,
    ListedImage,
    read_images,
    select_split,
    size_text,
)
from rankproof.data.images import peek, resize
from rankproof.data.load import EMBEDDED, find, listing, load
from rankproof.data.tree import is_image
from rankproof.errors import RankproofError
from rankproof.types import ProgressCallback, no_progress

NAMED = 3  # classes that a note names
GREY = 1  # channels


def load_queries(
    path: str | Path,
    gallery: Dataset | MixedDataset,
    *,
    size: Keep | None = None,
    root: Path | None = None,
    progress: ProgressCallback = no_progress,
) -> Dataset | MixedDataset:
    """Load images that are searched for in a gallery; `note` says how they fit to it.

    All images count, whatever split they are in; of digits and idx files, which come with a fixed one, the
    test split. They are given the height, width and channels of the gallery's images. Classes are those of
    the gallery by name; a class that it lacks gets a number of its own.

    Args:
        path: anything that `load` opens, or a single image file.
        gallery: what they are searched for in.
        size: "keep" leaves each image at its own size, as in a gallery of several sizes.
        root: folder that contains data sets by name.
        progress: called with (done, total) while images are decoded.
    Raises:
        RankproofError: in one line, what is wrong and what to do.
    """
    channels, *sides = (int(side) for side in gallery.images[0].shape)
    keep = size is not None or isinstance(gallery, MixedDataset)
    fit = _Fit(channels, None if keep else (sides[0], sides[1]))
    place = None if str(path) in EMBEDDED else find(path, root)
    found: Dataset | MixedDataset
    if place is None or is_idx(place):
        found = _fitted(load(path, "test", root=root), fit)
    else:
        with _listed(place) as listed:
            found = _read(listed, fit, progress)
    queries, remarks = _with_classes(found, gallery)
    if copies := count_copies(queries, gallery):
        remarks.append(
            f"{copies} of the {len(queries)} queries are in the gallery, pixel for pixel: such a query finds "
            f"its own copy first, so that recall and ranks look better than they are"
        )
    return replace(queries, split=QUERY, queries=None, note="; ".join((queries.note, *remarks)))


@dataclass(frozen=True)
class _Fit:
    """The gallery's number of channels, and its (height, width) unless images keep their own."""

    channels: int
    size: tuple[int, int] | None


def count_copies(queries: Dataset | MixedDataset, gallery: Dataset | MixedDataset) -> int:
    """How many queries are equal to a gallery image in every pixel."""
    known = {_digest(gallery.images[row]) for row in range(len(gallery))}
    return sum(_digest(queries.images[row]) in known for row in range(len(queries)))


def _digest(image: Tensor) -> bytes:
    digest = blake2b(repr(tuple(image.shape)).encode(), digest_size=16)
    digest.update(image.contiguous().numpy().data)
    return digest.digest()


@contextmanager
def _listed(place: Path) -> Iterator[ImageList]:
    """The images of a folder, a zip, or an image file."""
    if place.is_file() and not zipfile.is_zipfile(place):
        if not is_image(place.name):
            raise RankproofError(f"{place}: neither an image file nor a zip; name one of these, or a folder")
        yield ImageList(
            name=place.stem,
            kind="image file",
            images=(ListedImage(file=place.name, key=None),),
            classes={},
            read=lambda file: read_below(place.parent, file),
        )
        return
    with listing(place) as listed:
        yield listed


def _read(listed: ImageList, fit: _Fit, progress: ProgressCallback) -> Dataset | MixedDataset:
    """All images of a list in the form of the gallery's."""
    selected, _ = select_split(listed, "test", "none")
    if not selected:
        raise RankproofError(f"{listed.name}: no images to search for; check the path")
    own = {image.file: peek(listed.read(image.file), image.file) for image in selected}
    count = f"{len(selected)} image" + ("s" if len(selected) > 1 else "")
    note = [f"{listed.kind}: {count} of {size_text(list(own.values()), kept=fit.size is None)}"]
    forms = {file: replace(form, channels=fit.channels) for file, form in own.items()}
    if fit.size is not None:
        height, width = fit.size
        if any((form.height, form.width) != fit.size for form in own.values()):
            note.append(f"resized to {height}x{width}, the size of the gallery's images")
        forms = {file: replace(form, height=height, width=width) for file, form in forms.items()}
    if any(form.channels > fit.channels for form in own.values()):
        note.append("made grey, as the gallery is")
    return read_images(listed, selected, forms, QUERY, "; ".join((*note, *listed.remarks)), progress)


def _fitted(queries: Dataset, fit: _Fit) -> Dataset:
    """Queries that are tensors already, in the form of the gallery's images."""
    images, note = queries.images, queries.note
    if fit.size not in (None, tuple(images.shape[2:])):
        assert fit.size is not None
        images = resize(images, fit.size)
        note = f"{note}; resized to {'x'.join(map(str, fit.size))}, the size of the gallery's images"
    if images.shape[1] != fit.channels:
        if images.shape[1] != GREY:
            raise RankproofError(f"{queries.name}: colour images, but the gallery's are grey; choose others")
        images = images.expand(-1, fit.channels, -1, -1)
    return replace(queries, images=images, note=note)


def _with_classes(
    queries: Dataset | MixedDataset, gallery: LabelledImages
) -> tuple[Dataset | MixedDataset, list[str]]:
    """The queries with the gallery's labels for classes of its names, and what to tell about them.

    Raises:
        RankproofError: a name stands for two classes of the gallery, or is one of its names but for case
            or spaces.
    """
    if queries.labels is None:
        return queries, ["without classes: retrieval by them cannot be measured"]
    if gallery.labels is None:
        return replace(queries, labels=None), ["their classes do not count, as the gallery has none"]
    here = set(gallery.labels.tolist())
    names = {number: _name(name) for number, name in enumerate(gallery.classes)}
    counts = Counter(names[number] for number in here)
    number_of = {name: number for number, name in names.items()}  # of the train split, too
    number_of |= {names[number]: number for number in here}
    alike = {_folded(names[number]): gallery.classes[number] for number in here}
    classes, numbers = list(gallery.classes), {}
    for own in sorted(set(queries.labels.tolist())):
        given = queries.classes[own]
        name = _name(given)
        if counts[name] > 1:
            raise RankproofError(
                f"{queries.name}: {counts[name]} classes of the gallery are named {given!r}, so that it is "
                f"unknown which one is meant; give them different names"
            )
        if name not in number_of and (other := alike.get(_folded(name))) is not None:
            raise RankproofError(
                f"{queries.name}: the class {given!r} is {other!r} in the gallery; give both the same name"
            )
        if name not in number_of:
            number_of[name] = len(classes)
            classes.append(given)
        numbers[own] = number_of[name]
    labels = as_labels([numbers[own] for own in queries.labels.tolist()])
    remarks = [f"in {len(set(numbers.values()))} classes"]
    remarks += _without_match(labels, here, classes)
    return replace(queries, labels=labels, classes=tuple(classes)), remarks


def _without_match(labels: Tensor, here: set[int], classes: Sequence[str]) -> list[str]:
    """What to tell about queries of classes that the gallery lacks; such a query can find nothing."""
    lacking = sorted(set(labels.tolist()) - here)
    if not lacking:
        return []
    lost = int(torch.isin(labels, torch.tensor(lacking)).sum())
    named = ", ".join(classes[number] for number in lacking[:NAMED])
    more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
    return [f"{lost} of them have no match, as the gallery has no images of {named}{more}"]


def _name(name: str) -> str:
    """A class name as it is compared: file systems write the same letters in two ways."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    """A class name without what a typist may overlook."""
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()
