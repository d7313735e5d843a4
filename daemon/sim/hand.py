"""The hand on a simulated arm: what moves its joints while their servos hold no torque.

Every change of mind is blended in, so that the arm never jumps. Poses are functions of time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from recd.daemon.sim.demonstration import Demonstration, Pose, minimum_jerk

HandKind = Literal["none", "demo", "attend", "still", "script"]

HANDS: dict[HandKind, str] = {
    "none": "nobody holds the arm: it sags without torque",
    "demo": "leads it through an endless pick and place",
    "attend": "holds it where the follower is until that has torque, then demonstrates",
    "still": "holds it still",
    "script": "leads it through the poses given",
}

ATTEND_NS = 1_000_000_000
"""How long a person looks at the follower that has just got torque before beginning."""

_BLEND_LEAST_NS = 300_000_000
_BLEND_RAD_S = 0.8

PoseSource = Callable[[int], Pose]
JointSource = Callable[[int, int], float]
"""Pose of the joint of an index at a time in ns: most callers want one joint at its own time."""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """Pose to be reached `after_ns` after the script's start, by a minimum-jerk movement."""

    after_ns: int
    pose: Pose


@dataclass(frozen=True, slots=True)
class Script:
    """Keyframes in rising order of time; the first movement starts from `start`."""

    start_ns: int
    start: Pose
    keyframes: tuple[Keyframe, ...]

    def joint_at(self, joint: int, at_ns: int) -> float:
        since_ns = at_ns - self.start_ns
        before = Keyframe(0, self.start)
        for frame in self.keyframes:
            if since_ns < frame.after_ns:
                span_ns = frame.after_ns - before.after_ns
                share = minimum_jerk((since_ns - before.after_ns) / span_ns)
                a, b = before.pose[joint], frame.pose[joint]
                return a + (b - a) * share
            before = frame
        return before.pose[joint]


@dataclass(frozen=True, slots=True)
class _Grip:
    """From when a hand follows `target`, and by how much it was off then."""

    at_ns: int
    target: JointSource
    off: Pose
    blend_ns: int


class Hand:
    """One hand for one arm. `present` gives the arm's pose at a time, whoever moves it."""

    def __init__(self, present: PoseSource, *, seed: int = 1) -> None:
        self.kind: HandKind = "none"
        self._present = present
        self._seed = seed
        self._follower: JointSource | None = None
        self._follower_has_torque: Callable[[], bool] = bool
        self._grip: _Grip | None = None
        self._demonstration: tuple[Demonstration, int] | None = None
        self._demo_paused_ns = 0
        self._torque_since_ns: int | None = None

    def attend_to(self, follower: JointSource, has_torque: Callable[[], bool]) -> None:
        """Tell where the follower of this leader is and whether it holds itself."""
        self._follower = follower
        self._follower_has_torque = has_torque

    def take(self, kind: HandKind, at_ns: int, keyframes: Sequence[Keyframe] = ()) -> None:
        """Begin to do `kind` at `at_ns`. A demonstration goes on where it was left."""
        pose = self._present(at_ns)
        if self.kind == "demo" and self._demonstration is not None:
            self._demo_paused_ns = at_ns
        self.kind = kind
        match kind:
            case "none":
                self._grip = None
            case "still":
                self._follow(lambda joint, _: pose[joint], pose, at_ns)
            case "script":
                self._follow(Script(at_ns, pose, tuple(keyframes)).joint_at, pose, at_ns)
            case "demo":
                self._follow(self._demo(pose, at_ns), pose, at_ns)
            case "attend":
                self._torque_since_ns = None
                if self._follower is None:
                    raise ValueError("expected a follower in the same pair to attend to, got none")
                self._follow(self._follower, pose, at_ns)

    def regrip(self, at_ns: int) -> None:
        """Take hold again where the arm is now (its servos held it meanwhile)."""
        if self._grip is not None:
            self._follow(self._grip.target, self._present(at_ns), at_ns)

    def look(self, at_ns: int) -> None:
        """Attend to the follower; called now and then."""
        if self.kind != "attend" or self._follower is None:
            return
        demonstrating = self._torque_since_ns is not None and self._demonstration is not None
        if not self._follower_has_torque():
            if demonstrating:
                self._demonstration = None
                self._follow(self._follower, self._present(at_ns), at_ns)
            self._torque_since_ns = None
        elif self._torque_since_ns is None:
            self._torque_since_ns = at_ns
        elif not demonstrating and at_ns - self._torque_since_ns >= ATTEND_NS:
            pose = self._present(at_ns)
            self._follow(self._demo(pose, at_ns), pose, at_ns)

    @property
    def holds(self) -> bool:
        return self._grip is not None

    def joint_at(self, joint: int, at_ns: int) -> float:
        """Where the hand has one joint (pose units) at `at_ns`. Only while it holds."""
        grip = self._grip
        if grip is None:
            raise RuntimeError("no hand holds this arm")
        value = grip.target(joint, at_ns)
        since_ns = at_ns - grip.at_ns
        if since_ns < grip.blend_ns:
            value += grip.off[joint] * (1.0 - minimum_jerk(since_ns / grip.blend_ns))
        return value

    def _follow(self, target: JointSource, pose: Pose, at_ns: int) -> None:
        off = tuple(value - target(joint, at_ns) for joint, value in enumerate(pose))
        widest = max(abs(value) for value in off)
        blend_ns = max(_BLEND_LEAST_NS, round(1.875e9 * widest / _BLEND_RAD_S))
        self._grip = _Grip(at_ns, target, off, blend_ns)

    def _demo(self, pose: Pose, at_ns: int) -> JointSource:
        if self._demonstration is None:
            self._demonstration = (Demonstration(self._seed, pose), at_ns)
        elif self._demo_paused_ns:
            show, start_ns = self._demonstration
            self._demonstration = (show, start_ns + at_ns - self._demo_paused_ns)
        self._demo_paused_ns = 0
        show, start_ns = self._demonstration
        return lambda joint, t_ns: show.joint_at(joint, (t_ns - start_ns) / 1e9)
