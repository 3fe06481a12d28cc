"""Encoders of the transformers library, from a local folder or by name.

What the embedding is, in this order:

1. a model of pictures and texts (CLIP, SigLIP and their kin) gives its image features, and the image half of
   one, saved with its projection, the projected ones;
2. any other gives its pooled output, if the weights of its pooling layer are in the file or it has none;
3. else its first token (CLS).

Code that comes with a model is never executed, and weights are read from safetensors only.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.models.extras import extra, reason
from rankproof.models.source import Source, describe
from rankproof.models.weights import named

SCHEME = "hf:"
WITH_PROJECTION = "VisionModelWithProjection"  # how the image half of a CLIP is called in its own config
POOLER = "pooler"


class ImageTower(nn.Module):
    """The image side of a model of the transformers library, as a module from pixels to embeddings.

    Args:
        model: the library's own model.
        pooled: whether its pooled output can be used; else the first token is.
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
        if getattr(output, "image_embeds", None) is not None:
            projected: Tensor = output.image_embeds
            return projected
        if self.pooled and getattr(output, "pooler_output", None) is not None:
            pooled: Tensor = output.pooler_output
            return pooled.flatten(1)  # (b, d, 1, 1) of a convolutional network to (b, d)
        states: Tensor = output.last_hidden_state  # (b, tokens, d), or (b, d, h, w)
        return states[:, 0] if states.dim() == 3 else states.mean((2, 3))


def load_huggingface(name: str, place: str) -> Source:
    """The image encoder of a folder or a name of the hub, with the mean, std and size of its preprocessor.

    Raises:
        RankproofError: the library or the model cannot be used, weights are missing in the file, or pictures
            are prepared in a way that a mean, a std and a size do not describe.
    """
    library = extra("transformers")
    with _quiet():
        config = _asked(name, library.AutoConfig, place)
        first = next(iter(config.architectures or ()), "")
        kind = getattr(library, first) if first.endswith(WITH_PROJECTION) else library.AutoModel
        model, told = _asked(name, kind, place, use_safetensors=True, output_loading_info=True)
        processor = _asked(name, library.AutoImageProcessor, place)
    lost = sorted(told["missing_keys"])
    needed = [key for key in lost if POOLER not in key]
    if needed or told["mismatched_keys"]:
        raise RankproofError(
            f"{name}: weights are missing in the file or of another shape "
            f"({named(needed) or 'see its config'}); they would be random, so fetch the whole model"
        )
    tower = ImageTower(model, pooled=not lost)
    return describe(tower, name, {"distance": "cosine", **_fed(name, config, processor)}, {"arch": first})


def text_queries(source: Source, texts: Sequence[str]) -> Tensor:
    """The embeddings of texts in the space of a model's pictures, for `rankproof.attack(queries=...)`.

    Args:
        source: what `open_encoder("hf:...")` gave of a model of pictures and texts, such as a CLIP.
        texts: w texts, as somebody would type them.
    Returns:
        (w, d) embeddings as the model gives them; whoever uses them prepares them for the distance.
    Raises:
        RankproofError: there are no texts, or the model has no text side or no tokenizer.
    """
    tower = source.encoder
    if not isinstance(tower, ImageTower) or not hasattr(tower.model, "get_text_features"):
        raise RankproofError(
            f"{source.name}: has no text side; text queries need a model of pictures and texts, hf:NAME of "
            f"a CLIP"
        )
    if isinstance(texts, str) or not texts:
        raise RankproofError("texts: give a list of at least one text")
    library, model = extra("transformers"), tower.model
    with _quiet():
        tokenizer = _asked(source.name, library.AutoTokenizer, source.name.removeprefix(SCHEME))
    # SigLIP learned from texts that were padded to full length, CLIP does not see its padding.
    padding = "max_length" if "siglip" in model.config.model_type else True
    tokens = tokenizer(list(texts), padding=padding, truncation=True, return_tensors="pt")
    tokens = {key: tokens[key].to(model.device) for key in ("input_ids", "attention_mask") if key in tokens}
    with torch.no_grad():
        return as_tensor(model.get_text_features(**tokens))


def as_tensor(features: Any) -> Tensor:
    """The features themselves; newer versions of the library return them as the pooled part of an output."""
    z: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return z


def _asked(name: str, kind: Any, place: str, **options: bool) -> Any:
    """Something of the library by the name of a model; whatever goes wrong becomes one line."""
    try:
        return kind.from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:  # network, missing files, damaged files, versions: the library raises anything
        raise RankproofError(
            f"{name}: {kind.__name__} cannot be read ({reason(error)}); give a folder with config.json, "
            f"model.safetensors and preprocessor_config.json, or a name that can be downloaded"
        ) from None


def _fed(name: str, config: Any, processor: Any) -> dict[str, Any]:
    """Mean, std and input of a preprocessor, for pixels in [0, 1]."""
    if getattr(processor, "do_flip_channel_order", False) or getattr(processor, "rescale_offset", False):
        raise RankproofError(
            f"{name}: its preprocessor turns or offsets the channels; write a function that does the same "
            f"around the model, and name it as module.py:function"
        )
    # The library works on 0 .. 255: (255 x f - mean) / std = (x - mean / 255 f) / (std / 255 f)
    scale = 255 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    normalises = getattr(processor, "do_normalize", False)
    mean = processor.image_mean if normalises else [0.0, 0.0, 0.0]
    std = processor.image_std if normalises else [1.0, 1.0, 1.0]
    plain = not normalises and abs(scale - 1) < 1e-6
    size = processor.size
    if getattr(processor, "do_center_crop", False) and processor.crop_size:
        size = processor.crop_size
    return {
        "mean": None if plain else [float(value) / scale for value in mean],
        "std": None if plain else [float(value) / scale for value in std],
        "input": _form(config, size, len(mean)),
    }


def _form(config: Any, size: Any, channels: int) -> list[int] | None:
    """Channels, height and width, from the preprocessor's size or else from the model's own."""
    sides = size if isinstance(size, dict) else vars(size) if hasattr(size, "__dict__") else {}
    if sides.get("height") and sides.get("width"):
        return [channels, int(sides["height"]), int(sides["width"])]
    side = sides.get("shortest_edge") or getattr(getattr(config, "vision_config", config), "image_size", None)
    return [channels, int(side), int(side)] if isinstance(side, int) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars and advice; its errors come as exceptions."""
    talk = extra("transformers.utils.logging")
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.CRITICAL)
    talk.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()
