"""The supervisor's own look at frame rings: age of the newest frame, and snapshots of it as files.

An observer: takes no part in the ring's accounts and delays nobody.
"""

import os
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.config.paths import make_below
from recd.config.streams import FrameFlag
from recd.shm import RingReader, Slot
from recd.shm.clock import NS_PER_MS

SNAPSHOTS_KEPT = 4
"""Files kept per camera; older ones are removed."""


_SUFFIXES = {"mjpeg": "jpg", "h264": "h264"}
"""Payload kind -> ending of a snapshot's file; others are raw pixels."""


class Looks:
    """One observer per camera ring, by camera name."""

    def __init__(self, readers: dict[str, RingReader], directory: Path) -> None:
        self._readers = readers
        self._directory = directory / "snapshots"
        self._written = 0

    def newest(self, camera: str) -> Slot | None:
        """The newest frame, or None before the first."""
        reader = self._readers[camera]
        head = reader.peek_head()
        if head == 0:
            return None
        reader.seek(head - 1)
        return reader.latest()

    def ages_ms(self, now: int) -> dict[str, float | None]:
        """camera -> milliseconds since its newest frame was captured, None before the first."""
        ages: dict[str, float | None] = {}
        for camera in self._readers:
            slot = self.newest(camera)
            ages[camera] = None if slot is None else (now - slot.t_capture_ns) / NS_PER_MS
        return ages

    def snapshot(self, camera: str, now: int) -> dict[str, Any]:
        """Write the newest frame to a file; RecdError for an unknown camera or one without frames.

        The payload is written as it came (meta says what it is): a JPEG needs nothing more; of an
        H.264 camera it is the newest group of pictures.
        """
        if camera not in self._readers:
            raise RecdError(
                f"no camera {camera!r}",
                mend=f"cameras of this robot: {', '.join(self._readers)}",
                code="argument",
            )
        undecoded = self._readers[camera].spec.meta.get("payload") == "h264"
        for _ in range(3):
            slot = self.newest(camera)
            if slot is None:
                break
            payload = self._group(camera) if undecoded else slot.payload.tobytes()
            if slot.intact():
                return self._store(camera, slot, payload, now)
        raise RecdError(
            f"camera {camera} has not delivered a picture yet",
            mend="recctl status shows its state",
            code="device",
        )

    def _group(self, camera: str) -> bytes:
        """Access units of an H.264 camera from its newest key frame on: its newest picture is the
        last of them. Empty when the ring holds no key frame."""
        reader = self._readers[camera]
        head = reader.peek_head()
        reader.seek(max(0, head - reader.spec.slots + 2))
        units: list[bytes] = []
        while reader.cursor < head and (slot := reader.take()) is not None:
            data = slot.payload.tobytes()
            if not slot.intact() or slot.flags & FrameFlag.CORRUPT:
                continue
            units = [data] if slot.flags & FrameFlag.KEY else [*units, data] if units else []
        return b"".join(units)

    def _store(self, camera: str, slot: Slot, payload: bytes, now: int) -> dict[str, Any]:
        meta = self._readers[camera].spec.meta
        suffix = _SUFFIXES.get(str(meta.get("payload")), "raw")
        make_below(self._directory)
        self._written += 1
        path = self._directory / f"{camera}-{self._written}.{suffix}"
        path.write_bytes(payload)
        for old in self._older(camera):
            old.unlink(missing_ok=True)
        return {
            "camera": camera,
            "path": os.fspath(path),
            "nbytes": len(payload),
            "age_ms": (now - slot.t_capture_ns) / NS_PER_MS,
            "source_seq": slot.source_seq,
            "flags": slot.flags,
            "payload": meta.get("payload"),
            "width": meta.get("width"),
            "height": meta.get("height"),
        }

    def _older(self, camera: str) -> list[Path]:
        files = sorted(
            self._directory.glob(f"{camera}-*"), key=lambda path: int(path.stem.rpartition("-")[2])
        )
        return files[:-SNAPSHOTS_KEPT]

    def close(self) -> None:
        """Let go of the rings."""
        for reader in self._readers.values():
            reader.close()
