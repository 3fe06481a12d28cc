"""Mean, std and order of channels that a user gives, in place of what an encoder's record says."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.models.source import COLOUR, Source, describe


class ReverseChannels(nn.Module):
    """Colour images for an encoder that takes them in the order blue, green, red."""

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) to (b, 3, h, w)."""
        if images.shape[1] != COLOUR:
            raise RankproofError(
                f"ReverseChannels: images have {images.shape[1]} channels, it wants {COLOUR}"
            )
        return images.flip(1)


def with_statistics(
    source: Source,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    bgr: bool = False,
) -> Source:
    """An encoder with other statistics than those of its record; what is None stays.

    Args:
        mean, std: one value for each channel in the order in which the encoder takes them, or one for all.
        bgr: whether it takes colours in reverse order; `ReverseChannels` does that.
    Raises:
        RankproofError: they contradict each other or the channels of the encoder, or it would remain open
            whether the statistics of the record are in the order of `bgr`.
    """
    if mean is None and std is None and not bgr:
        return source
    channels = source.channels
    if channels == 1 and source.input is None:
        channels = None  # one value for all of an unknown number
    count = channels or max((len(given) for given in (mean, std) if given is not None), default=0)
    settings: dict[str, Any] = {
        "distance": source.distance,
        "mean": _for_each(source.mean if mean is None else mean, count),
        "std": _for_each(source.std if std is None else std, count),
        "input": source.input,
    }
    if bgr:
        if source.input is not None and source.input[0] != COLOUR:
            raise RankproofError(f"{source.name}: --bgr is for colours; it takes {source.input[0]} channels")
        for name, given in (("mean", mean), ("std", std)):
            if given is None and len(set(settings[name] or ())) > 1:
                raise RankproofError(
                    f"{source.name}: --bgr turns the channels round, but not the {name} that belongs to the "
                    f"encoder ({numbers_text(settings[name])}); write --{name} in the order blue, green, red"
                )
    checked = describe(source.encoder, source.name, settings, channels=channels)
    record = {**source.record, "mean": checked.record["mean"], "std": checked.record["std"]}
    return replace(
        source, mean=checked.mean, std=checked.std, record={**record, "bgr": True} if bgr else record
    )


def statistics_note(source: Source, *, bgr: bool = False) -> str | None:
    """What is done to pixels before the encoder, for a reader of a figure; None where it is nothing."""
    parts = ["the encoder takes blue, green, red"] if bgr else []
    if source.mean is not None:
        parts.append(f"mean {numbers_text(source.mean)}")
    if source.std is not None:
        parts.append(f"std {numbers_text(source.std)}")
    return " and ".join(parts) or None


def parse_statistic(name: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers in "0.485, 0.456, 0.406" or "104/255,117/255,123/255"; None stays None.

    Raises:
        RankproofError: a part is no finite number.
    """
    if text is None:
        return None
    try:
        values = tuple(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise RankproofError(
            f"--{name} {text!r} is no list of numbers; write one for each channel, such as 0.485,0.456,0.406 "
            f"or 104/255,117/255,123/255, or one for all"
        )
    return values


def numbers_text(values: Sequence[float]) -> str:
    """Numbers for messages, one where all are equal: "0.485, 0.456, 0.406" or "0.5"."""
    shown = [f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def _number(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    return float(numerator) / float(denominator) if slash else float(numerator)


def _for_each(values: Sequence[float] | None, channels: int) -> list[float] | None:
    """One value for each channel."""
    if values is None:
        return None
    return list(values) * channels if len(values) == 1 and channels > 1 else list(values)
