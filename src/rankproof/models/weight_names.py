"""The names that tensors have in files of weights, translated into those of our networks."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.models.weights import list_names

HEADS = (  # of classifiers and of self-supervised training, whose encoder is what comes before them
    *("fc.", "_fc.", "classifier.", "head.fc.", "last_linear."),
    *("projection_head.", "projector.", "prototypes.", "predictor."),
    *("queue", "n_averaged"),
)
TWINS = {"encoder_q.": "encoder_k.", "base_encoder.": "momentum_encoder."}  # of MoCo: trained, its average
TIMM, PACKAGE, TORCHVISION = "timm", "efficientnet-lite-pytorch", "torchvision"
BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")
# The parts of a block by timm's names: without and with a first convolution that expands.
DEPTHWISE = ("conv_dw.", "bn1.", "conv_pw.", "bn2.")
INVERTED = ("conv_pw.", "bn1.", "conv_dw.", "bn2.", "conv_pwl.", "bn3.")
LITE_PARTS = {
    DEPTHWISE: ("_depthwise_conv.", "_bn1.", "_project_conv.", "_bn2."),
    INVERTED: ("_expand_conv.", "_bn0.", "_depthwise_conv.", "_bn1.", "_project_conv.", "_bn2."),
}
MOBILE_PARTS = {
    DEPTHWISE: ("conv.0.0.", "conv.0.1.", "conv.1.", "conv.2."),
    INVERTED: ("conv.0.0.", "conv.0.1.", "conv.1.0.", "conv.1.1.", "conv.2.", "conv.3."),
}

Translate = Callable[[Collection[str]], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a library names the tensors of a network.

    Args:
        library: whose names they are.
        mark: a tensor by which these names are recognised.
        translate: from the names in a file to ours; None where they are the same.
    """

    library: str
    mark: str
    translate: Translate | None = None


@dataclass(frozen=True, kw_only=True)
class Named:
    """The tensors of a file by our names.

    Args:
        state: the tensors by our names; unknown names stay as they are.
        library: whose names the file has.
        left_out: tensors of classifiers and other heads.
        foreign: names of tensors beside the network, of nothing that is known.
    """

    state: dict[str, Tensor]
    library: str
    left_out: dict[str, Tensor]
    foreign: tuple[str, ...]


def _from_timm(
    stem: Mapping[str, str], parts: Mapping[tuple[str, ...], tuple[str, ...]], block: str, first: int
) -> Translate:
    """The translation of timm's names, in which blocks are counted in each stage.

    Args:
        stem: prefixes outside of blocks, from timm's to ours.
        parts: prefixes inside a block, from timm's to ours.
        block: our prefix before the number of a block.
        first: our number of the first block.
    """

    def translate(names: Collection[str]) -> dict[str, str]:
        found = [match for name in names if (match := BLOCK.fullmatch(name))]
        places = sorted({(int(match[1]), int(match[2])) for match in found})
        expands = {(int(match[1]), int(match[2])) for match in found if match[3].startswith(INVERTED[4])}
        ours = {}
        for name in names:
            before, changes, rest = "", stem, name
            if match := BLOCK.fullmatch(name):
                place = int(match[1]), int(match[2])
                theirs = INVERTED if place in expands else DEPTHWISE
                before = f"{block}{first + places.index(place)}."
                changes, rest = dict(zip(theirs, parts[theirs], strict=True)), match[3]
            part = next((part for part in changes if rest.startswith(part)), None)
            ours[name] = name if part is None else before + changes[part] + rest.removeprefix(part)
        return ours

    return translate


RESNET = (Layout(library=f"{TORCHVISION} and {TIMM}", mark="layer4.0.conv1.weight"),)
MOBILENET = (
    Layout(library=TORCHVISION, mark="features.18.0.weight"),
    Layout(
        library=TIMM,
        mark="conv_head.weight",
        translate=_from_timm(
            {
                "conv_stem.": "features.0.0.",
                "bn1.": "features.0.1.",
                "conv_head.": "features.18.0.",
                "bn2.": "features.18.1.",
            },
            MOBILE_PARTS,
            "features.",
            1,
        ),
    ),
)
LITE = (
    Layout(library=PACKAGE, mark="_conv_head.weight"),
    Layout(
        library=TIMM,
        mark="conv_head.weight",
        translate=_from_timm(
            {"conv_stem.": "_conv_stem.", "bn1.": "_bn0.", "conv_head.": "_conv_head.", "bn2.": "_bn1."},
            LITE_PARTS,
            "_blocks.",
            0,
        ),
    ),
)


def layouts_of(arch: str) -> tuple[Layout, ...]:
    """How libraries name the tensors of an architecture."""
    return LITE if arch.startswith("efficientnet") else MOBILENET if arch.startswith("mobile") else RESNET


def by_our_names(state: Mapping[str, Tensor], arch: str, file: Path) -> Named:
    """The tensors of a file by the names of an architecture, its heads apart.

    Raises:
        RankproofError: no tensor has a name of that architecture, or several networks lie in the file.
    """
    found = [(layout, prefix) for layout in layouts_of(arch) for prefix in _prefixes(state, layout.mark)]
    prefixes = [prefix for _, prefix in found]
    for trained, average in TWINS.items():
        if trained in prefixes and average in prefixes:
            found = [(layout, prefix) for layout, prefix in found if prefix != average]
    if not found:
        marks = " or ".join(layout.mark for layout in layouts_of(arch))
        raise RankproofError(
            f"{file}: not the weights of {arch}: it has no {marks}, but "
            f"{list_names(tuple(state)) or 'no weights'}"
        )
    if len(found) > 1:
        places = ", ".join(repr(prefix.rstrip(".") or "the top") for _, prefix in found)
        raise RankproofError(
            f"{file}: holds {arch} {len(found)} times, below {places}; save the state dict of one alone"
        )
    layout, prefix = found[0]
    heads = HEADS if prefix not in TWINS else (*HEADS, TWINS[prefix])
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    outside = {name: value for name, value in state.items() if not name.startswith(prefix)}
    left_out = {
        name: value for part in (inside, outside) for name, value in part.items() if name.startswith(heads)
    }
    kept = {name: value for name, value in inside.items() if name not in left_out}
    ours = {name: name for name in kept} if layout.translate is None else layout.translate(kept)
    return Named(
        state={ours[name]: value for name, value in kept.items()},
        library=layout.library,
        left_out=left_out,
        foreign=tuple(name for name in outside if name not in left_out),
    )


def _prefixes(state: Mapping[str, Tensor], mark: str) -> list[str]:
    """What stands before a name wherever it occurs: "" or words that end in a dot."""
    return [name.removesuffix(mark) for name in state if name == mark or name.endswith(f".{mark}")]
