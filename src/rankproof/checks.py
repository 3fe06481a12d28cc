"""Checks of images, positions, labels and embeddings: every door asks here, so that all say the same.

Each takes what a user gives (tensors and NumPy arrays; where integers are wanted lists, too), and returns the
tensor that everything behind the door works on. An error is one line that names the argument, says what was
found, and what to do.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import RankproofError

CHANNELS = (1, 3)
MOST_CHANNELS = 4  # more where channels are wanted is a height
BLOCK = 2**24  # values that are looked at together
LEVEL = 1 / 255  # one level of an 8-bit image
OVERSHOOT = 0.2  # how far rounding, and resizing by a cubic, go beyond the values of an image


def check_images(what: str, images: object, *, count: int | None = None) -> Tensor:
    """Images as a tensor (b, c, h, w) of floats in [0, 1] or 8-bit integers.

    Args:
        what: the name of the argument.
        count: how many there must be; None is at least one.
    Raises:
        RankproofError: they are something else.
    """
    if not isinstance(images, Tensor | np.ndarray):
        found = type(images).__name__
        raise RankproofError(f"{what}: expected a tensor or array (b, c, h, w) of all images, got {found}")
    images = _as_tensor(what, images).detach()
    shape = tuple(images.shape)
    if images.dim() != 4 or 0 in shape:
        raise RankproofError(
            f"{what}: expected a batch (b, c, h, w) with at least one image, got {shape}{_shape_hint(shape)}"
        )
    if shape[3] in CHANNELS and min(shape[1:3]) > MOST_CHANNELS:
        raise RankproofError(
            f"{what}: expected (b, c, h, w), got {shape}: channels last? give images.permute(0, 3, 1, 2)"
        )
    if count is not None and len(images) != count:
        raise RankproofError(f"{what}: expected {count} images, got {len(images)}")
    if images.dtype != torch.uint8 and (fault := _pixel_fault(images)):
        raise RankproofError(f"{what}: values must be floats in [0, 1] or 8-bit integers, {fault}")
    return images


def check_not_black(what: str, images: Tensor) -> None:
    """Raise where a whole gallery is black to the eye, but not to a program.

    That is what floats in [0, 1] cut to 8-bit integers, or 8-bit values divided twice, look like. Blocks are
    looked at only until something is seen, so that images as they should be cost nothing.

    Args:
        images: (n, c, h, w) as `check_images` returns them.
    """
    limit, brightest = (1 if images.dtype == torch.uint8 else LEVEL * (1 + 1e-3)), 0.0
    for part in images.split(64):
        brightest = max(brightest, float(part.max()))
        if brightest > limit:
            return
    if brightest > 0:
        what_happened = "floats cut to integers" if images.dtype == torch.uint8 else "divided by 255 twice"
        raise RankproofError(
            f"{what}: all of them are black, no value is above {brightest:.3g}: {what_happened}?"
        )


def check_ids(what: str, ids: object, shape: tuple[int | None, ...], size: int | None = None) -> Tensor:
    """Positions of items as an int64 tensor.

    Args:
        what: the name of the argument.
        ids: integers of any type, as a tensor, an array or lists.
        shape: what they must have; None for any length.
        size: positions lie in 0 .. size - 1; None where ids may be anything, as behind a service.
    Raises:
        RankproofError: they are something else: a mask, floats, one-hot rows, out of range.
    """
    kind = "ids" if size is None else "gallery positions"
    wanted = f"expected {_wanted(shape)}{kind}" + ("" if size is None else f" in 0 .. {size - 1}")
    values = _integers(what, ids, shape, wanted, mask="a mask? give mask.nonzero()[:, 0]")
    if size is not None and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < size:
        found = f"{int(values.min())} .. {int(values.max())}"
        raise RankproofError(f"{what}: {wanted}, got {found}")
    return values


def check_kind(what: str, value: object, kind: Any, such_as: str) -> None:
    """Raise unless a value is of a class, or one of several: a name, a number, the class itself are not."""
    if isinstance(value, type) or not isinstance(value, kind):
        found = " ".join(repr(value).split())
        raise RankproofError(f"{what}: expected a {what} such as {such_as}, got {found:.60}")


def check_labels(what: str, labels: object, count: int) -> Tensor:
    """The class of each of `count` items as an int64 tensor (n,); any integers tell classes apart.

    Raises:
        RankproofError: they are something else: one-hot rows, scores, a mask, names, too many or too few.
    """
    wanted = f"expected one integer for each of {count} items"
    if not isinstance(labels, Tensor) and _as_array(what, labels).dtype.kind in "US":
        raise RankproofError(
            f"{what}: {wanted}, got names; numpy.unique(names, return_inverse=True)[1] numbers them"
        )
    return _integers(what, labels, (count,), wanted, mask="give labels.long() where two classes are meant")


def check_embeddings(what: str, embeddings: object, width: int | None = None) -> Tensor:
    """Embeddings as a tensor (n, d) of finite floats, without a graph.

    Args:
        width: d, as that of others they are compared with; None for any.
    Raises:
        RankproofError: they are something else.
    """
    if not isinstance(embeddings, Tensor | np.ndarray):
        raise RankproofError(f"{what}: expected a tensor (n, d), got {type(embeddings).__name__}")
    values = _as_tensor(what, embeddings).detach()
    shape = tuple(values.shape)
    if values.dim() != 2 or 0 in shape or width not in (None, shape[1]):
        wanted = f"(n, {'d' if width is None else width})"
        raise RankproofError(f"{what}: expected embeddings {wanted}, got {shape}")
    if not values.is_floating_point():
        raise RankproofError(f"{what}: embeddings are floats, got {_dtype(values)}; give embeddings.float()")
    if not all(math.isfinite(end) for end in _extremes(values)):
        raise RankproofError(f"{what}: the embeddings contain NaN or infinite values; check the encoder")
    return values.clone() if values.is_inference() else values  # what was made there can serve no gradient


def _integers(what: str, given: object, shape: tuple[int | None, ...], wanted: str, *, mask: str) -> Tensor:
    """What is given as integers of a shape; `wanted` and `mask` are what an error says."""
    values = _as_tensor(what, given)
    found = tuple(values.shape)
    if values.dtype == torch.bool:
        raise RankproofError(f"{what}: {wanted}, got booleans {found}: {mask}")
    fits = len(found) == len(shape) and all(
        length > 0 and side in (None, length) for side, length in zip(shape, found, strict=True)
    )
    if not fits:
        raise RankproofError(f"{what}: {wanted}, got {found}{_ids_hint(found, shape)}")
    if values.is_floating_point() or values.is_complex():
        raise RankproofError(f"{what}: {wanted}, got {_dtype(values)} such as {values.flatten()[0].item():g}")
    return values.detach().to(torch.int64)


def _as_tensor(what: str, values: object) -> Tensor:
    """A tensor as it is, anything else by way of NumPy."""
    if isinstance(values, Tensor):
        return values
    array = _as_array(what, values)
    if array.dtype.kind in "USO":
        kind = "objects of Python" if array.dtype.kind == "O" else "text"
        raise RankproofError(f"{what}: expected numbers, got an array of {kind}")
    # Torch shares the memory: it wants the machine's own byte order and something that can be written.
    try:
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except TypeError:
        raise RankproofError(f"{what}: expected numbers, got an array of {array.dtype}") from None


def _as_array(what: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        raise RankproofError(f"{what}: expected an array of numbers, got rows of unequal length") from None


def _extremes(values: Tensor) -> tuple[float, float]:
    """Smallest and largest value; NaN where there is any. One pass, which copies a block at most."""
    parts = values.detach().split(max(1, BLOCK // max(1, values[0].numel())))
    ends = torch.stack([torch.stack(part.aminmax()) for part in parts])  # (blocks, 2)
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def _pixel_fault(images: Tensor) -> str:
    """What is wrong with the values of images and what to do; empty where nothing is."""
    if not images.is_floating_point():
        to_do = "give images.float()" if images.dtype == torch.bool else "values up to 255 as torch.uint8"
        return f"got {_dtype(images)}; {to_do}"
    low, high = _extremes(images)
    if low >= 0 and high <= 1:
        return ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "got NaN or infinite values"
    found = f"got {low:.3g} .. {high:.3g}"
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return f"{found}: rounded or resized? give images.clamp(0, 1)"
    if low < 0:
        return f"{found}: already normalised? give pixels in [0, 1], and mean= and std= to the Ranker"
    whole = 255 if high <= 255 else 65535
    return f"{found}: divide by {whole}" + (", or give uint8" if whole == 255 else "")


def _shape_hint(shape: tuple[int, ...]) -> str:
    """What to do about images of another number of dimensions."""
    if len(shape) == 3 and 0 not in shape:
        one = shape[0] in CHANNELS
        return ": one image? give images[None]" if one else ": grey images? give images[:, None]"
    return ""


def _ids_hint(found: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
    """What to do about integers of another shape."""
    if len(shape) == 1 and len(found) == 2:
        return ": a column? give [:, 0]" if found[1] == 1 else ": one-hot? give .argmax(1)"
    if len(shape) == 2 and len(found) == 1:
        return ": one for each? give [:, None]"
    return ""


def _wanted(shape: tuple[int | None, ...]) -> str:
    """A shape in words before a noun: "5 ", "5 x 3 ", "5 rows of "."""
    if shape[-1] is None:
        return f"{shape[0]} rows of "
    return " x ".join(map(str, shape)) + " "


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
