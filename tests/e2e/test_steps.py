"""Video files as lossless step sources, through the whole daemon into a dataset."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from recd.config.errors import StateError
from recd.daemon.dataset.sides import read_stream
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.sim.pose import PoseHistory
from recd.daemon.sim.stamp import Stamp, draw_stamp, read_stamp
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

from .conftest import Robot, running, until

WIDTH, HEIGHT, FILM_FPS = 320, 240, 30
PERIOD_NS = NS_PER_S // FILM_FPS


def film(path: Path, frames: int, *, camera: int = 0, pause: tuple[int, int] = (-1, 0)) -> Path:
    """Every picture bears its number. pause: (frame, seconds): its clock stands before it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FILM_FPS, options={"qp": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FILM_FPS)
        stream.codec_context.max_b_frames = 0
        for k in range(frames):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            draw_stamp(planes[:HEIGHT], Stamp(camera, k, k))
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = k + (FILM_FPS * pause[1] if 0 <= pause[0] <= k else 0)
            frame.time_base = Fraction(1, FILM_FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def films(speed: float, **paths: Path) -> list[str]:
    """Overrides of the demo robot: these films instead of its cameras."""
    asked = {"source": "file", "step": "true", "width": WIDTH, "height": HEIGHT, "fps": FILM_FPS,
             "speed": speed, "ring_seconds": 0.5}  # fmt: skip
    told = [] if "wrist" in paths else ["cameras.wrist=null"]
    for camera, path in paths.items():
        values = {**asked, "device": path}
        told += [f"cameras.{camera}.{key}={value}" for key, value in values.items()]
    return told


def episodes(robot: Robot) -> list[dict[str, Any]]:
    taken = robot.client.call("episodes", limit=9)["episodes"]
    return [take for take in taken if take["state"] == "saved"]


def lead(robot: Robot) -> None:
    """Arm, and wait until the follower, whose joints are recorded, leaves where it rests."""
    pose = PoseHistory(next(robot.runtime.rglob("pose.bin")))
    of_follower = [joint.bus == "main.follower" for joint in pose.joints]
    rest = pose.angles_at(now_ns())[of_follower]

    def away() -> bool:
        return bool(np.abs(pose.angles_at(now_ns())[of_follower] - rest).max() > 40)

    def leads() -> bool:
        if robot.motion() != "TELEOP":  # a computer too busy for the arms holds them
            robot.arm()
        return away()

    until(leads, "the follower to move")
    pose.close()


def play_to_the_end(robot: Robot) -> dict[str, Any]:
    """Record without ever asking for the end: the film's end is the episode's."""
    robot.client.start()
    return until(lambda: episodes(robot), "the episode to be saved by itself")[-1]


class Recorded:
    """One camera of one saved episode: its row records, its pictures, the joints at native rate."""

    def __init__(self, robot: Robot, saved: dict[str, Any], camera: str) -> None:
        own = robot.own(saved["uid"])
        table, closed = read_stream(own / f"ticks.{camera}.arrows")
        assert closed
        self.rows = saved["rows"]
        self.ticks = {name: table[name].to_numpy()[: self.rows] for name in table.column_names}
        folder = robot.root / "videos" / f"observation.images.{camera}"
        files = sorted(folder.glob("*/*.mp4"))
        with av.open(str(files[saved["episode_index"]])) as video:
            self.packets = sum(1 for packet in video.demux(video=0) if packet.size)
        with av.open(str(files[saved["episode_index"]])) as video:
            stamps = [read_stamp(f.to_ndarray(format="rgb24")) for f in video.decode(video=0)]
        self.drawn = [None if stamp is None else stamp.frame for stamp in stamps]
        self.manifest = json.loads((own / "manifest.json").read_text())
        rows, _ = read_stream(own / "rows.arrows")
        self.source_ns = rows["tick_ns"].to_numpy()
        self.state = np.array(rows["observation.state"].to_pylist(), np.float32)
        arm, _ = read_stream(own / "arm.main.follower.arrows")
        self.arm_ns = arm["sample_ns"].to_numpy()
        self.arm = np.array(arm["present"].to_pylist(), np.float64)

    def assert_every_step_is_a_row(self, steps: range) -> None:
        assert self.rows == self.packets == len(steps) == len(self.state)
        assert self.drawn == list(steps) == self.ticks["source_seq"].tolist()
        assert not self.ticks["flags"].any()
        assert not self.ticks["error_ns"].any()
        counted = self.manifest["streams"]["cameras"]["front"]
        assert (counted["fresh"], counted["lost"], counted["late"]) == (self.rows, 0, 0)

    def assert_joints_are_those_of(self, came_ns: np.ndarray) -> None:
        """came_ns: when each step had come; those that came before the episode count from there."""
        at_ns = np.maximum(came_ns, self.manifest["t0_ns"])
        for joint in range(4):  # neither the gripper, which is never interpolated, nor the wrist
            read = (self.arm_ns > 0) & np.isfinite(self.arm[:, joint])
            times_ns = self.arm_ns[read]
            after = np.searchsorted(times_ns, at_ns).clip(1, len(times_ns) - 1)
            near = times_ns[after] - times_ns[after - 1] < 20 * NS_PER_MS  # no reading was lost
            expected = np.interp(at_ns, times_ns, self.arm[read, joint])
            assert near.sum() > 30, "what was read so seldom would prove nothing"
            assert self.state[near, joint] == pytest.approx(expected[near], abs=0.01)
        assert np.ptp(self.state[:, :4], axis=0).max() > 1.0, "an arm at rest would prove nothing"


def test_films_at_three_times_real_time_give_rows_steps_and_packets_in_equal_number(tmp_path):
    length = 150
    # The second film is shorter: the last row is the last that both have a step for.
    front = film(tmp_path / "front.mkv", length)
    wrist = film(tmp_path / "wrist.mkv", length - 12, camera=1)
    with running(tmp_path, *films(3.0, front=front, wrist=wrist)) as robot:
        lead(robot)
        saved = play_to_the_end(robot)
        for camera in ("front", "wrist"):
            seen = Recorded(robot, saved, camera)
            seen.assert_every_step_is_a_row(range(length - 12))
            source_ns = seen.ticks["capture_ns"]
            assert np.abs(np.diff(source_ns) - PERIOD_NS).max() < 2 * NS_PER_MS  # Matroska: ms
            assert (seen.ticks["tick_ns"] == source_ns).all()
        front_rows = Recorded(robot, saved, "front")
        assert (front_rows.source_ns == front_rows.ticks["capture_ns"]).all()
        arrivals = front_rows.ticks["arrival_ns"]
        both = np.maximum(arrivals, Recorded(robot, saved, "wrist").ticks["arrival_ns"])
        front_rows.assert_joints_are_those_of(both)
        later = arrivals[arrivals > front_rows.manifest["t0_ns"]]
        # The ring was full before; from then on 3 x real time is the most.
        fastest = PERIOD_NS / 3 * (len(later) - 2)
        assert len(later) > length // 3
        assert later[-1] - front_rows.manifest["t0_ns"] >= fastest
        assert saved["end_reason"] == "source ended"
        # A busy computer may hold up the arms' line; neither the films nor their end is a fault.
        blamed = {reason["stream"] for reason in saved["verdict"]["reasons"]}
        assert not blamed & {"front", "wrist", "episode"}, saved["verdict"]

        with pytest.raises(StateError, match="its film is at its end; restart recd") as refused:
            robot.client.start()
        assert refused.value.state == "IDLE"
        assert robot.end() == 0
    assert verify_dataset(robot.root).findings == ()


@pytest.mark.parametrize(
    "pause_s", [4, pytest.param(20, marks=pytest.mark.soak)]
)  # a camera that is silent for 1 s is lost; one that gives nothing for 20 s is not ready
def test_a_film_that_pauses_for_seconds_costs_no_row_and_repeats_none(tmp_path, pause_s):
    path = film(tmp_path / "film.mkv", 90, pause=(45, pause_s))
    with running(tmp_path, *films(1.0, front=path)) as robot:
        lead(robot)
        saved = play_to_the_end(robot)
        seen = Recorded(robot, saved, "front")
        seen.assert_every_step_is_a_row(range(90))
        steps = np.diff(seen.source_ns)
        assert steps[44] == pytest.approx(PERIOD_NS + pause_s * NS_PER_S, abs=2 * NS_PER_MS)
        assert np.abs(np.delete(steps, 44) - PERIOD_NS).max() < 2 * NS_PER_MS
        assert np.diff(seen.ticks["arrival_ns"])[44] > (pause_s - 1) * NS_PER_S
        seen.assert_joints_are_those_of(seen.ticks["arrival_ns"])
    assert verify_dataset(robot.root).findings == ()


def test_two_episodes_share_a_film_without_losing_or_doubling_a_step(tmp_path):
    path = film(tmp_path / "film.mkv", 240)
    with running(tmp_path, *films(4.0, front=path)) as robot:
        client = robot.client  # disarmed: an arm that is only there records where it is
        client.start()
        until(lambda: robot.rows() >= 20, "20 rows")
        first = client.stop()
        second = client.start()["uid"]
        until(lambda: episodes(robot)[1:], "the film to end the second episode")
        last = episodes(robot)[-1]
        assert last["uid"] == second
        Recorded(robot, first, "front").assert_every_step_is_a_row(range(first["rows"]))
        Recorded(robot, last, "front").assert_every_step_is_a_row(range(first["rows"], 240))
        assert client.status()["dataset"]["rows"] == 240
        assert client.status()["flags"]["degraded"] is False
    assert verify_dataset(robot.root).findings == ()
