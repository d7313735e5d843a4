import contextlib
import itertools
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import av
import msgpack
import numpy as np
import pytest

from recd.config.errors import DeviceError
from recd.daemon.sim.camera_control import call
from recd.daemon.sim.stamp import read_stamp
from recd.shm.clock import now_ns
from tests.rig import until


@dataclass
class Part:
    number: int
    stamp_ns: int
    jpeg: bytes
    arrived_ns: int

    def picture(self) -> np.ndarray:
        frame = av.CodecContext.create("mjpeg", "r").decode(av.Packet(self.jpeg))[0]
        return frame.to_ndarray(format="rgb24")


class Client:
    def __init__(self, port: int, *, receive_bytes: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(10)
        self.sock.connect(("127.0.0.1", port))
        self.file = self.sock.makefile("rb")
        self.head: list[str] = []

    def begin(self, path: str) -> None:
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n".encode())
        self.head = self._lines()

    def _lines(self) -> list[str]:
        lines = []
        while (line := self.file.readline().decode().strip()) or not lines:
            if not line:
                break
            lines.append(line)
        return lines

    def parts(self, count: int) -> list[Part]:
        return [self.part() for _ in range(count)]

    def part(self) -> Part:
        lines = self._lines()
        if not lines:
            raise EOFError
        assert lines[0] == "--recdframe"
        fields = dict(line.split(": ") for line in lines[1:])
        assert fields["Content-Type"] == "image/jpeg"
        jpeg = self.file.read(int(fields["Content-Length"]))
        arrived_ns = now_ns()
        assert self.file.read(2) == b"\r\n"
        return Part(int(fields["X-Frame-Number"]), int(fields["X-Timestamp-Ns"]), jpeg, arrived_ns)

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@contextlib.contextmanager
def watching(port: int, *, path: str = "/", **options):
    client = Client(port, **options)
    try:
        client.begin(path)
        yield client
    finally:
        client.close()


@pytest.fixture(autouse=True)
def _no_fault_outlives_its_test(cameras):
    yield
    call(cameras.report["control"], "clear")


def camera_of(cameras, name: str) -> dict:
    return call(cameras.report["control"], "describe")["cameras"][name]


def left_out(cameras, name: str) -> int:
    """Pictures that a busy computer has cost so far."""
    told = camera_of(cameras, name)
    return told["dropped"] + told["overrun"]


def test_parts_carry_numbers_foreign_stamps_and_true_stamps(cameras):
    before = left_out(cameras, "front")
    with watching(cameras.port("front")) as client:
        assert client.head[0] == "HTTP/1.1 200 OK"
        parts = client.parts(30)
    stamps = [read_stamp(part.picture()) for part in parts]
    assert [s.frame for s in stamps] == [p.number for p in parts]
    gaps = np.diff([p.number for p in parts])
    assert gaps.min() == 1
    assert (gaps - 1).sum() <= left_out(cameras, "front") - before
    assert all(s.t_capture_ns < p.arrived_ns for s, p in zip(stamps, parts, strict=True))
    foreign = parts[-1].stamp_ns - parts[0].stamp_ns
    true = stamps[-1].t_capture_ns - stamps[0].t_capture_ns
    assert abs(foreign - true * 1.0001) < 2_000


def test_cameras_differ_in_number_view_and_clock(cameras):
    with watching(cameras.port("front")) as a, watching(cameras.port("wrist")) as b:
        front, wrist = a.part(), b.part()
    assert read_stamp(front.picture()).camera == 0
    assert read_stamp(wrist.picture()).camera == 1
    assert abs(front.stamp_ns - wrist.stamp_ns) > 10**9


def test_nothing_is_drawn_while_nobody_watches(cameras):
    until(lambda: camera_of(cameras, "wrist")["clients"] == 0, "the last client to be gone")
    status, again = camera_of(cameras, "wrist"), camera_of(cameras, "wrist")
    assert again["clients"] == 0
    assert status["pictures"] == again["pictures"]


def test_a_client_that_does_not_read_loses_frames_and_delays_nobody(cameras):
    control = cameras.report["control"]
    with (
        watching(cameras.port("front"), receive_bytes=4096) as slow,
        watching(cameras.port("front")) as quick,
    ):
        first = slow.part()
        before = call(control, "describe")["cameras"]["front"]
        numbers = [quick.part().number]
        while (now := camera_of(cameras, "front"))["dropped"] < before["dropped"] + 20:
            numbers.append(quick.part().number)
        late = [slow.part() for _ in range(40)]
    quick_gaps = np.diff(numbers)
    assert quick_gaps.min() == 1
    assert (quick_gaps - 1).sum() <= now["overrun"] - before["overrun"]
    gaps = np.diff([first.number, *(p.number for p in late)])
    assert gaps.min() == 1
    assert gaps.max() > 1
    assert all(read_stamp(p.picture()).frame == p.number for p in late)


def test_faults_act_on_the_wire_and_end_by_themselves(cameras):
    control, busy = cameras.report["control"], left_out(cameras, "front")
    with watching(cameras.port("front")) as client:
        before = client.part()
        call(control, "fault", camera="front", kind="skip", frames=3)
        call(control, "fault", camera="front", kind="freeze", frames=9)
        parts = [client.part(), client.part()]
        while parts[-2].jpeg != parts[-1].jpeg:  # on a busy computer the fault comes late
            parts.append(client.part())
        while parts[-2].jpeg == parts[-1].jpeg:
            parts.append(client.part())
    gaps = np.diff([p.number for p in (before, *parts)])
    assert gaps.max() >= 4
    assert 3 <= (gaps - 1).sum() <= 3 + left_out(cameras, "front") - busy
    same = [a.jpeg == b.jpeg for a, b in itertools.pairwise(parts)]
    assert sum(same) <= 9 - 1


def test_a_disconnected_camera_hangs_up_and_comes_back(cameras):
    control = cameras.report["control"]
    with watching(cameras.port("front")) as client:
        client.part()
        call(control, "fault", camera="front", kind="disconnect")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.parts(100)
    with pytest.raises((EOFError, ConnectionResetError)), watching(cameras.port("front")) as again:
        again.part()
    call(control, "clear", camera="front")
    with watching(cameras.port("front")) as back:
        assert read_stamp(back.part().picture()) is not None


def test_requests_that_are_not_for_a_stream_are_refused(cameras):
    with watching(cameras.port("front"), path="/secret") as client:
        assert client.head[0] == "HTTP/1.1 404 Not Found"
    with socket.create_connection(("127.0.0.1", cameras.port("front")), timeout=10) as sock:
        sock.sendall(b"x" * 10_000)
        assert b"431" in sock.recv(100)


@pytest.mark.parametrize(
    ("cmd", "asked", "why"),
    [
        ("fault", {"camera": "side", "kind": "freeze"}, "one of front, wrist"),
        ("fault", {"camera": "front", "kind": "explode"}, "expected one of freeze"),
        ("fault", {"camera": "front", "kind": "skip", "frames": "many"}, "an integer"),
        ("fault", {"kind": "skip"}, "camera"),
        ("burn", {}, "expected one of describe"),
    ],
)
def test_impossible_commands_are_refused_in_words(cameras, cmd, asked, why):
    with pytest.raises(ValueError, match=why):
        call(cameras.report["control"], cmd, **asked)


def test_rubbish_on_the_control_socket_is_answered_and_harms_nothing(cameras):
    for rubbish in (b"\xc1", b"\x01", b"x" * 60_000, b"\x81\xa3cmd\xc0"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(10)
            sock.connect(cameras.report["control"])
            sock.send(rubbish)
            assert msgpack.unpackb(sock.recv(65536))["ok"] is False
    with pytest.raises(DeviceError, match="no simulated cameras answer"):
        call(cameras.report["control"] + ".not", "describe")
    assert set(call(cameras.report["control"], "describe")["cameras"]) == {"front", "wrist"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--camera", "front:640"], "expected NAME"),
        (["--camera", "front:100x80"], "at least 160x160"),
        (["--camera", "front@0"], "rate over 0"),
    ],
)
def test_impossible_cameras_are_refused_in_words(arguments, why):
    command_line = [sys.executable, "-m", "recd.daemon.sim.camera", *arguments]
    run = subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert why in run.stderr
    assert "Traceback" not in run.stderr


def test_a_taken_port_is_named_with_its_mend(cameras):
    port = str(cameras.port("front"))
    command_line = [sys.executable, "-m", "recd.daemon.sim.camera", "--camera", "a", "--port", port]
    run = subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert port in run.stderr
    assert "another port" in run.stderr


def test_cameras_whose_starter_has_given_up_end_without_a_word(tmp_path):
    heard, said = os.pipe()
    os.close(heard)
    command_line = [sys.executable, "-m", "recd.daemon.sim.camera", "--camera", "a"]
    command_line += ["--ready-fd", str(said), "--control", str(tmp_path / "cameras.sock")]
    run = subprocess.run(
        command_line, capture_output=True, text=True, timeout=60, check=False, pass_fds=(said,)
    )
    os.close(said)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
