"""Loads a file of weights into an encoder and reports what matched. Nothing in such a file is executed."""

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

NESTED_KEYS = ("state_dict", "model")  # below which training scripts save the weights
MAX_DEPTH = 4  # of nested keys; scripts nest two at most, and a dict that contains itself has no end
PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")  # of torch.compile and DataParallel, whichever is outside
CLASSIFIER = "fc."
COUNTER = "num_batches_tracked"  # of batch norms; old files have none, and nothing uses it
SHOWN = 3  # names in a message
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
PLAIN = {*FLOATING, *SIGNED, *UNSIGNED}  # integers are for buffers, such as counters and masks


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """An encoder after a file of weights was loaded into it.

    Args:
        encoder: in eval mode.
        loaded: number of tensors taken from the file.
        missing: tensors of the encoder that the file lacks; they keep their values.
        unexpected: tensors of the file that the encoder lacks.
        classifier: tensors of the file's classifier, ignored since an embedding needs none.
    """

    encoder: nn.Module
    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """One line for messages."""
        parts = [f"{self.loaded} tensors loaded"]
        if self.missing:
            parts.append(f"{list_names(self.missing)} missing in the file and left as initialised")
        if self.unexpected:
            parts.append(f"{list_names(self.unexpected)} in the file not used")
        if self.classifier:
            parts.append(f"the classifier ({list_names(self.classifier)}) left out")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the names and shapes of a file differ from those of an encoder."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]


def load_weights(encoder: nn.Module, file: str | Path) -> LoadedWeights:
    """Load the weights in a file into an encoder, in place; a classifier `fc` that it lacks is ignored.

    Args:
        encoder: a network whose parameters have the names used in the file.
        file: safetensors, or a state dict saved by `torch.save`, also one below "state_dict" or "model"
            or with "module." or "_orig_mod." before every name.
    Raises:
        RankproofError: the file is no such file, nothing in it matches, a tensor has another shape than the
            encoder's or a type that cannot be loaded, or a value is not finite. The encoder is unchanged
            then.
    """
    state = read_weights(Path(file))
    current = encoder.state_dict()
    classifier = tuple(name for name in state if name.startswith(CLASSIFIER) and name not in current)
    state = {name: value for name, value in state.items() if name not in classifier}
    match = compare(encoder, state)
    if match.misshapen:
        name = match.misshapen[0]
        raise RankproofError(
            f"{file}: of another shape than the encoder's: {list_names(match.misshapen)}; {name} is "
            f"{shape_text(state[name])} in the file and {shape_text(current[name])} in the encoder; choose "
            f"the architecture these weights were trained with"
        )
    if len(match.unexpected) == len(state):
        raise RankproofError(
            f"{file}: nothing in it fits the encoder; it has {list_names(tuple(state)) or 'no weights'}, "
            f"the encoder wants {list_names(tuple(current))}"
        )
    check_floating(encoder, state, file)
    check_finite(state, file)
    encoder.load_state_dict({name: value for name, value in state.items() if name in current}, strict=False)
    return LoadedWeights(
        encoder=encoder.eval(),
        loaded=len(state) - len(match.unexpected),
        missing=tuple(name for name in match.missing if not name.endswith(COUNTER)),
        unexpected=match.unexpected,
        classifier=classifier,
    )


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a saved state dict by name; nothing else is unpickled.

    Raises:
        RankproofError: the file is no such file, its weights are nested too deeply, or a tensor is not plain.
    """
    if not file.is_file():
        raise RankproofError(f"{file}: no such file of weights; check the path")
    safe = file.suffix == ".safetensors"
    content: Any = decode_safetensors(file.read_bytes(), file) if safe else _read_torch(file)
    for _ in range(MAX_DEPTH):
        content = content if (inner := _nested(content, file)) is None else inner
    if _nested(content, file) is not None:
        raise RankproofError(
            f"{file}: its weights lie more than {MAX_DEPTH} levels deep below {' and '.join(NESTED_KEYS)}; "
            f"save the state dict alone"
        )
    if not isinstance(content, Mapping):
        raise RankproofError(
            f"{file}: holds a {type(content).__name__}, not weights by name; save a state dict"
        )
    state = {_bare(str(name)): value for name, value in content.items() if isinstance(value, Tensor)}
    check_plain(state, file)
    return state


def _bare(name: str) -> str:
    """A name without what a wrapper of the whole encoder put before it."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def compare(encoder: nn.Module, state: Mapping[str, Tensor]) -> Match:
    """How a state dict differs from that of an encoder."""
    current = encoder.state_dict()
    shared = [name for name in state if name in current]
    return Match(
        missing=tuple(name for name in current if name not in state),
        unexpected=tuple(name for name in state if name not in current),
        misshapen=tuple(name for name in shared if state[name].shape != current[name].shape),
    )


def check_plain(state: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise where a tensor is not a dense one of plain numbers."""
    for name, value in state.items():
        if problem := _problem(value):
            raise RankproofError(
                f"{file}: {name} is {problem}; save the weights as dense tensors of float16, bfloat16, "
                f"float32 or float64"
            )


def check_floating(encoder: nn.Module, state: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise where a parameter would be loaded from integers, such as those of a quantised model."""
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


def list_names(names: Collection[str]) -> str:
    """The first few names and how many there are: "fc.weight, fc.bias" or "a, b, c and 9 more"."""
    first = ", ".join(list(names)[:SHOWN])
    return f"{first} and {len(names) - SHOWN} more" if len(names) > SHOWN else first


def shape_text(value: Tensor) -> str:
    """A shape for messages, such as "64x3x7x7"."""
    return "x".join(map(str, value.shape)) or "a single number"


def _nested(content: Any, file: Path) -> Mapping[Any, Any] | None:
    """The dict below the first of the usual keys, or the only one with tensors; None where there is none.

    Raises:
        RankproofError: there are several that may be meant, such as trained weights and their average.
    """
    if not isinstance(content, Mapping):
        return None
    tensors = {
        key: sum(isinstance(entry, Tensor) for entry in value.values())
        for key, value in content.items()
        if isinstance(value, Mapping)
    }
    most = max(tensors.values(), default=0)
    alike = [str(key) for key, count in tensors.items() if count > most / 2]
    if len(alike) > 1:
        raise RankproofError(
            f"{file}: holds several sets of weights, below {list_names(alike)}; save the one that is meant "
            f"alone, with torch.save(content[{alike[0]!r}], FILE)"
        )
    if any(isinstance(value, Tensor) for value in content.values()):
        alike = []
    key = next((key for key in (*NESTED_KEYS, *alike) if key in content), None)
    return content[key] if key is not None and isinstance(content[key], Mapping) else None


def _problem(value: Tensor) -> str | None:
    """Why a tensor cannot be used as a weight, for messages; None where it can."""
    if value.is_meta:
        return "on the meta device, without values"
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"not dense ({str(value.layout).removeprefix('torch.')})"
    return None if value.dtype in PLAIN else f"of the type {_kind(value)}"


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def decode_safetensors(content: bytes, file: Path) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file.

    Raises:
        RankproofError: it is damaged, or something else.
    """
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RankproofError(f"{file}: not a safetensors file ({error})") from None


def _read_torch(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about programs, which it refuses next
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # a file of another kind may make the reader raise anything
        raise RankproofError(
            f"{file}: not a file of plain tensors, and anything else could run code when it is opened; "
            f"save the weights alone with torch.save(model.state_dict(), FILE) or as safetensors"
        ) from None
