"""Pretrained encoders of the timm and torchvision libraries by name."""

from typing import Any

from torch import nn

from rankproof.errors import RankproofError
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
    except Exception as error:  # unknown name, no network, damaged file
        raise RankproofError(
            f"{name}: cannot be loaded ({reason(error)}); timm.list_models(pretrained=True) lists the names, "
            f"and weights are downloaded at first use"
        ) from None
    return describe(encoder, name, settings, {"arch": model})


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
    except Exception as error:  # unknown name, no network, damaged file, a model of something else
        raise RankproofError(
            f"{name}: cannot be loaded ({reason(error)}); torchvision.models.list_models() lists the names, "
            f"image classifiers work, and weights are downloaded at first use"
        ) from None
    _remove_classifier(encoder, name)
    return describe(encoder, name, settings, {"arch": model})


def _remove_classifier(encoder: nn.Module, name: str) -> None:
    """Replace the last linear layer by the identity."""
    linear = [path for path, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise RankproofError(f"{name}: has no linear classifier to remove; choose another model")
    parent, _, child = linear[-1].rpartition(".")
    setattr(encoder.get_submodule(parent), child, nn.Identity())
