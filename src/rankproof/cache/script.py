"""Programs of torch as plain values: TorchScript and graphs of torch.fx."""

from collections.abc import Iterator
from io import BytesIO
from itertools import groupby
from typing import Any
from zipfile import ZipFile

import torch

# Of a saved program: where it was compiled, and a number of the file.
UNUSED = (".debug_pkl", "serialization_id")
CONSTANT = b": Final["
# Attributes of a graph's module that its code says again.
DERIVED = ("_graph", "_code", "_tracer_cls", "_tracer_extras", "_lineno_map", "_prologue_start", "meta")


def script_bytes(module: Any) -> Iterator[bytes]:
    """The parts of a TorchScript module: code, weights and constants."""
    stream = BytesIO()
    torch.jit.save(module, stream)
    with ZipFile(stream) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(UNUSED):
                content = archive.read(member)
                yield member.encode()
                yield _in_order(content) if member.endswith(".py") else content


def _in_order(code: bytes) -> bytes:
    """Code with the constants of each class sorted: torch writes them in another order each time."""
    runs = groupby(code.splitlines(), lambda line: CONSTANT in line)
    return b"\n".join(line for constants, run in runs for line in (sorted(run) if constants else run))


def graph_parts(module: torch.fx.GraphModule) -> tuple[dict[str, object], list[object]]:
    """The attributes of a graph's module that are its own, and its code with the functions it calls."""
    attributes = {name: value for name, value in vars(module).items() if name not in DERIVED}
    called = [node.target for node in module.graph.nodes if node.op == "call_function"]
    return attributes, [module.code, *called]
