"""What processors of the transformers library do to an upload, beside the processors themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from rankproof import RankproofError
from rankproof.models.huggingface_processor import input_settings, own_preprocess

CONFIG = SimpleNamespace(image_size=24)
SQUARE = {"height": 24, "width": 24}
CROPPED = {"size": {"shortest_edge": 28}, "crop_size": SQUARE}


def make(transformers, kind, **settings):
    """A processor that computes with Pillow, whatever else the library can use."""
    name = f"{kind}ImageProcessor"
    return (getattr(transformers, f"{name}Pil", None) or getattr(transformers, name))(**settings)


def read(processor):
    settings = input_settings("hf:it", CONFIG, processor)
    return settings, *own_preprocess("hf:it", processor, settings)


def worst(processor, settings, preprocess):
    """The largest difference in grey levels on uploads of many forms: photographs and noise."""
    one, other = load_sample_images().images
    noise = np.random.default_rng(0).integers(0, 256, (33, 90, 3), np.uint8)
    uploads = [one[:213, :320], other[:321, :151], one[:24, :24], other[100:119, :13], one[:9, :70], noise]
    mean, std = (
        torch.tensor(settings[key] or [default] * 3)[:, None, None]
        for key, default in (("mean", 0.0), ("std", 1.0))
    )
    found = []
    for upload in uploads:
        expected = processor(images=Image.fromarray(upload), return_tensors="pt")["pixel_values"][0]
        pixels = preprocess(torch.from_numpy(upload.copy()).permute(2, 0, 1)[None] / 255)[0]
        found.append(float((expected * std + mean - pixels).abs().max()) * 255)
    return max(found)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("ViT", {"size": SQUARE}, "resize=(24, 24), resample=bilinear"),
        ("ViT", {"size": {"height": 24, "width": 17}, "resample": 1}, "resize=(24, 17), resample=lanczos"),
        ("ViT", {"size": SQUARE, "do_normalize": False}, "resize=(24, 24), resample=bilinear"),
        ("ViT", {"do_resize": False}, ""),
        (
            "DeiT",
            {"size": {"height": 28, "width": 28}, "crop_size": SQUARE},
            "resize=(28, 28), resample=bicubic, crop=24",
        ),
        ("CLIP", CROPPED, "resize=28, resample=bicubic, crop=24"),
        (
            "CLIP",
            {**CROPPED, "crop_size": {"height": 23, "width": 20}},
            "resize=28, resample=bicubic, crop=(23, 20)",
        ),
        (
            "CLIP",
            {**CROPPED, "crop_size": {"height": 31, "width": 30}},
            "resize=28, resample=bicubic, crop=(31, 30)",
        ),
        ("CLIP", {**CROPPED, "do_center_crop": False}, "resize=28, resample=bicubic"),
        ("CLIP", {**CROPPED, "do_resize": False}, "crop=24"),
        ("CLIP", {**CROPPED, "resample": 0}, "resize=28, resample=nearest, crop=24"),
        ("Siglip", {"size": SQUARE}, "resize=(24, 24), resample=bicubic"),
        ("Bit", CROPPED, "resize=28, resample=bicubic, crop=24"),  # DINOv2's
        ("ConvNext", {"size": {"shortest_edge": 24}}, "resize=27, resample=bicubic, crop=24"),
        (
            "ConvNext",
            {"size": {"shortest_edge": 24}, "crop_pct": 0.7},
            "resize=34, resample=bicubic, crop=24",
        ),
        ("ConvNext", {"size": {"shortest_edge": 384}}, "resize=(384, 384), resample=bicubic"),
        ("EfficientNet", {"size": SQUARE}, "resize=(24, 24), resample=bicubic"),  # which divides by std twice
        ("EfficientNet", {"size": SQUARE, "include_top": False}, "resize=(24, 24), resample=bicubic"),
        ("MobileNetV2", CROPPED, "resize=28, resample=bilinear, crop=24"),
        ("Levit", {**CROPPED, "size": {"shortest_edge": 24}}, "resize=27, resample=bicubic, crop=24"),
        ("PoolFormer", {**CROPPED, "size": {"shortest_edge": 24}}, "resize=26, resample=bicubic, crop=24"),
    ],
)
def test_it_gives_the_processors_own_pixels(transformers, kind, settings, expected):
    processor = make(transformers, kind, **settings)
    settings, preprocess, notes = read(processor)
    assert preprocess.extra_repr().removesuffix(", pad=True") == expected
    assert notes == ()
    assert worst(processor, settings, preprocess) <= 1


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("CLIP", {"size": {"longest_edge": 24}, "do_center_crop": False}),
        ("Detr", {"size": {"shortest_edge": 24, "longest_edge": 200}}),  # the bound shows in long images only
        ("Detr", {"size": {"shortest_edge": 24}}),  # pads to the largest of its batch
        ("Swin2SR", {}),
        ("Perceiver", {"size": SQUARE, "crop_size": {"height": 28, "width": 28}}),  # crops, then resizes
        ("LlavaNext", CROPPED),
    ],
)
def test_what_is_not_reproduced_is_said(transformers, kind, settings):
    _, preprocess, notes = read(make(transformers, kind, **settings))
    assert preprocess is None
    assert len(notes) == 1
    assert f"how the preprocessor of hf:it ({kind}ImageProcessor" in notes[0]


class Darker:
    """A processor that also subtracts something."""

    def __init__(self, processor):
        self.processor = processor

    def __getattr__(self, name):
        return getattr(self.processor, name)

    def __call__(self, **given):
        return {"pixel_values": self.processor(**given)["pixel_values"] - 0.1}


def test_a_processor_that_normalises_otherwise_is_refused(transformers):
    with pytest.raises(
        RankproofError, match=r"^the preprocessor of hf:it .Darker. does more to pixels than its mean and std"
    ):
        read(Darker(make(transformers, "ViT", size=SQUARE)))


def test_a_processor_of_grey_images(transformers):
    processor = make(transformers, "ViT", size=SQUARE, image_mean=[0.2], image_std=[0.4])
    settings, preprocess, notes = read(processor)
    assert settings["input"] == [1, 24, 24]
    assert repr(preprocess) == "Preprocess(resize=(24, 24), resample=bilinear)"
    assert notes == ()
