"""Torch's modes of a caller, such as `no_grad`, which must not change what is measured."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICE_TYPES = ("cpu", "cuda")


@contextmanager
def ordinary_modes() -> Iterator[None]:
    """Gradients on, inference mode and autocast off, whatever the caller's modes are; also a decorator.

    Without gradients an attack finds nothing and the model looks robust; within autocast its embeddings are
    those of another precision.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in DEVICE_TYPES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
