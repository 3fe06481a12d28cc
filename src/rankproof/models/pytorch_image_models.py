"""Encoders of the timm library by name."""

from typing import Any

from rankproof.errors import RankproofError
from rankproof.models.extras import extra, reason
from rankproof.models.source import Source, describe


def load_timm(name: str, model: str) -> Source:
    """A pretrained model of timm without its classifier, fed as its own configuration says.

    The embedding is the model's pooled feature, what timm gives for `num_classes=0`.
    """
    library, data = extra("timm"), extra("timm.data")
    try:
        encoder: Any = library.create_model(model, pretrained=True, num_classes=0)
        told = data.resolve_model_data_config(encoder)
        settings = {"mean": told["mean"], "std": told["std"], "input": told["input_size"]}
    except Exception as error:  # unknown name, no network, damaged file
        raise RankproofError(
            f"{name}: cannot be loaded ({reason(error)}); timm.list_models(pretrained=True) lists the names, "
            f"and weights are downloaded at first use"
        ) from None
    return describe(encoder, name, settings, {"arch": model})
