"""An encoder together with the input it takes, and what all loaders of encoders share."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.ranking.encoder_function import EncoderFunction

SETTINGS = ("distance", "mean", "std", "input")  # keys of a record that say what input an encoder takes
COLOUR = 3  # channels
MAX_NUMBER = torch.finfo(torch.float32).max  # of a setting: above it encoders compute with infinity


@dataclass(frozen=True, kw_only=True)
class Source:
    """An encoder and the input it takes.

    Args:
        encoder: a module from pixels (b, c, h, w) to embeddings (b, d), in eval mode.
        name: under which it was opened.
        distance: by which its embeddings are compared.
        mean, std: per channel, by which pixels are normalised before the encoder; None for plain [0, 1]
            pixels.
        input: channels, height and width of its images; None where any size works, or it is unknown.
        record: what is known about it, with the keys of model.json.
        preprocess: what its own processor does to an upload, from pixels in [0, 1] of any size to those that
            mean and std are for; None where there is no processor, or it is not known what it does.
    """

    encoder: nn.Module
    name: str
    distance: str = "cosine"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input: tuple[int, int, int] | None = None
    record: JsonObject = field(default_factory=dict)
    preprocess: nn.Module | None = None

    @property
    def channels(self) -> int | None:
        """Number of channels of its images; None where it is unknown."""
        if self.input is not None:
            return self.input[0]
        return next((len(values) for values in (self.mean, self.std) if values is not None), None)


def describe(
    encoder: nn.Module | Callable[[Tensor], Tensor],
    name: str,
    settings: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
    *,
    channels: int | None = None,
) -> Source:
    """A `Source` from unchecked settings.

    Args:
        settings: any of distance, mean, std and input, None where one does not apply.
        record: what else is known about the encoder.
        channels: of the images it takes, where its architecture determines them.
    Raises:
        RankproofError: a setting has an invalid value; the message names it.
    """
    values = {key: _numbers(key, settings.get(key), name) for key in ("mean", "std", "input")}
    counts = {len(values[key]) for key in ("mean", "std") if values[key] is not None}
    if (form := values["input"]) is not None:
        if len(form) != 3 or min(form) < 1 or any(side != int(side) for side in form):
            raise RankproofError(
                f"{name}: input must be channels, height and width, whole numbers of at least 1, not "
                f"{settings['input']!r}"
            )
        values["input"] = tuple(int(side) for side in form)
        counts.add(values["input"][0])
    if values["std"] is not None and min(values["std"]) <= 0:
        raise RankproofError(f"{name}: every value of std must be above 0, not {settings['std']!r}")
    if len(counts | ({channels} - {None})) > 1:
        taken = "" if channels is None else f"; the encoder takes {channels}"
        raise RankproofError(f"{name}: mean, std and input must agree on the number of channels{taken}")
    module = encoder if isinstance(encoder, nn.Module) else EncoderFunction(encoder)
    distance = str(settings.get("distance") or "cosine")
    plain = {key: None if value is None else list(value) for key, value in values.items()}
    return Source(
        encoder=_in_eval_mode(module),
        name=name,
        distance=distance,
        record={"distance": distance, **plain, **(record or {})},
        **values,
    )


def _in_eval_mode(encoder: nn.Module) -> nn.Module:
    with suppress(NotImplementedError):  # a program of torch.export, whose mode is fixed
        encoder.eval()
    return encoder


def _numbers(key: str, value: object, name: str) -> Any:
    """A tuple of at least one finite number, or None."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value or not all(_is_number(entry) for entry in value):
        raise RankproofError(f"{name}: {key} must be a list of numbers or nothing, not {value!r}")
    if not all(abs(entry) <= MAX_NUMBER for entry in value):  # false for NaN, too
        raise RankproofError(f"{name}: {key} must be finite numbers, not {value!r}")
    return tuple(value)


def _is_number(entry: object) -> bool:
    return isinstance(entry, int | float) and not isinstance(entry, bool)


def optional_library(module: str) -> Any:
    """A module of a library that is installed as the optional extra of the same name.

    Raises:
        RankproofError: it cannot be imported, for whatever reason; the message says what to install.
    """
    try:
        return import_module(module)
    except Exception as error:  # a version that does not match the installed torch may raise anything
        library = module.partition(".")[0]
        raise RankproofError(
            f"{library} cannot be used here ({reason(error)}); install one that matches your torch: "
            f"pip install 'rankproof[{library}]'"
        ) from None


def reason(error: Exception) -> str:
    """Type and first line of an error, for a message of one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
