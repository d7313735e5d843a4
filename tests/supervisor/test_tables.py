"""The tables that the supervisor walks are complete, and say what DESIGN says."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from recd.config.load import load_robot
from recd.config.messages import COMMANDS, TOPICS
from recd.config.models import PolicyConfig, RealtimeConfig, RobotConfig
from recd.config.roles import ROLES
from recd.config.streams import HISTOGRAM_BUCKETS
from recd.daemon.supervisor import simulation
from recd.daemon.supervisor.failures import Absence, Action, Loss, action_for, consequences
from recd.daemon.supervisor.processes import MANNERS, Required, Wants, process_table
from recd.daemon.supervisor.reference import render
from recd.daemon.supervisor.resources import Resources, rate_fraction, ring_table
from recd.daemon.supervisor.status import histogram
from recd.daemon.supervisor.takes import ON_PURPOSE, fault_of
from recd.daemon.worker import KINDS
from recd.shm import read_spec
from recd.shm.dump import describe_ring


@pytest.fixture(scope="module")
def demo() -> RobotConfig:
    return load_robot("demo", check_machine=False)


@pytest.mark.parametrize(
    ("kind", "required", "loss", "recording"),
    list(itertools.product(KINDS, Required, Loss, [False, True])),
)
def test_every_loss_has_a_row(kind: str, required: Required, loss: Loss, recording: bool) -> None:
    assert action_for(Absence("p", kind, required, loss, "w"), recording=recording) in Action


@pytest.mark.parametrize(
    ("kind", "required", "loss", "idle", "recording"),
    [
        ("camera", Required.EPISODE, Loss.ABSENT, Action.DEGRADE, Action.END_EPISODE),
        ("camera", Required.MARK, Loss.ABSENT, Action.DEGRADE, Action.DEGRADE),
        ("camera", Required.MARK, Loss.GIVEN_UP, Action.FAULT, Action.DEGRADE),
        ("camera", Required.NOTHING, Loss.ABSENT, Action.NOTE, Action.NOTE),
        ("encoder", Required.EPISODE, Loss.ABSENT, Action.DEGRADE, Action.DEGRADE),
        ("writer", Required.ALL, Loss.ABSENT, Action.DEGRADE, Action.DEGRADE),
        ("writer", Required.ALL, Loss.GIVEN_UP, Action.FAULT, Action.FAULT),
        ("arm", Required.EPISODE, Loss.ABSENT, Action.DEGRADE, Action.END_EPISODE),
        ("arm", Required.EPISODE, Loss.STARTING, Action.NOTE, Action.NOTE),
    ],
)
def test_what_a_loss_does(
    kind: str, required: Required, loss: Loss, idle: Action, recording: Action
) -> None:
    absence = Absence("p", kind, required, loss, "w")
    assert action_for(absence, recording=False) is idle
    assert action_for(absence, recording=True) is recording


def test_consequences_wait_for_everything_but_what_is_optional() -> None:
    absences = [
        Absence("camera:a", "camera", Required.MARK, Loss.STARTING, "starting"),
        Absence("camera:b", "camera", Required.NOTHING, Loss.ABSENT, "unplugged"),
        Absence("arm:x", "arm", Required.EPISODE, Loss.ABSENT, "bus silent"),
    ]
    meant = consequences(absences, recording=True)
    assert meant.waiting_for == ("camera:a", "arm:x")
    assert meant.degraded == {"arm:x"}
    assert meant.end_episode == "arm:x: bus silent"
    assert meant.fault == ""


def test_the_simulator_starts_first_and_ends_last(demo: RobotConfig) -> None:
    rows = process_table(demo)
    assert rows[0].name == "sim"
    assert MANNERS["sim"].stop > max(row.manners.stop for row in rows if row.kind != "sim")


def test_every_process_of_a_robot_has_manners_and_a_worker(demo: RobotConfig) -> None:
    rows = process_table(demo.model_copy(update={"policy": PolicyConfig(type="openpi")}))
    assert {row.kind for row in rows} == set(KINDS) == set(MANNERS)
    assert len({row.name for row in rows}) == len(rows)


def test_an_adapter_runs_for_foreign_servers_alone_and_touches_no_stream(demo: RobotConfig) -> None:
    for kind, expected in (("zmq", 0), ("openpi", 1), ("gr00t", 1)):
        rows = process_table(demo.model_copy(update={"policy": PolicyConfig(type=kind)}))
        adapters = [row for row in rows if row.kind == "adapter"]
        assert len(adapters) == expected
        assert all(row.wants == Wants() and row.required is Required.NOTHING for row in adapters)


def test_a_gateway_is_below_all_that_brings_what_the_servos_say(demo: RobotConfig) -> None:
    robot = demo.model_copy(update={"policy": PolicyConfig()})
    asked = {p.kind: p.realtime.get("priority", 0) for p in process_table(robot)}
    assert 0 < asked["gateway"] < robot.realtime.serial_priority < asked["arm"]
    off = robot.model_copy(update={"realtime": RealtimeConfig(enabled=False)})
    assert {p.realtime.get("priority", 0) for p in process_table(off)} == {0}


def test_every_stream_has_exactly_one_writer_and_every_reader_finds_it(demo: RobotConfig) -> None:
    rows = process_table(demo)
    written = [stream for row in rows for stream in row.wants.rings_write]
    assert sorted(written) == sorted({plan.name for plan in ring_table(demo)})
    read = {stream for row in rows for stream in row.wants.rings_read}
    assert read <= set(written)
    cells = [cell for row in rows for cell in row.wants.cells_write]
    assert cells == ["leader.main"]


def test_grants_give_each_reader_a_line_and_a_doorbell_if_it_sleeps(demo: RobotConfig) -> None:
    rows = {row.name: row for row in process_table(demo)}
    resources = Resources(demo, rows.values())
    try:
        writer = resources.ring_grants(rows["camera:front"])["cam.front"]
        encoder = resources.ring_grants(rows["encoder:front"])["cam.front"]
        keeper = resources.ring_grants(rows["writer"])["cam.front"]
        assert (writer.reader, {encoder.reader, keeper.reader}) == (-1, {0, 1})
        assert (encoder.policy, keeper.policy) == ("MUST_KEEP", "BEST_EFFORT")
        assert (len(encoder.doorbells), keeper.doorbells) == (1, ())
        assert writer.doorbells == encoder.doorbells
        samples = resources.ring_grants(rows["arm:main.follower"])["arm.main.follower"]
        assert samples.doorbells == ()
        spec = read_spec(resources.rings["cam.front"])
        assert (spec.meta["payload"], spec.meta["fps_num"]) == ("mjpeg", 30)
        assert describe_ring(resources.rings["cam.front"])["readers"] == []
        assert set(resources.cell_grants(rows["arm:main.follower"])) == {
            "status.arm:main.follower", "leader.main",
        }  # fmt: skip
    finally:
        resources.close()


@pytest.mark.parametrize(
    ("fps", "fraction"),
    [(30.0, (30, 1)), (29.97, (2997, 100)), (30000 / 1001, (30000, 1001)), (12.5, (1250, 100))],
)
def test_rates_become_fractions(fps: float, fraction: tuple[int, int]) -> None:
    assert rate_fraction(fps) == fraction


def test_simulated_devices_are_resolved_and_others_left_alone(demo: RobotConfig) -> None:
    rows = {row.name: row for row in process_table(demo)}
    facts = {
        "cameras": {"front": "http://x/front", "wrist": {"url": "http://x/wrist"}},
        "endpoints": {"main.leader": "/pty/l", "main.follower": "/pty/f"},
        "calibrations": {"main.leader": "/cal/l.json"},
    }
    front = simulation.resolve("camera", rows["camera:front"].config, facts)
    assert (front["source"], front["device"]) == ("http", "http://x/front")
    wrist = simulation.resolve("camera", rows["camera:wrist"].config, facts)
    assert wrist["device"] == "http://x/wrist"
    arm = simulation.resolve("arm", rows["arm:main.leader"].config, facts)
    assert (arm["leader"]["port"], arm["leader"]["calibration"]) == ("/pty/l", "/cal/l.json")
    real = {"name": "front", "source": "v4l2", "device": "/dev/video0"}
    assert simulation.resolve("camera", real, facts) == real


def test_every_command_says_what_it_does_and_who_may_use_it() -> None:
    for command in COMMANDS.values():
        assert command.role in ROLES
        assert command.doc.endswith(".")


def test_percentiles_come_from_the_buckets_of_a_status_cell() -> None:
    counts = np.zeros(HISTOGRAM_BUCKETS, np.uint32)
    assert histogram(counts) == {"count": 0}
    counts[84], counts[164] = 99, 1
    told = histogram(counts)
    assert (told["count"], told["p50_ns"], told["max_ns"]) == (
        100,
        int(2 ** (85 / 8)),
        int(2 ** (165 / 8)),
    )
    assert told["p99_ns"] == told["p50_ns"]


def test_the_committed_reference_of_the_control_api_is_what_the_tables_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "control_api.md"
    assert page.read_text() == render(), "run: make docs"


def test_every_topic_is_told_in_the_reference() -> None:
    for topic in TOPICS:
        assert f"| `{topic}` |" in render()


@pytest.mark.parametrize("reason", sorted(ON_PURPOSE))
def test_an_end_that_somebody_wanted_is_no_fault(reason):
    assert fault_of(reason) == ""


@pytest.mark.parametrize("reason", ["disk nearly full", "fault: bus silent", "camera:wrist gone"])
def test_an_end_that_nobody_wanted_is_told_as_it_was_said(reason):
    assert fault_of(reason) == reason
