"""Pretrained encoders of the timm and torchvision libraries by name."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from PIL import Image
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.models.preprocess import Preprocess
from rankproof.models.processor import Process, reproduced, resample_by_name
from rankproof.models.source import COLOUR, Source, describe, optional_library, reason


def load_timm(name: str, model: str) -> Source:
    """A pretrained model of timm without its classifier; its input is as its own configuration says.

    The embedding is the model's pooled feature, what timm returns for `num_classes=0`.
    """
    timm, data = optional_library("timm"), optional_library("timm.data")
    try:
        encoder: Any = timm.create_model(model, pretrained=True, num_classes=0)
        config = data.resolve_model_data_config(encoder)
        settings = {"mean": config["mean"], "std": config["std"], "input": config["input_size"]}
        candidates = list(_timm_candidates(config))
    except Exception as error:  # unknown name, no network, damaged file
        raise RankproofError(
            f"{name}: cannot be loaded ({reason(error)}); timm.list_models(pretrained=True) lists the names, "
            f"and weights are downloaded at first use"
        ) from None

    def process(image: Image.Image) -> Tensor:
        pixels: Tensor = data.create_transform(**config, is_training=False)(image)
        return pixels

    return _with_preprocess(describe(encoder, name, settings, {"arch": model}), process, candidates)


def load_torchvision(name: str, model: str) -> Source:
    """A pretrained classifier of torchvision with its default weights and the input that belongs to them.

    The embedding is the input of its last linear layer, the classifier.
    """
    models = optional_library("torchvision.models")
    try:
        weights: Any = models.get_model_weights(model).DEFAULT
        encoder: nn.Module = models.get_model(model, weights=weights)
        preset = weights.transforms()
        crop = [preset.crop_size] if isinstance(preset.crop_size, int) else list(preset.crop_size)
        sides = [int(crop[0]), int(crop[-1])]  # one number, or a list of one or two
        settings = {"mean": preset.mean, "std": preset.std, "input": [COLOUR, *sides]}
        candidates = list(_torchvision_candidates(preset, (sides[0], sides[1])))
    except Exception as error:  # unknown name, no network, damaged file, a model of something else
        raise RankproofError(
            f"{name}: cannot be loaded ({reason(error)}); torchvision.models.list_models() lists the names, "
            f"image classifiers work, and weights are downloaded at first use"
        ) from None
    _remove_classifier(encoder, name)
    return _with_preprocess(describe(encoder, name, settings, {"arch": model}), preset, candidates)


def _timm_candidates(config: Mapping[str, Any]) -> Iterator[Preprocess]:
    """What timm's transform for evaluation may do: enlarge by 1 / crop_pct, and crop."""
    height, width = (int(side) for side in config["input_size"][1:])
    resample = resample_by_name(config.get("interpolation"))
    if resample is None:
        return
    enlarged = [math.floor(side / (config.get("crop_pct") or 1)) for side in (height, width)]
    exact = enlarged[0], enlarged[1]
    for resize in (enlarged[0], exact) if height == width else (exact,):
        yield Preprocess(resize, (height, width), resample=resample, centre="torchvision", pad=True)


def _torchvision_candidates(preset: Any, crop: tuple[int, int]) -> Iterator[Preprocess]:
    """What a preset of torchvision for classification may do."""
    resample = resample_by_name(getattr(preset, "interpolation", None))
    size = [preset.resize_size] if isinstance(preset.resize_size, int) else list(preset.resize_size)
    if resample is not None:
        resize = int(size[0]) if len(size) == 1 else (int(size[0]), int(size[1]))
        yield Preprocess(resize, crop, resample=resample, centre="torchvision", pad=True)


def _with_preprocess(source: Source, process: Process, candidates: Iterable[Preprocess]) -> Source:
    """The source with what its library's transform does to an upload before mean and std."""
    what = f"the transform of {source.name}"
    settings = {"mean": source.mean, "std": source.std, "input": source.input}
    preprocess, notes = reproduced(what, process, candidates, settings)
    return replace(source, preprocess=preprocess, notes=notes)


def _remove_classifier(encoder: nn.Module, name: str) -> None:
    """Replace the last linear layer by the identity."""
    linear = [path for path, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise RankproofError(f"{name}: has no linear classifier to remove; choose another model")
    parent, _, child = linear[-1].rpartition(".")
    setattr(encoder.get_submodule(parent), child, nn.Identity())
