import sys
from dataclasses import dataclass

import pytest

import rankproof.audit  # noqa: F401
from rankproof.methods import SPSA

QUERIES = 21


@dataclass(frozen=True, kw_only=True)
class Own(SPSA):
    """Stands for the library's own search: not the reference method's name, 8-bit images."""

    sigma: float = 5 / 255
    step: float = 4 / 255

    name = "own"
    grid = True


@pytest.fixture(scope="module", autouse=True)
def own():
    """A search that differs from the reference method, and few queries."""
    measurements, counts = (sys.modules[f"rankproof.audit.{name}"] for name in ("measurements", "counts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "automatic", Own)
        patch.setattr(counts, "BUDGET", QUERIES)
        yield Own()
