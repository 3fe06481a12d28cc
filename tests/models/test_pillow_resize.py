"""Pillow's resize with a gradient, beside Pillow itself on two photographs."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from rankproof import RankproofError
from rankproof.models import pillow_resize as module
from rankproof.models.pillow_resize import RESAMPLES, as_levels, by_matrices, order_of_passes, pillow_resize

CPU = torch.device("cpu")
SIZES = [  # height and width of a crop, and of the result
    *(
        (200, 150, 112, 84),
        (233, 151, 57, 57),
        (151, 233, 64, 160),
        (127, 129, 128, 128),
        (144, 144, 72, 36),
    ),
    *((90, 60, 91, 59), (60, 90, 120, 180), (31, 47, 93, 201), (50, 400, 200, 30), (400, 50, 30, 200)),
    *((17, 17, 124, 124), (5, 3, 11, 13), (2, 2, 3, 3), (3, 2, 2, 3), (8, 8, 7, 9), (9, 7, 8, 8)),
    *(
        (1, 1, 5, 4),
        (1, 40, 9, 11),
        (40, 1, 9, 11),
        (1, 7, 1, 3),
        (37, 41, 1, 1),
        (37, 41, 1, 20),
        (37, 41, 20, 1),
    ),
    *((400, 2, 3, 2), (2, 400, 2, 3), (200, 200, 2, 199), (200, 199, 199, 2), (300, 3, 2, 300)),
    *((120, 80, 120, 40), (120, 80, 60, 80), (120, 80, 120, 200), (120, 80, 200, 80), (64, 64, 64, 64)),
    *((100, 60, 20, 40), (100, 60, 20, 59), (100, 100, 99, 98), (175, 100, 87, 50), (128, 128, 112, 112)),
    *((99, 151, 73, 110), (301, 199, 55, 36), (140, 220, 7, 5)),
]


@lru_cache
def photos():
    return load_sample_images().images


def crop(number, height, width, grey):
    """A crop of a photograph; every third is black and white, where cubic filters overshoot most."""
    image = photos()[number % 2][number : number + height, 2 * number : 2 * number + width]
    if grey:
        image = np.asarray(Image.fromarray(image).convert("L"))
    return np.where(image > 127, 255, 0).astype(np.uint8) if number % 3 == 2 else image


def tensor(image):
    """(h, w) or (h, w, 3) of 8-bit values as (1, c, h, w)."""
    return torch.from_numpy(np.atleast_3d(image).copy()).permute(2, 0, 1)[None]


def by_image(image, size, resample):
    """What a service does."""
    return tensor(np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling[resample.upper()])))


@pytest.mark.parametrize("resample", RESAMPLES)
def test_it_is_pillows_at_forty_sizes(resample):
    assert len(SIZES) > 40
    for number, (height, width, *size) in enumerate(SIZES):
        size = tuple(size)
        image = crop(number, height, width, grey=number % 2)
        expected = by_image(image, size, resample)
        levels = tensor(image)
        found = pillow_resize(levels / 255, size, resample)
        assert torch.equal(found, expected / 255), (height, width, size)
        order = order_of_passes(
            (height, width), size, resample, CPU
        )  # and by the arithmetic that a GPU repeats
        assert torch.equal(by_matrices(levels, size, resample, order), expected.double()), (
            height,
            width,
            size,
        )


def test_a_batch_of_either_precision_and_with_threads(monkeypatch):
    levels = torch.cat([tensor(crop(number, 60, 45, grey=False)) for number in range(5)])
    expected = torch.cat(
        [by_image(crop(number, 60, 45, grey=False), (20, 33), "bicubic") for number in range(5)]
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for dtype in (torch.float32, torch.float64):
        found = pillow_resize(levels.to(dtype) / 255, (20, 33), "bicubic")
        assert found.dtype == dtype
        assert torch.equal(found, expected.to(dtype) / 255)
    assert pillow_resize(levels[:0] / 255, (20, 33)).shape == (0, 3, 20, 33)


def test_images_off_the_grid_are_those_that_would_be_saved(make):
    images = torch.rand(2, 3, 24, 20, generator=make.random(0))
    for size in ((12, 10), (24, 20), (24, 9)):  # also where no side, or one side, changes
        found = pillow_resize(images, size, "lanczos")
        saved = [np.asarray((image * 255).round().to(torch.uint8).permute(1, 2, 0)) for image in images]
        expected = torch.cat([by_image(image, size, "lanczos") for image in saved])
        assert torch.equal(found, expected / 255)
    below = (torch.full((1, 1, 8, 8), 100.0) + 0.49 * torch.rand(1, 1, 8, 8, generator=make.random(1))) / 255
    assert torch.equal(pillow_resize(below, (4, 4)), torch.full((1, 1, 4, 4), 100.0) / 255)


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("size", [(3, 7), (6, 2), (9, 1)])
def test_the_gradient_is_that_of_finite_differences(resample, size, make):
    images = torch.rand(1, 1, 6, 5, dtype=torch.float64, generator=make.random(0)).requires_grad_(True)

    def linear(images):
        return pillow_resize(images, size, resample, rounded=False)

    torch.autograd.gradcheck(linear, images)
    weight = torch.rand(1, 1, *size, dtype=torch.float64, generator=make.random(1))
    expected, found = (
        torch.autograd.grad((weight * pillow_resize(images, size, resample, rounded=rounded)).sum(), images)[
            0
        ]
        for rounded in (False, True)
    )
    assert torch.equal(found, expected)  # roundings and clipping are passed straight through


def test_without_roundings_it_is_within_a_level_or_two():
    levels = tensor(crop(0, 200, 150, grey=False))
    linear = pillow_resize(levels.double() / 255, (64, 48), "bicubic", rounded=False) * 255
    rounded = pillow_resize(levels.double() / 255, (64, 48), "bicubic") * 255
    assert (
        0.4 < float((linear - rounded).abs().max()) < 1.6
    )  # half a level for each pass, the first spread by cubic


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_change_no_coefficient(dtype, make):
    images = torch.rand(1, 1, 31, 29, generator=make.random(0)).to(dtype).requires_grad_(True)
    expected = pillow_resize(images.detach().double(), (12, 17), "bicubic").to(dtype)
    weight = torch.rand(1, 1, 12, 17, generator=make.random(1)).to(dtype)
    (plain,) = torch.autograd.grad((weight * pillow_resize(images, (12, 17), "bicubic")).sum(), images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pillow_resize(images, (12, 17), "bicubic")
        (gradient,) = torch.autograd.grad(found, images, weight)
    assert found.dtype == gradient.dtype == dtype
    torch.testing.assert_close(found.detach(), expected)
    assert torch.equal(gradient, plain)


@pytest.mark.parametrize("value", [255.0, -0.1, float("nan"), float("inf")])
def test_pixels_that_eight_bits_would_hide_are_refused(value):
    images = torch.full((1, 1, 4, 4), 0.5)
    images[0, 0, 1, 2] = value
    with pytest.raises(RankproofError, match=r"resize: pixels must be in \[0, 1\], these reach from"):
        pillow_resize(images, (2, 2))


def test_what_is_a_hair_outside_is_not(make):
    assert as_levels(torch.tensor([-1e-7, 1 + 1e-6]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_a_pillow_of_another_arithmetic_is_noticed(monkeypatch):
    order_of_passes.cache_clear()
    right = module.by_pillow
    monkeypatch.setattr(module, "by_pillow", lambda *given: right(*given) ^ 1)
    with pytest.raises(
        RankproofError, match=r"Pillow .* resizes otherwise than is repeated on cpu; attack on"
    ):
        order_of_passes((9, 8), (5, 4), "bilinear", CPU)
    order_of_passes.cache_clear()
