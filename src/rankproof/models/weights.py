"""A user's own weights: a file of plain tensors put into an encoder, with an account of what fitted."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from rankproof.errors import RankproofError

NESTS = ("state_dict", "model")  # where training scripts put the weights inside what they save
DEEPEST = 4  # nests inside nests; scripts make two at most, and a dict that holds itself has no end
PARALLEL, CLASSIFIER = "module.", "fc."
COUNTER = "num_batches_tracked"  # of batch norms; files from before it existed have none, and nothing uses it
TOLD = 3  # names in a message
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
PLAIN = {*FLOATING, *SIGNED, *UNSIGNED}  # whole numbers are for buffers, such as counters and masks


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """An encoder after a file of weights was put into it.

    Args:
        encoder: the encoder itself, in eval mode.
        loaded: how many tensors came from the file.
        missing: what the encoder has and the file has not: these values stayed as they were.
        unexpected: what the file has and the encoder has not.
        classifier: the part of the file that was left out on purpose, since an embedding needs no classifier.
    """

    encoder: nn.Module
    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """One line for people."""
        parts = [f"{self.loaded} tensors loaded"]
        if self.missing:
            parts.append(f"{named(self.missing)} missing in the file and left as initialised")
        if self.unexpected:
            parts.append(f"{named(self.unexpected)} in the file not used")
        if self.classifier:
            parts.append(f"the classifier ({named(self.classifier)}) left out")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the names and shapes of a file compare with those of an encoder."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]


def load_weights(encoder: nn.Module, file: str | Path) -> Fitted:
    """Put the weights of a file into an encoder, in place; a classifier `fc` it does not have is left out.

    Args:
        encoder: a network whose parameters have the names used in the file.
        file: safetensors, or what `torch.save` made of a state dict, also one below "state_dict" or "model"
            or with "module." before every name. Files are read as tensors only; nothing in them is executed.
    Raises:
        RankproofError: the file is no such file, nothing in it fits, a tensor has another shape than the
            encoder's or is of a kind that cannot be put into it, or a value is not finite. The encoder is
            then as it was.
    """
    state = read_weights(Path(file))
    own = encoder.state_dict()
    classifier = tuple(name for name in state if name.startswith(CLASSIFIER) and name not in own)
    state = {name: value for name, value in state.items() if name not in classifier}
    match = compare(encoder, state)
    if match.misshapen:
        name = match.misshapen[0]
        raise RankproofError(
            f"{file}: of another shape than the encoder's: {named(match.misshapen)}; {name} is "
            f"{shape_text(state[name])} in the file and {shape_text(own[name])} in the encoder; choose the "
            f"architecture these weights were trained with"
        )
    if len(match.unexpected) == len(state):
        raise RankproofError(
            f"{file}: nothing in it fits the encoder; it has {named(tuple(state)) or 'no weights'}, "
            f"the encoder wants {named(tuple(own))}"
        )
    check_floating(encoder, state, file)
    check_finite(state, file)
    encoder.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
    return Fitted(
        encoder=encoder.eval(),
        loaded=len(state) - len(match.unexpected),
        missing=tuple(name for name in match.missing if not name.endswith(COUNTER)),
        unexpected=match.unexpected,
        classifier=classifier,
    )


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a saved state dict by name; nothing else is ever unpickled.

    Raises:
        RankproofError: the file is no such file, its weights lie too deep, or a tensor is not a plain one.
    """
    if not file.is_file():
        raise RankproofError(f"{file}: no such file of weights; check the path")
    found: Any = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    for _ in range(DEEPEST):
        found = found if (inner := _inside(found)) is None else inner
    if _inside(found) is not None:
        raise RankproofError(
            f"{file}: its weights lie more than {DEEPEST} levels deep below {' and '.join(NESTS)}; save the "
            f"state dict alone"
        )
    if not isinstance(found, Mapping):
        raise RankproofError(
            f"{file}: holds a {type(found).__name__}, not weights by name; save a state dict"
        )
    state = {
        str(name).removeprefix(PARALLEL): value for name, value in found.items() if isinstance(value, Tensor)
    }
    check_plain(state, file)
    return state


def compare(encoder: nn.Module, state: Mapping[str, Tensor]) -> Match:
    """How a state dict fits an encoder."""
    own = encoder.state_dict()
    return Match(
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        misshapen=tuple(name for name in state if name in own and state[name].shape != own[name].shape),
    )


def check_plain(state: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise where a tensor is no dense one of usual numbers: what else there is would be lost or bent."""
    for name, value in state.items():
        if odd := _oddity(value):
            raise RankproofError(
                f"{file}: {name} is {odd}; save the weights as dense tensors of float16, bfloat16, float32 "
                f"or float64"
            )


def check_floating(encoder: nn.Module, state: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise where a parameter would get whole numbers: those of a compressed model, without their scale."""
    for name, parameter in encoder.named_parameters():
        value = state.get(name, parameter)
        if parameter.is_floating_point() and not value.is_floating_point():
            raise RankproofError(
                f"{file}: {name} holds whole numbers ({_kind(value)}) where the encoder has a floating "
                f"parameter; save the weights in floating point"
            )


def check_finite(state: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise where a value is NaN or infinite."""
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise RankproofError(f"{file}: the weights contain NaN or infinite values")


def named(names: Collection[str]) -> str:
    """The first few names and how many there are: "fc.weight, fc.bias" or "a, b, c and 9 more"."""
    first = ", ".join(list(names)[:TOLD])
    return f"{first} and {len(names) - TOLD} more" if len(names) > TOLD else first


def shape_text(value: Tensor) -> str:
    """A shape for people, such as "64x3x7x7"."""
    return "x".join(map(str, value.shape)) or "a single number"


def _inside(found: Any) -> Mapping[Any, Any] | None:
    """What lies below the first of the usual names; None where that is no dict or there is no such name."""
    nest = next((name for name in NESTS if name in found), None) if isinstance(found, Mapping) else None
    return found[nest] if nest is not None and isinstance(found[nest], Mapping) else None


def _oddity(value: Tensor) -> str | None:
    """What keeps a tensor from being used as a weight, for people; None where nothing does."""
    if value.is_meta:
        return "on the meta device, without values"
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"not dense ({str(value.layout).removeprefix('torch.')})"
    return None if value.dtype in PLAIN else f"of the type {_kind(value)}"


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load(file.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise RankproofError(f"{file}: not a safetensors file ({error})") from None


def _read_torch(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of programs before it refuses them
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # whatever a file that is something else makes the reader raise
        raise RankproofError(
            f"{file}: not a file of plain tensors, and anything else could run code when it is opened; "
            f"save the weights alone with torch.save(model.state_dict(), FILE) or as safetensors"
        ) from None
