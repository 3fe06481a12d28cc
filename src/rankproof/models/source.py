"""An encoder by name, with everything a ranker must know of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rankproof.errors import RankproofError
from rankproof.models.architectures import ARCHITECTURES
from rankproof.models.checkpoint import RECORD, ZOO, load_checkpoint

SETTINGS = ("distance", "mean", "std", "input")  # keys of a record that say how an encoder is fed
COLOUR = 3  # channels
LARGEST = torch.finfo(torch.float32).max  # of a number in a setting: above it encoders see infinity
USER_CODE = re.compile(r"(.+\.py):(\w+)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """An encoder and how it wants to be fed.

    Args:
        encoder: a module from pixels (b, c, h, w) to embeddings (b, d), in eval mode.
        name: what it was asked for by.
        distance: what its embeddings are compared by.
        mean, std: for each channel, taken off the pixels and divided by before the encoder; None for plain
            [0, 1] pixels.
        input: channels, height and width of its pictures; None where that is not known or does not matter.
        record: what is known of it, with the keys of model.json.
    """

    encoder: nn.Module
    name: str
    distance: str = "cosine"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input: tuple[int, int, int] | None = None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int | None:
        """How many channels its pictures have, where that is known."""
        known = [len(values) for values in (self.mean, self.std) if values is not None]
        return self.input[0] if self.input is not None else next(iter(known), None)


def open_encoder(name: str, *, trust: bool = False, device: str = "cpu") -> Source:
    """An encoder by name.

    - a folder written by `rankproof train`, or `zoo:NAME`
    - `hf:FOLDER_OR_NAME`, `timm:NAME`, `torchvision:NAME`: from the library of that name
    - `module.py:function`: the function of your own file is called; it gives the module
    - `FILE.pt2` (torch.export), `FILE.pt` or `FILE.ts` (TorchScript): a program, only with `trust`

    Args:
        name: one of the forms above.
        trust: whether a file that can run code when it is opened may be opened.
        device: where the encoder is put.
    Raises:
        RankproofError: it cannot be opened; the message says what to do.
    """
    source = _opened(name, trust)
    try:
        source.encoder.to(device)
    except (RuntimeError, AssertionError) as error:
        raise RankproofError(f"{name}: cannot be put on {device} ({error}); choose another device") from None
    return source


def describe(
    encoder: nn.Module,
    name: str,
    settings: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
    *,
    channels: int | None = None,
) -> Source:
    """A source from loose settings, checked.

    Args:
        settings: any of distance, mean, std and input, None where one does not apply.
        record: what else is known.
        channels: how many channels the encoder takes, where its architecture tells.
    Raises:
        RankproofError: a setting has an odd value; the message names it.
    """
    values = {key: _numbers(key, settings.get(key), name) for key in ("mean", "std", "input")}
    known = {len(values[key]) for key in ("mean", "std") if values[key] is not None}
    if (form := values["input"]) is not None:
        if len(form) != 3 or min(form) < 1 or any(side != int(side) for side in form):
            raise RankproofError(
                f"{name}: input must be channels, height and width, whole numbers from 1 on, not "
                f"{settings['input']!r}"
            )
        values["input"] = tuple(int(side) for side in form)
        known.add(values["input"][0])
    if values["std"] is not None and min(values["std"]) <= 0:
        raise RankproofError(f"{name}: every value of std must be above 0, not {settings['std']!r}")
    if len(known | ({channels} - {None})) > 1:
        taken = "" if channels is None else f"; the encoder takes {channels}"
        raise RankproofError(f"{name}: mean, std and input must agree on the number of channels{taken}")
    distance = str(settings.get("distance") or "cosine")
    plain = {key: None if value is None else list(value) for key, value in values.items()}
    return Source(
        encoder=encoder.eval(),
        name=name,
        distance=distance,
        record={"distance": distance, **plain, **(record or {})},
        **values,
    )


def _numbers(key: str, value: object, name: str) -> Any:
    """A tuple of at least one finite number, or None."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value or not all(_is_number(entry) for entry in value):
        raise RankproofError(f"{name}: {key} must be a list of numbers or nothing, not {value!r}")
    if not all(abs(entry) <= LARGEST for entry in value):  # NaN too: nothing compares with it
        raise RankproofError(f"{name}: {key} must be finite numbers, not {value!r}")
    return tuple(value)


def _is_number(entry: object) -> bool:
    return isinstance(entry, int | float) and not isinstance(entry, bool)


def _opened(name: str, trust: bool) -> Source:
    """The encoder on the CPU; each kind is read by its own file, imported when it is wanted."""
    if found := USER_CODE.fullmatch(name):
        from rankproof.models.user_code import call_user

        return call_user(name, Path(found[1]), found[2])
    scheme, _, rest = name.partition(":")
    suffix = Path(name).suffix
    match scheme if rest else "folder" if Path(name).is_dir() else suffix:
        case "hf":
            from rankproof.models.huggingface import load_huggingface

            return load_huggingface(name, rest)
        case "timm":
            from rankproof.models.pytorch_image_models import load_timm

            return load_timm(name, rest)
        case "torchvision":
            from rankproof.models.vision_zoo import load_torchvision

            return load_torchvision(name, rest)
        case ".pt2" | ".pt" | ".ts":
            from rankproof.models.exported import load_program

            return load_program(name, Path(name), trust)
        case ".safetensors" | ".pth" | ".bin" | ".ckpt":
            raise RankproofError(
                f"{name}: weights alone do not say which network they belong to; write a function that "
                f"builds it and loads them, and name it as module.py:function"
            )
        case ".py":
            raise RankproofError(f"{name}: which function in it gives the encoder? Write {name}:FUNCTION")
        case _:
            return _from_checkpoint(name)


def _from_checkpoint(name: str) -> Source:
    """A checkpoint folder or a zoo name; what its record leaves out is the architecture's own."""
    if (Path(name) / "config.json").is_file() and not (Path(name) / RECORD).is_file():
        raise RankproofError(f"{name}: a folder of the transformers library; write hf:{name}")
    if ":" in name and not name.startswith(ZOO) and not Path(name).exists():
        raise RankproofError(
            f"{name}: unknown kind of encoder; write zoo:, hf:, timm: or torchvision: before a name, "
            f"FILE.py:FUNCTION, or the path of a folder or program"
        )
    checkpoint = load_checkpoint(name)
    record, kind = checkpoint.record, ARCHITECTURES[str(checkpoint.record["arch"])]
    defaults = {"mean": kind.mean, "std": kind.std}
    settings = {key: record.get(key, defaults.get(key)) for key in SETTINGS}
    source = describe(checkpoint.encoder, name, settings, channels=kind.channels)
    return replace(source, record=record)
