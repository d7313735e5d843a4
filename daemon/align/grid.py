"""The time grid of an episode: row k belongs to `t0 + k * 1e9 * den // num`, computed from k.

Rows are numbered from 0. Times are int64 ns of CLOCK_MONOTONIC.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd.shm.clock import NS_PER_S, tick_at_or_before, tick_ns


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows at `rate_num / rate_den` per second from `t0_ns` on."""

    t0_ns: int
    rate_num: int
    rate_den: int = 1

    def __post_init__(self) -> None:
        if self.rate_num < 1 or self.rate_den < 1:
            raise ValueError(f"grid rate: expected over 0, got {self.rate_num}/{self.rate_den}")

    @property
    def period_ns(self) -> int:
        """Time between rows, ns, rounded down. For tolerances; never add it up."""
        return NS_PER_S * self.rate_den // self.rate_num

    def tick_ns(self, k: int) -> int:
        """Time of row k."""
        return tick_ns(self.t0_ns, k, self.rate_num, self.rate_den)

    def at_or_before(self, t_ns: int) -> int:
        """The last row at or before `t_ns`; negative before the grid begins."""
        return tick_at_or_before(self.t0_ns, t_ns, self.rate_num, self.rate_den)

    def ticks_ns(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """Times of rows `first` to `end - 1`, int64 ns."""
        k = np.arange(first, end, dtype=np.int64)
        whole, part = np.divmod(k, self.rate_num)  # k * 1e9 * den would overflow within days
        per_round = NS_PER_S * self.rate_den
        return np.asarray(self.t0_ns + whole * per_round + part * per_round // self.rate_num)
