"""Decoded pixels are kept by what the files hold, and never by their names or times."""

import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from rankproof import GalleryCache, load
from rankproof.cache import pixels as room
from rankproof.data import image_list


def photo(seed):
    values = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        place = tmp_path / "photos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        photo(number).save(place / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def said():
    return []


@pytest.fixture
def kept(tmp_path, said):
    return GalleryCache(tmp_path / "kept", log=said.append)


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded."""
    files, decode = [], image_list.decode

    def counting(raw, file, form):
        files.append(file)
        return decode(raw, file, form)

    monkeypatch.setattr(image_list, "decode", counting)
    return files


def read(folder, kept, **options):
    return load(folder, split_by="none", kept=kept.pixels, **options)


def test_files_are_decoded_once(folder, kept, decoded, said):
    first, again = read(folder, kept), read(folder, kept)
    assert len(decoded) == 6
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, load(folder, split_by="none").images)
    assert (first.note, first.files, first.sha256) == (again.note, again.files, again.sha256)
    assert [(each.kind, each.data, each.items, each.dimensions) for each in kept.list()] == [
        ("pixels", "photos", 6, 297)
    ]
    assert not said


def test_another_content_of_the_same_length_and_time_is_decoded(folder, kept, decoded):
    file = folder / "a" / "0.png"
    photo(0).save(file, compress_level=0)
    read(folder, kept)
    before = file.stat()
    photo(7).save(file, compress_level=0)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    decoded.clear()
    again = read(folder, kept)
    assert len(decoded) == 6
    assert torch.equal(again.images, load(folder, split_by="none").images)


@pytest.mark.parametrize("options", [{"size": 8}, {"size": (9, 12)}])
def test_another_form_is_decoded(folder, kept, options, decoded):
    read(folder, kept)
    decoded.clear()
    assert torch.equal(read(folder, kept, **options).images, load(folder, split_by="none", **options).images)
    assert len(decoded) == 12


def test_files_in_another_order_are_decoded(folder, kept, decoded):
    read(folder, kept)
    os.rename(folder / "a" / "0.png", folder / "a" / "9.png")
    assert torch.equal(read(folder, kept).images, load(folder, split_by="none").images)
    assert len(decoded) == 18


def test_another_decoder_is_another_key(folder, kept, decoded, monkeypatch):
    read(folder, kept)
    monkeypatch.setattr(room.PIL, "__version__", "0.1")
    read(folder, kept)
    assert len(decoded) == 12


def test_a_zip_finds_what_its_folder_kept(folder, kept, decoded, tmp_path):
    read(folder, kept)
    decoded.clear()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    read(tmp_path / "photos.zip", kept)
    assert not decoded


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: raw[:50]])
def test_a_damaged_file_is_made_again(folder, kept, decoded, said, damage):
    first = read(folder, kept)
    (entry,) = kept.list()
    file = kept.folder.file(entry.key)
    file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(read(folder, kept).images, first.images)
    assert len(decoded) == 12
    assert len(said) == 1
    assert "damaged" in said[0]
    read(folder, kept)
    assert len(decoded) == 12


def test_a_file_that_changes_while_it_is_read_is_kept_as_what_was_decoded(folder, kept, monkeypatch):
    file, decode = folder / "a" / "0.png", image_list.decode
    found = kept.pixels.__class__.read

    def changing(self, content):
        photo(8).save(file)
        return found(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(kept.pixels.__class__, "read", changing)
        assert torch.equal(read(folder, kept).images, load(folder, split_by="none").images)
    photo(0).save(file)
    assert decode is image_list.decode
    assert torch.equal(read(folder, kept).images, load(folder, split_by="none").images)


def test_pixels_take_half_of_the_size_at_most(folder, tmp_path, decoded, said):
    small = GalleryCache(tmp_path / "kept", 3000, said.append)
    read(folder, small)
    read(folder, small)
    assert len(decoded) == 12
    assert not small.list()
    assert not said
