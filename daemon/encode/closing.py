"""The end of a take, off the encoding thread: whole file, exact length, thumbnails, facts.

Runs in a thread of its own because it waits for the disk; the next take may already be encoding.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from recd.daemon.encode.gops import dataset_picture
from recd.daemon.encode.images import ImageSink, look_at_pictures
from recd.daemon.encode.parts import Part, join_parts
from recd.daemon.encode.pass_sink import PassSink
from recd.daemon.encode.salvage import SalvageError, salvage
from recd.daemon.encode.sinks import SinkError, SinkFacts
from recd.daemon.encode.statistics import CameraStatistics
from recd.daemon.encode.take import Take
from recd.daemon.encode.thumbnails import Thumbnails, write_thumbnails

THUMBNAIL_FOLDER = "thumbs"


@dataclass(frozen=True, slots=True)
class Closed:
    """A take that ended. message: the fields of `closed`, or of `failed` when `ok` is False."""

    uid: str
    ok: bool
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Closing:
    """One take to be closed. final: where its rows belong; earlier: parts of encoders before."""

    take: Take
    camera: str
    key: str
    final: Path
    earlier: Sequence[Part]

    def start(self, done: Callable[[Closed], None]) -> threading.Thread:
        """Close in a thread; `done` is called there with the outcome."""
        thread = threading.Thread(target=lambda: done(self.run()), name=f"closing {self.camera}")
        thread.start()
        return thread

    def run(self) -> Closed:
        """Close now; waits for the disk."""
        uid = self.take.spec.uid
        try:
            return Closed(uid, True, self._closed())
        except (SinkError, SalvageError, OSError, av.FFmpegError) as error:
            return Closed(uid, False, failure(self.take, self.camera, self.final, error))

    def _closed(self) -> dict[str, Any]:
        take = self.take
        rows = take.limit if take.limit is not None else take.row
        chosen = None if self.earlier else take.thumbnails.choose(rows)  # while the disk works
        statistics = take.statistics
        facts = take.sink.settle()
        if self.earlier or take.row > rows:
            facts = self._rewritten(facts, rows)
        if chosen is None:
            statistics, thumbnails = self._seen_again(rows)
            chosen = thumbnails.choose(rows)
        count, histogram = statistics.result(rows)
        first_capture_ns, last_capture_ns = take.captures()
        thumbs = write_thumbnails(chosen, take.spec.staging / THUMBNAIL_FOLDER, camera=self.camera)
        return {
            "uid": take.spec.uid,
            "camera": self.camera,
            "key": self.key,
            "kind": "images" if isinstance(take.sink, ImageSink) else "video",
            "packets": facts.packets,
            "path": str(facts.path),
            "bytes": facts.nbytes,
            "digest": facts.digest,
            "info": dict(facts.info),
            "pins": pins_of(facts.info),
            "counts": take.counts().plain(),
            "counts_from_row": take.spec.first_row,
            "first_capture_ns": first_capture_ns,
            "last_capture_ns": last_capture_ns,
            "statistics": {"count": count, "hist": histogram.tobytes()},
            "thumbnails": [str(path) for path in thumbs],
            "device": dict(take.spec.source) | _as_sent(take, rows),
            "restarted_at": [part.end for part in self.earlier],
        }

    def _rewritten(self, facts: SinkFacts, rows: int) -> SinkFacts:
        """The file with exactly `rows` rows: parts joined, rows beyond a stop's end cut off."""
        parts, left = [], rows
        for part in (*self.earlier, Part(facts.path, facts.packets)):
            parts.append(Part(part.path, min(part.rows, left)))
            left -= parts[-1].rows
        if left:
            raise SinkError(f"{rows - left} rows in {len(parts)} parts, {rows} wanted")
        digest = join_parts(parts, self.final, rate=self.take.spec.rate)
        return SinkFacts(self.final, rows, self.final.stat().st_size, digest, facts.info)

    def _seen_again(self, rows: int) -> tuple[CameraStatistics, Thumbnails]:
        """Statistics and thumbnails of a joined file: this process saw its last part only."""
        statistics = CameraStatistics(size=self.take.size)
        thumbnails = Thumbnails()

        def look(frame: Any, k: int) -> None:
            frame = dataset_picture(frame)
            statistics.add(frame, k)
            thumbnails.add(frame, k)

        if isinstance(self.take.sink, ImageSink):
            found, reason = look_at_pictures(self.final, look), "torn"
        else:
            salvaged = salvage(self.final, rate=self.take.spec.rate, look=look)
            found, reason = salvaged.frames, salvaged.reason
        if found != rows:
            raise SalvageError(f"{self.final}: {found} of {rows} rows: {reason}")
        return statistics, thumbnails


def _as_sent(take: Take, rows: int) -> dict[str, int]:
    """For an H.264 camera: rows of this process that hold the camera's own coding."""
    if not isinstance(take.sink, PassSink):
        return {}
    return {"rows_as_sent": take.sink.as_sent(rows - take.spec.first_row)}


def failure(take: Take, camera: str, path: Path, error: Exception) -> dict[str, Any]:
    """Fields of `failed`: why, and what is left in staging."""
    return {
        "uid": take.spec.uid,
        "camera": camera,
        "reason": str(error) or type(error).__name__,
        "path": str(path),
        "rows": take.row,
        "counts": take.counts().plain(),
    }


def pins_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the dataset pins of a camera, from its info block; empty for pictures without video."""
    names = ("codec", "pix_fmt", "width", "height", "g", "crf", "preset", "extra_options")
    return {name: info[f"video.{name}"] for name in names if f"video.{name}" in info}
