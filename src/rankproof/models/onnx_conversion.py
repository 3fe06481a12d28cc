"""ONNX models as torch modules, by onnx2torch, so that gradients flow through them."""

import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import nn

from rankproof.errors import RankproofError
from rankproof.models.onnx_file import EXTRA
from rankproof.models.onnx_graph import EmbeddingGraph, Shape, attribute, constants_of, shape_of, shapes_of
from rankproof.models.source import optional_library, reason

INSTALL = "pip install --no-deps onnx2torch"
STAND_IN = ("torchvision", "torchvision.ops")
NEWEST = 17  # opset that the library knows all of
UNKNOWN = re.compile(r"Converter is not implemented .*operation_type='(\w+)'")
DEPTH = 3  # of operations defined by others that are defined by others
SAME = (b"SAME_UPPER", b"SAME_LOWER")
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


class CannotConvertError(RankproofError):
    """A model that cannot be converted; the message says why, in a few words."""


def converted(graph: EmbeddingGraph) -> nn.Module:
    """The model as a torch module, which returns the one output or all outputs of the node that has it.

    It is meant to compute the same, and whoever uses it must compare it with the original: the library passes
    over some attributes, and of an operation newer than it knows the older meaning is taken.

    Raises:
        CannotConvertError: the library is missing, or does not know an operation.
    """
    convert = _library()
    failure = ""
    for prepare in (_plain, _as_older):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # meant for the author of the library
                # Copied, since its weights lie in memory that must not be written.
                network = deepcopy(convert(prepare(graph.model))).eval()
            for module in network.modules():  # whose form the library takes from shapes that may be unknown
                if isinstance(module, nn.LayerNorm):
                    module.normalized_shape = tuple(module.weight.shape)
            return network
        except Exception as error:  # what it does not know: it raises anything
            failure = reason(error)
    unknown = UNKNOWN.search(failure)
    raise CannotConvertError(f"onnx2torch cannot convert {unknown[1] if unknown else f'it, {failure}'}")


def _library() -> Callable[[Any], nn.Module]:
    """`onnx2torch.convert`."""
    try:
        with _torchvision_importable():
            convert: Callable[[Any], nn.Module] = import_module("onnx2torch").convert
    except Exception as error:  # missing, or of another version than the other libraries
        raise CannotConvertError(f"onnx2torch cannot be used, {reason(error)}; {INSTALL}") from None
    return convert


@contextmanager
def _torchvision_importable() -> Iterator[None]:
    """Let `import torchvision.ops` succeed inside of the block, without effect outside.

    The library imports it for two layers of detectors, which no encoder has. Where the real one is missing or
    broken, an empty module stands in for it.
    """
    if "onnx2torch" in sys.modules or _imports("torchvision.ops"):
        yield
        return
    package, operations = (ModuleType(name) for name in STAND_IN)
    for module in (package, operations):
        module.__spec__ = ModuleSpec(module.__name__, None)
    vars(package).update(ops=operations, __path__=[])
    vars(operations)["roi_align"] = _roi_align
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == STAND_IN[0]}
    for name in before:  # what a broken one has left behind
        del sys.modules[name]
    sys.modules.update(zip(STAND_IN, (package, operations), strict=True))
    try:
        yield
    finally:
        for name in STAND_IN:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except Exception:  # one that was built for another torch may raise anything
        return False
    return True


def _roi_align(*given: object, **options: object) -> None:
    raise NotImplementedError("RoiAlign needs torchvision")


def _plain(model: Any) -> Any:
    """A copy of a model without functions of its own, and with all its constants as weights."""
    plain = type(model)()
    inliner = optional_library("onnx.inliner", EXTRA)
    plain.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    weights = {each.name: each for each in plain.graph.initializer}
    outputs = {each.name for each in plain.graph.output}
    kept = []
    for node in plain.graph.node:
        value = weights.get(node.input[0]) if node.op_type == "Identity" else attribute(node, "value")
        if node.op_type in ("Constant", "Identity") and value is not None and node.output[0] not in outputs:
            weights[node.output[0]] = plain.graph.initializer.add()
            weights[node.output[0]].CopyFrom(value)
            weights[node.output[0]].name = node.output[0]
        else:
            kept.append(node)
    del plain.graph.node[:]
    plain.graph.node.extend(kept)
    return plain


def _as_older(model: Any) -> Any:
    """A model by operations of an older opset, as far as they mean the same."""
    older = _plain(_spelled_out(_plain(model)))  # what spells them out has constants of its own
    constants, shapes = constants_of(older.graph), shapes_of(older)
    shapes |= {each.name: shape_of(each) for each in older.graph.input}
    for node in older.graph.node:
        if node.op_type.removeprefix("Reduce") in REDUCTIONS and len(node.input) == 2:
            _axes_as_attribute(node, constants)
        if attribute(node, "auto_pad") in SAME:
            _pads_as_numbers(node, constants, shapes)
    for opset in older.opset_import:
        if opset.domain == "":
            opset.version = min(opset.version, NEWEST)
    return older


def _spelled_out(model: Any) -> Any:
    """A model in which operations that the library does not know are those they are defined by, if any."""
    inference, inliner = (optional_library(f"onnx.{each}", EXTRA) for each in ("shape_inference", "inliner"))
    make_info = optional_library("onnx.helper", EXTRA).make_tensor_value_info
    for _ in range(DEPTH):
        if not (unknown := _unknown_operations(model)):
            break
        model = inference.infer_shapes(model)  # definitions depend on the types of what goes in
        named = {each.name for each in model.graph.value_info}
        model.graph.value_info.extend(
            make_info(each.name, each.data_type, each.dims)
            for each in model.graph.initializer
            if each.name not in named
        )
        model = inliner.inline_selected_functions(model, unknown, inline_schema_functions=True)
    return model


def _unknown_operations(model: Any) -> list[tuple[str, str]]:
    """Domains and names of operations that the library does not convert in the opset that it knows best."""
    get_converter = import_module("onnx2torch.node_converters.registry").get_converter
    opsets = {each.domain: min(each.version, NEWEST) for each in model.opset_import}
    unknown = []
    for domain, name in sorted({(node.domain, node.op_type) for node in model.graph.node}):
        try:
            get_converter(name, opsets.get(domain, 1), domain)
        except NotImplementedError:
            unknown.append((domain, name))
    return unknown


def _axes_as_attribute(node: Any, constants: dict[str, Any]) -> None:
    """Axes of a reduction as an attribute, where they were before opset 18."""
    axes = optional_library("onnx.numpy_helper", EXTRA).to_array(constants[node.input[1]])
    del node.input[1:]
    kept = [each for each in node.attribute if each.name != "noop_with_empty_axes"]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(optional_library("onnx.helper", EXTRA).make_attribute("axes", axes.tolist()))


def _pads_as_numbers(node: Any, constants: dict[str, Any], shapes: dict[str, Shape | None]) -> None:
    """The padding of a convolution or pooling in numbers, where its input has a known height and width."""
    sides = (shapes.get(node.input[0]) or ())[2:]
    kernel = attribute(node, "kernel_shape") or constants[node.input[1]].dims[2:]
    ones = [1] * len(sides)
    if len(sides) != len(kernel):
        return  # stays as it is, which the library refuses
    strides, dilations = attribute(node, "strides") or ones, attribute(node, "dilations") or ones
    missing = [
        max(0, (-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side)
        for side, stride, size, dilation in zip(sides, strides, kernel, dilations, strict=True)
        if isinstance(side, int)
    ]
    if len(missing) < len(kernel):
        return
    upper = attribute(node, "auto_pad") == SAME[0]
    smaller, larger = [each // 2 for each in missing], [each - each // 2 for each in missing]
    kept = [each for each in node.attribute if each.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend(kept)
    pads = smaller + larger if upper else larger + smaller
    node.attribute.append(optional_library("onnx.helper", EXTRA).make_attribute("pads", pads))
