"""Encoders of the transformers library, from a local folder or by name.

The embedding is the first of these that a model has:

1. the image features of a model of images and texts (CLIP, SigLIP and others), or the projected features of
   its image half saved alone;
2. the pooled output, provided that the weights of the pooling layer are in the file or it has none;
3. the first token (CLS).

Code that comes with a model is never executed, and weights are read from safetensors only.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.models.huggingface_processor import input_settings, own_preprocess
from rankproof.models.source import Source, describe, optional_library, reason
from rankproof.models.weights import list_names

SCHEME = "hf:"
WITH_PROJECTION = "VisionModelWithProjection"  # the class of the image half of a CLIP
POOLER = "pooler"


class ImageTower(nn.Module):
    """The image encoder of a model of the transformers library.

    Args:
        model: the model as the library loads it.
        pooled: whether the embedding is its pooled output, where it has one; else the first token.
    """

    model: Any

    def __init__(self, model: nn.Module, pooled: bool) -> None:
        super().__init__()
        self.model, self.pooled = model, pooled

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, c, h, w) to (b, d)."""
        if hasattr(self.model, "get_image_features"):
            return as_tensor(self.model.get_image_features(pixel_values=pixels))
        output = self.model(pixel_values=pixels)
        projected: Tensor | None = getattr(output, "image_embeds", None)
        if projected is not None:
            return projected
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if self.pooled and pooled is not None:
            return pooled.flatten(1)  # (b, d, 1, 1) of a convolutional network to (b, d)
        states: Tensor = output.last_hidden_state  # (b, tokens, d), or (b, d, h, w)
        return states[:, 0] if states.dim() == 3 else states.mean((2, 3))


def load_huggingface(name: str, place: str) -> Source:
    """The image encoder in a folder or on the hub, with the mean, std and size of its preprocessor.

    Args:
        name: of the encoder, for messages.
        place: a folder, or a name on the hub.
    Raises:
        RankproofError: the library or the model cannot be used, weights are missing in the file, or its
            preprocessing is more than a mean, a std and a size.
    """
    library = optional_library("transformers")
    with _quiet():
        config = _from_pretrained(name, library.AutoConfig, place)
        first = next(iter(config.architectures or ()), "")
        cls = getattr(library, first) if first.endswith(WITH_PROJECTION) else library.AutoModel
        options = {"use_safetensors": True, "output_loading_info": True}
        model, loading = _from_pretrained(name, cls, place, **options)
        # Pillow's resize where the library has a choice: that of torchvision differs from it.
        processor = _from_pretrained(name, library.AutoImageProcessor, place, use_fast=False)
    missing = sorted(loading["missing_keys"])
    needed = [key for key in missing if POOLER not in key]
    if needed or loading["mismatched_keys"]:
        raise RankproofError(
            f"{name}: weights are missing in the file or of another shape "
            f"({list_names(needed) or 'see its config'}); they would be random, so fetch the whole model"
        )
    tower = ImageTower(model, pooled=not missing)
    settings = input_settings(name, config, processor)
    source = describe(tower, name, {"distance": "cosine", **settings}, {"arch": first})
    with _quiet():
        preprocess, notes = own_preprocess(name, processor, settings)
    return replace(source, preprocess=preprocess, notes=notes)


def text_queries(source: Source, texts: Sequence[str]) -> Tensor:
    """The embeddings of texts by a model of images and texts, for `rankproof.attack(queries=...)`.

    Args:
        source: a model of images and texts, such as a CLIP, opened by `open_encoder("hf:...")`.
        texts: w texts, as a user would type them.
    Returns:
        (w, d) embeddings as the model returns them, not yet normalised.
    Raises:
        RankproofError: there are no texts, or the model has no text encoder or no tokenizer.
    """
    tower = source.encoder
    if not isinstance(tower, ImageTower) or not hasattr(tower.model, "get_text_features"):
        raise RankproofError(
            f"{source.name}: has no text encoder; text queries need a model of images and texts, such as "
            f"hf:NAME of a CLIP"
        )
    if isinstance(texts, str) or not texts:
        raise RankproofError("texts: give a list of at least one text")
    library, model = optional_library("transformers"), tower.model
    with _quiet():
        tokenizer = _from_pretrained(source.name, library.AutoTokenizer, source.name.removeprefix(SCHEME))
    # SigLIP was trained on texts padded to full length; CLIP ignores its padding.
    padding = "max_length" if "siglip" in model.config.model_type else True
    tokens = tokenizer(list(texts), padding=padding, truncation=True, return_tensors="pt")
    tokens = {key: tokens[key].to(model.device) for key in ("input_ids", "attention_mask") if key in tokens}
    with torch.no_grad():
        return as_tensor(model.get_text_features(**tokens))


def as_tensor(features: Any) -> Tensor:
    """The features; newer versions of the library return them as the pooled part of an output."""
    z: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return z


def _from_pretrained(name: str, cls: Any, place: str, **options: bool) -> Any:
    """What a class of the library loads; any error becomes one line."""
    try:
        return cls.from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:  # network, missing files, damaged files, versions: the library raises anything
        raise RankproofError(
            f"{name}: {cls.__name__} cannot be read ({reason(error)}); give a folder with config.json, "
            f"model.safetensors and preprocessor_config.json, or a name that can be downloaded"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and warnings; its errors are exceptions."""
    settings = optional_library("transformers.utils.logging")
    level, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    settings.set_verbosity(logging.CRITICAL)
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if bars:
            settings.enable_progress_bar()
