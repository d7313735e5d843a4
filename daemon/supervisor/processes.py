"""The table of processes: what runs for a robot, in which order, and what its loss means.

One row per process; kinds share a row of manners. The supervisor only walks these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from recd.config.models import RobotConfig
from recd.config.streams import frame_payload
from recd.daemon.supervisor.restarts import RestartPolicy
from recd.shm.clock import NS_PER_S

DEFAULT_RESTART: Final = RestartPolicy()


class Required(StrEnum):
    """What cannot be done while the process is not ready, or is given up."""

    ALL = "all"  # everything else depends on it
    EPISODE = "episode"  # no episode starts without it
    MARK = "mark"  # needed to start; its loss marks a running episode
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Manners:
    """How all processes of a kind are treated.

    after: kinds that must be ready before it begins; its modules it loads at once. stop: order of
    ending, low first, all of one order in parallel. ready_after_ns: how long it may take to become
    ready; stale_after_ns: how old its heartbeat may get before it counts as stuck; stop_after_ns:
    time between SIGTERM and SIGKILL.
    """

    after: tuple[str, ...]
    stop: int
    ready_after_ns: int
    stale_after_ns: int
    stop_after_ns: int
    restart: RestartPolicy = DEFAULT_RESTART


MANNERS: Final[dict[str, Manners]] = {
    # The simulated devices must be there before the processes that open them, and go last: an arm
    # that parks on exit still needs its bus.
    "sim": Manners((), 1, 30 * NS_PER_S, 10 * NS_PER_S, 3 * NS_PER_S, RestartPolicy(most=3)),
    # numba compiles at the first start on a computer.
    "arm": Manners(("sim",), 0, 120 * NS_PER_S, 5 * NS_PER_S, 10 * NS_PER_S, RestartPolicy(most=3)),
    "camera": Manners(("sim",), 0, 30 * NS_PER_S, 10 * NS_PER_S, 3 * NS_PER_S),
    # A stalled encoder is left alone for longer than a slow disk needs. It knows no device either.
    "encoder": Manners((), 0, 60 * NS_PER_S, 30 * NS_PER_S, 10 * NS_PER_S),
    # The writer recovers a crashed session before it is ready, and ends only with its commits. It
    # knows no device, and its imports are the longest.
    "writer": Manners((), 0, 600 * NS_PER_S, 60 * NS_PER_S, 60 * NS_PER_S),
    "gateway": Manners(("sim",), 0, 30 * NS_PER_S, 10 * NS_PER_S, 3 * NS_PER_S),
    "adapter": Manners(("gateway",), 0, 30 * NS_PER_S, 10 * NS_PER_S, 3 * NS_PER_S),
}
"""kind -> manners. A kind without a row is treated like a camera."""


@dataclass(frozen=True, slots=True)
class Wants:
    """The streams of a process. rings_read: stream -> policy; woken: it sleeps until one of them
    has news, others look by themselves; cells likewise by name."""

    rings_write: tuple[str, ...] = ()
    rings_read: Mapping[str, str] = field(default_factory=dict)
    woken: bool = False
    cells_write: tuple[str, ...] = ()
    cells_read: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """One row. name: `camera:front`; config: its own section; module: "" for the kind's own.

    configured: the section as the file gives it, before `sim` was replaced by endpoints.
    """

    name: str
    kind: str
    manners: Manners
    required: Required
    config: Mapping[str, Any] = field(default_factory=dict)
    wants: Wants = Wants()
    realtime: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    configured: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.configured:
            object.__setattr__(self, "configured", self.config)

    @property
    def status_cell(self) -> str:
        """Name of its status cell."""
        return f"status.{self.name}"


_CAMERA_REQUIRED = {
    "abort": Required.EPISODE,
    "mark": Required.MARK,
    "optional": Required.NOTHING,
}


def process_table(robot: RobotConfig) -> tuple[Process, ...]:
    """All processes of `robot`, in the order of starting."""
    rows = [*_sim(robot), *_writer(robot), *_arms(robot), *_cameras(robot), *_encoders(robot),
            *_gateway(robot), *_adapter(robot)]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: bool(row.manners.after)))


def _sim(robot: RobotConfig) -> list[Process]:
    if not robot.uses_simulation():
        return []
    config = robot.simulation.model_dump(mode="json")
    # Above the arms: a servo answers in its own time, however busy the computer is.
    priority = min(99, robot.realtime.arm_priority + 10) if robot.realtime.enabled else 0
    realtime = {"priority": priority, "timer_slack_ns": 1}
    return [Process("sim", "sim", MANNERS["sim"], Required.ALL, config, realtime=realtime)]


def _cameras(robot: RobotConfig) -> list[Process]:
    priority = robot.realtime.camera_priority if robot.realtime.enabled else 0
    return [
        Process(
            name=f"camera:{name}",
            kind="camera",
            manners=MANNERS["camera"],
            required=_CAMERA_REQUIRED[camera.required],
            config={"name": name, **camera.model_dump(mode="json")},
            wants=Wants(rings_write=(f"cam.{name}",)),
            realtime={"priority": priority},
        )
        for name, camera in robot.cameras.items()
    ]


def _encoders(robot: RobotConfig) -> list[Process]:
    return [
        Process(
            name=f"encoder:{name}",
            kind="encoder",
            manners=MANNERS["encoder"],
            required=_CAMERA_REQUIRED[camera.required],
            config={
                "camera": name,
                **camera.model_dump(mode="json"),
                "encoder": robot.dataset.encoder.model_dump(mode="json"),
            },
            wants=Wants(
                rings_write=(f"ticks.{name}",),
                rings_read={f"cam.{name}": "MUST_KEEP"},
                woken=True,
            ),
            realtime={"nice": robot.realtime.encoder_nice},
        )
        for name, camera in robot.cameras.items()
    ]


def _arms(robot: RobotConfig) -> list[Process]:
    rows = []
    for bus in robot.buses():
        pair, _, side = bus.partition(".")
        arm = robot.arms[pair]
        rows.append(
            Process(
                name=f"arm:{bus}",
                kind="arm",
                manners=MANNERS["arm"],
                required=Required.EPISODE,
                config={"pair": pair, "side": side, "bus": bus, **arm.model_dump(mode="json")},
                wants=_arm_wants(robot, pair, side),
                realtime=_arm_realtime(robot),
            )
        )
    return rows


def _arm_wants(robot: RobotConfig, pair: str, side: str) -> Wants:
    rings: tuple[str, ...] = (f"arm.{pair}.{side}", f"telemetry.{pair}.{side}")
    meeting = (f"meeting.{pair}",) if robot.meets(pair) else ()
    if side == "leader":
        return Wants(rings_write=rings, cells_write=(f"leader.{pair}",), cells_read=meeting)
    cells = () if robot.arms[pair].leader is None else (f"leader.{pair}",)
    if robot.policy is None:
        return Wants(rings_write=rings, cells_read=cells)
    return Wants(
        rings_write=(*rings, f"verdicts.{pair}"),
        rings_read={f"plans.{pair}": "LATEST"},
        cells_write=(f"seat.{pair}", f"queue.{pair}", *meeting),
        cells_read=(*cells, f"lease.{pair}"),
    )


def _gateway(robot: RobotConfig) -> list[Process]:
    """The process that policies talk to; a viewer of cameras and arms, needed by no episode."""
    if robot.policy is None:
        return []
    read = {f"cam.{name}": "LATEST" for name in robot.cameras}
    read |= {f"arm.{pair}.follower": "LATEST" for pair in robot.arms}
    read |= {f"telemetry.{pair}.follower": "LATEST" for pair in robot.arms}
    read |= {f"verdicts.{pair}": "BEST_EFFORT" for pair in robot.arms}
    leases = tuple(f"lease.{pair}" for pair in robot.arms)
    seats = tuple(f"{kind}.{pair}" for pair in robot.arms for kind in ("seat", "queue"))
    # A chunk waits for no encoder; the loop has one Python thread of this class: what it starts
    # (shaper.py) is ordinary.
    priority = robot.realtime.gateway_priority if robot.realtime.enabled else 0
    return [
        Process(
            name="gateway",
            kind="gateway",
            manners=MANNERS["gateway"],
            required=Required.NOTHING,
            config=robot.policy.model_dump(mode="json"),
            wants=Wants(
                rings_write=(*(f"plans.{pair}" for pair in robot.arms), "chunks"),
                rings_read=read,
                woken=True,
                cells_write=leases,
                cells_read=seats,
            ),
            realtime={"priority": priority},
        )
    ]


def _adapter(robot: RobotConfig) -> list[Process]:
    """The process that asks a foreign policy server; it has no stream but its status."""
    if robot.policy is None or robot.policy.type == "zmq":
        return []
    config = robot.policy.server.model_dump(mode="json")
    return [Process("adapter", "adapter", MANNERS["adapter"], Required.NOTHING, config)]


def _arm_realtime(robot: RobotConfig) -> dict[str, Any]:
    wanted = robot.realtime
    if not wanted.enabled:
        return {}
    return {
        "priority": wanted.arm_priority,
        "cpus": list(wanted.arm_cpus),
        "lock_memory": wanted.lock_memory,
        "timer_slack_ns": 1,
    }


def spilled_cameras(robot: RobotConfig) -> tuple[str, ...]:
    """Cameras whose frames the writer keeps while their encoder stalls: none whose pictures hang
    together (H.264), and none that waits for its encoder."""
    return tuple(
        name
        for name, camera in robot.cameras.items()
        if frame_payload(camera.source, camera.fourcc) != "h264" and not camera.step
    )


def _writer(robot: RobotConfig) -> list[Process]:
    read = {f"ticks.{name}": "MUST_KEEP" for name in robot.cameras}
    read |= {f"arm.{bus}": "MUST_KEEP" for bus in robot.buses()}
    read |= {f"telemetry.{bus}": "MUST_KEEP" for bus in robot.buses()}
    read |= {f"cam.{name}": "BEST_EFFORT" for name in spilled_cameras(robot)}
    if robot.policy is not None:
        read["chunks"] = "MUST_KEEP"
    return [
        Process(
            name="writer",
            kind="writer",
            manners=MANNERS["writer"],
            required=Required.ALL,
            config=robot.dataset.model_dump(mode="json"),
            wants=Wants(rings_read=read),
            realtime={"nice": robot.realtime.encoder_nice},
        )
    ]
