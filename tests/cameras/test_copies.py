import select
import socket
import threading
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from recd.daemon.cameras.http import HttpSource
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.sim.v4l2shim.spec import VirtualCamera, VirtualFormat, VirtualSize
from recd.shm.clock import NS_PER_S, now_ns

WIDTH, HEIGHT = 640, 480
BODY_BYTES = 400_000
SMALL_BYTES = 40_000
"""Room for headers, facts and views: less than a tenth of any frame here."""

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


@pytest.mark.parametrize("pixelformat", ["YUYV", "UYVY", "NV12", "MJPG"])
def test_a_frame_goes_from_the_drivers_buffer_into_the_slot_without_a_third_place(
    webcam, read_source, noise, pixelformat
):
    formats = (VirtualFormat(pixelformat, (VirtualSize(WIDTH, HEIGHT),)),)
    body = noise.tobytes()[:BODY_BYTES]
    cam = webcam(VirtualCamera(formats=formats), pictures=lambda *_: body)
    fields = {"source": "v4l2", "device": str(cam.path), "width": WIDTH, "height": HEIGHT}
    said = read_source(fields, frames=5, env=cam.environment)
    frames = [line for line in said if line["ty"] == "frame"]
    assert len(frames) == 5, said
    for frame in frames[1:]:
        assert frame["nbytes"] > 10 * SMALL_BYTES // 2
        assert frame["own"] < SMALL_BYTES


@pytest.fixture
def stream():
    """URL of a stream of `BODY_BYTES` a part, with lengths: the slot's memory is all it needs."""
    listener = socket.create_server(("127.0.0.1", 0))
    part = b"--b\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES + bytes(BODY_BYTES) + b"\r\n"

    def serve():
        client, _ = listener.accept()
        with client:
            client.recv(8192)
            client.sendall(HEAD)
            for _ in range(5):
                client.sendall(part)
            select.select([client], [], [], 5)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/stream"
    listener.close()
    thread.join(timeout=10)


def test_a_streams_picture_is_received_into_the_slot(stream):
    slot = np.ones(1 << 20, np.uint8)
    source = HttpSource(
        CameraRequest(name="front", source="http", device=stream, width=WIDTH, height=HEIGHT,
                      fps=Fraction(30))
    )  # fmt: skip
    source.open(lambda: True)
    tracemalloc.start()
    try:
        for _ in range(5):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            info = source.next_frame(lambda: slot, now_ns() + 5 * NS_PER_S)
            own = tracemalloc.get_traced_memory()[1] - before
            assert info is not None
            assert info.nbytes == BODY_BYTES
            assert not slot[:BODY_BYTES].any()
            assert own < SMALL_BYTES
            slot[:] = 1
    finally:
        tracemalloc.stop()
        source.close()
