"""Does a figure grow with time? A line by least squares, and how sure it is. Pure.

Limit: what swings with a period of several points looks like a slope while few of them were seen;
the uncertainty grows with what neighbours have in common, but knows no period.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_POINTS = 4
"""Fewer points tell no slope that could be doubted."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A line. slope: of the figure an hour; plus_minus: two standard errors of it; mean: of the
    figure; n: points; independent: what they are worth as independent ones."""

    slope: float
    plus_minus: float
    mean: float
    n: int
    independent: float

    @property
    def grows(self) -> bool:
        """The slope is positive, and by more than its uncertainty."""
        return self.slope > self.plus_minus

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "grows": self.grows}


def trend(at_s: npt.ArrayLike, values: npt.ArrayLike) -> Trend | None:
    """The line through `values` [n] taken at `at_s` [n]; None of fewer than LEAST_POINTS."""
    hours, figures = np.asarray(at_s, np.float64) / 3600.0, np.asarray(values, np.float64)
    if len(hours) < LEAST_POINTS or np.ptp(hours) == 0.0:
        return None
    about = hours - hours.mean()
    squares = float(about @ about)
    slope = float(about @ figures) / squares
    left = figures - figures.mean() - slope * about
    independent = _independent(left)
    # Two parameters are fitted; one degree of freedom is always left.
    variance = float(left @ left) / max(1.0, independent - 2.0)
    error = float(np.sqrt(variance / squares))
    return Trend(slope, 2.0 * error, float(figures.mean()), len(figures), independent)


def _independent(left: npt.NDArray[np.float64]) -> float:
    """How many independent points these residuals are worth: fewer, the more neighbours agree."""
    power = float(left @ left)
    if power == 0.0:
        return float(len(left))
    alike = min(0.99, max(0.0, float(left[1:] @ left[:-1]) / power))
    return len(left) * (1.0 - alike) / (1.0 + alike)


def means_by(groups: Sequence[int], values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mean of `values` [n] in each group, groups in ascending order."""
    numbers, figures = np.asarray(groups), np.asarray(values, np.float64)
    return np.array([figures[numbers == group].mean() for group in np.unique(numbers)])
