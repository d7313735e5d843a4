"""The reference policy: the first joint swings around where it was, the others stand. Pure.

Its chunks are a function of time, so that chunk after chunk continues one smooth movement, and a
test can say where the arm has to be. It reads requests as strictly as a real server does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.clients.adapters.profile import Actions, Column, Profile

Floats = npt.NDArray[np.float64]


class RequestError(Exception):
    """A request that the profile does not describe, in words, as a real server's traceback."""


@dataclass(frozen=True, slots=True)
class Script:
    """How the policy behaves. amplitude: in dataset units; step_s, horizon: of a chunk."""

    horizon: int = 30
    step_s: float = 1 / 30
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    amplitude: float = 5.0
    period_s: float = 4.0


@dataclass(slots=True)
class Reference:
    """One policy. centers: where each joint was when it was first seen, or is far from by now."""

    profile: Profile
    script: Script
    centers: dict[str, float] = field(default_factory=dict)

    def check(self, images: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """RequestError for keys, types or shapes that the profile does not have."""
        for key, picture in self.profile.images.items():
            found = images.get(key)
            if not isinstance(found, np.ndarray) or found.dtype != np.uint8:
                raise RequestError(
                    f"KeyError: {key}: expected a picture of uint8, found {found!r:.60}"
                )
            axis = found.shape[-3] if picture.order == "chw" else found.shape[-1]
            if axis != 3:
                raise RequestError(
                    f"ValueError: {key}: {picture.order} expected, got {found.shape}"
                )
        for key, given in self.profile.state.items():
            values = state.get(key)
            if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
                raise RequestError(f"KeyError: {key}: expected floats, found {values!r:.60}")
            if given != "joints" and values.shape[-1] != len(given):
                raise RequestError(f"ValueError: {key}: {len(given)} numbers expected, got "
                                   f"{values.shape}")  # fmt: skip
        unknown = (set(images) | set(state)) - set(self.profile.images) - set(self.profile.state)
        if unknown:
            raise RequestError(f"KeyError: {', '.join(sorted(unknown))}")

    def reply(self, state: Mapping[str, Floats], now_s: float) -> dict[str, Floats]:
        """float64 [horizon, N] per action key, in the server's own units."""
        seen = self._positions(state)
        for joint, position in seen.items():
            if abs(position - self.centers.get(joint, math.inf)) > 3 * self.script.amplitude:
                self.centers[joint] = position
        width = len(seen)
        return {key: self._array(actions, seen, width, now_s, first=number == 0)
                for number, (key, actions) in enumerate(self.profile.actions.items())}  # fmt: skip

    def _positions(self, state: Mapping[str, Floats]) -> dict[str, float]:
        """Dataset units by joint name; `joints` are numbered."""
        found = {}
        for key, given in self.profile.state.items():
            values = np.asarray(state[key], np.float64).reshape(-1)
            for column, value in zip(_columns(given, len(values)), values, strict=True):
                if column is not None:
                    found[column.joint] = float(value) * column.scale + column.offset
        return found

    def _array(
        self, actions: Actions, seen: Mapping[str, float], width: int, now_s: float, *, first: bool
    ) -> Floats:
        steps = now_s + self.script.step_s * np.arange(1, self.script.horizon + 1)
        turn = 2 * math.pi / self.script.period_s
        columns = _columns(actions.columns, width)
        out = np.zeros((self.script.horizon, len(columns)))
        swings = first
        for at, column in enumerate(columns):
            if column is None:
                continue
            center = self.centers.get(column.joint, 0.0)
            position = center + (self.script.amplitude * np.sin(turn * steps) if swings else 0.0)
            if actions.means == "position" or column.joint in actions.positions:
                out[:, at] = (position - column.offset) / column.scale
            elif actions.means == "relative":
                out[:, at] = (position - seen.get(column.joint, center)) / column.scale
            elif swings:
                out[:, at] = self.script.amplitude * turn * np.cos(turn * steps) / column.scale
            swings = False
        return out


def _columns(given: Any, width: int) -> list[Column | None]:
    if given == "joints":
        return [Column(joint=str(number)) for number in range(width)]
    return [Column(joint=c) if isinstance(c, str) else c for c in given]
