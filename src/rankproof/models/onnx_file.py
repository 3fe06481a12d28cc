"""Reads an ONNX file, and the weights that it keeps in other files of its folder, as untrusted data."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rankproof.errors import RankproofError
from rankproof.models.source import optional_library, reason

LARGEST = 2**31 - 1  # bytes of one message of protobuf, which a model is
EXTRA = "onnx"  # that installs what reads and runs such files


def read_onnx(name: str, file: Path) -> Any:
    """The model in a file (onnx.ModelProto), all weights inside.

    Weights in other files are read from the folder of the file alone, whatever path the file names.

    Raises:
        RankproofError: there is no such file, or it is damaged, too large, or wants files from elsewhere.
    """
    if not file.is_file():
        raise RankproofError(f"{name}: no such file; check the path")
    if file.stat().st_size > LARGEST:
        raise RankproofError(f"{name}: has more than 2 GB; export it with its weights as external data")
    model = optional_library("onnx", EXTRA).ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except OSError as error:
        raise RankproofError(f"{name}: cannot be read ({reason(error)})") from None
    except Exception:  # protobuf's own, by several names in several versions
        raise RankproofError(f"{name}: is damaged, or no ONNX file; export or download it again") from None
    if not model.graph.node:
        raise RankproofError(f"{name}: holds no network; export or download it again")
    model.ClearField("training_info")
    _read_external(name, file.parent, model)
    return model


def tensors_of(graph: Any) -> Iterator[Any]:
    """All weights (onnx.TensorProto) of a graph or function, and of the graphs inside it."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    defaults = getattr(graph, "attribute_proto", ())  # of a function's attributes
    for attribute in (*defaults, *(each for node in graph.node for each in node.attribute)):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from tensors_of(inner)


def _read_external(name: str, folder: Path, model: Any) -> None:
    """Put weights that lie in other files into the model."""
    external = optional_library("onnx", EXTRA).TensorProto.EXTERNAL
    total = model.ByteSize()
    for graph in (model.graph, *model.functions):
        for tensor in tensors_of(graph):
            if tensor.data_location == external:
                data = _external_bytes(name, folder, {each.key: each.value for each in tensor.external_data})
                total += len(data)
                if total > LARGEST:
                    raise RankproofError(f"{name}: has more than 2 GB of weights; use a smaller model")
                tensor.raw_data = data
                del tensor.external_data[:]
                tensor.ClearField("data_location")


def _external_bytes(name: str, folder: Path, entry: dict[str, str]) -> bytes:
    """The bytes of one tensor in another file, which must lie in the folder, by path and in truth."""
    location = entry.get("location", "")
    outside = any(
        path.is_absolute() or path.drive or ".." in path.parts
        for path in (PurePosixPath(location), PureWindowsPath(location))
    )
    if not location or "\0" in location or outside:
        raise RankproofError(f"{name}: wants weights from {location!r}, outside its folder; do not trust it")
    file, home = (folder / location).resolve(), folder.resolve()
    if not file.is_relative_to(home):
        raise RankproofError(
            f"{name}: its weights {location!r} are a link out of its folder; copy the file there if you "
            f"trust it"
        )
    if not file.is_file():
        raise RankproofError(f"{name}: its weights {location!r} are missing; put that file beside it")
    try:
        size = file.stat().st_size
        offset = int(entry.get("offset") or 0)
        length = int(entry["length"]) if entry.get("length") else size - offset
        if not 0 <= offset <= offset + length <= size:
            raise ValueError(f"bytes {offset} to {offset + length} of {size}")
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(length)
    except (OSError, ValueError) as error:
        raise RankproofError(
            f"{name}: its weights cannot be read from {location!r} ({reason(error)}); the file is damaged"
        ) from None
