import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from rankproof import NES, PSO, SPSA, Beta, Rand, RankproofError
from rankproof.methods.black_box.subspace import Subspace, parse_subspace, published_subspace

KINDS = ["blocks", "bilinear", "cosine"]
sizes = st.integers(1, 13)


def latents(make, side, image_shape, seed=0, kind="blocks"):
    shape = Subspace(kind, side).shape(image_shape)
    return 2 * torch.rand(2, 3, *shape, generator=make.random(seed), dtype=torch.float64) - 1


def weight(kind, size, side, place, number):
    # How much variable `number` of `side` counts at pixel `place` of `size`.
    if kind == "blocks":
        return float(place * side // size == number)
    if kind == "cosine":
        return math.cos(math.pi * (place + 0.5) * number / size)
    centre = min(max((place + 0.5) * side / size - 0.5, 0), side - 1)
    left = min(math.floor(centre), side - 1)
    share = centre - left
    return (1 - share) * (number == left) + share * (number == left + 1)


@pytest.mark.parametrize("kind", KINDS)
@given(side=sizes, height=sizes, width=sizes, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_enlarging_equals_a_loop_over_pixels_and_latents(make, kind, side, height, width, channels, seed):
    image_shape = (channels, height, width)
    v = latents(make, side, image_shape, seed, kind)
    rows, columns = v.shape[-2:]
    assert (rows, columns) == (min(side, height), min(side, width))
    expected = torch.zeros(2, 3, *image_shape, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for i in range(rows):
                for j in range(columns):
                    factor = weight(kind, height, rows, y, i) * weight(kind, width, columns, x, j)
                    if factor:
                        expected[..., y, x] += factor * v[..., i, j]
    torch.testing.assert_close(Subspace(kind, side).expand(v, image_shape), expected)


@pytest.mark.parametrize(("kind", "mode"), [("bilinear", "bilinear"), ("blocks", "nearest")])
@given(side=sizes, height=sizes, width=sizes, seed=st.integers(0, 99))
def test_enlarging_equals_torch(make, kind, mode, side, height, width, seed):
    image_shape = (3, height, width)
    v = latents(make, side, image_shape, seed)
    options = {"align_corners": False} if mode == "bilinear" else {}
    expected = functional.interpolate(v.flatten(0, 1), size=(height, width), mode=mode, **options)
    torch.testing.assert_close(Subspace(kind, side).expand(v, image_shape), expected.view(2, 3, *image_shape))


def test_published_blocks_of_a_large_image_are_seven_pixels_wide(make):
    v = latents(make, 32, (3, 224, 224))
    large = Subspace("blocks", 32).expand(v, (3, 224, 224))
    assert torch.equal(large, v.repeat_interleave(7, -1).repeat_interleave(7, -2))


def test_full_resolution_changes_nothing_whatever_its_side(make):
    v = latents(make, 99, (2, 5, 7))
    assert Subspace("full", 3).expand(v, (2, 5, 7)) is v
    assert Subspace("full", 3).shape((2, 5, 7)) == (2, 5, 7)


@pytest.mark.parametrize("kind", ["blocks", "bilinear"])
@given(side=sizes, height=sizes, width=sizes, seed=st.integers(0, 99))
def test_changes_stay_within_the_bound_of_their_latents(make, kind, side, height, width, seed):
    v = latents(make, side, (1, height, width), seed)
    assert (
        float(Subspace(kind, side).expand(v, (1, height, width)).abs().max()) <= float(v.abs().max()) + 1e-12
    )


@pytest.mark.parametrize("kind", ["blocks", "bilinear"])
@given(side=sizes, height=sizes, width=sizes)
def test_equal_latents_give_an_even_change(kind, side, height, width):
    subspace, image_shape = Subspace(kind, side), (1, height, width)
    v = torch.full((1, 1, *subspace.shape(image_shape)), 0.3, dtype=torch.float64)
    torch.testing.assert_close(
        subspace.expand(v, image_shape), torch.full((1, 1, *image_shape), 0.3).double()
    )


@pytest.mark.parametrize("size", [4, 9])
def test_each_cosine_image_reaches_at_most_one_and_all_are_orthogonal(size):
    subspace, image_shape = Subspace("cosine", 4), (1, size, size)
    basis = subspace.expand(torch.eye(16, dtype=torch.float64).view(1, 16, 1, 4, 4), image_shape)[0].flatten(
        1
    )
    assert float(basis.abs().max()) <= 1 + 1e-12
    assert torch.equal(basis[0], torch.ones(size**2, dtype=torch.float64))
    products = basis @ basis.t()
    torch.testing.assert_close(products - products.diag().diag(), torch.zeros(16, 16).double())
    assert float(products.diag().min()) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_enlarging_keeps_the_precision(kind, dtype):
    v = torch.ones(1, 2, 3, 2, 2, dtype=dtype)
    large = Subspace(kind, 2).expand(v, (3, 5, 6))
    assert large.dtype == dtype
    assert large.shape == (1, 2, 3, 5, 6)


# -- names and rules -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subspace",
    [Subspace("full"), Subspace("blocks", 32), Subspace("bilinear", 7), Subspace("cosine", 1)],
    ids=str,
)
def test_a_subspace_is_read_back_from_its_name(subspace):
    assert parse_subspace(subspace.name) == subspace


@pytest.mark.parametrize(
    "text",
    [
        "",
        "full:3",
        "blocks",
        "blocks:",
        "bilinear:-1",
        "bilinear:7.5",
        "dct:3",
        "Full",
        "cosine:3 ",
        "cosine:x",
    ],
)
def test_a_text_that_names_no_subspace_is_refused_with_the_known_ones(text):
    with pytest.raises(RankproofError, match=r"subspace: .* is unknown; write full, blocks:32, bilinear:7"):
        parse_subspace(text)


@pytest.mark.parametrize("kind", ["full", *KINDS])
@pytest.mark.parametrize("side", [0, -1])
def test_a_side_below_one_is_refused(kind, side):
    with pytest.raises(RankproofError, match=f"side must be at least 1, got {side}"):
        Subspace(kind, side)


def test_a_side_of_zero_is_refused_from_text_too():
    with pytest.raises(RankproofError, match="side must be at least 1, got 0"):
        parse_subspace("blocks:0")


@pytest.mark.parametrize(
    ("image_shape", "name"),
    [
        ((1, 28, 28), "full"),
        ((1, 25, 40), "full"),
        ((1, 7, 143), "blocks:32"),
        ((3, 32, 32), "blocks:32"),
        ((3, 224, 224), "blocks:32"),
    ],
)
def test_the_published_methods_search_every_pixel_up_to_1000_values_and_32_blocks_above(image_shape, name):
    assert published_subspace(image_shape).name == name
    for method in (Rand(), Beta(), PSO(), NES(), SPSA()):
        assert method.subspace(image_shape).name == name
