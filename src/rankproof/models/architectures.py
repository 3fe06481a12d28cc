"""The encoders that can be trained from scratch, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from rankproof.errors import RankproofError
from rankproof.models.efficientnet_lite import SCALES, efficientnet_lite
from rankproof.models.mobilenet_v2 import MobileNetV2
from rankproof.models.resnet import resnet18, resnet50
from rankproof.models.small_cnns import C2F1, DigitsEncoder, LeNet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Google trained the Lite networks with pixels (v - 127) / 128, in steps of 1/255 here, not with ImageNet's.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How an encoder is built, and the images it takes.

    Args:
        build: returns a new encoder with random weights.
        channels: 1 for grey images, 3 for colour.
        size: side of the images it takes; None where any size works.
        mean, std: per channel, by which a `Ranker` normalises pixels for this encoder; None for plain [0, 1]
            pixels.
    """

    build: Callable[[], nn.Module]
    channels: int
    size: int | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def takes(self, form: tuple[int, ...]) -> bool:
        """Whether it takes images of that shape (c, h, w)."""
        channels, *sides = form
        return channels == self.channels and (self.size is None or sides == [self.size, self.size])

    @property
    def input_text(self) -> str:
        """The shape of its images for messages, such as "1x28x28" or "3xHxW"."""
        return f"{self.channels}xHxW" if self.size is None else f"{self.channels}x{self.size}x{self.size}"


def _for_colour(
    build: Callable[[], nn.Module],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Architecture:
    return Architecture(build=build, channels=3, size=None, mean=mean, std=std)


ARCHITECTURES = {
    "c2f1": Architecture(build=C2F1, channels=1, size=28),
    "digits": Architecture(build=DigitsEncoder, channels=1, size=8),
    "lenet": Architecture(build=LeNet, channels=1, size=28),
    "resnet18-28": Architecture(build=partial(resnet18, channels=1), channels=1, size=28),
    "resnet18": _for_colour(resnet18),
    "resnet50": _for_colour(resnet50),
    "mobilenet_v2": _for_colour(MobileNetV2),
    **{
        f"efficientnet-lite{number}": _for_colour(partial(efficientnet_lite, number), LITE_MEAN, LITE_STD)
        for number in range(len(SCALES))
    },
}


def new_encoder(arch: str, seed: int = 0) -> nn.Module:
    """An untrained encoder of an architecture, its initial weights drawn from `seed`."""
    if arch not in ARCHITECTURES:
        raise RankproofError(f"arch {arch!r} is unknown; known: {', '.join(ARCHITECTURES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ARCHITECTURES[arch].build()
    # A quarter faster on a CPU, with the same values.
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
