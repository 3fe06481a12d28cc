"""Makes the embedded groceries, src/rankproof/data/groceries.zip, from grocery_128.zip.

    python tools/make_groceries.py shared/data/grocery_128.zip

Eight photos of every class of the Grocery Store Dataset's test split, as a shop shows them: the middle square
of each photo at 96x96, as JPEG. The same input gives the same bytes under the same version of Pillow, which
SOURCES.md in the archive names. The last line that is printed is the checksum for
src/rankproof/data/groceries.py.
"""

import csv
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image, __version__

SOURCE_SHA256 = "8218b98bae6d6cb2d88eb46cde4ede4bee486a5e2be36cf78d1a4c98e3df5c11"
REPOSITORY = "https://github.com/marcusklasson/GroceryStoreDataset"
COMMIT = "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc"
PER_CLASS, SIDE, QUALITY = 8, 96, 85
TARGET = Path(__file__).parent.parent / "src" / "rankproof" / "data" / "groceries.zip"
STAMP = (2019, 1, 1, 0, 0, 0)  # of every file in the archive, so that its bytes are always the same

SOURCES = f"""# Groceries

{{count}} photos in {{classes}} classes from the Grocery Store Dataset: Marcus Klasson, Cheng Zhang and
Hedvig Kjellström, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels", WACV 2019.
Source: {REPOSITORY}, commit {COMMIT}.
Licence: MIT, Copyright 2019 Marcus Klasson; the notice is in LICENSE beside this page.

- Which photos: of the official test split {PER_CLASS} of each class. The n photos of a class are sorted by
  file name, and those at floor((2 i + 1) n / {2 * PER_CLASS}) for i = 0 .. {PER_CLASS - 1} are taken.
- What was done to them: the long side was reduced to 128 pixels (Lanczos, JPEG quality 90). Then the
  middle square was cut out, resized to {SIDE}x{SIDE} (Lanczos) and saved as JPEG of quality {QUALITY}
  by Pillow {{pillow}}.
- metadata.csv: path as in the repository's `dataset` folder; class, coarse class and group as published.
- Made by tools/make_groceries.py of rankproof from a copy of the data set, sha256
  {SOURCE_SHA256}.
"""


def chosen(rows: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """The rows of the photos that are taken, by class and file name."""
    classes: dict[int, list[dict[str, str]]] = {}
    for row in rows:
        if row["split"] == "test":
            classes.setdefault(int(row["class_id"]), []).append(row)
    for number in sorted(classes):
        members = sorted(classes[number], key=lambda row: row["path"])
        for i in range(PER_CLASS):
            yield members[(2 * i + 1) * len(members) // (2 * PER_CLASS)]


def thumbnail(raw: bytes) -> bytes:
    """The middle square of a photo as a small JPEG."""
    with Image.open(io.BytesIO(raw)) as opened:
        photo = opened.convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    out = io.BytesIO()
    square.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def make(source: Path) -> bytes:
    """The archive, from the path of grocery_128.zip."""
    raw = source.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SOURCE_SHA256:
        sys.exit(f"{source}: not the grocery_128.zip that this was made for, its sha256 is another")
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("metadata.csv").decode())))
        taken = list(chosen(rows))
        photos = {row["path"]: thumbnail(archive.read(row["path"])) for row in taken}
        notice = archive.read(next(name for name in archive.namelist() if name.endswith("LICENSE")))
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(taken)
    count = {"count": len(taken), "classes": len({row["class_id"] for row in taken})}
    page = SOURCES.format(**count, pillow=__version__)
    return packed(
        {"LICENSE": notice, "SOURCES.md": page.encode(), "metadata.csv": table.getvalue().encode(), **photos}
    )


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip of the files, uncompressed: photos are already, and a compressor may change."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, STAMP)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


if __name__ == "__main__":
    content = make(Path(sys.argv[1]))
    TARGET.write_bytes(content)
    print(f"{TARGET}: {len(content):,} bytes")
    print(hashlib.sha256(content).hexdigest())
