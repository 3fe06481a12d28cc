"""Numbers for libraries that draw from generators everybody shares."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

SHARED = "pytorch_metric_learning.utils.common_functions"


@contextmanager
def global_numbers(source: torch.Generator) -> Iterator[None]:
    """What torch's own generators and that of pytorch-metric-learning give meanwhile comes from `source`."""
    seed = int(torch.randint(2**31, (1,), generator=source))
    shared: Any = sys.modules.get(SHARED)
    before = None if shared is None else shared.NUMPY_RANDOM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            if shared is not None:
                shared.NUMPY_RANDOM = np.random.RandomState(seed)
            yield
        finally:
            if shared is not None:
                shared.NUMPY_RANDOM = before
