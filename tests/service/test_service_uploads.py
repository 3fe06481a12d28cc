"""Whatever is uploaded becomes an image of the gallery's size and channels, or is refused with a reason."""

import io
import resource
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rankproof.data import images
from rankproof.data.images import Form
from rankproof.service.errors import RefusedError
from rankproof.service.limits import Limits
from rankproof.service.uploads import ANY_TYPE, decode_upload, file_type

GREY, COLOUR = Form(height=28, width=28, channels=1), Form(height=32, width=40, channels=3)
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
STARTS = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"RIFF\x40\x00\x00\x00WEBP",
    b"GIF89a",
    b"BM",
    b"%PDF-1.4",
)


def decoded(raw, form=COLOUR, declared=ANY_TYPE, **limits):
    return decode_upload(raw, declared, Limits(**limits), form)


def assert_refused(raw, status, words, **options):
    with pytest.raises(RefusedError, match=words) as caught:
        decoded(raw, **options)
    assert caught.value.status == status
    assert "\n" not in caught.value.detail


def assert_survived(raw):
    """An image of the right form comes out, or a refusal."""
    try:
        outcome = decoded(raw, GREY)
    except RefusedError as refused:
        outcome = refused
    if isinstance(outcome, RefusedError):
        assert 400 <= outcome.status < 500
        assert outcome.detail
    else:
        assert outcome.shape == (1, 28, 28)
        assert outcome.dtype == torch.uint8


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width, height, depth=8, colour=2):
    """A PNG of a few bytes that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# -- what arrives


@pytest.mark.parametrize(("form", "channels"), [(GREY, 1), (COLOUR, 3)])
def test_a_png_of_the_gallery_s_form_arrives_to_the_bit(files, form, channels):
    pixels = files.noise(form.height, form.width, channels)
    wanted = torch.from_numpy(pixels.reshape(form.height, form.width, channels)).permute(2, 0, 1)
    for options in ({}, {"optimize": True}, {"compress_level": 0}):
        raw = files.encoded(pixels, "PNG", **options)
        assert torch.equal(decoded(raw, form), wanted)
        assert torch.equal(decoded(raw, form, "image/png"), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_the_gallery_is_the_gallery_s_image(files, kind):
    raw = files.encoded(files.noise(90, 70), kind)
    wanted = torch.from_numpy(images.decode(raw, "gallery", COLOUR))
    assert torch.equal(decoded(raw, declared=KINDS[kind]), wanted)


def test_unusual_but_valid_images(files):
    flat = np.full((50, 40, 3), 200, np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    half = np.dstack([np.zeros_like(flat), np.full((50, 40), 128, np.uint8)])
    deep = io.BytesIO()
    Image.fromarray(np.full((50, 40), 200 * 257, np.uint16)).save(deep, "PNG")
    for raw, value in (
        (deep.getvalue(), 200),
        (files.encoded(half, "PNG"), 127),  # over white
        (image_bytes(Image.fromarray(flat).quantize(8), "PNG"), 200),
        (image_bytes(Image.fromarray(flat).convert("CMYK"), "JPEG"), 200),
        (files.encoded(flat, "JPEG", progressive=True), 200),
    ):
        assert (decoded(raw).float() - value).abs().max() <= 2
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, :20] = 255  # the left half; upright it is the upper one
    upright = decoded(files.encoded(wide, "PNG", exif=turned))
    assert upright[:, :12].min() == 255
    assert upright[:, 20:].max() == 0


def image_bytes(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_small_images_are_enlarged_or_refused(files):
    raw = files.encoded(files.noise(127, 300), "PNG")
    assert decoded(raw).shape == (3, 32, 40)
    assert_refused(raw, 422, "300x127 is too small: each side needs at least 128 pixels", enlarge=False)
    assert decoded(files.encoded(files.noise(128, 128), "PNG"), enlarge=False).shape == (3, 32, 40)
    assert decoded(raw, enlarge=False, min_side=0).shape == (3, 32, 40)
    assert decoded(files.encoded(files.noise(1, 1), "PNG")).shape == (3, 32, 40)


# -- what is refused


def test_too_large_files_and_images(files):
    raw = files.encoded(files.noise(40, 40), "PNG")
    assert_refused(raw, 413, f"larger than {len(raw) - 1:,} bytes", max_bytes=len(raw) - 1)
    assert decoded(raw, max_bytes=len(raw)).shape == (3, 32, 40)
    assert_refused(raw, 413, "40x40 is more than 1,599 pixels", max_pixels=1599)


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (16_000_001, 1), (4001, 4000)])
def test_decompression_bombs_cost_nothing(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RefusedError) as caught:
        decoded(bomb(*size))
    assert caught.value.status in (413, 422)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes


def test_bombs_in_texts_and_profiles(files):
    raw = files.encoded(files.noise(10, 10), "PNG")
    end = raw.index(b"IDAT") - 4
    packed = zlib.compress(bytes(100_000_000), 1)
    for name, data in ((b"zTXt", b"a\0\0" + packed), (b"iCCP", b"a\0\0" + packed)):
        assert_survived(raw[:end] + chunk(name, data) + raw[end:])


def test_a_jpeg_of_endless_scans(files):
    raw = files.encoded(files.noise(64, 64), "JPEG", progressive=True)
    begin = raw.index(b"\xff\xda")
    assert_refused(raw[:begin] + raw[begin:-2] * 200 + raw[-2:], 422, "more than 100 scans")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files(files, kind):
    raw = files.encoded(files.noise(40, 40), kind)
    for length in (len(raw) - 1, len(raw) // 2, 40, 20, 12, 9, 4):
        with pytest.raises(RefusedError) as caught:
            decoded(raw[:length])
        assert caught.value.status in (415, 422)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_two_things_at_once(files, kind):
    raw = files.encoded(files.noise(40, 40), kind)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "hidden")
    for tail in (packed.getvalue(), b"\0", b"<script>alert(1)</script>", raw):
        assert_refused(raw + tail, 422, "the file has data after the end of the image")
    for head in (b"GIF89a", b"<html>", b"\0", packed.getvalue()):
        assert_refused(head + raw, 415, "not a PNG, JPEG or WebP")


def test_damaged_inside(files):
    raw = bytearray(files.encoded(files.noise(40, 40), "PNG"))
    raw[raw.index(b"IDAT") + 20] ^= 0xFF
    assert_refused(bytes(raw), 422, "the upload: damaged image")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations(files, kind):
    frames = [Image.fromarray(files.noise(40, 40, seed=seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    assert_refused(file.getvalue(), 422, "animated")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
def test_other_file_types(files, kind):
    assert_refused(files.encoded(files.noise(40, 40), kind), 415, "not a PNG, JPEG or WebP")


def test_a_declared_type_that_is_wrong(files):
    raw = files.encoded(files.noise(40, 40), "JPEG")
    for declared in ("image/png", "image/webp"):
        assert_refused(raw, 415, f"says {declared}, but the image is image/jpeg", declared=declared)


def test_the_end_of_an_image_is_found_exactly(files):
    for kind in KINDS:
        for size in ((1, 1), (17, 33), (64, 64)):
            raw = files.encoded(files.noise(*size), kind)
            assert file_type(raw).end(raw + b"rest") == len(raw)
    for options in ({"progressive": True}, {"restart_marker_blocks": 1}, {"optimize": True}, {"quality": 1}):
        raw = files.encoded(files.noise(64, 64), "JPEG", **options)
        assert file_type(raw).end(raw + b"\xff\xd9") == len(raw)


bytes_of_all_kinds = st.builds(bytes.__add__, st.sampled_from(STARTS), st.binary(max_size=400))
wrong_bytes = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6)


@settings(max_examples=300)
@given(bytes_of_all_kinds)
def test_random_bytes(raw):
    assert_survived(raw)


@settings(max_examples=150)
@given(st.sampled_from(sorted(KINDS)), wrong_bytes)
def test_images_with_wrong_bytes(files, kind, changes):
    raw = bytearray(files.encoded(files.noise(24, 24), kind))
    for place, value in changes:
        raw[place % len(raw)] = value
    assert_survived(bytes(raw))


@pytest.mark.slow
@settings(max_examples=10_000)
@given(bytes_of_all_kinds)
def test_ten_thousand_random_byte_strings(raw):
    assert_survived(raw)
