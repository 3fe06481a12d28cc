"""Pillow's resize of 8-bit images as an operation with a gradient.

Pillow resizes one side after the other, leaves out a pass that changes no side, and after each pass rounds to
whole grey levels and clips to 0 .. 255. A pass multiplies by a matrix of coefficients, multiples of 2^-22.
The width comes first, but in newer versions the height where it shrinks much more than the width. What is
done here is what the installed Pillow does. `torch.nn.functional.interpolate(antialias=True)` has nearly the
same coefficients, rounds nothing, and has no Lanczos.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import PIL
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.autograd.function import once_differentiable

from rankproof.errors import RankproofError
from rankproof.types import Images

Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
RESAMPLES: tuple[Resample, ...] = get_args(Resample)

BITS = 22  # after the point of a coefficient
ROWS = 512  # unit vectors whose coefficients are read in one call
TRIED = 1024  # values by which the order of the passes is found
MOST = 4_000_000  # pixels that are made for that
HEIGHT, WIDTH = 2, 3  # axes of (b, c, h, w)
Axes = tuple[int, int]
WIDTH_FIRST: Axes = (WIDTH, HEIGHT)
HEIGHT_FIRST: Axes = (HEIGHT, WIDTH)


def pillow_resize(
    images: Images, size: tuple[int, int], resample: Resample = "bilinear", *, rounded: bool = True
) -> Float[Tensor, "b c H W"]:
    """Images as `PIL.Image.resize(size, resample)` makes them, for 8-bit images equal to it.

    What is uploaded is an 8-bit image. Images that are none, as during a search, are therefore rounded to 8
    bits first: the result is that of the file they would be saved as, also where no side changes.

    The gradient is the exact adjoint of both passes without their roundings and clipping (straight-through).

    Args:
        images: (b, c, h, w) in [0, 1]. Each channel is resized by itself, as Pillow does with grey and RGB.
        size: height and width of the result, each at least 1.
        resample: Pillow's filter; all but "nearest" grow with the scale when an image is made smaller.
        rounded: False leaves out every rounding and the clipping: the linear operator alone.
    Returns:
        (b, c, *size) in [0, 1], of the same type; multiples of 1/255 unless `rounded` is False.
    Raises:
        RankproofError: pixels are not in [0, 1], or Pillow's arithmetic is not the one that a GPU repeats.
    """
    resized: Tensor = _PillowResize.apply(  # type: ignore[no-untyped-call]
        images, size, resample, rounded
    )
    return resized


class _PillowResize(torch.autograd.Function):
    """`pillow_resize` with the adjoint of its matrices as gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, size: tuple[int, int], resample: Resample, rounded: bool) -> Tensor:
        """The resized images."""
        ctx.size, ctx.resample = (int(images.shape[HEIGHT]), int(images.shape[WIDTH])), resample
        if not rounded:
            return _passes(images, size, resample, WIDTH_FIRST, rounded=False)
        if images.device.type == "cpu":
            resized = by_pillow(images, size, resample)
        else:
            order = order_of_passes(ctx.size, size, resample, images.device)
            resized = by_matrices(as_levels(images), size, resample, order)
        wide = resized.to(torch.promote_types(images.dtype, torch.float32))
        return (wide / 255).to(images.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of the images: both passes transposed, in the opposite order."""
        for axis, source in ((HEIGHT, ctx.size[0]), (WIDTH, ctx.size[1])):
            if gradient.shape[axis] != source:
                target = int(gradient.shape[axis])
                matrix = _matrix(
                    source, target, ctx.resample, gradient.dtype, gradient.device, transposed=True
                )
                gradient = _along(matrix, gradient, axis)
        return gradient, None, None, None


def as_levels(images: Tensor) -> Tensor:
    """Pixels in [0, 1] as 8-bit values, as they are saved.

    Raises:
        RankproofError: pixels are NaN or outside of [0, 1], which 8 bits would hide.
    """
    if images.dtype == torch.uint8:
        return images
    if images.numel():
        low, high = (float(value) for value in images.detach().aminmax())
        if not (low > -1e-3 and high < 1 + 1e-3):
            raise RankproofError(
                f"resize: pixels must be in [0, 1], these reach from {low:g} to {high:g}; "
                f"divide 8-bit values by 255 and clamp what overshoots"
            )
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    return wide.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def by_pillow(images: Tensor, size: tuple[int, int], resample: Resample) -> Tensor:
    """Images (b, c, h, w) on the CPU, of [0, 1] or 8-bit values, in 8 bits and resized by Pillow itself."""
    planes = images.flatten(0, 1)  # (b c, h, w)
    resized = np.empty((len(planes), *size), np.uint8)

    def resize(position: int) -> None:
        plane = Image.fromarray(as_levels(planes[position]).contiguous().numpy())
        resized[position] = np.asarray(plane.resize((size[1], size[0]), _filter(resample)))

    threads = min(torch.get_num_threads(), len(planes))
    if threads > 1:  # Pillow lets other threads run
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(resize, range(len(planes))))
    else:
        for position in range(len(planes)):
            resize(position)
    return torch.from_numpy(resized).view(*images.shape[:2], *size)


def by_matrices(levels: Tensor, size: tuple[int, int], resample: Resample, order: Axes) -> Tensor:
    """8-bit images (b, c, h, w) on any device, resized by Pillow's arithmetic in double precision."""
    return _passes(levels.double(), size, resample, order, rounded=True)


def _passes(
    images: Tensor, size: tuple[int, int], resample: Resample, order: Axes, *, rounded: bool
) -> Tensor:
    """The passes that change a side, in a given order, on values in 0 .. 255 where they are rounded."""
    targets = {HEIGHT: size[0], WIDTH: size[1]}
    for axis in order:
        source = int(images.shape[axis])
        if source != targets[axis]:
            matrix = _matrix(source, targets[axis], resample, images.dtype, images.device, transposed=False)
            images = _along(matrix, images, axis)
            images = (images + 0.5).floor_().clamp_(0, 255) if rounded else images
    return images


@lru_cache(maxsize=256)
def order_of_passes(
    source: tuple[int, int], target: tuple[int, int], resample: Resample, device: torch.device
) -> Axes:
    """The order in which `by_matrices` gives what the installed Pillow gives, tried on noise of that size.

    Raises:
        RankproofError: it gives something else in either order.
    """
    count = 1 + min(TRIED // (target[0] * target[1]), MOST // (source[0] * source[1]))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (count, 1, *source), dtype=torch.uint8, generator=generator)
    expected = by_pillow(noise, target, resample)
    for order in (WIDTH_FIRST, HEIGHT_FIRST):
        if torch.equal(by_matrices(noise.to(device), target, resample, order).cpu(), expected.double()):
            return order
    raise RankproofError(
        f"resize: Pillow {PIL.__version__} resizes otherwise than is repeated on {device}; attack on the "
        f"CPU (--device cpu), where Pillow itself resizes"
    )


def _along(matrix: Tensor, images: Tensor, axis: int) -> Tensor:
    """A matrix (m, n) times the n values along an axis of images (b, c, h, w)."""
    first = images.movedim(axis, 0)  # (n, ...)
    with torch.autocast(images.device.type, enabled=False):  # which would round the coefficients
        product = matrix @ first.reshape(first.shape[0], -1).to(matrix.dtype)
    return product.view(-1, *first.shape[1:]).movedim(0, axis).to(images.dtype)


@lru_cache(maxsize=64)
def _matrix(
    source: int,
    target: int,
    resample: Resample,
    dtype: torch.dtype,
    device: torch.device,
    *,
    transposed: bool,
) -> Tensor:
    """The matrix of a pass, (target, source), or (source, target) when transposed.

    It is in single precision, or in double for images in double. It is sparse on a CPU. On a GPU it is dense,
    since sparse products there may differ from run to run.
    """
    columns = _coefficients(source, target, resample)
    matrix = torch.from_numpy(columns if transposed else columns.T).to(torch.float64) / (1 << BITS)
    matrix = matrix.to(device=device, dtype=dtype if dtype == torch.float64 else torch.float32).contiguous()
    if device.type != "cpu":
        return matrix
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that sparse rows are new
        sparse: Tensor = matrix.to_sparse_csr()
        return sparse


@lru_cache(maxsize=16)
def _coefficients(source: int, target: int, resample: Resample) -> np.ndarray:
    """The coefficients of a pass in units of 2^-22, (source, target), as the installed Pillow computes them.

    Pillow resizes images of 32-bit integers, too: of a row that is 2^22 at one pixel and 0 elsewhere it makes
    the coefficients of that pixel, rounded as those for 8-bit images are.
    """
    coefficients = np.empty((source, target), np.int32)
    for start in range(0, source, ROWS):
        rows = min(ROWS, source - start)
        units = np.zeros((rows, source), np.int32)
        units[np.arange(rows), start + np.arange(rows)] = 1 << BITS
        resized = Image.fromarray(units).resize((target, rows), _filter(resample))
        coefficients[start : start + rows] = np.asarray(resized)
    return coefficients


def _filter(resample: Resample) -> Image.Resampling:
    return Image.Resampling[resample.upper()]
