"""Distances in rational arithmetic: what every ranking is compared with."""

from fractions import Fraction

import numpy as np


def rational_distances(distance, a, b):
    """(m, n) rational numbers that order the rows of `b` for each row of `a` as the distance does.

    Euclidean: |a - b|^2. Unit lengths: minus cos |cos| |a|^2 = -<a, b> |<a, b>| / |b|^2, which has no root.
    """
    key = {"euclidean": _squared, "cosine": _angle, "sphere": _chord}[distance]
    a, b = ([[Fraction(float(x)) for x in row] for row in np.asarray(z)] for z in (a, b))
    values = np.empty((len(a), len(b)), dtype=object)
    for i, one in enumerate(a):
        for j, two in enumerate(b):
            values[i, j] = key(one, two)
    return values


def _squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _angle(a, b):
    """An embedding of length 0 has no direction: its cosine is 0."""
    dot, size = _dot(a, b), _dot(b, b)
    return -dot * abs(dot) / size if size else Fraction(0)


def _chord(a, b):
    """An embedding of length 0 stays at the centre: 1 from all others, which is a cosine of 1/2."""
    if not any(a):
        return Fraction(int(any(b)))
    return _angle(a, b) if any(b) else -_dot(a, a) / 4
