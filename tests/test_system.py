"""How many images pass the encoder at once."""

import pytest
import torch
from PIL import Image

from rankproof import Preprocess, RankproofError
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


def test_statistics_and_the_order_of_channels_are_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\n"
        "def encoder():\n    return nn.Flatten(), {'mean': [0.25] * 3, 'std': [0.5] * 3}\n\n"
        "def grey():\n    return nn.Flatten()\n"
    )
    pixels = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8)
    for number, image in enumerate(pixels.numpy()):
        (tmp_path / f"photos/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"photos/{number % 2}/{number}.png")
    asked = {"mean": (0.1, 0.2, 0.3), "std": (0.5,), "bgr": True}
    target = open_system("own.py:encoder", "photos", SystemOptions(split_by="none", **asked))
    images = target.dataset.images.float() / 255
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    torch.testing.assert_close(target.gallery.embeddings, ((images.flip(1) - mean) / 0.5).flatten(1))
    assert "the encoder takes blue, green, red and mean 0.1, 0.2, 0.3 and std 0.5, as asked" in target.notes
    assert target.record["mean"] == [0.1, 0.2, 0.3]
    half = open_system("own.py:encoder", "photos", SystemOptions(split_by="none", mean=(0.5,)))
    torch.testing.assert_close(half.gallery.embeddings, ((images - 0.5) / 0.5).flatten(1))
    with pytest.raises(RankproofError, match=r"--bgr is for colours; the images of .* have 1 channel"):
        open_system("own.py:grey", None, SystemOptions(bgr=True))
    with pytest.raises(RankproofError, match="mean: got 104, but pixels are in"):
        open_system("own.py:encoder", "photos", SystemOptions(split_by="none", mean=(104.0,)))
