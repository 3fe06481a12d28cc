import gzip
import struct

import numpy as np
import pytest

from rankproof.data.idx import FASHION_CLASSES, is_idx, load_idx, read_idx
from rankproof.errors import RankproofError


def idx_bytes(values):
    values = np.asarray(values, np.uint8)
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


PICTURES = np.arange(24).reshape(4, 2, 3)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(PICTURES)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes([2, 0, 1, 2]))
    return tmp_path


def test_reads_compressed_and_plain_files(folder):
    dataset = load_idx(folder, "test")
    assert dataset.images[:, 0].tolist() == PICTURES.tolist()
    assert dataset.labels.tolist() == [2, 0, 1, 2]
    assert dataset.classes == ("0", "1", "2")
    assert "2x3" in dataset.note


def test_recognises_a_folder_by_any_of_its_files(folder, tmp_path_factory):
    assert is_idx(folder)
    assert not is_idx(tmp_path_factory.mktemp("other"))


def test_names_the_files_of_a_missing_split(folder):
    with pytest.raises(RankproofError, match=r"train-images-idx3-ubyte\.gz"):
        load_idx(folder, "train")


def test_refuses_unequal_numbers_of_images_and_labels(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes([2, 0, 1]))
    with pytest.raises(RankproofError, match="4 images but 3 labels"):
        load_idx(folder, "test")


def test_refuses_no_images(folder):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((0, 2, 3)))))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes([]))
    with pytest.raises(RankproofError, match="no images"):
        load_idx(folder, "test")


GOOD = idx_bytes(PICTURES)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "damaged header"),
        (GOOD[:10], "damaged header"),
        (b"\x00\x00\x0d" + GOOD[3:], "damaged header"),
        (b"\x00\x00\x08\x01" + GOOD[4:], "damaged header"),
        (GOOD[:-1], "declares 24 bytes, the file has 23"),
        (GOOD + b"x", "the file has more"),
        (GOOD[:4] + b"\xff" * 12, "too many"),
    ],
    ids=["empty", "short", "type", "dimensions", "cut", "long", "huge"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_refuses_damaged_files(tmp_path, raw, message, packed):
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(RankproofError, match=message) as error:
        read_idx(path, 3)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-12], lambda raw: b"no gzip", lambda raw: raw[:20] + b"\xff" * 20]
)
def test_refuses_damaged_compression(tmp_path, damage):
    path = tmp_path / "images.gz"
    path.write_bytes(damage(gzip.compress(GOOD)))
    with pytest.raises(RankproofError, match="fetch it again"):
        read_idx(path, 3)


def test_the_published_sets(real):
    fashion, digits = load_idx(real("fashion-mnist"), "test"), load_idx(real("mnist"), "test")
    assert fashion.classes == FASHION_CLASSES
    assert fashion.labels.bincount().tolist() == [1000] * 10
    assert digits.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert fashion.images.shape == digits.images.shape == (10000, 1, 28, 28)
    assert digits.classes[7] == "7"
