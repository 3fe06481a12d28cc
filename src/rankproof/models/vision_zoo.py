"""Encoders of the torchvision library by name."""

from typing import Any

from torch import nn

from rankproof.errors import RankproofError
from rankproof.models.extras import extra, reason
from rankproof.models.source import COLOUR, Source, describe


def load_torchvision(name: str, model: str) -> Source:
    """A pretrained classifier of torchvision with its default weights, fed as these say.

    The embedding is what its last linear layer, the classifier, gets.
    """
    models = extra("torchvision.models")
    try:
        weights: Any = models.get_model_weights(model).DEFAULT
        encoder: nn.Module = models.get_model(model, weights=weights)
        told = weights.transforms()
        settings = {"mean": told.mean, "std": told.std, "input": [COLOUR, *_sides(told.crop_size)]}
    except Exception as error:  # unknown name, no network, damaged file, a model of something else
        raise RankproofError(
            f"{name}: cannot be loaded ({reason(error)}); torchvision.models.list_models() lists the names, "
            f"image classifiers fit, and weights are downloaded at first use"
        ) from None
    _take_off_classifier(encoder, name)
    return describe(encoder, name, settings, {"arch": model})


def _sides(crop: Any) -> tuple[int, int]:
    """Height and width of a preset's crop, which is one number or a list of one or two."""
    sides = [crop] if isinstance(crop, int) else list(crop)
    return int(sides[0]), int(sides[-1])


def _take_off_classifier(encoder: nn.Module, name: str) -> None:
    """Put nothing in the place of the last linear layer."""
    linear = [path for path, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise RankproofError(f"{name}: has no linear classifier to take off; choose another model")
    parent, _, child = linear[-1].rpartition(".")
    setattr(encoder.get_submodule(parent), child, nn.Identity())
