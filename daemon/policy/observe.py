"""What a policy sees: the newest frame of each camera and the state at its time, from the rings.

A viewer: it delays nobody and is counted nowhere. JPEGs go out as they came. A stream that is too
old, or whose picture stands still, makes the whole observation unavailable, by name.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.models import RobotConfig
from recd.config.policy_wire import Buffer, raw
from recd.config.policy_wishes import (
    AS_IT_CAME,
    NOTHING,
    STATE,
    Back,
    Encoding,
    PictureWish,
    Source,
    Wishes,
)
from recd.config.streams import RAW_PAYLOADS, FrameFlag, arm_sample_dtype, telemetry_dtype
from recd.daemon.arms.models import ARM_MODELS
from recd.daemon.policy.past import STATE_WINDOW_NS, frames_near, samples_near
from recd.daemon.policy.shaper import Frame, Wished
from recd.daemon.worker import WorkerContext
from recd.shm import RingReader, Slot
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

STALE_PERIODS = 3
STALE_LEAST_NS = 100 * NS_PER_MS
"""A stream is stale after three of its periods; a short period alone is no reason."""

LOOK_BACK_NS = 120 * NS_PER_MS
"""How far back the state is looked for: a frame is rarely older when it comes."""

RING_SLACK = 4
"""Frames of a ring that no history counts on: the one being written, those that come meanwhile."""

TELEMETRY: Mapping[str, float] = {"load": 0.1, "temperature": 1.0, "voltage": 0.1}
"""Readings of a servo -> what 1 of the record is in percent, degrees Celsius, volts."""

REMEMBERED = 256
"""Observations that a chunk may refer to: eight seconds at 30 a second."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of an observation. state: float64 [D] at t_ref_ns, NaN where not known; inputs:
    name of each picture -> its form, as `rgb8 224x224`.
    """

    t_ref_ns: int
    state: Floats
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation. number: obs_id; at_ns: when it was put together, what ages are counted
    from; arrays: state first, then cameras; pictures that have to be made are `Wished` yet."""

    number: int
    t_ref_ns: int
    at_ns: int
    arrays: tuple[Buffer | Wished, ...]

    @property
    def buffers(self) -> tuple[Buffer, ...] | None:
        """Its arrays when none of them has to be made."""
        made = tuple(array for array in self.arrays if isinstance(array, Buffer))
        return made if len(made) == len(self.arrays) else None


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
        self._telemetry = {
            pair: ctx.ring_reader(f"telemetry.{pair}.follower") for pair in robot.arms
        }
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

    def sources(self) -> dict[str, Source]:
        """stream -> what a wish for it may ask for: cameras, and `state`."""
        found = {}
        for name, reader in self._cameras.items():
            meta, fps = reader.spec.meta, self._robot.cameras[name].fps
            width, height = int(meta["width"]), int(meta["height"])
            if meta["rotation"] in (90, 270):
                width, height = height, width
            reach_ns = int((reader.spec.slots - RING_SLACK) * NS_PER_S / fps)
            found[name] = Source(max(0, reach_ns), width, height)
        reaches = [
            reader.spec.slots * NS_PER_S // self._robot.arms[pair].rate_hz - LOOK_BACK_NS
            for pair, reader in self._arms.items()
        ]
        return {**found, STATE: Source(max(0, min(reaches)))}

    def describe(self) -> dict[str, Any]:
        """camera -> {format, width, height, fps, rotation}, as its frames will come."""
        return {
            name: {
                "format": reader.spec.meta["payload"],
                "width": reader.spec.meta["width"],
                "height": reader.spec.meta["height"],
                "fps": self._robot.cameras[name].fps,
                "rotation": reader.spec.meta["rotation"],
            }
            for name, reader in self._cameras.items()
        }

    def look(
        self, cameras: Sequence[str], now: int, *, after_ns: int, wishes: Wishes = NOTHING
    ) -> Observation | NotNow:
        """An observation younger than `after_ns`, or why there is none now."""
        frames: list[tuple[str, Slot, bytes]] = []
        for name in cameras:
            found = self._newest_frame(name, now)
            if isinstance(found, NotNow):
                return found
            if not frames and found[0].t_capture_ns <= after_ns:
                return NotNow("waiting")  # the first one's time is the observation's
            frames.append((name, *found))
        samples = {pair: self._samples(pair, now) for pair in self._arms}
        for pair, found_samples in samples.items():
            if not len(found_samples):
                return NotNow("stale: no sample of its joints for 120 ms", f"arm.{pair}")
        newest_ns = min(int(found["sample_ns"][-1]) for found in samples.values())
        t_ref_ns = frames[0][1].t_capture_ns if frames else newest_ns
        if t_ref_ns <= after_ns:
            return NotNow("waiting")
        past = self._past(wishes, t_ref_ns)
        if isinstance(past, NotNow):
            return past
        seen = self._observation(frames, samples, t_ref_ns, wishes)
        if not past and not wishes.telemetry:
            return seen
        told = self._told_telemetry(seen.at_ns) if wishes.telemetry else ()
        aged = (_aged(array, seen.at_ns) for array in past)
        return replace(seen, arrays=(*seen.arrays, *told, *aged))

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
        # One array from the start: records one by one take twice as long [180 us of 30 samples].
        found, count = np.empty((2 * back, dtype.itemsize), np.uint8), 0
        while count < len(found) and (slot := reader.take()) is not None:
            found[count] = slot.payload[: dtype.itemsize]
            count += slot.intact()
        samples = found[:count].view(dtype)[:, 0]
        return samples[samples["sample_ns"] >= now - LOOK_BACK_NS]

    def _observation(
        self, frames: list[tuple[str, Slot, bytes]], samples: dict[str, npt.NDArray[np.void]],
        t_ref_ns: int, wishes: Wishes,
    ) -> Observation:  # fmt: skip
        self._number += 1
        now = now_ns()  # not the time of the look: what came since then has no negative age
        state = np.concatenate(
            [state_at(found, t_ref_ns, self._stepwise[pair]) for pair, found in samples.items()]
        )
        newest = np.concatenate([found["present"][-1] for found in samples.values()])
        newest_ns = min(int(found["sample_ns"][-1]) for found in samples.values())
        inputs = {name: self._form(name, wishes) for name, _, _ in frames}
        self._seen[self._number] = Seen(t_ref_ns, state, inputs)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        arrays: list[Buffer | Wished] = [
            raw("state", state.astype(np.float32), t=t_ref_ns, age_ns=now - t_ref_ns),
            raw("state_newest", newest.astype(np.float32), t=newest_ns, age_ns=now - newest_ns),
        ]
        arrays += [
            _aged(self._picture(name, name, slot, data, wishes), now) for name, slot, data in frames
        ]
        return Observation(self._number, t_ref_ns, now, tuple(arrays))

    def _picture(
        self, buffer: str, camera: str, slot: Slot, data: bytes, wishes: Wishes, **more: Any
    ) -> Buffer | Wished:
        """A frame as it came, or as what has to be made of it."""
        meta, wish = self._cameras[camera].spec.meta, wishes.pictures.get(camera, AS_IT_CAME)
        facts = {
            "t": slot.t_capture_ns, "frame": slot.source_seq, "flags": slot.flags,
            "fmt": meta["payload"], "w": meta["width"], "h": meta["height"], **more,
        }  # fmt: skip
        kind, rotation = meta["payload"], int(meta["rotation"])
        if not _as_it_came(wish, kind, rotation):
            frame = Frame(camera, slot.index, slot.epoch, rotation, data, facts)
            return Wished(buffer, frame, wish)
        if kind not in RAW_PAYLOADS:
            return Buffer(buffer, "jpeg", "u1", (), data, facts)
        return Buffer(buffer, "raw", "u1", (len(data),), data, facts)

    def _form(self, camera: str, wishes: Wishes) -> str:
        """A picture's form in words."""
        meta, wish = self._cameras[camera].spec.meta, wishes.pictures.get(camera, AS_IT_CAME)
        kind = meta["payload"] if wish.encoding is Encoding.CAMERA else str(wish.encoding)
        return f"{kind} {wish.width or meta['width']}x{wish.height or meta['height']}"

    # --- what lies back --------------------------------------------------------------------

    def _past(self, wishes: Wishes, t_ref_ns: int) -> list[Buffer | Wished] | NotNow:
        """Buffers of the history, without their ages; or which stream does not reach so far."""
        found: list[Buffer | Wished] = []
        for stream, places in wishes.history.items():
            of_stream = (
                self._past_states(places, t_ref_ns)
                if stream == STATE
                else self._past_frames(stream, places, t_ref_ns, wishes)
            )
            if isinstance(of_stream, NotNow):
                return of_stream
            found += of_stream
        return found

    def _past_frames(
        self, camera: str, places: Sequence[Back], t_ref_ns: int, wishes: Wishes
    ) -> list[Buffer | Wished] | NotNow:
        reader, period_ns = self._cameras[camera], NS_PER_S / self._robot.cameras[camera].fps
        most_ns = round(max(STALE_PERIODS * period_ns, STALE_LEAST_NS))
        times = [t_ref_ns + back.ns for back in places]
        found: list[Buffer | Wished] = []
        for back, time_ns, slot in zip(places, times, frames_near(reader, times, most_ns),
                                       strict=True):  # fmt: skip
            data = b"" if slot is None else slot.payload.tobytes()
            if slot is None or not slot.intact():
                return NotNow(f"waiting: no frame of {-back.ns / NS_PER_MS:.0f} ms before", camera)
            found.append(self._picture(
                back.name(camera), camera, slot, data, wishes,
                back=back.offset, error_ns=slot.t_capture_ns - time_ns,
            ))  # fmt: skip
        return found

    def _past_states(
        self, places: Sequence[Back], t_ref_ns: int
    ) -> list[Buffer | Wished] | NotNow:  # fmt: skip
        found: list[Buffer | Wished] = []
        for back in places:
            time_ns, parts = t_ref_ns + back.ns, []
            for pair, reader in self._arms.items():
                samples = samples_near(reader, self._dtypes[pair], time_ns)
                if not len(samples):
                    return NotNow(f"waiting: no sample of {-back.ns / NS_PER_MS:.0f} ms before, "
                                  f"give or take {STATE_WINDOW_NS // NS_PER_MS}",
                                  f"arm.{pair}")  # fmt: skip
                parts.append(state_at(samples, time_ns, self._stepwise[pair]))
            state = np.concatenate(parts).astype(np.float32)
            found.append(raw(back.name(STATE), state, t=time_ns, back=back.offset))
        return found

    def _told_telemetry(self, now: int) -> list[Buffer]:
        """float32 [D] per reading of the followers' servos, NaN where there is none."""
        columns: dict[str, list[float]] = {name: [] for name in TELEMETRY}
        oldest_ns = now
        for pair, reader in self._telemetry.items():
            joints = len(self._robot.joints(pair))
            dtype = telemetry_dtype(joints)
            reader.seek(reader.peek_head() - 1)
            slot = reader.take()
            record = None if slot is None else slot.payload[: dtype.itemsize].copy().view(dtype)[0]
            if slot is None or record is None or not slot.intact():
                oldest_ns, record = 0, None
            else:
                oldest_ns = min(oldest_ns, int(record["sample_ns"]))
            for name, unit in TELEMETRY.items():
                columns[name] += [
                    float(record[name][joint]) * unit
                    if record is not None and int(record["valid"]) >> joint & 1
                    else np.nan
                    for joint in range(joints)
                ]
        return [
            raw(f"servo.{name}", np.array(values, np.float32), t=oldest_ns, age_ns=now - oldest_ns)
            for name, values in columns.items()
        ]


def _as_it_came(wish: PictureWish, kind: str, rotation: int) -> bool:
    """True when the camera's own bytes are what is wished for."""
    untouched = wish.encoding is Encoding.JPEG and not wish.width and not rotation
    return wish.encoding is Encoding.CAMERA or (untouched and kind not in RAW_PAYLOADS)


def _aged(array: Buffer | Wished, now: int) -> Buffer | Wished:
    """The same with its age beside its time."""
    if isinstance(array, Wished):
        facts = {**array.frame.facts, "age_ns": now - array.frame.facts["t"]}
        return replace(array, frame=replace(array.frame, facts=facts))
    return replace(array, facts={**array.facts, "age_ns": now - array.facts["t"]})


def state_at(samples: npt.NDArray[np.void], at_ns: int, stepwise: Sequence[bool]) -> Floats:
    """Positions at a time, float64 [J]: between the valid samples around it, NaN where a joint has
    none; past the newest one, that one. samples: arm_sample_dtype, oldest first; stepwise: joints
    whose nearest sample is taken (grippers jump).
    """
    times, present = samples["sample_ns"], samples["present"].astype(np.float64)
    grips, known = np.asarray(stepwise, np.bool_), np.isfinite(present)
    if known.all():
        return _between(times, present, at_ns, grips)
    state = np.full(present.shape[1], np.nan)
    for joint in np.flatnonzero(known.any(axis=0)):
        rows, one = known[:, joint], slice(joint, joint + 1)
        state[one] = _between(times[rows], present[rows, one], at_ns, grips[one])
    return state


def _between(
    times: npt.NDArray[np.int64], present: Floats, at_ns: int, stepwise: npt.NDArray[np.bool_]
) -> Floats:
    """The same of joints that are known in every sample."""
    after = int(np.searchsorted(times, at_ns))
    if after in (0, len(times)):
        state = present[min(after, len(times) - 1)].copy()
    else:
        left, right = present[after - 1], present[after]
        since, left_ns = at_ns - int(times[after - 1]), int(times[after]) - at_ns
        # No joint turns half a turn between two samples: what looks like it passed its seam.
        way = right - left
        way -= 360.0 * np.round(way / 360.0)
        nearest = left if since <= left_ns else right
        state = np.where(stepwise, nearest, left + way * (since / (since + left_ns)))
    turned = (np.abs(state) > 180.0) & ~stepwise
    state[turned] -= np.sign(state[turned]) * 360.0
    return np.asarray(state, np.float64)
