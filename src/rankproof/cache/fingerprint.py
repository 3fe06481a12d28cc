"""A digest of all that an object's behaviour depends on: its values, weights and code.

Two objects with the same fingerprint do the same. To say so one must have seen everything, so a value that
cannot be read (an open session of another library, a generator, a lock) makes the whole object unreadable:
it has no fingerprint, rather than one that leaves something out.

Code of the user is read to the ground: the compiled functions as they are loaded, what they refer to by name
or closure, and the text of their files and of the files these import. Of an installed library its version
counts, and the text of the file that defines a class.
"""

import copyreg
import functools
import importlib.metadata
import logging
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    EllipsisType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    NotImplementedType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rankproof.cache.script import graph_parts, script_bytes
from rankproof.cache.source_files import is_library, own_source, texts

ROOMS = ("ranking", "models", "cache")  # of this package, that embeddings come from
STATE = "__rankproof_state__"  # a method by which an object says itself what its behaviour depends on
SCALARS = (NoneType, bool, int, float, complex, str, bytes, bytearray, EllipsisType, NotImplementedType)
OF_TORCH = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)
ATOMS: frozenset[type] = frozenset({*SCALARS, *OF_TORCH, range})
DESCRIPTORS = ("getset_descriptor", "member_descriptor", "wrapper_descriptor", "method_descriptor")
# Entries of a class that say nothing about what it does.
UNUSED = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__annotate__"}
UNUSED |= {
    "__slotnames__",
    "__firstlineno__",
    "__orig_bases__",
    "__static_attributes__",
    "__parameters__",
    "__match_args__",
}
UNUSED |= {"__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__"}
FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
# All other attributes of torch that hold hooks: of gradients and of state dicts.
HOOKS = {name for name in vars(nn.Module()) if "hook" in name} - {*FORWARD_HOOKS}
COMPILED = "OptimizedModule"  # what torch.compile returns; importing its class takes seconds


class UnreadableError(Exception):
    """Something about an object cannot be read; the message names it."""


def fingerprint(*values: object, files: Iterable[Path] = (), package: bool = True) -> str:
    """A digest of values, equal only where all that was found of them is equal.

    Args:
        values: anything: numbers, tensors, modules, functions, objects.
        files: Python files whose text, and that of the files they import, belongs to it.
        package: whether the text of this package's own rooms does, too; else its version counts where a value
            refers to it.
    Raises:
        UnreadableError: something cannot be read.
    """
    walk = _Walk()
    try:
        for value in values:
            walk.add(value)
    except UnreadableError:
        raise
    except Exception as error:  # an object of the user may raise anything when it is looked at
        raise UnreadableError(f"an object that raises {type(error).__name__}") from None
    if package:
        walk.word("rankproof", own_source(*ROOMS))
    for text in texts({*walk.files, *files}):
        walk.word("file", text)
    return walk.digest.hexdigest()


def tensor_bytes(value: Tensor) -> memoryview:
    """The bytes of a dense tensor.

    Raises:
        UnreadableError: it is of another kind, or has no values.
    """
    if is_lazy(value) or value.is_meta or value.is_nested or value.layout != torch.strided:
        raise UnreadableError("a tensor without plain values")
    if value.is_quantized:
        raise UnreadableError("a quantised tensor")
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    view: memoryview = plain.view(torch.uint8).numpy().data
    return view


class _Walk:
    """Visits a value and all that it refers to, each object once, and digests what it finds."""

    def __init__(self) -> None:
        self.digest = sha256()
        self.files: set[Path] = set()
        self._numbers: dict[object, int] = {}
        self._alive: list[object] = []  # so that no id is given to another object meanwhile

    def word(self, *parts: str) -> None:
        """Add texts, each with its length."""
        for part in parts:
            raw = part.encode(errors="surrogatepass")
            self.digest.update(b"%d:" % len(raw) + raw)

    def add(self, value: Any) -> None:
        """Add any value.

        Raises:
            UnreadableError: it, or something it refers to, cannot be read.
        """
        kind = type(value)
        if kind in ATOMS or isinstance(value, PurePath):
            self.word(kind.__name__, repr(value))
            return
        if (number := self._numbers.get(id(value))) is not None:
            self.word("seen", str(number))
            return
        self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        for known, method in WAYS:
            if isinstance(value, known):
                method(self, value)
                return
        self._object(value)

    # -- values ------------------------------------------------------------------------------------

    def _tensor(self, value: Tensor) -> None:
        if type(value) not in (Tensor, nn.Parameter):
            raise UnreadableError(f"a tensor of type {type(value).__name__}")
        raw = tensor_bytes(value)
        self.word("tensor", str(value.dtype), str(tuple(value.shape)))
        self.digest.update(raw)

    def _array(self, value: np.ndarray | np.generic) -> None:
        if value.dtype.hasobject:
            raise UnreadableError("an array of objects")
        if isinstance(value, np.ma.MaskedArray):
            self.add(np.ma.getmaskarray(value))
        self.word("array", str(value.dtype.descr), str(value.shape))
        self.digest.update(np.ascontiguousarray(value).tobytes())

    def _sequence(self, value: "tuple[Any, ...] | list[Any]") -> None:
        self._type(value)
        self.word(str(len(value)))
        for entry in value:
            self.add(entry)
        self._attributes(value)
        self._slots(value)

    def _mapping(self, value: "dict[Any, Any] | MappingProxyType[Any, Any]") -> None:
        self._type(value)
        self.word(str(len(value)))
        for key, entry in list(value.items()):
            self.add(key)
            self.add(entry)
        self._attributes(value)
        self._slots(value)

    def _set(self, value: "set[Any] | frozenset[Any]") -> None:
        if not all(type(entry) in ATOMS for entry in value):
            raise UnreadableError("a set of objects")
        self._type(value)
        self.word(*sorted(f"{type(entry).__name__} {entry!r}" for entry in value), "end")
        self._attributes(value)
        self._slots(value)

    def _type(self, value: object) -> None:
        if type(value) in (tuple, list, dict, set, frozenset, OrderedDict, MappingProxyType):
            self.word(type(value).__name__)
        else:
            self.add(type(value))

    def _attributes(self, value: object) -> None:
        if getattr(value, "__dict__", None):
            self.add(vars(value))

    def _slots(self, value: object) -> None:
        """What an object holds beside its attributes, as the factory of a defaultdict."""
        for kind in type(value).__mro__:
            for name, slot in list(vars(kind).items()):
                if isinstance(slot, MemberDescriptorType):
                    self.word(name)
                    self.add(getattr(value, name, None))

    # -- networks ----------------------------------------------------------------------------------

    def _network(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            self.word("script")
            for part in script_bytes(module):
                self.digest.update(part)
            return
        if type(module).__name__ == COMPILED and type(module).__module__.startswith("torch."):
            self.word("compiled")
            self.add(module._orig_mod)
            return
        self.add(type(module))
        if hasattr(module, STATE):
            self._object(module)
            return
        self._slots(module)
        attributes = vars(module)
        if isinstance(module, torch.fx.GraphModule):
            attributes, graph = graph_parts(module)
            self.add(graph)
        for name, value in list(attributes.items()):
            if name in FORWARD_HOOKS:
                self.add(list(value.values()))
            elif name not in HOOKS:
                self.word(name)
                self.add(value)

    # -- code --------------------------------------------------------------------------------------

    def _function(self, function: FunctionType) -> None:
        code = function.__code__
        if is_library(code.co_filename):
            self._library(function.__module__, function.__qualname__)
        else:
            self._code(code)
            self._file(code.co_filename)
            self._globals(function)
            self._attributes(function)
        self.add(function.__defaults__)
        self.add(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:
                self.word("an empty cell")

    def _code(self, code: CodeType) -> None:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.word("code", repr(counts), repr(names))
        self.digest.update(code.co_code)
        self.digest.update(code.co_exceptiontable)
        for constant in code.co_consts:
            self.add(constant)

    def _globals(self, function: FunctionType) -> None:
        """What the code of a function refers to by name, whether as a global or by importing it."""
        names, space = set(_names(function.__code__)), function.__globals__
        package = str(space.get("__package__") or "")
        for name in sorted(names):
            imported = sys.modules.get(name) or sys.modules.get(f"{package}.{name}")
            value = space.get(name, imported)
            if isinstance(value, ModuleType):
                self.word(name)
                self._module(value, names)
            elif name in space and name != "__builtins__":
                self.word(name)
                self.add(value)

    def _module(self, module: ModuleType, names: Iterable[str] | None = None) -> None:
        """A module: of a user's the text, and what it holds by some names (None: by any)."""
        file = getattr(module, "__file__", None)
        if is_library(file) if file is not None else module.__name__ != "__main__":
            self._library(module.__name__, "")
            return
        self._file(file)
        for name in sorted(vars(module) if names is None else set(names) & set(vars(module))):
            if name.startswith("__") or (key := (id(module), name)) in self._numbers:
                continue
            self._numbers[key] = len(self._numbers)
            self.word(module.__name__, name)
            value = vars(module)[name]
            if isinstance(value, ModuleType):
                self._module(value, names)
            else:
                self.add(value)

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            file = _file_of(base)
            if is_library(file) if file is not None else base.__module__ != "__main__":
                self._library(base.__module__, base.__qualname__)
                self._patches(base)
                continue
            self.word("class", base.__qualname__)
            self._file(file)
            if type(base) is not type:
                self.add(type(base))
            for name, value in list(vars(base).items()):
                if name not in UNUSED and type(value).__name__ not in DESCRIPTORS:
                    self.word(name)
                    self.add(value)

    def _patches(self, base: type) -> None:
        """Functions that a user has put into a class of a library."""
        for name, value in list(vars(base).items()):
            if isinstance(value, FunctionType):
                file = value.__code__.co_filename
                if not file.startswith("<") and not is_library(file):
                    self.word(name)
                    self.add(value)

    def _library(self, module: str | None, name: str) -> None:
        """A class, function or module of an installed library."""
        root = str(module).partition(".")[0]
        self.word("library", str(module), name, _version(root))
        file = getattr(sys.modules.get(str(module)), "__file__", None)
        if root not in ("torch", "rankproof") and file is not None and file.endswith(".py"):
            self.word(*texts({Path(file)}, imports=False))

    def _file(self, name: str | None) -> None:
        if name is not None and name.endswith(".py"):
            self.files.add(Path(name).absolute())

    def _method(self, method: MethodType) -> None:
        self.add(method.__func__)
        self.add(method.__self__)

    def _builtin(self, function: BuiltinFunctionType) -> None:
        owner = function.__self__
        self._library(function.__module__, function.__qualname__)
        if not (owner is None or isinstance(owner, ModuleType)):
            self.add(owner)

    def _property(self, value: property) -> None:
        self.add((value.fget, value.fset, value.fdel))

    def _operator(self, value: object) -> None:
        if not str(value).startswith(("aten", "prim")):
            raise UnreadableError(f"the operator {value}")
        self.word("operator", str(value))

    # -- all else ----------------------------------------------------------------------------------

    def _object(self, value: Any) -> None:
        """An object by what `pickle` would keep of it, and its attributes."""
        self.add(type(value))
        if hasattr(value, STATE):
            self.add(getattr(value, STATE)())
            return
        registered = copyreg.dispatch_table.get(type(value))
        try:
            reduced: Any = value.__reduce_ex__(4) if registered is None else registered(value)
        except Exception:  # any object may refuse in its own way
            raise UnreadableError(f"a value of type {type(value).__name__}") from None
        if isinstance(reduced, str):
            self.word("global", reduced)
        else:
            for part in reduced:
                self.add(list(part) if isinstance(part, Iterator) else part)
        self._attributes(value)


Way = tuple[Any, Callable[[_Walk, Any], None]]
WAYS: tuple[Way, ...] = (
    (Tensor, _Walk._tensor),
    ((np.ndarray, np.generic), _Walk._array),
    (nn.Module, _Walk._network),
    ((tuple, list), _Walk._sequence),
    ((dict, MappingProxyType), _Walk._mapping),
    ((set, frozenset), _Walk._set),
    (FunctionType, _Walk._function),
    (MethodType, _Walk._method),
    (BuiltinFunctionType, _Walk._builtin),
    (CodeType, _Walk._code),
    (ModuleType, _Walk._module),
    (type, _Walk._class),
    (property, _Walk._property),
    ((torch._ops.OpOverload, torch._ops.OpOverloadPacket), _Walk._operator),
    ((staticmethod, classmethod), lambda walk, value: walk.add(value.__func__)),
    (functools.partial, lambda walk, value: walk.add(["partial", value.func, value.args, value.keywords])),
    (functools.cached_property, lambda walk, value: walk.add(value.func)),
    (functools._lru_cache_wrapper, lambda walk, value: walk.add(value.__wrapped__)),
    (weakref.ref, lambda walk, value: walk.add(value())),
    (logging.Logger, lambda walk, value: walk.word("logger", value.name)),
)


def _names(code: CodeType) -> Iterator[str]:
    """All names that some code, and the functions defined in it, look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _file_of(kind: type) -> str | None:
    return getattr(sys.modules.get(kind.__module__), "__file__", None)


@functools.cache
def _version(root: str) -> str:
    """The version of the library whose top module is `root`; empty for the standard library."""
    if root in sys.stdlib_module_names:
        return ""
    found = getattr(sys.modules.get(root), "__version__", None)
    if isinstance(found, str):
        return found
    try:
        return importlib.metadata.version(root)
    except importlib.metadata.PackageNotFoundError:
        return ""
