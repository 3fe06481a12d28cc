"""Opens a file of weights as the network of a named definition, or says why it is not that network's."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.models.definitions import (
    DEFINITIONS,
    LITE,
    RESNET_TWINS,
    TF_LITE,
    Definition,
    Told,
    told_by,
)
from rankproof.models.source import Source, describe
from rankproof.models.weight_names import TIMM, Named, by_our_names
from rankproof.models.weights import (
    COUNTER,
    check_finite,
    check_floating,
    compare,
    list_names,
    read_weights,
    shape_text,
)

MEAN, VARIANCE = "running_mean", "running_var"  # of batch norms


def open_weights(name: str, file: str | Path) -> Source:
    """An encoder with the weights in a file; every tensor of it must be there, and none too many.

    Args:
        name: of a definition, such as "resnet18" or timm's "tf_efficientnet_lite0".
        file: a state dict with torchvision's or timm's names, of `torch.save` or safetensors; nothing in it
            is executed. Its classifier is left out.
    Raises:
        RankproofError: the name is unknown, the file is damaged, or holds the weights of another network.
    """
    file = Path(file)
    if name not in DEFINITIONS:
        raise RankproofError(
            f"{name}: not a network that a file of weights can be loaded into; known: "
            f"{', '.join(DEFINITIONS)}; for any other write a function and name it as module.py:function"
        )
    if not file.is_file():
        raise RankproofError(f"{file}: no such file of weights; check the path")
    told = told_by(file)
    state = read_weights(file)
    _check_whole(file)
    named = by_our_names(state, DEFINITIONS[name].arch, file)
    name = _definition_of(name, named, told, file)
    definition = DEFINITIONS[name]
    encoder = definition.build()
    _fill(encoder, named, definition, file)
    mean, std = told.mean or definition.mean, told.std or definition.std
    record = {"arch": definition.arch, "definition": name, "weights": file.name, "sha256": told.sha256}
    source = describe(encoder, name, {"mean": mean, "std": std}, record, channels=3)
    return replace(source, notes=(_note(name, named, told, file), *_untrained(named.state)))


def _check_whole(file: Path) -> None:
    """Raise where the checksum of a part of a file is wrong, which torch does not look at."""
    if is_zipfile(file):
        with suppress(OSError), ZipFile(file) as archive:
            part = _damaged_part(archive)
            if part is not None:
                raise RankproofError(
                    f"{file}: damaged, the checksum of its part {part} is wrong; fetch it again"
                )


def _damaged_part(archive: ZipFile) -> str | None:
    try:
        return archive.testzip()
    except BadZipFile as error:
        return str(error)


def _definition_of(name: str, named: Named, told: Told, file: Path) -> str:
    """The definition that a file belongs to, by the name given and by what the file tells.

    Raises:
        RankproofError: these contradict each other, or do not tell networks apart that have the same tensors.
    """
    definition, lite = DEFINITIONS[name], name.startswith("efficientnet-")
    if told.name is not None:
        other = DEFINITIONS.get(told.name)
        same = other is not None and (other.arch, other.adapt) == (definition.arch, definition.adapt)
        if same or (other is not None and lite and other.arch == definition.arch):
            return told.name if lite else name
        known = "write --model " + told.name if other is not None else "write a function that builds that one"
        raise RankproofError(f"{file}: {told.by} says {told.name}, another network than {name}; {known}")
    if name.startswith("resnet") and (twin := RESNET_TWINS.search(file.name)):
        raise RankproofError(
            f"{file}: its name says {twin[0]!r}, a network with the tensors of {name} that computes "
            f"something else; write a function that builds it, or rename the file if it is plain {name}"
        )
    if lite and named.library == TIMM:
        number = name[-1]
        raise RankproofError(
            f"{file}: timm has two networks with these tensors: write --model {TF_LITE}{number} "
            f"(TensorFlow's padding, mean and std 0.5) or --model {LITE}{number} (torch's padding, mean and "
            f"std of ImageNet)"
        )
    if definition.adapt is not None and named.library != TIMM:
        raise RankproofError(
            f"{file}: its names are those of {named.library}, whose padding is TensorFlow's; write --model "
            f"{definition.arch}"
        )
    return name


def _fill(encoder: nn.Module, named: Named, definition: Definition, file: Path) -> None:
    """Load all tensors of an encoder from a file.

    Raises:
        RankproofError: one is missing or has another shape, there are others, or values that are no weights.
    """
    current, match = encoder.state_dict(), compare(encoder, named.state)
    missing = [name for name in match.missing if not name.endswith(COUNTER)]
    problems = []
    if missing:
        problems.append(f"it lacks {list_names(missing)}")
    if unknown := (*match.unexpected, *named.foreign):
        problems.append(f"the network has no {list_names(unknown)}")
    if match.misshapen:
        first = match.misshapen[0]
        problems.append(
            f"{first} is {shape_text(named.state[first])} in the file and {shape_text(current[first])} in "
            f"the network"
        )
    if problems:
        raise RankproofError(
            f"{file}: not the weights of {definition.arch} alone: {'; '.join(problems)}; name the network "
            f"these weights were trained in, or write a function that builds it"
        )
    check_floating(encoder, named.state, file)
    check_finite(named.state, file)
    for name, value in named.state.items():
        if name.endswith(VARIANCE) and bool((value < 0).any()):
            raise RankproofError(f"{file}: {name} has variances below 0; the file is damaged")
    encoder.load_state_dict(named.state, strict=False)  # counters may be missing


def _note(name: str, named: Named, told: Told, file: Path) -> str:
    """What was loaded, for a reader of a figure."""
    parts = [f"weights: {len(named.state)} tensors of {file.name} into {name}, by {named.library}'s names"]
    if told.published:
        parts.append("the sha256 is the one in its name")
    if named.left_out:
        parts.append(f"{list_names(named.left_out)} left out, the embedding is what comes before")
    return "; ".join(parts)


def _untrained(state: dict[str, Tensor]) -> tuple[str, ...]:
    """A line where no batch norm has seen an image."""
    means = [value for name, value in state.items() if name.endswith(MEAN)]
    variances = [value for name, value in state.items() if name.endswith(VARIANCE)]
    fresh = all(bool((value == 0).all()) for value in means) and all(
        bool((value == 1).all()) for value in variances
    )
    return ("the batch norms of these weights have never seen an image: are they trained?",) if fresh else ()
