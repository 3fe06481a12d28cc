import io

import numpy as np
import pytest
import torch
from PIL import Image

from rankproof.data.images import Form, as_size, decode, peek, resize
from rankproof.errors import RankproofError

GREY, COLOUR = Form(height=6, width=8, channels=1), Form(height=6, width=8, channels=3)


def saved(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)],
)
def test_grey_modes_have_one_channel(mode, channels):
    raw = saved(Image.new(mode, (8, 6)))
    assert peek(raw, "x") == Form(height=6, width=8, channels=channels)
    assert decode(raw, "x", peek(raw, "x")).shape == (channels, 6, 8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF", "GIF", "JPEG", "AVIF"])
def test_every_format_keeps_its_colours(kind, make):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    pixels = decode(make.encoded(make.flat((200, 30, 90)), kind, **options), "x", COLOUR)
    assert np.abs(pixels.astype(int) - np.array([200, 30, 90])[:, None, None]).max() <= 3


def test_a_stereo_photo_counts_as_jpeg():
    left, right = Image.new("RGB", (8, 6), (9, 9, 9)), Image.new("RGB", (8, 6), (99, 99, 99))
    raw = saved(left, "MPO", save_all=True, append_images=[right])
    assert (decode(raw, "x.jpg", COLOUR) == 9).all()


def test_formats_outside_the_list_are_not_opened(make):
    with pytest.raises(RankproofError, match=r"^x\.png: a PNM file, which is not read here; save it as PNG$"):
        peek(make.encoded(make.flat((1, 2, 3)), "PPM"), "x.png")


def test_grey_becomes_equal_channels_in_a_coloured_set(make):
    assert (decode(make.encoded(make.flat(77)), "x", COLOUR) == 77).all()


def test_transparent_turns_white():
    clear, half = Image.new("RGBA", (8, 6), (255, 0, 0, 0)), Image.new("RGBA", (8, 6), (0, 0, 0, 128))
    assert (decode(saved(clear), "x", COLOUR) == 255).all()
    assert set(np.unique(decode(saved(half), "x", COLOUR))) <= {126, 127, 128}
    assert (decode(saved(Image.new("LA", (8, 6), (9, 0))), "x", GREY) == 255).all()
    assert (decode(saved(Image.new("LA", (8, 6), (9, 255))), "x", GREY) == 9).all()


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("RGB", 3), ("P", 3)])
def test_one_transparent_colour_turns_white(mode, channels):
    colour = (0, 0, 0) if mode == "RGB" else 0
    raw = saved(Image.new(mode, (8, 6), colour), transparency=colour)
    assert (decode(raw, "x", Form(height=6, width=8, channels=channels)) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped():
    raw = saved(Image.fromarray(np.full((6, 8), 0x8000, np.uint16)))
    assert (decode(raw, "x", GREY) == 128).all()


# The top left corner of the upright image, by the EXIF orientation of [[10, 60], [120, 240]].
CORNER = {1: 10, 2: 60, 3: 240, 4: 120, 5: 10, 6: 120, 7: 240, 8: 60}


@pytest.mark.parametrize("orientation", CORNER)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(orientation, kind):
    quarters = np.kron(np.array([[10, 60], [120, 240]], np.uint8), np.ones((4, 6), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(kind, {})
    raw = saved(Image.fromarray(quarters), kind, exif=exif, **options)
    form = peek(raw, "x")
    assert (form.height, form.width) == ((12, 8) if orientation >= 5 else (8, 12))
    assert abs(int(decode(raw, "x", form)[0, 0, 0]) - CORNER[orientation]) <= (3 if kind == "AVIF" else 0)


def test_damaged_exif_does_not_damage_the_image(make):
    raw = make.encoded(make.flat((5, 5, 5)), "JPEG", exif=b"Exif\x00\x00nonsense")
    assert peek(raw, "x") == COLOUR
    assert (decode(raw, "x", COLOUR) == 5).all()


def test_a_truncated_jpeg_is_named(make):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    raw = make.encoded(noise, "JPEG")
    cut = raw[: len(raw) // 2]
    with pytest.raises(RankproofError, match=r"^cat/1\.jpg: damaged image \(.*\); replace or remove it$"):
        decode(cut, "cat/1.jpg", peek(cut, "cat/1.jpg"))


@pytest.mark.parametrize("raw", [b"", b"just text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_named(raw):
    with pytest.raises(RankproofError, match=r"^cat/1\.png: .*re(place|move)") as error:
        peek(raw, "cat/1.png")
    assert "\n" not in str(error.value)
    assert "0x" not in str(error.value)


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (10000, 10000), (7100, 7100)])
def test_a_bomb_is_refused_by_its_header(make, width, height):
    for read in (peek, lambda raw, file: decode(raw, file, GREY)):
        with pytest.raises(RankproofError, match=r"^bomb\.png: claims more than 50 megapixels"):
            read(make.claiming_png(width, height), "bomb.png")


def test_a_header_within_the_limit_is_believed_until_decoding(make):
    raw = make.claiming_png(7000, 7000)
    assert peek(raw, "x").height == 7000
    with pytest.raises(RankproofError, match="damaged"):
        decode(make.claiming_png(64, 64), "x", GREY)


def test_decoding_squashes_to_the_asked_form(make):
    halves = np.concatenate([make.flat(0, 10, 20), make.flat(200, 10, 20)])
    small = decode(make.encoded(halves), "x", Form(height=4, width=5, channels=1))
    assert small.shape == (1, 4, 5)
    assert (small[0, 0] < 30).all()
    assert (small[0, 3] > 170).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_many_equals_resizing_each(channels):
    images = torch.randint(0, 256, (3, channels, 7, 9), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    small = resize(images, (4, 5))
    assert small.shape == (3, channels, 4, 5)
    whole = images[2].permute(1, 2, 0).squeeze(2).numpy()
    alone = Image.fromarray(whole).resize((5, 4), Image.Resampling.LANCZOS)
    assert np.array_equal(small[2].permute(1, 2, 0).squeeze(2).numpy(), np.asarray(alone))


def test_one_number_is_a_square():
    assert (as_size(5), as_size((2, 3)), as_size(None)) == ((5, 5), (2, 3), None)


@pytest.mark.parametrize("size", [0, -3, (4, 0), (1, 10**9)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(RankproofError, match="size"):
        as_size(size)
