import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.daemon.cameras.http import parse_stamp
from recd.daemon.cameras.http_parts import PartReader
from recd.daemon.cameras.source import CameraLostError


class Wire:
    """Bytes that arrive in the given pieces; between pieces there is nothing."""

    def __init__(self, data, cuts=()):
        edges = [0, *sorted(set(cuts) & set(range(len(data)))), len(data)]
        self.pieces = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
        self.dry = False

    def receive(self, view):
        if not self.pieces:
            return 0
        if self.dry:
            self.dry = False
            return None
        piece = self.pieces[0]
        taken = min(len(view), len(piece))
        view[:taken] = piece[:taken]
        if taken == len(piece):
            self.pieces.pop(0)
            self.dry = True
        else:
            self.pieces[0] = piece[taken:]
        return taken


def stream(bodies, *, lengths, newline=b"\r\n"):
    out = b""
    for number, body in enumerate(bodies):
        lines = [b"--frame", b"Content-Type: image/jpeg", b"X-Frame-Number: %d" % number]
        if lengths:
            lines.append(b"Content-Length: %d" % len(body))
        out += newline.join(lines) + 2 * newline + body + newline
    return out + b"--frame"


def read_all(reader, memory):
    parts = []
    while True:
        try:
            part = reader.part(lambda: memory)
        except CameraLostError as error:
            return parts, error
        if part is not None:
            parts.append((part, memory[: part.nbytes].tobytes()))


bodies_strategy = st.lists(
    st.binary(min_size=1, max_size=3000).filter(
        lambda body: b"--frame" not in body and body[-1:] not in (b"\r", b"\n", b"-")
    ),
    min_size=1,
    max_size=6,
)


@given(bodies_strategy, st.booleans(), st.lists(st.integers(0, 20_000), max_size=40))
def test_every_part_comes_out_whole_however_its_bytes_arrive(bodies, lengths, cuts):
    data = stream(bodies, lengths=lengths)
    wire = Wire(data, cuts)
    parts, _ = read_all(PartReader(b"frame", wire.receive, "x"), np.zeros(8192, np.uint8))
    assert [body for _, body in parts] == bodies
    assert [p.headers["x-frame-number"] for p, _ in parts] == [str(i) for i in range(len(bodies))]


@given(bodies_strategy, st.lists(st.integers(0, 20_000), max_size=40))
def test_a_body_larger_than_the_slot_is_cut_and_the_next_is_whole(bodies, cuts):
    big = bytes(5000)
    data = stream([*bodies, big, b"after"], lengths=True)
    wire = Wire(data, cuts)
    parts, _ = read_all(PartReader(b"frame", wire.receive, "x"), np.zeros(3000, np.uint8))
    assert parts[-2][0].cut
    assert parts[-2][0].nbytes == 3000
    assert parts[-1][1] == b"after"
    assert not any(part.cut for part, _ in parts[:-2])


def test_bare_newlines_and_dashes_in_the_declared_boundary_are_understood():
    for lengths in (True, False):
        wire = Wire(stream([b"one", b"two"], lengths=lengths, newline=b"\n"))
        parts, _ = read_all(PartReader(b"--frame", wire.receive, "x"), np.zeros(100, np.uint8))
        assert [body for _, body in parts] == [b"one", b"two"]


def test_the_closing_boundary_and_the_end_of_the_stream_are_losses_of_the_camera():
    for end in (b"--frame--\r\n\r\n", b""):
        wire = Wire(stream([b"one"], lengths=True)[: -len("--frame")] + end)
        parts, error = read_all(PartReader(b"frame", wire.receive, "x"), np.zeros(100, np.uint8))
        assert len(parts) == 1
        assert error.code == "closed"


def test_bytes_that_are_no_multipart_stream_are_named():
    wire = Wire(b"<html>sorry</html>\r\n\r\n")
    _, error = read_all(PartReader(b"frame", wire.receive, "x"), np.zeros(100, np.uint8))
    assert error.code == "no_multipart"
    assert "sorry" in error.message


def test_a_picture_without_length_that_never_ends_is_refused():
    wire = Wire(b"--frame\r\n\r\n" + bytes(10_000))
    _, error = read_all(PartReader(b"frame", wire.receive, "x"), np.zeros(3000, np.uint8))
    assert error.code == "size"


@pytest.mark.parametrize(
    ("header", "value", "stamp_ns"),
    [
        ("x-timestamp-ns", "-4611686018427387905", -4611686018427387905),
        ("x-timestamp-us", "1700000000123456", 1700000000123456000),
        ("x-timestamp-ms", "1700000000123.5", 1700000000123500000),
        ("x-timestamp", "1700000000.123456", 1700000000123456000),
        ("x-timestamp", " 12 ", 12_000_000_000),
        ("x-timestamp", "yesterday", None),
        ("x-timestamp", "", None),
    ],
)
def test_sender_stamps_are_read_exactly_in_the_unit_of_their_header(header, value, stamp_ns):
    assert parse_stamp(header, value) == stamp_ns
