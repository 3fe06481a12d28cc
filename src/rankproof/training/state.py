"""The training state on disk: all that is needed to resume, with a checksum."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.io import JsonObject, write_atomically, write_json
from rankproof.models.weights import decode_safetensors
from rankproof.training.losses import Loss

FOLDER = "state"
UNFINISHED = "first-epoch"  # exists while the first epoch is being written, whose state comes last
STATES_ON_DISK = 2  # where the newest one is damaged, the one before it is used
MODEL, LOSS, ADAM = "model", "loss", "optimizer"


@dataclass(frozen=True)
class State:
    """A training at the end of an epoch.

    Args:
        tensors: weights, running statistics and the optimiser's moments by name.
        metadata: as JSON: epochs done and their history, settings, what a defence carries from step to step.
    """

    tensors: dict[str, Tensor]
    metadata: JsonObject


def collect(encoder: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A copy of all tensors that change during training."""
    tensors = {f"{MODEL}/{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {f"{LOSS}/{name}": value for name, value in loss.state().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{ADAM}/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def restore(state: State, encoder: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
    """Load all tensors of a state."""
    encoder.load_state_dict(_part(state, MODEL))
    loss.restore(_part(state, LOSS))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(state, ADAM).items():
        number, _, name = key.partition("/")
        parameter = parameters[int(number)]
        # Adam's fused kernel reads moments in the memory layout of their parameter.
        placed = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        moments.setdefault(int(number), {})[name] = placed.detach()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def write(folder: Path, state: State) -> None:
    """Write a state below `folder` and remove all but the newest ones."""
    place, number = folder / FOLDER, int(state.metadata["epochs_done"])
    content = save(state.tensors)
    metadata = {**state.metadata, "sha256": _digest(state.metadata, content)}
    write_atomically(_tensor_file(place, number), content)
    write_json(_metadata_file(place, number), metadata, indent=2)
    (place / UNFINISHED).unlink(missing_ok=True)
    for old in _numbers(place)[:-STATES_ON_DISK]:
        for file in (_metadata_file(place, old), _tensor_file(place, old)):
            file.unlink(missing_ok=True)


def begin(folder: Path) -> None:
    """Remove the states of an earlier training and mark that a first epoch is being written."""
    write_atomically(folder / FOLDER / UNFINISHED, b"")
    remove(folder)


def stopped_at_first(folder: Path) -> bool:
    """Whether a training was stopped while its first epoch was being written."""
    return (folder / FOLDER / UNFINISHED).exists()


def newest(folder: Path) -> tuple[State | None, list[str]]:
    """The newest undamaged state, None where there is none, and an error message for each damaged one."""
    errors: list[str] = []
    for number in reversed(_numbers(folder / FOLDER)):
        try:
            return _read(folder / FOLDER, number), errors
        except RankproofError as error:
            errors.append(str(error))
    return None, errors


def remove(folder: Path) -> None:
    """Remove all states."""
    for file in (folder / FOLDER).glob("epoch-*"):
        if file.suffix in (".json", ".safetensors"):
            file.unlink(missing_ok=True)


def _read(place: Path, number: int) -> State:
    tensor_file, metadata_file = _tensor_file(place, number), _metadata_file(place, number)
    try:
        metadata = json.loads(metadata_file.read_text())
        content = tensor_file.read_bytes()
    except (OSError, ValueError):
        raise RankproofError(f"{metadata_file}: cannot be read") from None
    checksum = metadata.pop("sha256", None) if isinstance(metadata, dict) else None
    if checksum != _digest(metadata, content):
        raise RankproofError(f"{tensor_file}: damaged, the checksum in {metadata_file.name} does not match")
    return State(decode_safetensors(content, tensor_file), metadata)


def _digest(metadata: object, content: bytes) -> str:
    """The sha256 of a state; its metadata in the form in which they come back from JSON."""
    plain = json.dumps(json.loads(json.dumps(metadata)), sort_keys=True)
    return hashlib.sha256(plain.encode() + b"/" + content).hexdigest()


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): state.tensors[name] for name in state.tensors if name.startswith(start)}


def _tensor_file(place: Path, number: int) -> Path:
    return place / f"epoch-{number:04d}.safetensors"


def _metadata_file(place: Path, number: int) -> Path:
    return place / f"epoch-{number:04d}.json"


def _numbers(place: Path) -> list[int]:
    """The epochs that have metadata, which are written after the tensors."""
    return sorted(int(file.stem.removeprefix("epoch-")) for file in place.glob("epoch-*.json"))
