"""The inference graph of an encoder: the same function with fewer operations, for the search of an attack.

In eval mode a batch norm is a scale and a shift of each channel, which the convolution before it can do:

    bn(w * x + b) = (s w) * x + (s (b - mean) + shift),    s = scale / sqrt(var + eps)

so that it is folded into the convolution's weights, and the weights are laid out as the processor reads them
fastest (channels last). Both change an embedding by rounding alone, if the encoder is what it seems to be;
whether it is, is measured on images, and an encoder that comes out otherwise is searched as it is given.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
EQUAL = 1e-10  # of sums in double precision, whose last digits depend on the number of threads


@dataclass(frozen=True)
class InferenceGraph:
    """A faster copy of an encoder, as long as the encoder keeps its weights.

    Args:
        encoder: the copy, in eval mode; weights that nothing was folded into are shared with the original.
        folded: how many batch norms it does without.
        weights: of the original when it was copied.
    """

    encoder: nn.Module
    folded: int
    weights: "WeightSums"


class WeightSums:
    """What the weights of an encoder add up to, by which it is seen that they were changed.

    Args:
        encoder: whose parameters and buffers are added up.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self._sums, self._kinds = _sums(encoder), _kinds(encoder)

    def hold(self, encoder: nn.Module) -> bool:
        """Whether an encoder still has these weights, in the same precision and on the same device."""
        try:
            sums = _sums(encoder)
        except Exception:  # of weights that were replaced by some that cannot be added up
            return False
        same = sums.device == self._sums.device and _kinds(encoder) == self._kinds
        same = same and sums.shape == self._sums.shape
        return same and torch.allclose(sums, self._sums, rtol=EQUAL, atol=EQUAL)


def inference_graph(encoder: nn.Module, run: Callable[[], object]) -> InferenceGraph | None:
    """The inference graph of an encoder in eval mode; None where it would be the encoder itself.

    Args:
        encoder: as it is given; it stays as it is.
        run: passes images through the encoder, to see which batch norm follows which convolution.
    """
    pairs = _pairs(encoder, run)
    if not pairs:  # another layout alone gains nothing: measured on networks with other norms
        return None
    convolutions = [module for module in encoder.modules() if _is_plain(module)]
    # What is not rewritten is shared, so that a large model is not held twice.
    rewritten = {id(module) for module in convolutions}
    shared = {
        id(value): value
        for module in encoder.modules()
        if id(module) not in rewritten
        for value in chain(module.parameters(recurse=False), module.buffers(recurse=False))
    }
    try:
        copied: dict[int, Any] = dict(shared)
        copy = deepcopy(encoder, copied)
        for convolution, norm in pairs:
            _fold(copied[id(convolution)], norm)
        _replace(copy, {id(copied[id(norm)]) for _, norm in pairs})
        for module in copy.modules():
            if isinstance(module, nn.Hardtanh):  # as ReLU6: in place it is computed aside and copied back
                module.inplace = False
        for module in convolutions:
            copied[id(module)].to(memory_format=torch.channels_last)
            for parameter in copied[id(module)].parameters(recurse=False):
                parameter.requires_grad = False
        return InferenceGraph(copy.eval(), len(pairs), WeightSums(encoder))
    except Exception:  # an encoder that cannot be copied, rewritten or added up is searched as it is
        return None


def _pairs(encoder: nn.Module, run: Callable[[], object]) -> list[tuple[nn.Conv2d, nn.Module]]:
    """The convolutions whose output is the input of a batch norm, each used once in a pass."""
    used: Counter[int] = Counter()
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensors are kept, so that no id is given again
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        used[id(module)] += 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output
        elif inputs and id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], module))

    norms = [module for module in encoder.modules() if _is_foldable(module)]
    if not norms:
        return []
    with _watched([*norms, *(module for module in encoder.modules() if _is_plain(module))], after):
        run()
    return [pair for pair in pairs if all(used[id(module)] == 1 for module in pair)]


@contextmanager
def _watched(modules: list[nn.Module], after: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(after) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a convolution with weights of its own, whose output nothing else reads."""
    return isinstance(module, nn.Conv2d) and "weight" in module._parameters and not _hooked(module)


def _is_foldable(module: nn.Module) -> bool:
    return type(module) in NORMS and getattr(module, "running_mean", None) is not None and not _hooked(module)


def _hooked(module: nn.Module) -> bool:
    """Whether something is attached that reads or changes what passes through a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fold(convolution: nn.Conv2d, norm: nn.Module) -> None:
    """Give a convolution the weights, computed in double precision, that do the work of the norm after it."""
    statistics = [norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias]
    values = [convolution.weight, convolution.bias, *statistics]
    exact = [value.detach().double() if isinstance(value, Tensor) else value for value in values]
    weight, bias = fuse_conv_bn_weights(*exact)  # type: ignore[arg-type]
    kind = convolution.weight.dtype
    convolution.weight, convolution.bias = (nn.Parameter(value.to(kind), False) for value in (weight, bias))


def _replace(encoder: nn.Module, norms: set[int]) -> None:
    """Put an identity in the place of some batch norms, wherever they are named."""
    for module in list(encoder.modules()):
        for name, child in module._modules.items():
            if id(child) in norms:
                setattr(module, name, nn.Identity())


def _sums(encoder: nn.Module) -> Tensor:
    """(p,) the sum of each parameter and buffer in double precision, NaN counted as 0."""
    values = (value.detach() for value in chain(encoder.parameters(), encoder.buffers()))
    sums = [
        (value if value.is_floating_point() else value.double()).nansum(dtype=torch.float64)
        for value in values
    ]
    return torch.stack([each.to(sums[0].device) for each in sums]) if sums else torch.empty(0)


def _kinds(encoder: nn.Module) -> list[tuple[torch.dtype, torch.device]]:
    """The type and the device of each parameter and buffer."""
    return [(value.dtype, value.device) for value in chain(encoder.parameters(), encoder.buffers())]
