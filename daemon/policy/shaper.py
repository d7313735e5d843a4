"""Pictures in the form that a client wished, made beside the gateway's loop, each form once.

One thread, started by the first wish: nobody who asks for frames as they came pays for OpenCV, and
no chunk waits for a picture. What was made is kept while it is likely to be asked for again.
"""

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from recd.config.errors import RecdError
from recd.config.policy_wire import Buffer
from recd.config.policy_wishes import Encoding, PictureWish

KEPT_BYTES = 32 * 1024 * 1024
"""Of decoded and of shaped pictures, each: half a second of three small ones, or the newest of
large ones."""

Key = TypeVar("Key")
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a camera as it came. camera, index, epoch: which one; rotation: degrees by which
    the dataset's pictures are turned; facts: of its buffer, fmt, w and h among them.
    """

    camera: str
    index: int
    epoch: int
    rotation: int
    data: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wished:
    """A picture that has to be made, and the name of its buffer."""

    name: str
    frame: Frame
    wish: PictureWish


@dataclass(frozen=True, slots=True)
class Made:
    """The parts of one job, all of them buffers by now; or what was wrong with the picture of
    `stream`."""

    job: Any
    buffers: tuple[Buffer, ...]
    error: RecdError | None = None
    stream: str = ""


class Bounded(Generic[Key, Kept]):
    """Newest values by key; the longest unused ones go beyond so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[Key, tuple[Kept, int]] = OrderedDict()

    def get(self, key: Key) -> Kept | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Kept, nbytes: int) -> None:
        """Keep it, unless it alone is too large."""
        if nbytes > self._most_bytes or key in self._kept:
            return
        self._kept[key] = value, nbytes
        self._bytes += nbytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1][1]


class Forms:
    """Makes pictures and keeps them. decoded, shaped: how many were made, not found."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._pictures: Bounded[tuple[str, int, int], Any] = Bounded(most_bytes)
        self._forms: Bounded[tuple[Any, ...], Buffer] = Bounded(most_bytes)
        self.decoded = self.shaped = 0

    def buffer(self, wished: Wished) -> Buffer:
        """The buffer of a picture. RecdError for a frame that is none."""
        frame, wish = wished.frame, wished.wish
        key = (frame.camera, frame.index, frame.epoch, wish)
        made = self._forms.get(key)
        if made is None:
            made = self._shape(frame, wish)
            self._forms.put(key, made, len(made.data))
        facts = {**frame.facts, **made.facts}
        return Buffer(wished.name, made.encoding, made.dtype, made.shape, made.data, facts)

    def _shape(self, frame: Frame, wish: PictureWish) -> Buffer:
        from recd.daemon.policy.pictures import fitted, jpeg_of, rgb_of

        key = (frame.camera, frame.index, frame.epoch)
        picture = self._pictures.get(key)
        if picture is None:
            picture = rgb_of(frame.data, frame.facts, rotation=frame.rotation)
            self.decoded += 1
            self._pictures.put(key, picture, picture.nbytes)
        out, place = fitted(picture, wish.width, wish.height, fit=wish.fit)
        self.shaped += 1
        height, width = out.shape[:2]
        facts = {"w": width, "h": height, "inside": list(place)}
        if wish.encoding is Encoding.JPEG:
            data = jpeg_of(out, wish.quality)
            return Buffer("", "jpeg", "u1", (), data, {**facts, "fmt": "mjpeg"})
        return Buffer("", "raw", "u1", out.shape, out.tobytes(), {**facts, "fmt": "rgb8"})


class Shaper:
    """The thread. fd: readable when something is done. Close when done."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.forms = Forms()
        self._jobs: SimpleQueue[tuple[Any, tuple[Buffer | Wished, ...]] | None] = SimpleQueue()
        self._done: deque[Made | BaseException] = deque()
        self._thread: threading.Thread | None = None

    def submit(self, job: Any, parts: tuple[Buffer | Wished, ...]) -> None:
        """Make the pictures among `parts`; `done` gives them with `job`, in the order given."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="recd-pictures", daemon=True)
            self._thread.start()
        self._jobs.put((job, parts))

    def done(self) -> list[Made]:
        """What was finished since the last call. Raises what was a fault of this program."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        found = []
        while self._done:
            made = self._done.popleft()
            if isinstance(made, BaseException):
                raise made
            found.append(made)
        return found

    def _work(self) -> None:
        try:
            import cv2

            cv2.setNumThreads(1)  # its own threads would take the cores of arms and encoders
            while (task := self._jobs.get()) is not None:
                self._done.append(self._make(*task))
                os.eventfd_write(self.fd, 1)
        except BaseException as error:
            self._done.append(error)
            os.eventfd_write(self.fd, 1)

    def _make(self, job: Any, parts: tuple[Buffer | Wished, ...]) -> Made:
        buffers = []
        for part in parts:
            if isinstance(part, Buffer):
                buffers.append(part)
                continue
            try:
                buffers.append(self.forms.buffer(part))
            except RecdError as error:
                return Made(job, (), error, part.frame.camera)
        return Made(job, tuple(buffers))

    def close(self) -> None:
        """End the thread. Idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
