"""A small RTSP server for one client: H.264 over TCP-interleaved RTP, as network cameras send it.

usage: python rtsp_server.py WIDTH HEIGHT FPS FRAMES   prints its URL, serves once, then closes.
The luma of frame k is 16 + 2 * k; its RTP clock starts anywhere.
"""

import base64
import random
import socket
import struct
import sys
from fractions import Fraction

import av
import numpy as np

from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

RTP_HZ = 90_000
MOST_BYTES = 1400


def nal_units(data: bytes) -> list[bytes]:
    parts = data.replace(b"\x00\x00\x00\x01", b"\x00\x00\x01").split(b"\x00\x00\x01")
    return [part for part in parts if part]


def fragments(nal: bytes) -> list[bytes]:
    """Single NAL unit packets, or FU-A fragments (RFC 6184)."""
    if len(nal) <= MOST_BYTES:
        return [nal]
    indicator, kind, body = nal[0] & 0xE0 | 28, nal[0] & 0x1F, nal[1:]
    pieces = [body[at : at + MOST_BYTES] for at in range(0, len(body), MOST_BYTES)]
    last = len(pieces) - 1
    return [
        bytes([indicator, kind | (0x80 if i == 0 else 0) | (0x40 if i == last else 0)]) + piece
        for i, piece in enumerate(pieces)
    ]


class Film:
    def __init__(self, width: int, height: int, fps: int) -> None:
        self.context = context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, fps)
        context.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "slices=1"}
        context.gop_size, self.number = 5, 0

    def next(self) -> list[bytes]:
        planes = np.full((self.context.height * 3 // 2, self.context.width), 128, np.uint8)
        planes[: self.context.height] = 16 + 2 * self.number
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, self.number = self.number, self.number + 1
        data = b"".join(bytes(packet) for packet in self.context.encode(frame))
        return nal_units(data)


def answer(client: socket.socket, first: list[bytes]) -> None:
    """The RTSP conversation up to PLAY."""
    parameters = b",".join(base64.b64encode(n) for n in first if n[0] & 0x1F in (7, 8)).decode()
    sdp = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
        "a=rtpmap:96 H264/90000\r\n"
        f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={parameters}\r\na=control:track1\r\n"
    )
    stream = client.makefile("rb")
    while True:
        request = stream.readline().decode()
        headers = {}
        while (line := stream.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        method = request.split()[0]
        extra = {
            "OPTIONS": "Public: DESCRIBE, SETUP, PLAY\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
            "PLAY": "Session: 1\r\n",
        }[method]
        body = sdp if method == "DESCRIBE" else ""
        reply = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{extra}\r\n{body}"
        client.sendall(reply.encode())
        if method == "PLAY":
            return


def main() -> None:
    width, height, fps, frames = map(int, sys.argv[1:])
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", flush=True)
        client, _ = server.accept()
    film = Film(width, height, fps)
    nals = film.next()
    with client:
        answer(client, nals)
        start_ns, epoch, sequence = now_ns(), random.randrange(2**31), 0
        for k in range(frames):
            sleep_until_ns(start_ns + k * NS_PER_S // fps)
            packets = [piece for nal in nals for piece in fragments(nal)]
            for i, piece in enumerate(packets):
                marker = 0x80 if i == len(packets) - 1 else 0
                stamp = (epoch + k * RTP_HZ // fps) & 0xFFFFFFFF
                header = struct.pack(">BBHII", 0x80, 96 | marker, sequence, stamp, 7)
                client.sendall(struct.pack(">cBH", b"$", 0, 12 + len(piece)) + header + piece)
                sequence = (sequence + 1) & 0xFFFF
            nals = film.next()


if __name__ == "__main__":
    main()
