"""Fault points times shapes of a dataset: each in a fresh one, a sample of them in a packed one."""

from collections.abc import Iterable
from typing import Any

import pytest


def points_in_shapes(points: Iterable[str], in_packed: Iterable[str]) -> list[Any]:
    """(point, shape); those of a packed dataset that are not `in_packed` are for `make soak`."""
    points, sample = list(points), set(in_packed)
    assert sample <= set(points)
    packed = [
        pytest.param(point, "packed", marks=() if point in sample else pytest.mark.soak)
        for point in points
    ]
    return [*((point, "fresh") for point in points), *packed]
