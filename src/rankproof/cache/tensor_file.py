"""Files of tensors that find out by themselves that they are damaged."""

import json
import time
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

FORMAT = "rankproof cache 1"


def encoded(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The content of a safetensors file: tensors, and metadata with a digest of everything else."""
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    metadata = {**metadata, "format": FORMAT, "created": made}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(tensors, {**metadata, "sha256": _digest(tensors, metadata)})


def decoded(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file.

    Raises:
        ValueError: it is damaged or something else.
    """
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
        found = metadata.pop("sha256")
        if metadata["format"] != FORMAT or found != _digest(tensors, metadata):
            raise ValueError("its sha256 is another")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    return tensors, metadata


def head(file: Path, tensor: str) -> tuple[dict[str, str], tuple[int, ...]]:
    """The metadata of a file and the shape of one of its tensors, unchecked and without reading it.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}, tuple(opened.get_slice(tensor).get_shape())
    except (OSError, SafetensorError) as error:
        raise ValueError(str(error)) from None


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
