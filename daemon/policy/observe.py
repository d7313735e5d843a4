"""What a policy sees: the newest frame of each camera and the state at its time, from the rings.

A viewer: it delays nobody and is counted nowhere. JPEGs go out as they came. A stream that is too
old, or whose picture stands still, makes the whole observation unavailable, by name.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.models import RobotConfig
from recd.config.policy_wire import Buffer, raw
from recd.config.streams import RAW_PAYLOADS, FrameFlag, arm_sample_dtype
from recd.daemon.arms.models import ARM_MODELS
from recd.daemon.worker import WorkerContext
from recd.shm import RingReader, Slot
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

STALE_PERIODS = 3
STALE_LEAST_NS = 100 * NS_PER_MS
"""A stream is stale after three of its periods; a short period alone is no reason."""

LOOK_BACK_NS = 120 * NS_PER_MS
"""How far back the state is looked for: a frame is rarely older when it comes."""

REMEMBERED = 256
"""Observations that a chunk may refer to: eight seconds at 30 a second."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of an observation. state: float64 [D] at t_ref_ns, NaN where not known."""

    t_ref_ns: int
    state: Floats


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation. number: obs_id; at_ns: when it was put together, what ages are counted
    from; arrays: state first, then cameras."""

    number: int
    t_ref_ns: int
    at_ns: int
    arrays: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class NotNow:
    """Why there is no observation: `waiting` for a newer one, or a stream in trouble."""

    reason: str
    stream: str = ""


class Observer:
    """Reads the rings of one robot. bells: descriptors that become readable when more comes."""

    def __init__(self, ctx: WorkerContext, robot: RobotConfig) -> None:
        self._robot = robot
        self._cameras = {name: ctx.ring_reader(f"cam.{name}") for name in robot.cameras}
        self._arms = {pair: ctx.ring_reader(f"arm.{pair}.follower") for pair in robot.arms}
        self._dtypes = {pair: arm_sample_dtype(len(robot.joints(pair))) for pair in robot.arms}
        self._stepwise = {
            pair: tuple(joint.gripper for joint in ARM_MODELS[arm.type])
            for pair, arm in robot.arms.items()
        }
        self._number = 0
        self._seen: OrderedDict[int, Seen] = OrderedDict()

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the streams that can be asked for beside the state."""
        return tuple(self._cameras)

    def readers(self) -> list[RingReader]:
        """The rings whose news is worth waking up for: cameras, or arms where there is none."""
        return list((self._cameras or self._arms).values())

    def seen(self, number: int) -> Seen | None:
        """An observation that was given, None when it is unknown or too long ago."""
        return self._seen.get(number)

    def describe(self) -> dict[str, Any]:
        """camera -> {format, width, height, fps}, as its frames will come."""
        return {
            name: {
                "format": reader.spec.meta["payload"],
                "width": reader.spec.meta["width"],
                "height": reader.spec.meta["height"],
                "fps": self._robot.cameras[name].fps,
            }
            for name, reader in self._cameras.items()
        }

    def look(self, cameras: Sequence[str], now: int, *, after_ns: int) -> Observation | NotNow:
        """An observation younger than `after_ns`, or why there is none now."""
        frames: list[tuple[str, Slot, bytes]] = []
        for name in cameras:
            found = self._newest_frame(name, now)
            if isinstance(found, NotNow):
                return found
            frames.append((name, *found))
        samples = {pair: self._samples(pair, now) for pair in self._arms}
        for pair, found_samples in samples.items():
            if not len(found_samples):
                return NotNow("stale: no sample of its joints for 120 ms", f"arm.{pair}")
        newest_ns = min(int(found["sample_ns"][-1]) for found in samples.values())
        t_ref_ns = frames[0][1].t_capture_ns if frames else newest_ns
        if t_ref_ns <= after_ns:
            return NotNow("waiting")
        return self._observation(frames, samples, t_ref_ns)

    def _newest_frame(self, name: str, now: int) -> tuple[Slot, bytes] | NotNow:
        reader = self._cameras[name]
        slot = None
        for _ in range(3):
            head = reader.peek_head()
            if head == 0:
                return NotNow("stale: no frame yet", name)
            reader.seek(head - 1)
            slot = reader.latest()
            if slot is None:
                continue
            data = slot.payload.tobytes()
            if slot.intact():
                break
        else:
            return NotNow("stale: its frames come faster than they can be read", name)
        age_ns = now - slot.t_capture_ns
        period_ns = NS_PER_S / self._robot.cameras[name].fps
        if age_ns > max(STALE_PERIODS * period_ns, STALE_LEAST_NS):
            return NotNow(f"stale: newest frame {age_ns / NS_PER_MS:.0f} ms old", name)
        if slot.flags & FrameFlag.FROZEN:
            return NotNow("stale: its picture stands still", name)
        return slot, data

    def _samples(self, pair: str, now: int) -> npt.NDArray[np.void]:
        """Samples of the last moments that hold a reading, oldest first."""
        reader, dtype = self._arms[pair], self._dtypes[pair]
        back = max(2, LOOK_BACK_NS * self._robot.arms[pair].rate_hz // NS_PER_S)
        reader.seek(reader.peek_head() - back)
        found: list[np.void] = []
        while (slot := reader.take()) is not None and len(found) < 2 * back:
            record = slot.payload[: dtype.itemsize].copy().view(dtype)[0]
            if slot.intact() and record["sample_ns"] >= now - LOOK_BACK_NS:
                found.append(record)
        return np.array(found, dtype)

    def _observation(
        self, frames: list[tuple[str, Slot, bytes]], samples: dict[str, npt.NDArray[np.void]],
        t_ref_ns: int,
    ) -> Observation:  # fmt: skip
        self._number += 1
        now = now_ns()  # not the time of the look: what came since then has no negative age
        state = np.concatenate(
            [state_at(found, t_ref_ns, self._stepwise[pair]) for pair, found in samples.items()]
        )
        newest = np.concatenate([found["present"][-1] for found in samples.values()])
        newest_ns = min(int(found["sample_ns"][-1]) for found in samples.values())
        self._seen[self._number] = Seen(t_ref_ns, state)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        arrays = [
            raw("state", state.astype(np.float32), t=t_ref_ns, age_ns=now - t_ref_ns),
            raw("state_newest", newest.astype(np.float32), t=newest_ns, age_ns=now - newest_ns),
        ]
        arrays += [self._picture(name, slot, data, now) for name, slot, data in frames]
        return Observation(self._number, t_ref_ns, now, tuple(arrays))

    def _picture(self, name: str, slot: Slot, data: bytes, now: int) -> Buffer:
        meta = self._cameras[name].spec.meta
        facts = {
            "t": slot.t_capture_ns, "age_ns": now - slot.t_capture_ns, "frame": slot.source_seq,
            "flags": slot.flags, "fmt": meta["payload"], "w": meta["width"], "h": meta["height"],
        }  # fmt: skip
        if meta["payload"] not in RAW_PAYLOADS:
            return Buffer(name, "jpeg", "u1", (), data, facts)
        return Buffer(name, "raw", "u1", (len(data),), data, facts)


def state_at(samples: npt.NDArray[np.void], at_ns: int, stepwise: Sequence[bool]) -> Floats:
    """Positions at a time, float64 [J]: between the valid samples around it, NaN where a joint has
    none; past the newest one, that one. samples: arm_sample_dtype, oldest first; stepwise: joints
    whose nearest sample is taken (grippers jump).
    """
    times, present = samples["sample_ns"], samples["present"].astype(np.float64)
    state = np.full(present.shape[1], np.nan)
    for joint in range(len(state)):
        known = np.isfinite(present[:, joint])
        if not known.any():
            continue
        at, values = times[known], present[known, joint]
        if stepwise[joint]:
            state[joint] = values[np.abs(at - at_ns).argmin()]
            continue
        # No joint turns half a turn between two samples: what looks like it passed its seam.
        turned = np.interp(at_ns, at, np.unwrap(values, period=360.0))
        state[joint] = turned if abs(turned) <= 180.0 else turned - np.sign(turned) * 360.0
    return state
