"""A list of pictures to a data set: one common form, every picture decoded into it."""

import math

import numpy as np
import torch

from rankproof.data.dataset import Dataset, as_labels
from rankproof.data.listing import SplitBy, Listed, Listing, choose, demand_classes
from rankproof.data.pictures import Form, Progress, decode, peek
from rankproof.errors import RankproofError

COMMON_SIZE = (128, 128)
MAX_MEMORY = 16 * 2**30


def gather(
    listing: Listing,
    split: str,
    *,
    size: tuple[int, int] | None,
    split_by: SplitBy,
    progress: Progress | None,
) -> Dataset:
    """Read one split of the list.

    Labels and number of channels come from the whole list, so that both splits agree on them.
    """
    demand_classes([picture.key for picture in listing.pictures], listing.name)
    chosen, rule = choose(listing, split, split_by)
    demand_classes([picture.key for picture in chosen], f"{listing.name}, {split} split")
    form, resized = common_form(listing, size)
    number = {key: position for position, key in enumerate(listing.classes)}
    story = (
        f"{listing.kind}, {split} split: {len(chosen)} pictures of {form.height}x{form.width} "
        f"in {len({picture.key for picture in chosen})} classes"
    )
    return Dataset(
        pictures=_decode_all(listing, chosen, form, progress),
        labels=as_labels([number[picture.key] for picture in chosen]),
        classes=tuple(listing.classes.values()),
        name=listing.name,
        split=split,
        note="; ".join((story, rule, *resized, *listing.remarks)),
        files=tuple(picture.file for picture in chosen),
    )


def common_form(listing: Listing, size: tuple[int, int] | None) -> tuple[Form, tuple[str, ...]]:
    """The form all pictures get, and what the note should say of it.

    Colour if any picture has colour; without `size`, the size all share, or 128x128 where they differ.
    """
    channels, sizes = 1, set()
    for picture in listing.pictures:
        form = peek(listing.read(picture.file), picture.file)
        channels = max(channels, form.channels)
        sizes.add((form.height, form.width))
        if channels == 3 and (size is not None or len(sizes) > 1):
            break  # no later picture can change the answer
    differ = len(sizes) > 1
    height, width = size or (COMMON_SIZE if differ else next(iter(sizes)))
    note = (f"pictures differ in size, all resized to {height}x{width}",) if differ and size is None else ()
    if size is not None:
        note = (f"resized to {height}x{width} as asked",)
    return Form(height=height, width=width, channels=channels), note


def _decode_all(
    listing: Listing, chosen: list[Listed], form: Form, progress: Progress | None
) -> torch.Tensor:
    """(n, c, h, w) 8-bit pixels of the chosen pictures."""
    shape = (len(chosen), form.channels, form.height, form.width)
    if math.prod(shape) > MAX_MEMORY:
        raise RankproofError(
            f"{listing.name}: {len(chosen)} pictures of {form.height}x{form.width} do not fit into "
            f"{MAX_MEMORY // 2**30} GiB; give a smaller size"
        )
    pictures = np.empty(shape, np.uint8)
    for position, picture in enumerate(chosen):
        pictures[position] = decode(listing.read(picture.file), picture.file, form)
        if progress is not None:
            progress(position + 1, len(chosen))
    return torch.from_numpy(pictures)
