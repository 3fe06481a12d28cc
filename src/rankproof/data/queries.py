"""Images that are searched for in a gallery and are no part of it: `--queries`."""

import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from rankproof.data.dataset import Dataset, as_labels
from rankproof.data.folder import read_below
from rankproof.data.idx import is_idx
from rankproof.data.image_list import QUERY, ImageList, ListedImage, read_images, select_split
from rankproof.data.images import Form, peek, resize
from rankproof.data.load import EMBEDDED, find, listing, load
from rankproof.data.tree import is_image
from rankproof.errors import RankproofError
from rankproof.types import ProgressCallback, no_progress

NAMED = 3  # classes that a note names
GREY = 1  # channels


def load_queries(
    path: str | Path,
    gallery: Dataset,
    *,
    root: Path | None = None,
    progress: ProgressCallback = no_progress,
) -> Dataset:
    """Load images that are searched for in a gallery; `note` says how they fit to it.

    All images count, whatever split they are in; of digits and idx files, which come with a fixed one, the
    test split. They are given the height, width and channels of the gallery's images. Classes are those of
    the gallery by name; a class that it lacks gets a number of its own.

    Args:
        path: anything that `load` opens, or a single image file.
        gallery: what they are searched for in.
        root: folder that contains data sets by name.
        progress: called with (done, total) while images are decoded.
    Raises:
        RankproofError: in one line, what is wrong and what to do.
    """
    place = None if str(path) == EMBEDDED else find(path, root)
    if place is None or is_idx(place):
        found = _fitted(load(path, "test", root=root), gallery)
    else:
        with _listed(place) as listed:
            found = _read(listed, gallery, progress)
    queries, remarks = _with_classes(found, gallery)
    if copies := count_copies(queries, gallery):
        remarks.append(
            f"{copies} of the {len(queries)} queries are in the gallery, pixel for pixel: such a query finds "
            f"its own copy first, so that recall and ranks look better than they are"
        )
    return replace(queries, split=QUERY, queries=None, note="; ".join((queries.note, *remarks)))


def count_copies(queries: Dataset, gallery: Dataset) -> int:
    """How many queries are equal to a gallery image in every pixel."""
    known = {_digest(image) for image in gallery.images}
    return sum(_digest(image) in known for image in queries.images)


def _digest(image: Tensor) -> bytes:
    digest = blake2b(repr(tuple(image.shape)).encode(), digest_size=16)
    digest.update(image.contiguous().numpy().data)
    return digest.digest()


@contextmanager
def _listed(place: Path) -> Iterator[ImageList]:
    """The images of a folder, a zip, or an image file."""
    if place.is_file() and is_image(place.name) and not zipfile.is_zipfile(place):
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


def _read(listed: ImageList, gallery: Dataset, progress: ProgressCallback) -> Dataset:
    """All images of a list in the form of the gallery's."""
    selected, _ = select_split(listed, "test", "none")
    if not selected:
        raise RankproofError(f"{listed.name}: no images to search for; check the path")
    channels, height, width = (int(side) for side in gallery.images.shape[1:])
    own = [peek(listed.read(image.file), image.file) for image in selected]
    note = [_count(listed.kind, len(selected), {(form.height, form.width) for form in own})]
    if any((form.height, form.width) != (height, width) for form in own):
        note.append(f"resized to {height}x{width}, the size of the gallery's images")
    if any(form.channels > channels for form in own):
        note.append("made grey, as the gallery is")
    form = Form(height=height, width=width, channels=channels)
    text = "; ".join((*note, *listed.remarks))
    return read_images(listed, selected, form, QUERY, text, progress)


def _fitted(queries: Dataset, gallery: Dataset) -> Dataset:
    """Queries that are tensors already, in the form of the gallery's images."""
    channels, height, width = (int(side) for side in gallery.images.shape[1:])
    images = resize(queries.images, (height, width))
    note = queries.note
    if tuple(queries.images.shape[2:]) != (height, width):
        note = f"{note}; resized to {height}x{width}, the size of the gallery's images"
    if images.shape[1] != channels:
        if images.shape[1] != GREY:
            raise RankproofError(f"{queries.name}: colour images, but the gallery's are grey; choose others")
        images = images.expand(-1, channels, -1, -1)
    return replace(queries, images=images, note=note)


def _count(kind: str, count: int, sizes: set[tuple[int, int]]) -> str:
    """How many images of which size, for the note."""
    size = "x".join(map(str, min(sizes))) if len(sizes) == 1 else f"{len(sizes)} sizes"
    return f"{kind}: {count} {'image' if count == 1 else 'images'} of {size}"


def _with_classes(queries: Dataset, gallery: Dataset) -> tuple[Dataset, list[str]]:
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
