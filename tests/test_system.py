"""How many images pass the encoder at once."""

import pytest

from rankproof import Preprocess
from rankproof.system import SystemOptions, _chunk, open_system


@pytest.mark.parametrize(
    ("loaded", "reached", "chunk"),
    [
        ((1, 28, 28), (1, 28, 28), 500),
        ((1, 28, 28), (1, 224, 224), 49),
        ((1, 28, 28), (3, 224, 224), 16),  # grey images in three channels
        ((3, 224, 224), (3, 224, 224), 16),
        ((3, 224, 224), (3, 32, 32), 16),  # the images themselves, and their gradients, are still large
        ((1, 8, 8), (3, 2000, 2000), 1),
    ],
)
def test_the_chunk_is_that_of_the_form_that_reaches_the_encoder(loaded, reached, chunk):
    assert _chunk(loaded, reached) == chunk


def test_what_a_service_resizes_passes_in_small_numbers(tmp_path, monkeypatch):
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\n"
        "def pooled():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())\n\n"
        "def colour():\n    return pooled(), {'mean': [0.5] * 3, 'std': [0.5] * 3}\n"
    )

    def chunk(function, **options):
        target = open_system(f"own.py:{function}", None, SystemOptions(preprocess=Preprocess(**options)))
        assert target.dataset.images.shape[1:] == (1, 8, 8)
        return target.gallery.ranker.chunk

    assert chunk("pooled", jpeg=90) == 500
    assert chunk("pooled", resize=112) == 199
    assert chunk("pooled", resize=112, crop=96) == 271
    assert chunk("colour", resize=96) == 90
