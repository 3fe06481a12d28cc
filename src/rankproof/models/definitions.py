"""The networks that published weights belong to, and what the name of a file of weights tells of them."""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from rankproof.errors import RankproofError
from rankproof.models.architectures import ARCHITECTURES, IMAGENET_MEAN, IMAGENET_STD, new_encoder
from rankproof.models.efficientnet_lite import SCALES, SamePadding

HALF = (0.5, 0.5, 0.5)
EVEN_EPS = 1e-5  # of batch norms; torch's default
LITE, TF_LITE = "efficientnet_lite", "tf_efficientnet_lite"  # before the number in timm's names
HASHED = re.compile(r"(?P<stem>.+)-(?P<digits>[0-9a-f]{8})(?P<ending>\.pth\.tar|\.[a-z]+)")
DATE = re.compile(r"(19|20)\d{6}")  # eight digits that may be no hash
TIMM_CONFIG = "config.json"  # beside the weights in a folder that timm wrote

# Words for networks with the names and shapes of a ResNet that compute something else: antialiased or dilated
# ones, and those whose blocks have their stride in the first convolution.
RESNET_TWINS = re.compile(r"resnet_?aa|resnet_?blur|antialias|caffe|msra|detectron|dilated", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A network as weights of it need it; a file of weights says neither paddings nor statistics.

    Args:
        arch: its architecture.
        mean, std: by which pixels are normalised for the published weights.
        adapt: makes a new encoder of the architecture that network, in place.
    """

    arch: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    adapt: Callable[[nn.Module], None] | None = None

    def build(self) -> nn.Module:
        """The network with random weights."""
        encoder = new_encoder(self.arch)
        if self.adapt is not None:
            self.adapt(encoder)
        return encoder


def with_even_padding(encoder: nn.Module) -> None:
    """Make an EfficientNet-Lite what timm calls efficientnet_lite: torch's own padding and eps."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = EVEN_EPS
        for name, child in module.named_children():
            if isinstance(child, SamePadding):
                setattr(module, name, nn.ZeroPad2d(child.kernel // 2))


def _as_trained(arch: str) -> Definition:
    architecture = ARCHITECTURES[arch]
    return Definition(
        arch=arch, mean=architecture.mean or IMAGENET_MEAN, std=architecture.std or IMAGENET_STD
    )


DEFINITIONS = {name: _as_trained(name) for name in ("resnet18", "resnet50", "mobilenet_v2")}
DEFINITIONS["mobilenetv2_100"] = DEFINITIONS["mobilenet_v2"]  # timm's name of the same network
for _number in range(len(SCALES)):
    _lite = _as_trained(f"efficientnet-lite{_number}")
    DEFINITIONS[_lite.arch] = _lite
    DEFINITIONS[f"{TF_LITE}{_number}"] = replace(_lite, mean=HALF, std=HALF)  # timm's statistics for it
    DEFINITIONS[f"{LITE}{_number}"] = replace(
        _lite, mean=IMAGENET_MEAN, std=IMAGENET_STD, adapt=with_even_padding
    )

# The first part of the names under which files are published, by the definition they belong to.
_STEMS = {
    "resnet18": "resnet18 resnet18_a1_0 resnet18_a2_0 resnet18_a3_0 semi_supervised_resnet18 "
    "semi_weakly_supervised_resnet18",
    "resnet50": "resnet50 resnet50_a1_0 resnet50_a1h2_176 resnet50_a2_0 resnet50_a3_0 resnet50_b1k "
    "resnet50_b2k resnet50_c1 resnet50_c2 resnet50_d resnet50_ram resnet50_am resnet50_ra rw_resnet50 "
    "semi_supervised_resnet50 semi_weakly_supervised_resnet50",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenetv2_100": "mobilenetv2_100_ra",
    "efficientnet_lite0": "efficientnet_lite0_ra",
    **{f"{TF_LITE}{number}": f"{TF_LITE}{number}" for number in range(len(SCALES))},
    **{f"efficientnet-lite{number}": f"efficientnet-lite{number}" for number in range(len(SCALES))},
}
PUBLISHED = {stem: name for name, stems in _STEMS.items() for stem in stems.split()}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a file of weights tells beside its tensors.

    Args:
        name: of the definition, or of a network that is none of them; None where nothing tells.
        by: what told it, for messages.
        mean, std: where they are written beside the file.
        sha256: of the file.
        published: whether the file has the name and the first digits of the sha256 of a published one.
    """

    name: str | None
    by: str
    sha256: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    published: bool = False


def told_by(file: Path) -> Told:
    """What a file's name and the configuration of timm beside it tell.

    Raises:
        RankproofError: the name has the first digits of a sha256 that is not the file's.
    """
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    match = HASHED.fullmatch(file.name)
    name = PUBLISHED.get(match["stem"]) if match is not None else None
    if match is not None and name is not None and not DATE.fullmatch(match["digits"]):
        if not sha256.startswith(match["digits"]):
            raise RankproofError(
                f"{file}: damaged or another file: its sha256 begins with {sha256[:8]}, and its name says "
                f"{match['digits']}; fetch it again, or rename it if these digits are no sha256"
            )
        return Told(name=name, by="its name", sha256=sha256, published=True)
    stem = re.match(r"[\w-]*", file.name)
    if stem is not None and (lite := re.match(rf"{TF_LITE}\d", stem[0])):
        return Told(name=lite[0], by="its name", sha256=sha256)
    return _told_by_timm(file, sha256) or Told(name=None, by="", sha256=sha256)


def _told_by_timm(file: Path, sha256: str) -> Told | None:
    """What the configuration in a folder of timm tells; None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        config = json.loads((file.parent / TIMM_CONFIG).read_text(encoding="utf-8"))
        settings = {**config, **config.get("pretrained_cfg", {})}
        mean, std = (tuple(map(float, settings[key])) if key in settings else None for key in ("mean", "std"))
        name = str(config["architecture"])
        return Told(name=name, by=f"{TIMM_CONFIG} beside it", sha256=sha256, mean=mean, std=std)
    return None
