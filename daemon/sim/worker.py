"""The `sim` worker: the simulated robot as the daemon starts it, for as long as the daemon lives.

Its buses run in this process, its cameras in a child. Ready once every device can be opened.
"""

from typing import TYPE_CHECKING

from recd.daemon.sim.cameras import simulated_cameras
from recd.daemon.sim.eyes import CONTROL_NAME, Eyes
from recd.daemon.worker import WorkerContext
from recd.shm.clock import now_ns

if TYPE_CHECKING:
    from recd.daemon.sim.robot import SimRobot
    from recd.daemon.sim.scene import Scene

BEAT_NS = 100_000_000


def run(ctx: WorkerContext) -> int:
    """Serve simulated devices until told to stop; 1 when the cameras' process is lost.

    Reports with `ready`: buses {bus: path of its port}, endpoints {bus: its name by serial number,
    which it keeps when it is plugged in elsewhere}, calibrations
    {bus: LeRobot file}, serials {bus: text}, cameras {name: url}, control and camera_control
    (socket paths), pose (file).
    """
    eyes = Eyes() if simulated_cameras(ctx.config, ctx.robot) else None
    # Only now: the cameras' process, for which everything else waits, loads its modules meanwhile.
    from recd.daemon.sim import loop
    from recd.daemon.sim.control import ControlServer
    from recd.daemon.sim.robot import SimRobot
    from recd.daemon.sim.scene import read_scene

    scene = read_scene(ctx.config, ctx.robot, ctx.spec.runtime_dir)
    control = ControlServer(scene.directory)
    robot = SimRobot(scene.arms, scene.directory, log_path=scene.log_path)
    life = _Life(ctx, robot, scene, eyes)
    try:
        loop.run(
            robot,
            control,
            lambda: ctx.stopping or life.failed,
            priority=loop.DEVICE_PRIORITY if _wants_realtime(ctx) else 0,
            listeners=life.listeners,
            each_turn=life.beat,
        )
    finally:
        life.close()
        control.close()
        robot.close()
    return 1 if life.failed else 0


def _wants_realtime(ctx: WorkerContext) -> bool:
    return bool(ctx.robot.get("realtime", {}).get("enabled", True))


class _Life:
    """What the worker does beside its loop: hear the supervisor, watch the cameras, beat."""

    def __init__(
        self, ctx: WorkerContext, robot: "SimRobot", scene: "Scene", eyes: Eyes | None
    ) -> None:
        self._ctx = ctx
        self._robot = robot
        self._eyes = eyes
        self._beat_due_ns = 0
        self.failed = False
        self.listeners = {ctx.link.fd: self._hear}
        if self._eyes is not None:
            self._eyes.open(
                scene.cameras, robot.pose_path, scene.watched, scene.directory / CONTROL_NAME
            )
            self.listeners[self._eyes.fd] = self._see
        else:
            self._ready({}, "")

    def beat(self) -> None:
        now = now_ns()
        if now < self._beat_due_ns:
            return
        self._beat_due_ns = now + BEAT_NS
        if self._eyes is not None and (code := self._eyes.ended()) is not None:
            self._ctx.event("simulated cameras ended", level="error", exit_code=code)
            self.failed = True
        self._publish()

    def _publish(self) -> None:
        self._ctx.status.set("requests", self._robot.requests)
        self._ctx.status.set("faults", self._robot.faults)
        self._ctx.status.beat(progress=self._robot.requests)

    def close(self) -> None:
        """End the cameras and publish the last counts."""
        if self._eyes is not None:
            self._eyes.close()
        self._publish()

    def _hear(self) -> None:
        self._ctx.messages()

    def _see(self) -> None:
        assert self._eyes is not None
        report = self._eyes.ready()
        if report is not None:
            del self.listeners[self._eyes.fd]
            urls = {name: camera["url"] for name, camera in report["cameras"].items()}
            self._ready(urls, report["control"])

    def _ready(self, cameras: dict[str, str], camera_control: str) -> None:
        robot = self._robot
        self._ctx.status.beat("running")
        self._ctx.ready(
            buses=robot.endpoints,
            endpoints={name: str(arm.port.by_id) for name, arm in robot.arms.items()},
            calibrations=robot.calibrations,
            serials={name: arm.port.serial for name, arm in robot.arms.items()},
            cameras=cameras,
            camera_control=camera_control,
            control=str(robot.directory / "control.sock"),
            pose=str(robot.pose_path),
        )
