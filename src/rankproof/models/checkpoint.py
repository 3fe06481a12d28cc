"""A trained encoder on disk: model.safetensors and its record, model.json."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from rankproof.errors import RankproofError
from rankproof.io import JsonObject, write_atomically, write_json
from rankproof.models.architectures import new_encoder
from rankproof.models.weights import (
    check_finite,
    check_floating,
    check_plain,
    compare,
    decode_safetensors,
    list_names,
)

WEIGHTS, RECORD = "model.safetensors", "model.json"
ZOO = "zoo:"
ZOO_FOLDER = Path(str(files("rankproof") / "zoo"))


@dataclass(frozen=True)
class Checkpoint:
    """An encoder and its record.

    Args:
        encoder: in eval mode.
        record: the content of model.json.
    """

    encoder: nn.Module
    record: JsonObject


def save_checkpoint(folder: Path, encoder: nn.Module, record: JsonObject, *, half: bool = False) -> Path:
    """Write weights and record into `folder`; the record gains the weights' sha256.

    Args:
        half: store the weights in half precision.
    Raises:
        RankproofError: a weight is too large for half precision; nothing is written then.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    if half:
        state = {name: _halved(name, value, folder) for name, value in state.items()}
    content = save(state)
    record = {**record, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / WEIGHTS, content)
    write_json(folder / RECORD, record, indent=2)
    return folder


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Read a folder written by `save_checkpoint`, or `zoo:NAME` for one that ships with the package."""
    folder = _zoo_folder(str(source)) if str(source).startswith(ZOO) else Path(source)
    weights, record_file = folder / WEIGHTS, folder / RECORD
    for file in (folder, weights, record_file):
        if not file.exists():
            raise RankproofError(f"{file}: not found; a model is a folder with {WEIGHTS} and {RECORD}")
    try:
        record = json.loads(record_file.read_text())
        arch = str(record["arch"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RankproofError(f"{record_file}: not a model record (JSON with at least `arch`)") from None
    content = weights.read_bytes()
    if record.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):
        raise RankproofError(
            f"{weights}: damaged, its sha256 is not the one in {RECORD}; train or fetch it again"
        )
    state = decode_safetensors(content, weights)
    return Checkpoint(_fill(new_encoder(arch), state, arch, weights), record)


def _halved(name: str, value: torch.Tensor, folder: Path) -> torch.Tensor:
    """A tensor in half precision; integers stay as they are."""
    if not value.is_floating_point():
        return value
    halved = value.half()
    # Only values that half precision makes infinite: those that were infinite before are no reason to refuse.
    if bool((value.isfinite() & ~halved.isfinite()).any()):
        limit = torch.finfo(torch.half).max
        raise RankproofError(
            f"{folder}: not written, {name} has values beyond {limit:,.0f}, the largest of half precision; "
            f"leave --half out (in Python half=False)"
        )
    return halved


def _fill(encoder: nn.Module, state: dict[str, torch.Tensor], arch: str, file: Path) -> nn.Module:
    match = compare(encoder, state)
    if differing := sorted((*match.missing, *match.unexpected, *match.misshapen)):
        raise RankproofError(
            f"{file}: these are not the weights of {arch}: {list_names(differing)} do not fit"
        )
    check_plain(state, file)
    check_floating(encoder, state, file)
    check_finite(state, file)
    encoder.load_state_dict({name: value.float() for name, value in state.items()})
    return encoder.eval()


def zoo_names() -> list[str]:
    """The names of the encoders that ship with the package."""
    return sorted(str(file.parent.relative_to(ZOO_FOLDER)) for file in ZOO_FOLDER.rglob(RECORD))


def _zoo_folder(source: str) -> Path:
    name = source.removeprefix(ZOO)
    if name not in zoo_names():
        raise RankproofError(f"{source}: not in the zoo; it holds {', '.join(zoo_names()) or 'nothing yet'}")
    return ZOO_FOLDER / name
