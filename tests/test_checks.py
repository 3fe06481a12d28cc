import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import RankproofError
from rankproof.checks import (
    BLOCK,
    check_embeddings,
    check_ids,
    check_images,
    check_kind,
    check_labels,
    check_not_black,
)

GREY = torch.full((3, 1, 4, 5), 0.5)
EIGHT_BIT = torch.arange(60, dtype=torch.uint8).view(3, 1, 4, 5)


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_in_the_unit_range_are_images(dtype):
    images = torch.linspace(0, 1, 60).view(3, 1, 4, 5).to(dtype)
    assert torch.equal(check_images("images", images), images)


def test_eight_bit_values_are_images_whatever_they_are():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    assert check_images("images", images).dtype == torch.uint8


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images,
        lambda images: images.astype(">f4"),
        lambda images: np.ascontiguousarray(images[::-1])[::-1],
        lambda images: np.asfortranarray(images),
        lambda images: (images * 255).astype("uint8"),
    ],
    ids=["plain", "big-endian", "backwards", "Fortran", "8-bit"],
)
def test_arrays_of_numpy_are_images_too(change):
    images = change(np.linspace(0, 1, 60, dtype="float32").reshape(3, 1, 4, 5))
    images.flags.writeable = False  # as an array that lies in a file
    checked = check_images("images", images)
    assert checked.tolist() == images.tolist()


def test_a_graph_behind_the_images_is_left_behind():
    assert not check_images("images", GREY.clone().requires_grad_(True)).requires_grad


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY * 510, r"got 255 \.\. 255: divide by 255, or give uint8"),
        (GREY * 40_000, r"got 2e\+04 \.\. 2e\+04: divide by 65535"),
        ((GREY - 0.485) / 0.003, r"got 5 \.\. 5: divide by 255"),
        (
            (GREY - 0.9) / 0.2,
            r"got -2 \.\. -2: already normalised\? give .* and mean= and std=",
        ),
        (GREY + 0.53, r"got 1\.03 \.\. 1\.03: rounded or resized\? give images\.clamp\(0, 1\)"),
        (GREY - 0.5 - 3e-8, r"got -3e-08 .*: rounded or resized\?"),  # mean and std undone
        ((GREY - 127.5) / 128, r"got -0\.992 .*: already normalised\?"),  # statistics of 0 .. 255
        (GREY * math.nan, "got NaN"),
        (GREY * math.inf, "got NaN or infinite values"),
        (GREY.long(), "got int64; values up to 255 as torch.uint8"),
        (GREY.to(torch.int8), "got int8"),
        (GREY > 0, r"got bool; give images\.float\(\)"),
        (GREY + 0j, "got complex64"),
        (np.zeros((1, 1, 4, 4), "uint16"), "got uint16"),
    ],
    ids=str,
)
def test_values_that_are_no_pixels_are_refused(images, message):
    with pytest.raises(RankproofError, match=r"^queries: values must be floats in \[0, 1\].*" + message):
        check_images("queries", images)


@pytest.mark.parametrize("value", [-1e-6, 1 + 1e-6, math.nan, math.inf, -math.inf])
def test_one_value_that_is_no_pixel_is_seen(value):
    images = GREY.clone()
    images[2, 0, 3, 4] = value
    with pytest.raises(RankproofError, match="values must be"):
        check_images("images", images)


@pytest.mark.parametrize("row", [0, 3, 6])
def test_one_value_that_is_no_pixel_is_seen_in_every_block(monkeypatch, row):
    monkeypatch.setattr("rankproof.checks.BLOCK", 40)  # two images
    images = torch.zeros(7, 1, 4, 5)
    check_images("images", images)
    images[row, 0, 0, 0] = math.nan
    with pytest.raises(RankproofError, match="got NaN"):
        check_images("images", images)
    assert BLOCK > 10**6


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 5), r"\(b, c, h, w\) with at least one image, got \(4, 5\)$"),
        ((3, 32, 32), r"one image\? give images\[None\]"),
        ((10, 32, 32), r"grey images\? give images\[:, None\]"),
        ((0, 3, 8, 8), "at least one image"),
        ((2, 3, 0, 8), "at least one image"),
        ((2, 32, 32, 3), r"channels last\? give images\.permute\(0, 3, 1, 2\)"),
        ((2, 28, 28, 1), r"channels last\?"),
        ((2, 1, 3, 8, 8), r"got \(2, 1, 3, 8, 8\)"),
    ],
)
def test_other_shapes_are_refused(shape, message):
    with pytest.raises(RankproofError, match=message):
        check_images("images", torch.zeros(shape))
    with pytest.raises(RankproofError, match=message):
        check_images("images", torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(2, 3, 8, 3), (2, 4, 8, 1), (2, 1, 1, 3), (2, 8, 1, 1), (2, 5, 6, 4)])
def test_unusual_shapes_are_taken(shape):
    assert check_images("images", torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("images", [[GREY[0]] * 3, None, "photo.png", 3.0])
def test_what_is_no_array_is_refused(images):
    with pytest.raises(RankproofError, match="images: expected a tensor or array"):
        check_images("images", images)


def test_as_many_images_as_wanted():
    assert len(check_images("images", GREY, count=3)) == 3
    with pytest.raises(RankproofError, match="images: expected 4 images, got 3"):
        check_images("images", GREY, count=4)


@pytest.mark.parametrize(
    "images",
    [(GREY * 2).byte(), GREY / 255, EIGHT_BIT.float() / 255 / 255],
    ids=["floats cut", "floats divided", "divided twice"],
)
def test_a_gallery_that_turned_black_on_its_way_is_refused(images):
    with pytest.raises(RankproofError, match="all of them are black"):
        check_not_black("images", check_images("images", images))


@pytest.mark.parametrize("images", [EIGHT_BIT, GREY, GREY * 0, EIGHT_BIT // 20, GREY / 127])
def test_a_dark_gallery_is_taken(images):
    check_not_black("images", images)


def test_one_image_that_is_not_black_is_enough():
    images = torch.zeros(200, 1, 2, 2)
    images[:, 0, 0, 0] = 1 / 255
    images[199, 0, 1, 1] = 0.5
    check_not_black("images", images)


# -- positions and labels --------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=20),
    st.sampled_from(["uint8", "int16", "uint32", "int64"]),
)
def test_integers_of_any_kind_are_positions(numbers, dtype):
    array = np.array(numbers, dtype=dtype)
    for given_as in (
        numbers,
        tuple(numbers),
        array,
        torch.tensor(numbers),
        [torch.tensor(n) for n in numbers],
    ):
        ids = check_ids("gallery_ids", given_as, (len(numbers),), 100)
        assert ids.dtype == torch.int64
        assert ids.tolist() == numbers


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0.9, 1.0, 2.0], r"got float64 such as 0\.9"),
        ([0, 1, 2.0], "got float64"),
        (torch.tensor([True, False, True]), r"got booleans \(3,\): a mask\? give mask\.nonzero\(\)"),
        (torch.zeros(9, dtype=torch.bool), r"a mask\?"),
        (torch.eye(3), r"one-hot\? give \.argmax\(1\)"),
        ([[0], [1], [2]], r"a column\? give \[:, 0\]"),
        ([0, 1, 9], r"in 0 \.\. 8, got 0 \.\. 9"),
        ([-1, 1, 2], r"in 0 \.\. 8, got -1 \.\. 2"),
        ([0, 1], r"got \(2,\)"),
        (1, r"got \(\)"),
        ([], r"got \(0,\)"),
        ([0, 1j, 2], "got complex128"),
        (["a", "b", "c"], "expected numbers, got an array of text"),
        ([0, 1, None], "expected numbers, got an array of objects"),
        ([[0], [1, 2], [2]], "rows of unequal length"),
        (np.array([0, 1, 2**64 - 1], dtype="uint64"), "got -1"),
    ],
    ids=str,
)
def test_what_is_no_position_is_refused(ids, message):
    with pytest.raises(RankproofError, match=f"^gallery_ids: .*{message}"):
        check_ids("gallery_ids", ids, (3,), 9)


def test_the_number_of_columns_may_be_open():
    assert check_ids("targets", [[1, 2], [3, 4]], (2, None), 9).shape == (2, 2)
    for wrong, message in (
        ([1, 2], r"give \[:, None\]"),
        ([[1]], r"got \(1, 1\)"),
        ([[], []], r"got \(2, 0\)"),
    ):
        with pytest.raises(RankproofError, match=message):
            check_ids("targets", wrong, (2, None), 9)


def test_the_ids_of_a_service_may_be_any_integers():
    assert check_ids("gallery_ids", [-3, 10**12], (2,)).tolist() == [-3, 10**12]


@pytest.mark.parametrize(
    "labels",
    [[-1, 0, 10**15], (7, 7, 7), np.array([1, 2, 3], "uint16"), range(3), torch.tensor([5, 6, 7]).short()],
)
def test_integers_are_labels(labels):
    checked = check_labels("labels", labels, 3)
    assert checked.dtype == torch.int64
    assert checked.tolist() == [int(label) for label in labels]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.eye(3), r"one-hot\? give \.argmax\(1\)"),
        (torch.eye(3).long(), r"one-hot\?"),
        ([0.0, 1.0, 1.0], "float64"),
        ([math.nan, 1.0, 1.0], "float64 such as nan"),
        ([True, False, True], r"labels\.long\(\)"),
        ([0, 1], r"one integer for each of 3 items, got \(2,\)"),
        (["cat", "dog", "cat"], "got names; numpy.unique"),
        ([None, 1, 2], "objects"),
    ],
)
def test_what_is_no_label_is_refused(labels, message):
    with pytest.raises(RankproofError, match=f"^labels: .*{message}"):
        check_labels("labels", labels, 3)


def test_the_way_to_number_classes_that_the_message_names():
    numbers = np.unique(["cat", "dog", "cat"], return_inverse=True)[1]
    assert check_labels("labels", numbers, 3).tolist() == [0, 1, 0]


# -- embeddings ------------------------------------------------------------------------------------


def test_floats_are_embeddings_without_a_graph():
    z = torch.randn(4, 3, requires_grad=True)
    assert torch.equal(check_embeddings("embeddings", z), z)
    assert not check_embeddings("embeddings", z).requires_grad
    assert check_embeddings("queries", np.ones((4, 3)), width=3).dtype == torch.float64


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.ones(4), r"expected embeddings \(n, 3\), got \(4,\)"),
        (torch.ones(4, 2), r"expected embeddings \(n, 3\), got \(4, 2\)"),
        (torch.ones(0, 3), "expected embeddings"),
        (torch.ones(4, 3).long(), r"int64; give embeddings\.float\(\)"),
        (torch.ones(4, 3) > 0, "bool"),
        (torch.ones(4, 3) + 0j, "complex64"),
        (torch.full((4, 3), math.nan), "NaN or infinite"),
        (torch.full((4, 3), -math.inf), "NaN or infinite"),
        ([[1.0, 2.0, 3.0]], "got list"),
    ],
)
def test_what_is_no_embedding_is_refused(z, message):
    with pytest.raises(RankproofError, match=f"^queries: .*{message}"):
        check_embeddings("queries", z, 3)


# -- kinds -----------------------------------------------------------------------------------------


@dataclass
class Thing:
    """Something an argument may be."""


@pytest.mark.parametrize("value", ["thing", 0.03, None, Thing])
def test_a_name_a_number_or_a_class_is_no_value_of_the_class(value):
    check_kind("thing", Thing(), Thing, "Thing()")
    with pytest.raises(RankproofError, match=r"^thing: expected a thing such as Thing\(\), got "):
        check_kind("thing", value, Thing, "Thing()")
