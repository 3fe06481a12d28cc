"""The image files of a data set: which belong to which split, and their pixels as a `Dataset`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from rankproof.data.dataset import Dataset, LabelledImages, MixedDataset, as_labels
from rankproof.data.images import Form, decode, peek
from rankproof.errors import RankproofError
from rankproof.ranking.mixed_images import MixedImages
from rankproof.types import ProgressCallback

Keep = Literal["keep"]
Forms = Mapping[str, Form]
"""The form of each image by its file."""

SplitBy = Literal["auto", "classes", "items", "none"]
KEEP: Keep = "keep"
SPLITS = ("train", "test")
QUERY = "query"
MIN_CLASSES_TO_SPLIT = 20  # from here on "auto" splits by class
WHOLE = ' (for all images in one gallery: --divide none, in Python split_by="none")'
COMMON_SIZE = (128, 128)
MAX_MEMORY = 16 * 2**30


@runtime_checkable
class KeptPixels(Protocol):
    """Where decoded pixels are kept between commands: the digest of a file is cheap, decoding it is not."""

    def read(self, content: str) -> torch.Tensor | None:
        """The (n, c, h, w) 8-bit pixels of some content, if they are kept."""
        ...

    def write(self, content: str, pixels: torch.Tensor, name: str) -> None:
        """Keep the pixels of some content of the data set `name`."""
        ...


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """One image file.

    Args:
        file: its name relative to the folder or inside the archive.
        key: its class, a key of `ImageList.classes`; None where it has none.
        given: the split that the source assigns it to, if any; "query" is for images that are searched for in
            the test split and are not part of it.
        camera: number of the camera that took it, where known.
    """

    file: str
    key: str | None
    given: str | None = None
    camera: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """All image files of a data set, both splits.

    Args:
        name: short name of the data set.
        kind: layout of the source ("folder of classes"), for the note.
        images: the files.
        classes: name of each class by its key, in the order of the labels.
        read: returns the bytes of one of the files.
        remarks: what else the note should say.
    """

    name: str
    kind: str
    images: tuple[ListedImage, ...]
    classes: dict[str, str]
    read: Callable[[str], bytes]
    remarks: tuple[str, ...] = ()


def read_split(
    listed: ImageList,
    split: str,
    *,
    size: tuple[int, int] | Keep | None,
    split_by: SplitBy,
    progress: ProgressCallback,
    kept: KeptPixels | None = None,
) -> Dataset | MixedDataset:
    """Read the images of one split.

    Labels and number of channels are determined by both splits together, so that they agree.

    Args:
        size: (height, width) all images are resized to; "keep" for their own, by which a split of several
            sizes is a `MixedDataset`; None as for `common_form`.
        split_by: how images without a given split are divided; see `select_split`.
        progress: called with the number of images read and of all images of the split.
        kept: where decoded pixels are kept.
    """
    if None not in (keys := {image.key for image in listed.images}):
        require_two_classes(sorted(map(str, keys)), listed.name)
    selected, rule = select_split(listed, split, split_by)
    _require_ranking(selected, f"{listed.name}, {split} split")
    queries = [image for image in listed.images if image.given == QUERY] if split == "test" else []
    resized: tuple[str, ...] = ()
    form: Form | Forms
    if size == KEEP:
        form = own_forms(listed)
    else:
        form, resized = common_form(listed, size)
    read = _Read(listed, form, len(selected) + len(queries), progress, kept)
    note = "; ".join((_summary(listed, selected, split, form), rule, *resized, *listed.remarks))
    dataset = read.dataset(selected, split, note)
    return replace(dataset, queries=read.dataset(queries, QUERY, note)) if queries else dataset


def _summary(listed: ImageList, selected: Sequence[ListedImage], split: str, form: Form | Forms) -> str:
    """What was found, for the note."""
    classes = len({image.key for image in selected})
    labelled = selected[0].key is not None
    sizes = size_text([form if isinstance(form, Form) else form[image.file] for image in selected])
    return f"{listed.kind}, {split} split: {len(selected)} images of {sizes} " + (
        f"in {classes} classes" if labelled else "without classes (an unlabelled gallery)"
    )


def select_split(listed: ImageList, split: str, split_by: SplitBy) -> tuple[list[ListedImage], str]:
    """The images of one split, and the rule that selected them, for the note.

    "auto" uses the splits that the source gives; without them, halves of the classes where there are at
    least 20, else halves of each class.
    """
    if split_by not in get_args(SplitBy):
        raise RankproofError(f"split_by must be one of {', '.join(get_args(SplitBy))}, got {split_by!r}")
    images = listed.images
    if split_by != "auto" and any(image.given == QUERY for image in images):
        raise RankproofError(f"{listed.name}: comes with its own queries; leave --divide at auto")
    labelled = any(image.key is not None for image in images)
    if split_by == "classes" and not labelled:
        raise RankproofError(f"{listed.name}: has no classes to divide by; leave --divide at auto")
    if split_by == "auto" and images and all(image.given for image in images):
        return [image for image in images if image.given == split], "divided as the source says"
    if split_by == "none" or (split_by == "auto" and not labelled):
        return list(images), "not divided, every image is in both splits"
    if split_by == "classes" or (split_by == "auto" and len(listed.classes) >= MIN_CLASSES_TO_SPLIT):
        train, rule = _half_the_classes(listed)
    else:
        train, rule = _half_of_each_class(listed)
    if split_by == "auto":
        rule += WHOLE
    return [image for image in images if (image.file in train) == (split == "train")], rule


def _half_the_classes(listed: ImageList) -> tuple[frozenset[str], str]:
    """The files of the first half of the classes."""
    keys = tuple(listed.classes)
    first = frozenset(keys[: len(keys) // 2])
    rule = f"divided by class: the first {len(first)} of {len(keys)} classes train, the others test"
    return frozenset(image.file for image in listed.images if image.key in first), rule


def _half_of_each_class(listed: ImageList) -> tuple[frozenset[str], str]:
    """The files whose hash is in the lower half of their class; the image of a class of one is in test."""
    members: dict[str | None, list[str]] = {}
    for image in listed.images:
        members.setdefault(image.key, []).append(image.file)
    train: set[str] = set()
    for files in members.values():
        train.update(sorted(files, key=_digest)[: len(files) // 2])
    rule = "divided by image: half of each class train, half test, by a hash of the name"
    return frozenset(train), rule


def _digest(file: str) -> bytes:
    return sha256(file.encode(errors="surrogateescape")).digest()


def _require_ranking(images: Sequence[ListedImage], where: str) -> None:
    """Raise for a split whose images cannot be ranked: a single one, or a single class."""
    if not images or images[0].key is not None:
        require_two_classes([str(image.key) for image in images], where)
    elif len(images) < 2:
        raise RankproofError(f"{where}: one image only; a ranking needs at least two")


def require_two_classes(keys: Sequence[str] | Sequence[int], where: str) -> None:
    """Raise for a data set or split that is empty or has a single class."""
    if not keys:
        raise RankproofError(f"{where}: no images; choose another split, or another way to divide")
    if len(set(keys)) < 2:
        raise RankproofError(
            f"{where}: one class only; a ranking needs at least two classes, or images without any"
        )


def own_forms(listed: ImageList) -> Forms:
    """The form of each image at its own size: colour if any image has colour."""
    forms = {image.file: peek(listed.read(image.file), image.file) for image in listed.images}
    channels = max(form.channels for form in forms.values())
    return {file: replace(form, channels=channels) for file, form in forms.items()}


def size_text(forms: Sequence[Form], *, kept: bool = True) -> str:
    """The size of images, or how many sizes they have, for a note."""
    sizes = sorted({(form.height, form.width) for form in forms}, key=lambda size: (size[0] * size[1], size))
    small, large = ("x".join(map(str, size)) for size in (sizes[0], sizes[-1]))
    if len(sizes) == 1:
        return small
    return f"{len(sizes)} sizes from {small} to {large}" + (" (kept)" if kept else "")


def common_form(listed: ImageList, size: tuple[int, int] | None) -> tuple[Form, tuple[str, ...]]:
    """The form that all images are decoded to, and what the note should say about it.

    Colour if any image has colour; without `size`, the size that all share, or 128x128 where they differ.
    """
    channels, sizes = 1, set()
    for image in listed.images:
        form = peek(listed.read(image.file), image.file)
        channels = max(channels, form.channels)
        sizes.add((form.height, form.width))
        if channels == 3 and (size is not None or len(sizes) > 1):
            break  # no later image can change the answer
    note: tuple[str, ...] = ()
    if size is not None:
        note = (resized_note(size),)
    elif len(sizes) > 1:
        size, note = COMMON_SIZE, ("images differ in size, all resized to 128x128",)
    height, width = size or next(iter(sizes))
    return Form(height=height, width=width, channels=channels), note


def read_images(
    listed: ImageList,
    selected: Sequence[ListedImage],
    form: Form | Forms,
    split: str,
    note: str,
    progress: ProgressCallback,
) -> Dataset | MixedDataset:
    """Some images of a list, decoded to one form or each to its own, as a split of that name."""
    return _Read(listed, form, len(selected), progress).dataset(selected, split, note)


def resized_note(size: tuple[int, int]) -> str:
    """What the note says about images that were resized to a given size."""
    return f"resized to {size[0]}x{size[1]} as asked"


@dataclass(frozen=True)
class _Read:
    """Decodes images of a list, to one form or each to its own by its file, and counts them."""

    listed: ImageList
    form: Form | Forms
    total: int
    progress: ProgressCallback
    kept: KeptPixels | None = None

    def dataset(self, selected: Sequence[ListedImage], split: str, note: str) -> Dataset | MixedDataset:
        """Images of a list as a `Dataset`; as a `MixedDataset` if they have several sizes."""
        label = {key: number for number, key in enumerate(self.listed.classes)}
        keys = [image.key for image in selected]
        cameras = [image.camera for image in selected]
        known = LabelledImages(
            labels=None if None in keys else as_labels([label[str(key)] for key in keys]),
            classes=tuple(self.listed.classes.values()),
            name=self.listed.name,
            split=split,
            note=note,
            files=tuple(image.file for image in selected),
            cameras=None if None in cameras else as_labels(cameras),
        )
        forms = [self._form(image) for image in selected]
        images = self._pixels(selected, forms, done=0 if split != QUERY else self.total - len(selected))
        if isinstance(images, Tensor):
            return Dataset(images=images, **vars(known))
        return MixedDataset(images=MixedImages(images), **vars(known))

    def _form(self, image: ListedImage) -> Form:
        return self.form if isinstance(self.form, Form) else self.form[image.file]

    def _pixels(
        self, selected: Sequence[ListedImage], forms: Sequence[Form], done: int
    ) -> Tensor | list[Tensor]:
        """8-bit pixels (n, c, h, w), or of several sizes (c, h, w) each; `done` images were read before."""
        if sum(form.values for form in forms) > MAX_MEMORY:
            raise RankproofError(
                f"{self.listed.name}: {len(selected)} images of {size_text(forms)} do not fit into "
                f"{MAX_MEMORY // 2**30} GiB; give a smaller size"
            )
        one_size = len(set(forms)) == 1
        kept = self.kept if one_size else None
        if kept is not None:
            raws = (self.listed.read(image.file) for image in selected)
            found = kept.read(_content([sha256(raw).hexdigest() for raw in raws], forms[0]))
            if found is not None:
                return found
        stack = np.empty((len(forms), *forms[0].shape), np.uint8) if one_size else None
        each: list[Tensor] = []
        digests: list[str] = []
        for position, (image, form) in enumerate(zip(selected, forms, strict=True)):
            raw = self.listed.read(image.file)
            digests.append(sha256(raw).hexdigest())  # of what is decoded, should the file change meanwhile
            pixels = decode(raw, image.file, form)
            if stack is None:
                each.append(torch.from_numpy(np.ascontiguousarray(pixels)))
            else:
                stack[position] = pixels
            self.progress(done + position + 1, self.total)
        if stack is None:
            return each
        decoded = torch.from_numpy(stack)
        if kept is not None:
            kept.write(_content(digests, forms[0]), decoded, self.listed.name)
        return decoded


def _content(digests: list[str], form: Form) -> str:
    """A digest of the files that are decoded, and of the form that they are decoded to."""
    return sha256(f"{form} {digests}".encode()).hexdigest()
