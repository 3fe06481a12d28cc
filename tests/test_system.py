"""Which images an encoder gets where none are named, how many pass it at once, and what is said of it."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from rankproof import Preprocess, load
from rankproof.data.image_list import resized_note
from rankproof.errors import RankproofError
from rankproof.models import Source, new_encoder, save_checkpoint
from rankproof.system import SystemOptions, load_task, open_system
from rankproof.system.input_chain import pass_images, stretched_note


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
    images = torch.zeros(1, *loaded, dtype=torch.uint8)
    dataset = replace(load("digits"), images=images, labels=None)
    assert pass_images(dataset, reached) == chunk


def test_what_a_service_resizes_passes_in_small_numbers(tmp_path, monkeypatch):
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\n"
        "def pooled():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())\n\n"
        "def colour():\n    return pooled(), {'mean': [0.5] * 3, 'std': [0.5] * 3}\n"
    )

    def chunk(function, **options):
        target = open_system(f"own.py:{function}", "digits", SystemOptions(preprocess=Preprocess(**options)))
        assert target.dataset.images.shape[1:] == (1, 8, 8)
        return target.gallery.ranker.chunk

    assert chunk("pooled", jpeg=90) == 500
    assert chunk("pooled", resize=112) == 199
    assert chunk("pooled", resize=112, crop=96) == 271
    assert chunk("colour", resize=96) == 90


def test_images_that_a_processor_would_make_otherwise_are_named():
    digits = load("digits")
    cropping, stretching = Preprocess(9, 8, pad=True), Preprocess((8, 8))
    resized = replace(digits, note=f"{digits.note}; {resized_note((8, 8))}")
    for preprocess, dataset, said in (
        (cropping, digits, True),
        (cropping, resized, True),
        (stretching, resized, True),  # by another filter than the processor's
        (stretching, digits, False),  # which the processor would leave alone
        (None, resized, False),
    ):
        source = Source(encoder=nn.Flatten(), name="it", input=(1, 8, 8), preprocess=preprocess)
        notes = stretched_note(source, (8, 8), dataset)
        assert len(notes) == said
        assert all(f"encoder's own processor does {preprocess}: --size keep" in note for note in notes)
        assert stretched_note(source, None, dataset) == ()  # the user chose another size


def test_notes_of_a_source_are_told(tmp_path, monkeypatch):
    torch.manual_seed(0)
    source = Source(encoder=nn.Flatten(), name="it", input=(1, 8, 8), notes=("not reproduced",))
    monkeypatch.setattr("rankproof.system.loading.open_encoder", lambda *given, **options: source)
    assert "not reproduced" in open_system("it", "digits").notes


def test_without_data_an_encoder_gets_what_it_can_take(tmp_path, monkeypatch):
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\n"
        "def pooled():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())\n\n"
        "def grey():\n    return pooled(), {'mean': [0.5], 'std': [0.5]}\n"
    )
    save_checkpoint(tmp_path / "model", new_encoder("digits"), {"arch": "digits", "input": [1, 8, 8]})

    def name(model, data=None, **options):
        return load_task(model, data, SystemOptions(**options)).dataset.name

    assert name("own.py:pooled", size=8) == "groceries"
    assert name("own.py:grey") == name("model") == "digits"
    with pytest.raises(
        RankproofError, match=r"model: wants images of 1x8x8, groceries has 3x8x8; choose other"
    ):
        name("model", "groceries")


def test_statistics_and_the_order_of_channels_are_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\n"
        "def encoder():\n    return nn.Flatten(), {'mean': [0.25] * 3, 'std': [0.5] * 3}\n\n"
        "def grey():\n    return nn.Flatten()\n"
    )
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8, generator=random)
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
        open_system("own.py:grey", "digits", SystemOptions(bgr=True))
    with pytest.raises(RankproofError, match="mean: got 104, but pixels are in"):
        open_system("own.py:encoder", "photos", SystemOptions(split_by="none", mean=(104.0,)))
