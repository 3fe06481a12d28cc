"""Formats of image files: which are opened, and what to do about one that is not."""

from importlib import import_module

from PIL import features

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
COMMON = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
CONTAINED = {".avif", ".heic", ".heif", ".hif"}
# No format above can hold these; they are listed with the others, so that an error names them.
NOT_READ = {".jxl", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi", ".psd", ".exr", ".hdr"}
RAW = {".dng", ".cr2", ".cr3", ".nef", ".arw"}
IMAGE_SUFFIXES = frozenset(COMMON | CONTAINED | NOT_READ | RAW)
"""Endings, in lower case, of what looks like an image; whether it is one is found when it is opened."""

SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"qoif": "QOI",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"%PDF": "PDF",
} | {b"P%d" % number: "PNM" for number in range(1, 7)}
TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
OPENED = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def formats_for(raw: bytes) -> tuple[str, ...]:
    """The formats, by Pillow's names, that a file may be opened as."""
    brand = _brand(raw)
    if brand in AVIF_BRANDS and _has_avif():
        return ("AVIF",)
    if brand in HEIF_BRANDS and _has_heif():
        return ("HEIF",)
    return FORMATS


def why_not_opened(raw: bytes) -> str:
    """What is wrong with a file that no format recognises, and what to do about it."""
    brand = _brand(raw)
    if brand in HEIF_BRANDS and not _has_heif():
        return "a HEIC image, which needs another package; pip install pillow-heif, or save it as PNG"
    if brand in AVIF_BRANDS and not _has_avif():
        return (
            "an AVIF image, which this Pillow cannot read; pip install -U 'pillow>=11.3', or save it as PNG"
        )
    if raw.startswith(TIFF):
        return "a TIFF of a kind that cannot be read; save it as PNG with 8 bits"
    for signature, name in SIGNATURES.items():
        if raw.startswith(signature):
            return f"a {name} file, which is not read here; save it as PNG"
    if raw.startswith(OPENED) or brand in AVIF_BRANDS | HEIF_BRANDS:
        return "damaged image (its header cannot be read); replace or remove it"
    return "not an image; remove it or replace it"


def _brand(raw: bytes) -> bytes:
    """The brand of an ISO media file, such as AVIF and HEIC; empty for another file."""
    if raw[4:8] != b"ftyp":
        return b""
    brands = raw[8 : int.from_bytes(raw[:4], "big")]  # mif1 is any image: another brand says which
    return b"avif" if brands[:4] in (b"mif1", b"msf1") and b"avif" in brands else brands[:4]


def _has_avif() -> bool:
    """Whether Pillow was built with AVIF; versions before 11.3 do not know the name."""
    return "avif" in features.modules and bool(features.check("avif"))


def _has_heif() -> bool:
    """Whether pillow-heif is installed; registers it with Pillow."""
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True
