"""Distances in rational arithmetic: what every ranking is compared with."""

from fractions import Fraction

import numpy as np


def rational_distances(distance, a, b):
    """(m, n) rational numbers that order the rows of `b` for each row of `a` as the distance does.

    Only values of one call can be compared. Euclidean: |a - b|^2. Unit lengths: minus cos |cos| |a|^2 =
    -<a, b> |<a, b>| / |b|^2, which has no root.
    """
    key = {"euclidean": _squared, "cosine": _angle, "sphere": _chord}[distance]
    a, b = _whole(np.asarray(a), np.asarray(b))
    values = np.empty((len(a), len(b)), dtype=object)
    for i, one in enumerate(a):
        for j, two in enumerate(b):
            values[i, j] = key(one, two)
    return values


def _whole(*arrays):
    """The rows of some arrays as whole numbers: all times one power of 2."""
    ratios = [[[float(x).as_integer_ratio() for x in row] for row in z] for z in arrays]
    common = max(below for z in ratios for row in z for _, below in row)
    return [[[above * (common // below) for above, below in row] for row in z] for z in ratios]


def _squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _angle(a, b):
    """An embedding of length 0 has no direction: its cosine is 0."""
    dot, size = _dot(a, b), _dot(b, b)
    return Fraction(-dot * abs(dot), size) if size else 0


def _chord(a, b):
    """An embedding of length 0 stays at the centre: 1 from all others, which is a cosine of 1/2."""
    if not any(a):
        return int(any(b))
    return _angle(a, b) if any(b) else Fraction(-_dot(a, a), 4)
