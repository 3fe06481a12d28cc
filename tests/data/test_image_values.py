"""The pixel values that every kind of image file must give; the files are made byte by byte where need be."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from rankproof.data import image_formats
from rankproof.data.image_formats import IMAGE_SUFFIXES
from rankproof.data.images import Form, decode, peek
from rankproof.errors import RankproofError


def saved(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def values(raw, file="x"):
    """The first row as it is decoded: a list of numbers if it is grey, of (r, g, b) if not."""
    row = decode(raw, file, peek(raw, file))[:, 0]
    return row[0].tolist() if len(row) == 1 else [tuple(pixel) for pixel in row.T.tolist()]


def png(rows, depth, kind, *chunks):
    """A PNG of rows (h, w) or (h, w, c) of values with that many bits."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = np.asarray(rows, ">u2")
    bits = [np.unpackbits(row.ravel().view(np.uint8)).reshape(-1, 16)[:, 16 - depth :] for row in rows]
    packed = b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in bits)
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(pixels, *, order="<", bits=None, photometric=1, sample_format=1, subfile=0):
    """A TIFF with one strip of the pixels (h, w) or (h, w, c), stored as they are."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = pixels.dtype.itemsize * 8 if bits is None else bits
    width = width * 8 // bits if bits == 12 else width
    data, at = pixels.tobytes(), 512
    tags = [
        (254, [subfile]),
        (256, [width]),
        (257, [height]),
        (258, [bits] * samples),
        (259, [1]),
        (262, [photometric]),
    ]
    tags += [
        (273, [at]),
        (277, [samples]),
        (278, [height]),
        (279, [len(data)]),
        (339, [sample_format] * samples),
    ]
    entries, spare = b"", b""
    for tag, numbers in tags:
        body = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(body) > 4:
            spare, body = spare + body, struct.pack(f"{order}I", 256 + len(spare))
        entries += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + body.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return ((head + entries + b"\0" * 4).ljust(256, b"\0") + spare).ljust(at, b"\0") + data


# -- 16 bits and fewer than 8


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bit_grey_is_scaled_whatever_the_order_of_its_bytes(order):
    deep = np.array([[0, 0x80FF, 0xFFFF, 0x1234]], f"{order}u2")
    assert values(tiff(deep, order=order)) == values(png(deep, 16, 0)) == [0, 128, 255, 18]


def key(*numbers):
    return b"tRNS", struct.pack(f">{len(numbers)}H", *numbers)


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "expected"),
    [
        (16, [0, 1, 0xFFFF, 0x8000], 0, [255, 0, 255, 128]),  # black is the transparent colour
        (16, [0x1234, 0x1235, 0xFFFF, 0], 0x1234, [255, 18, 255, 0]),  # all 16 bits count
        (16, [0, 0xFFFF], 0xFFFF, [0, 255]),
        (8, [0, 77, 255], 77, [0, 255, 255]),
        (4, [0, 1, 15], 1, [0, 255, 255]),
        (4, [0, 1, 15], 15, [0, 17, 255]),
        (2, [0, 1, 2, 3], 2, [0, 85, 255, 255]),
        (1, [0, 1], 0, [255, 255]),
        (1, [0, 1], 1, [0, 255]),
    ],
)
def test_a_transparent_grey_turns_white_and_nothing_else_changes(depth, row, transparent, expected):
    assert values(png([row], depth, 0, key(transparent))) == expected


@pytest.mark.parametrize(
    ("depth", "row", "expected"), [(1, [0, 1], [0, 255]), (2, [0, 1, 2, 3], [0, 85, 170, 255])]
)
def test_few_bits_fill_the_range(depth, row, expected):
    assert values(png([row], depth, 0)) == expected


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("bits", "byte", "expected"), [(1, 0b01000111, [0, 255]), (4, 0x0F, [0, 255])])
def test_few_bits_of_a_tiff_fill_the_range(order, photometric, bits, byte, expected):
    raw = tiff(np.array([[byte]], np.uint8), order=order, bits=bits, photometric=photometric)
    two_wide = raw.replace(
        struct.pack(f"{order}HHIH", 256, 3, 1, 1), struct.pack(f"{order}HHIH", 256, 3, 1, 2)
    )
    assert values(two_wide) == (expected if photometric else expected[::-1])


def test_sixteen_bit_colour_keeps_its_upper_bits():
    colours = [[[0, 0xFFFF, 0x80FF], [0x1234, 0x00FF, 0x0100]]]
    assert values(png(colours, 16, 2)) == [(0, 255, 128), (18, 0, 1)]
    assert values(tiff(np.array(colours, "<u2"), photometric=2)) == [(0, 255, 128), (18, 0, 1)]


def test_sixteen_bit_alpha_is_laid_on_white():
    grey = [[[0, 0xFFFF], [0x8000, 0xFFFF], [0, 0]]]
    assert values(png(grey, 16, 4)) == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    colour = [[[0xFFFF, 0, 0, 0xFFFF], [0xFFFF, 0, 0, 0]]]
    assert values(png(colour, 16, 6)) == [(255, 0, 0), (255, 255, 255)]


def test_a_transparent_colour_of_sixteen_bits_is_refused():
    raw = png([[[0x1234, 0x1234, 0x1234]]], 16, 2, key(0x1234, 0x1234, 0x1234))
    with pytest.raises(
        RankproofError, match=r"^x: has 16 bits and a transparent colour; save it with 8 bits$"
    ):
        values(raw)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "sample_format"), [("u4", 1), ("i4", 2), ("f4", 3), ("i2", 2), ("i1", 2), ("f2", 3), ("f8", 3)]
)
def test_values_of_unknown_range_are_refused(order, kind, sample_format):
    pixels = np.array([[0, 1, 100, 127]]).astype(f"{order}{kind}")
    with pytest.raises(RankproofError, match=r"^x: .*; .*save.* 8 bits$"):
        values(tiff(pixels, order=order, sample_format=sample_format))


@pytest.mark.parametrize("form", [Form(height=1, width=2, channels=1), Form(height=1, width=2, channels=3)])
def test_integers_to_255_in_32_bits_do_not_become_black(form):
    raw = saved(Image.fromarray(np.array([[0, 255]], np.int32)), "TIFF")
    with pytest.raises(RankproofError, match="integers of 32 bits or with a sign, whose range is unknown"):
        decode(raw, "x", form)


def test_integers_to_255_in_16_bits_do_not_become_black():
    with pytest.raises(RankproofError, match="16 bits but no value above 255, which is black"):
        values(png([[0, 255]], 16, 0))
    assert values(png([[0, 256]], 16, 0)) == [0, 1]
    assert values(png([[0, 0]], 16, 0)) == [0, 0]


def test_grey_tiffs_that_pillow_misreads_are_refused():
    negative = tiff(np.array([[0, 0xFFFF]], "<u2"), photometric=0)
    twelve = tiff(np.array([[0x00, 0x0F, 0xFF]], np.uint8), bits=12)
    for raw in (negative, twelve):
        with pytest.raises(
            RankproofError, match=r"a grey TIFF of 1[26] bits or with 0 for white; save it as PNG"
        ):
            values(raw)


def test_the_preview_in_a_camera_raw_file_is_not_taken_for_the_image():
    with pytest.raises(RankproofError, match="opens with a reduced preview"):
        values(tiff(np.array([[0, 255]], np.uint8), subfile=1))


def test_eight_bit_tiffs_with_0_for_white_are_read():
    assert values(tiff(np.array([[0, 127, 255]], np.uint8), photometric=0)) == [255, 128, 0]


# -- transparency


def test_transparency_is_laid_on_white():
    half = Image.new("RGBA", (1, 1), (0, 100, 200, 51))  # a fifth
    assert values(saved(half)) == [(204, 224, 244)]
    palette = b"PLTE", bytes([10, 10, 10, 200, 30, 90, 0, 0, 0])
    indexed = png([[0, 1, 2]], 8, 3, palette, (b"tRNS", bytes([255, 0, 51])))
    assert values(indexed) == [(10, 10, 10), (255, 255, 255), (204, 204, 204)]
    assert values(saved(Image.new("LA", (1, 1), (0, 51)))) == [204]


def test_hidden_colour_of_transparent_pixels_does_not_show():
    for hidden in ((255, 0, 0, 0), (0, 0, 0, 0)):
        assert values(saved(Image.new("RGBA", (1, 1), hidden), "WEBP", lossless=True, exact=True)) == [
            (255,) * 3
        ]


# -- colour


def adobe(raw, transform):
    """A JPEG with another transform in its Adobe marker: 0 none, 2 YCCK."""
    at = raw.index(b"Adobe") + 11
    return raw[:at] + bytes([transform]) + raw[at + 1 :]


def cmyk(*inks):
    return saved(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)


@pytest.mark.parametrize(
    ("raw", "colour", "grey"),
    [
        (cmyk(0, 0, 0, 0), (255, 255, 255), 255),
        (cmyk(0, 0, 0, 255), (0, 0, 0), 0),
        (cmyk(255, 0, 0, 0), (0, 255, 255), 179),
        # Stored inverted, as Adobe does: Y, Cb, Cr = 0, 128, 128 means that no ink is laid on.
        (adobe(cmyk(255, 127, 127, 0), 2), (255, 255, 255), 255),
        (adobe(cmyk(0, 127, 127, 0), 2), (0, 0, 0), 0),
        (adobe(cmyk(255, 127, 127, 255), 2), (0, 0, 0), 0),
    ],
)
def test_cmyk_and_ycck_jpegs_have_their_colours(raw, colour, grey):
    assert np.abs(np.array(values(raw)[0]) - colour).max() <= 2
    assert abs(int(decode(raw, "x", Form(height=1, width=1, channels=1))[0, 0, 0]) - grey) <= 2


def test_other_colour_spaces_of_tiff():
    white, grey, black = [255, 0, 0], [128, 0, 0], [0, 0, 0]  # L, a, b
    lab = values(tiff(np.array([[white, grey, black]], np.uint8), photometric=8))
    assert np.abs(np.array(lab) - [[255] * 3, [119] * 3, [0] * 3]).max() <= 2
    ycc = values(tiff(np.array([[[255, 128, 128], [76, 85, 255]]], np.uint8), photometric=6))
    assert np.abs(np.array(ycc) - [[255] * 3, [255, 0, 0]]).max() <= 2


def test_a_lab_image_in_a_grey_set_is_read_too():
    raw = tiff(np.array([[[255, 0, 0], [128, 0, 0]]], np.uint8), photometric=8)
    grey = decode(raw, "x", Form(height=1, width=2, channels=1))[0, 0].tolist()
    assert np.abs(np.array(grey) - [255, 119]).max() <= 2


def test_a_jpeg_that_holds_rgb_is_not_taken_as_ycc():
    raw = saved(Image.new("RGB", (16, 16), (200, 30, 90)), "JPEG", quality=100, keep_rgb=True)
    assert np.abs(np.array(values(raw)[0]) - [200, 30, 90]).max() <= 2


def test_colour_profiles_do_not_change_pixels():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.new("RGB", (2, 1), (200, 30, 90))
    assert values(saved(image, icc_profile=profile)) == values(saved(image)) == [(200, 30, 90)] * 2


# -- frames


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_or_page_counts(kind):
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    raw = saved(first, kind, save_all=True, append_images=[second])
    assert np.abs(np.array(values(raw)[0]) - [250, 0, 0]).max() <= 8


# -- files that cannot be used


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_cut_file_is_an_error(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    raw = saved(Image.fromarray(noise), kind)
    cut = raw[: int(len(raw) * share)]
    with pytest.raises(RankproofError, match=r"^cat/1: .*; (replace|remove|save)"):
        decode(cut, "cat/1", Form(height=40, width=40, channels=3))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_an_error(make, width, height):
    with pytest.raises(RankproofError, match=r"^x: "):
        decode(make.claiming_png(width, height), "x", Form(height=5, width=5, channels=1))


def test_avif_is_opened_where_pillow_can(monkeypatch):
    raw = saved(Image.new("RGB", (16, 16), (200, 30, 90)), "AVIF", quality=100)
    assert np.abs(np.array(values(raw)[0]) - [200, 30, 90]).max() <= 3
    monkeypatch.setitem(features.modules, "avif", ("PIL._no_such_module", None))
    with pytest.raises(RankproofError, match=r"^x: an AVIF image, .*pip install -U 'pillow>=11\.3'"):
        peek(raw, "x")


def heic():
    return struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0" + b"mif1heic" + bytes(40)


def test_avif_under_the_brand_of_any_image_is_opened():
    raw = saved(Image.new("RGB", (16, 16), (200, 30, 90)), "AVIF", quality=100)
    assert raw[8:12] == b"avif"
    assert np.abs(np.array(values(raw[:8] + b"mif1" + raw[12:])[0]) - [200, 30, 90]).max() <= 3


def test_heic_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(image_formats, "import_module", missing)
    with pytest.raises(RankproofError, match=r"^x\.heic: a HEIC image, .*pip install pillow-heif"):
        peek(heic(), "x.heic")


def test_heic_is_opened_where_pillow_heif_is_installed(monkeypatch):
    class Opened(Image.Image):
        format = "HEIF"

    def open_heic(stream, _name):
        image = Image.new("RGB", (3, 2), (1, 2, 3))
        image.__class__ = Opened
        return image

    class PillowHeif:
        @staticmethod
        def register_heif_opener():
            Image.register_open("HEIF", open_heic, lambda head: head[8:12] == b"heic")

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(image_formats, "import_module", lambda name: PillowHeif)
    assert values(heic()) == [(1, 2, 3)] * 3


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xff\x0a", "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"P6\n1 1\n255\n", "PNM"),
        (b"8BPS\0\1", "Photoshop"),
    ],
)
def test_images_of_other_formats_are_named(start, name):
    with pytest.raises(RankproofError, match=f"^x: a {name} file, which is not read here; save it as PNG$"):
        peek(start + bytes(50), "x")


def test_endings_of_images_are_known_whether_or_not_they_can_be_opened():
    assert {".heic", ".heif", ".avif", ".webp", ".jxl", ".jp2", ".jfif", ".ppm", ".dng"} <= IMAGE_SUFFIXES


def bmp32(alpha):
    """A BMP of one pixel (200, 40, 10) with a mask for a fourth channel."""
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    pixels = b"".join(struct.pack("4B", 10, 40, 200, each) for each in alpha)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + 8, 0, 0, 14 + 108) + header + pixels


@pytest.mark.parametrize(
    ("alpha", "right"),
    [((0, 0), [(200, 40, 10)] * 2), ((255, 0), [(200, 40, 10), (255, 255, 255)])],
    ids=["left at 0", "used"],
)
def test_the_fourth_channel_of_a_bmp_counts_only_where_it_is_used(alpha, right):
    assert values(bmp32(alpha)) == right
