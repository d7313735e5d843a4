import select
import socket
import threading
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras.http import HttpSource
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraLostError
from recd.shm.clock import NS_PER_S, now_ns

OK = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


class Server:
    """Answers each connection with the next script: a list of byte strings, sent one by one."""

    def __init__(self, *scripts):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.scripts, self.requests = list(scripts), []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        for script in self.scripts:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            # A reader that has seen enough hangs up in the middle of the script.
            with client, suppress(OSError):
                self.requests.append(client.recv(8192).decode())
                for piece in script:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
                select.select([client], [], [], 5)  # until the other side has read and closed

    def url(self, path="/stream", user=""):
        return f"http://{user}127.0.0.1:{self.port}{path}"


@pytest.fixture
def serve():
    servers = []

    def make(*scripts):
        servers.append(Server(*scripts))
        return servers[-1]

    yield make
    for server in servers:
        server.listener.close()
        server.thread.join(timeout=10)


def source_for(url, **fields):
    base = {"name": "front", "source": "http", "width": 320, "height": 240, "fps": Fraction(30)}
    return HttpSource(CameraRequest(device=url, **{**base, **fields}))


def part(body, number, **headers):
    lines = ["--b", f"Content-Length: {len(body)}", f"X-Frame-Number: {number}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body + b"\r\n"


def frames(source, count):
    memory = np.zeros(4096, np.uint8)
    taken = []
    while len(taken) < count:
        info = source.next_frame(lambda: memory, now_ns() + 5 * NS_PER_S)
        assert info is not None
        taken.append((info, memory[: info.nbytes].tobytes()))
    return taken


def test_parts_come_with_numbers_and_the_senders_stamp(serve):
    parts = [part(b"one", 7, X_Timestamp_Ns=5), part(b"two", 9, X_Timestamp_Ns=6)]
    server = serve([OK, *parts])
    source = source_for(server.url(), stamp_header="X-Timestamp-Ns")
    got = source.open(lambda: True)
    assert (got.payload, got.stamp, got.frame_ids) == ("mjpeg", "foreign", True)
    (one, body), (two, _) = frames(source, 2)
    assert body == b"one"
    assert (one.source_seq, two.source_seq) == (7, 9)
    assert one.flags & FrameFlag.STAMP_ARRIVAL
    with pytest.raises(CameraLostError):
        frames(source, 1)
    source.close()
    assert server.requests[0].startswith("GET /stream HTTP/1.0\r\n")


def test_a_sender_without_lengths_numbers_or_stamps_is_read_too(serve):
    body = b"\xff\xd8" + bytes(range(200)) + b"\xff\xd9"
    server = serve([OK, *[b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + body + b"\r\n"] * 3, b"--b"])
    source = source_for(server.url())
    got = source.open(lambda: True)
    assert (got.stamp, got.frame_ids) == ("arrival", False)
    taken = frames(source, 3)
    assert [data for _, data in taken] == [body] * 3
    assert all(i.source_seq == -1 and i.t_capture_ns == i.t_arrival_ns for i, _ in taken)
    source.close()


def test_a_picture_that_is_half_here_at_the_deadline_goes_on_later(serve):
    go = threading.Event()

    class Held:
        def __iter__(self):
            yield OK
            whole = part(b"abcdefgh", 0)
            yield whole[:-6]
            go.wait(10)
            yield whole[-6:]

    source = source_for(serve(Held()).url())
    source.open(lambda: True)
    memory = np.zeros(64, np.uint8)
    assert source.next_frame(lambda: memory, now_ns() + 20_000_000) is None
    go.set()
    info = source.next_frame(lambda: memory, now_ns() + 5 * NS_PER_S)
    assert memory[: info.nbytes].tobytes() == b"abcdefgh"
    source.close()


def test_redirects_are_followed_and_passwords_sent_but_never_shown(serve):
    login = "ann:s3%20cret@"
    target = serve([OK, part(b"x", 0)])
    moved = f"HTTP/1.0 302 Found\r\nLocation: {target.url('/real?a=1', login)}\r\n\r\n".encode()
    source = source_for(serve([moved]).url(user=login))
    got = source.open(lambda: True)
    assert got.device == target.url("/real?a=1")
    assert "GET /real?a=1 " in target.requests[0]
    assert "Authorization: Basic YW5uOnMzIGNyZXQ=" in target.requests[0]
    source.close()


@pytest.mark.parametrize(
    ("answer", "words", "kind"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404 Not Found", DeviceError),
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n", "text/html", DeviceError),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", "USER:PASSWORD", DeviceError),
        (b"HTTP/1.0 503 Busy\r\n\r\n", "503", CameraLostError),
        (b"", "closed without an answer", CameraLostError),
        (OK + b"<html>\r\n\r\n", "expected the boundary", CameraLostError),
    ],
)
def test_wrong_answers_are_told_in_words(serve, answer, words, kind):
    source = source_for(serve([answer]).url())
    with pytest.raises(kind) as refused:
        source.open(lambda: True)
    assert words in str(refused.value)
    assert isinstance(refused.value, CameraLostError) == (kind is CameraLostError)


def test_nobody_listening_and_no_address_are_told_in_words():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(CameraLostError, match="no connection"):
        source_for(f"http://127.0.0.1:{port}/").open(lambda: True)
    with pytest.raises(DeviceError, match="http://HOST"):
        source_for("rtsp://host/").open(lambda: True)


def test_opening_ends_at_once_when_the_worker_is_asked_to(serve):
    class Held:
        def __iter__(self):
            yield OK

    source = source_for(serve(Held()).url())
    with pytest.raises(CameraLostError):
        source.open(lambda: False)
    source.close()
