"""The part of an ONNX model that computes one embedding from one batch of images, and the form it takes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from rankproof.errors import RankproofError
from rankproof.models.onnx_file import EXTRA
from rankproof.models.source import optional_library

Shape = tuple[int | str | None, ...]  # whole numbers, names of what varies, None for what is unknown

UINT8 = 2  # numbers of onnx.TensorProto
INPUT_TYPES = {
    1: torch.float32,
    UINT8: torch.uint8,
    10: torch.float16,
    11: torch.float64,
}
FREE_WEIGHTS = 4  # version of the format from which weights need not be inputs, too
MOST_CHANNELS = 4  # of an image with channels last
LISTED = 24  # names in a message
FEW = 4  # of them that are no outputs, at least
CHANNELS_FIRST = (0, 3, 1, 2)  # of Transpose
PASSED = ("Cast", "Identity", "Transpose", "Unsqueeze", "Squeeze", "Reshape")  # on the way to a normalisation
INVENTED = "unk__"  # how names begin that shape inference makes up
LARGE = 2.0  # what is subtracted from pixels or divides them, if they are 0 .. 255 and not 0 .. 1


@dataclass(frozen=True, kw_only=True)
class EmbeddingGraph:
    """A model (onnx.ModelProto) with one input of images and one output, and without all it needs not.

    Args:
        model: the model.
        input: name of its input.
        output: name of its output.
        dtype: type of the pixels it takes.
        channels_last: whether it takes images as (b, h, w, c).
        batch: how many images it takes at once; None where any number.
        form: channels, height and width; None for each that is not fixed.
        wants_bytes: whether it seems to be made for pixels in 0 .. 255.
    """

    model: Any
    input: str
    output: str
    dtype: torch.dtype
    channels_last: bool
    batch: int | None
    form: tuple[int | None, int | None, int | None]
    wants_bytes: bool


def embedding_graph(name: str, model: Any, output: str | None) -> EmbeddingGraph:
    """The part of a model that computes an embedding.

    Args:
        name: of the encoder, for messages.
        model: onnx.ModelProto.
        output: name of the embedding, any tensor of the graph; None is the only output, or the only one that
            is (b, d).
    Raises:
        RankproofError: there is no such output, several could be meant, or it wants more than one batch of
            images.
    """
    shapes = shapes_of(model)
    chosen = _output_of(name, model, shapes, output)
    part = _cut(model, chosen)
    inputs = list(part.graph.input)
    if len(inputs) != 1:
        listed = ", ".join(_written(each.name, shape_of(each)) for each in inputs) or "none"
        raise RankproofError(
            f"{name}: must take one batch of images and nothing else, it takes: {listed}; export the image "
            f"encoder alone, or choose another tensor by --output"
        )
    number, shape = inputs[0].type.tensor_type.elem_type, shape_of(inputs[0])
    if number not in INPUT_TYPES or shape is None or len(shape) != 4:
        kind = optional_library("onnx", EXTRA).TensorProto.DataType.Name(number).lower()
        raise RankproofError(
            f"{name}: must take images (b, c, h, w) or (b, h, w, c) of numbers, it takes "
            f"{_written(inputs[0].name, shape)} of {kind}"
        )
    batch, *sides = (side if isinstance(side, int) else None for side in shape)
    last = _channels_last(part.graph, inputs[0].name, sides)
    return EmbeddingGraph(
        model=part,
        input=inputs[0].name,
        output=chosen,
        dtype=INPUT_TYPES[number],
        channels_last=last,
        batch=batch,
        form=(sides[2], sides[0], sides[1]) if last else (sides[0], sides[1], sides[2]),
        wants_bytes=number != UINT8 and _wants_bytes(part.graph, inputs[0].name),
    )


def uses_of(node: Any) -> set[str]:
    """Names of the tensors that a node reads, those of the graphs inside it included."""
    used = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            used |= {each.name for each in graph.output}
            used = used.union(*map(uses_of, graph.node))
    return used - {""}


def constants_of(graph: Any) -> dict[str, Any]:
    """The tensors (onnx.TensorProto) that a graph holds under a name: weights, and constants of its nodes."""
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants


def shapes_of(model: Any) -> dict[str, Shape | None]:
    """Shapes of all tensors that nodes compute, by name and in order; None where one is unknown."""
    inferred = model
    with suppress(Exception):  # a graph that cannot be followed may still run
        inferred = optional_library("onnx.shape_inference", EXTRA).infer_shapes(model)
    known = {each.name: shape_of(each) for each in (*inferred.graph.value_info, *inferred.graph.output)}
    # A constant is no tensor that depends on images.
    names = (name for node in model.graph.node if node.op_type != "Constant" for name in node.output)
    return {name: known.get(name) for name in names if name}


def shape_of(value: Any) -> Shape | None:
    """The shape of a tensor (onnx.ValueInfoProto); None where it is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(_side(each) for each in tensor.shape.dim)


def _side(dimension: Any) -> int | str | None:
    fixed = dimension.dim_value if dimension.HasField("dim_value") else 0
    if fixed > 0:  # some write 0 or -1 for any number
        return fixed
    return None if dimension.dim_param.startswith(INVENTED) else dimension.dim_param or None


def _output_of(name: str, model: Any, shapes: dict[str, Shape | None], output: str | None) -> str:
    """The name of the embedding."""
    if output is not None:
        if output not in shapes:
            raise RankproofError(f"{name}: computes no {output!r}; --output takes: {_listed(model, shapes)}")
        return output
    names = [each.name for each in model.graph.output]
    if len(names) == 1:
        return str(names[0])
    flat = [each for each in names if len(shapes.get(each) or ()) == 2]
    if len(flat) == 1:
        return str(flat[0])
    listed = ", ".join(_written(each, shapes.get(each)) for each in names) or "none"
    raise RankproofError(f"{name}: which output is the embedding? Choose by --output: {listed}")


def _listed(model: Any, shapes: dict[str, Shape | None]) -> str:
    """Names for --output: outputs first, then from the end what has one row of numbers for each image."""
    outputs = [each.name for each in model.graph.output if each.name in shapes]
    inner = [each for each in reversed(shapes) if each not in outputs]
    inner.sort(key=lambda each: not _is_row(shapes[each]))  # stable: the last ones stay first
    names = [*outputs, *inner]
    rows = len(outputs) + sum(_is_row(shapes[each]) for each in inner)
    count = len(names) if len(names) <= LISTED else min(LISTED, max(rows, len(outputs) + FEW))
    listed = ", ".join(_written(each, shapes[each]) for each in names[:count])
    return listed if count == len(names) else f"{listed} and {len(names) - count} others"


def _is_row(shape: Shape | None) -> bool:
    """Whether a tensor has the shape of embeddings, such as (b, d) or (b, d, 1, 1)."""
    return shape is not None and len(shape) >= 2 and sum(side != 1 for side in shape[1:]) == 1


def _written(name: str, shape: Shape | None) -> str:
    """The name and shape of a tensor, as in "features (batch, 512)"."""
    if shape is None:
        return f"{name} (of unknown shape)"
    return f"{name} ({', '.join('?' if side is None else str(side) for side in shape)})"


def _cut(model: Any, output: str) -> Any:
    """A copy of a model that computes one tensor, and nothing that this one does not need."""
    nodes, needed = [], {output}
    for node in reversed(model.graph.node):  # sorted: what a node reads is computed before it
        if needed & set(node.output):
            nodes.append(node)
            needed |= uses_of(node)
    part = type(model)()
    part.CopyFrom(model)
    for kind in ("input", "initializer", "sparse_initializer", "output", "value_info", "node"):
        part.graph.ClearField(kind)
    part.graph.node.extend(reversed(nodes))
    weights = {each.name for each in model.graph.initializer}
    weights |= {each.values.name for each in model.graph.sparse_initializer}
    part.graph.input.extend(each for each in model.graph.input if each.name in needed - weights)
    part.ir_version = max(part.ir_version, FREE_WEIGHTS)
    part.graph.initializer.extend(each for each in model.graph.initializer if each.name in needed)
    part.graph.sparse_initializer.extend(
        each for each in model.graph.sparse_initializer if each.values.name in needed
    )
    part.graph.output.add(name=output)  # its type and shape are for those to find who run it
    return part


def _channels_last(graph: Any, name: str, sides: list[int | None]) -> bool:
    """Whether images are (b, h, w, c): by their number of channels, else by a Transpose that follows."""
    first, last = (side is not None and side <= MOST_CHANNELS for side in (sides[0], sides[2]))
    if first != last:
        return last
    return any(
        node.op_type == "Transpose"
        and name in node.input
        and tuple(attribute(node, "perm") or ()) == CHANNELS_FIRST
        for node in graph.node
    )


def attribute(node: Any, name: str) -> Any:
    """The value of an attribute of a node; None where it has none."""
    helper = optional_library("onnx.helper", EXTRA)
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), None)


def _wants_bytes(graph: Any, name: str) -> bool:
    """Whether the first thing that happens to pixels is a normalisation of 0 .. 255."""
    constants = constants_of(graph)
    to_array: Callable[[Any], Any] = optional_library("onnx.numpy_helper", EXTRA).to_array
    for node in _steps(graph.node, name):
        try:
            values = [
                abs(to_array(constants[each])).max(initial=0) for each in node.input if each in constants
            ]
        except (TypeError, ValueError):  # of texts, or damaged
            return False
        if node.op_type in ("Sub", "Add", "Div") and values:
            return bool(values[0] > LARGE)
        if node.op_type == "Mul" and values:
            return bool(values[0] < 1 / (10 * LARGE))
        if node.op_type == "BatchNormalization" and len(values) == 4:
            return bool(values[2] > LARGE)
        if node.op_type not in PASSED:
            return False
    return False


def _steps(nodes: Iterable[Any], name: str) -> Iterator[Any]:
    """The nodes that follow each other from a tensor on, each on the first output of the one before."""
    for node in nodes:
        if name in node.input:
            yield node
            name = node.output[0] if node.output else ""
