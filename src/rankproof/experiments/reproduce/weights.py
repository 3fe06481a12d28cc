"""How the weights of an encoder are spread (ECCV figures 63 to 65)."""

from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor, nn

POINTS = 201  # at which a density is kept
QUARTILES = (0.25, 0.5, 0.75)
LAYERS = (nn.Conv2d, nn.Linear)


def spread(encoder: nn.Module) -> list[dict[str, Any]]:
    """The weights and the bias of each layer with both, called conv1, conv2, fc1 as in the paper.

    Returns:
        for each layer its name and, for both, count, mean, deviation, quartiles and density.
    """
    layers, numbers = [], Counter[str]()
    for module in encoder.modules():
        if isinstance(module, LAYERS) and module.bias is not None:
            kind = "fc" if isinstance(module, nn.Linear) else "conv"
            numbers[kind] += 1
            parts = {"weight": _told(_flat(module.weight)), "bias": _told(_flat(module.bias))}
            layers.append({"layer": f"{kind}{numbers[kind]}", **parts})
    return layers


def _flat(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy().ravel()


def _told(values: np.ndarray) -> dict[str, Any]:
    points = np.linspace(values.min(), values.max(), POINTS)
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        "quartiles": [float(value) for value in np.quantile(values, QUARTILES)],
        "points": [float(f"{point:.6g}") for point in points],
        "density": [float(f"{value:.6g}") for value in _density(values, points)],
    }


def _density(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Gaussian kernels of Scott's width on the values, which are counted on a fine grid first."""
    width = max(float(values.std()), 1e-12) * len(values) ** -0.2
    counts, edges = np.histogram(values, bins=10 * POINTS)
    middles = (edges[1:] + edges[:-1]) / 2
    kernels = np.exp(-0.5 * ((points[:, None] - middles) / width) ** 2)  # (points, bins)
    found: np.ndarray = kernels @ counts / (len(values) * width * np.sqrt(2 * np.pi))
    return found
