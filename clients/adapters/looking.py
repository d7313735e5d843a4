"""What an adapter asks of an observation, and what its server is shown of it. Pure.

Pictures are scaled and padded by the gateway, once for all clients; a server that wants the past is
given it from the rings, at the times that it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.clients.adapters.profile import Binding
from recd.clients.adapters.wire import Described, View
from recd.clients.observation import Observation
from recd.config.policy_wishes import STATE, Encoding, PictureWish
from recd.shm.clock import NS_PER_S

PRESENT = (0,)


@dataclass(frozen=True, slots=True)
class Looking:
    """What one server sees. size: edge of its pictures in pixels, 0 as the dataset's; images_ns,
    state_ns: places in time, in the server's order, 0 the present and below 0 the past.
    """

    binding: Binding
    size: int
    images_ns: tuple[int, ...] = PRESENT
    state_ns: tuple[int, ...] = PRESENT

    @property
    def wanted(self) -> dict[str, Any]:
        """Keywords of `PolicyClient.observe`."""
        cameras = sorted(set(self.binding.cameras.values()))
        history = {camera: _past(self.images_ns) for camera in cameras}
        history[STATE] = _past(self.state_ns)
        return {
            "cameras": cameras,
            "pictures": PictureWish(Encoding.RGB, self.size, self.size),
            "history_ns": {stream: places for stream, places in history.items() if places},
        }

    def unknown(self, seen: Observation) -> tuple[int, ...]:
        """Joints without a position, now or at one of the times that the server is shown."""
        states = np.stack([seen.state, *_at(self.state_ns, seen, STATE, seen.state)])
        return tuple(np.flatnonzero(~np.isfinite(states).all(axis=0)).tolist())

    def view(self, seen: Observation) -> View:
        """The observation under the server's keys."""
        images = {}
        for key, camera in self.binding.cameras.items():
            frames = np.stack(_at(self.images_ns, seen, camera, seen.pictures[camera]))
            turned = self.binding.profile.images[key].rotate
            images[key] = np.ascontiguousarray(frames[:, ::-1, ::-1]) if turned else frames
        states = [self.binding.view(at) for at in _at(self.state_ns, seen, STATE, seen.state)]
        state = {key: np.stack([values[key] for values in states]) for key in states[0]}
        return View(images, state, seen.task)


def looking_of(binding: Binding, described: Described, *, size: int, step_s: float) -> Looking:
    """What a server has to be shown by its own description. step_s: between two steps of it."""
    images_ns, state_ns = (
        tuple(round(at * step_s * NS_PER_S) for at in described.history.get(part, PRESENT))
        for part in ("images", "state")
    )
    return Looking(binding, size, images_ns, state_ns)


def _past(places_ns: tuple[int, ...]) -> list[int]:
    return [at for at in places_ns if at]


def _at(
    places_ns: tuple[int, ...], seen: Observation, stream: str, present: npt.NDArray[Any]
) -> list[npt.NDArray[Any]]:
    """A stream at these places, in their order: the past comes in the order it was asked for."""
    past = iter(seen.past.get(stream, ()))
    return [next(past) if at else present for at in places_ns]


def told_seconds(described: Described, step_s: float) -> Mapping[str, float]:
    """part -> how far back the server looks, in seconds."""
    return {part: -min(steps, default=0) * step_s for part, steps in described.history.items()}
