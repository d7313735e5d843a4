"""The one loop of the simulated robot: ports, control socket, whatever else must be heard.

Sleeps to absolute deadlines; a reply leaves when its last byte would have been on the wire.
"""

import gc
import select
from collections.abc import Callable, Mapping

from recd.daemon import realtime
from recd.daemon.sim.control import ControlServer
from recd.daemon.sim.robot import SimRobot
from recd.shm.clock import NS_PER_S, now_ns

DEVICE_PRIORITY = 80
"""SCHED_FIFO priority of the buses where it is allowed: no busy host keeps a real servo waiting.

Above the arms' own; the loop needs a few percent of one core.
"""


def run(
    robot: SimRobot,
    control: ControlServer,
    stopping: Callable[[], bool],
    *,
    priority: int = 0,
    listeners: Mapping[int, Callable[[], None]] | None = None,
    each_turn: Callable[[], None] | None = None,
) -> None:
    """Serve until `stopping()`.

    priority: SCHED_FIFO to ask for, 0 none; without the right to it the robot runs all the same.
    listeners: further descriptors and what to do when readable; may change while running.
    each_turn: called at least every 4 ms.
    """
    realtime.apply(realtime.RealtimeRequest(priority=priority, timer_slack_ns=1))
    # A full collection walks the whole servo log: milliseconds that a host would see as a late
    # reply. Young objects are collected every second instead.
    realtime.freeze_garbage()
    collect_due_ns = now_ns()
    others = {} if listeners is None else listeners
    while not stopping():
        ports = {arm.port.fd: arm for arm in robot.arms.values() if arm.port.plugged}
        waiting = [*ports, *control.fds, *others]
        wait_s = max(0, robot.next_ns() - now_ns()) / 1e9
        readable, _, _ = select.select(waiting, (), (), wait_s)
        for fd in readable:
            if fd in ports:
                robot.hear(ports[fd])
        robot.pump()
        for fd in readable:
            if fd in others:
                others[fd]()
            elif fd not in ports:
                control.serve(fd, robot)
        if now_ns() >= collect_due_ns:
            gc.collect(1)
            collect_due_ns = now_ns() + NS_PER_S
        if each_turn is not None:
            each_turn()
