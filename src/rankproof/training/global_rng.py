"""Reproducible random numbers from libraries that draw from process-wide generators."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

PML_FUNCTIONS = "pytorch_metric_learning.utils.common_functions"


@contextmanager
def global_rng(rng: torch.Generator) -> Iterator[None]:
    """Seed the generators of torch and pytorch-metric-learning from `rng`; restore them afterwards."""
    seed = int(torch.randint(2**31, (1,), generator=rng))
    pml: Any = sys.modules.get(PML_FUNCTIONS)  # not loaded: nothing draws from it
    previous = None if pml is None else pml.NUMPY_RANDOM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            if pml is not None:
                pml.NUMPY_RANDOM = np.random.RandomState(seed)
            yield
        finally:
            if pml is not None:
                pml.NUMPY_RANDOM = previous
