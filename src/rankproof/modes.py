"""Torch's modes of a caller, such as `no_grad` or a default device: they must not change a figure."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICE_TYPES = ("cpu", "cuda")


@contextmanager
def ordinary_modes() -> Iterator[None]:
    """Gradients on, inference mode and autocast off, new tensors on the CPU; also a decorator.

    Without gradients an attack finds nothing and the model looks robust; within autocast its embeddings are
    those of another precision.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in DEVICE_TYPES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
