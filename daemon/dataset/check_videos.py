"""Checks the videos of a dataset: every row must find its own picture, with both decoders.

Times come from the boxes of the mp4s; decoding every picture is asked for separately.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recd.daemon.dataset.boxes import BrokenVideoError, VideoTrack, read_track
from recd.daemon.dataset.check_tables import TIME_TOLERANCE_S, Dataset
from recd.daemon.dataset.layout import VIDEO_TEMPLATE

FLOAT32_SAFE_S = 1000.0
"""Beyond 1024 s a float32 second is coarser than lerobot's tolerance."""


def check_videos(ds: Dataset, *, decode: bool, strays: bool = True) -> int:
    """Check every mp4 that `ds.episodes` use; returns the pictures decoded. strays: name others."""
    decoded = 0
    for key in ds.of_kind("video"):
        used: dict[str, list[dict[str, Any]]] = {}
        for row in ds.episodes:
            used.setdefault(_named(ds, key, row), []).append(row)
        tracks: dict[str, VideoTrack] = {}
        for name, rows in used.items():
            track = _track(ds, key, name)
            if track is None:
                continue
            tracks[name] = track
            check_spans(ds, key, name, rows, track)
            if decode:
                decoded += _check_decoding(ds, name, track)
        _check_join(ds, key, tracks)
        for path in sorted((ds.root / "videos" / key).rglob("*.mp4")) if strays else ():
            if path.relative_to(ds.root).as_posix() not in used:
                ds.found.add(
                    "video.stray", path.relative_to(ds.root).as_posix(), "no episode uses it"
                )
    return decoded


def check_one_episode(ds: Dataset, row: dict[str, Any]) -> int:
    """Check and decode the pictures of one episode, also where its mp4s hold others beside it.

    row: of the episodes table. Returns the pictures decoded.
    """
    decoded = 0
    for key in ds.of_kind("video"):
        name = _named(ds, key, row)
        track = _track(ds, key, name)
        if track is None:
            continue
        where = f"{key}, episode {row['episode_index']}"
        start, length = row[f"videos/{key}/from_timestamp"], row["length"]
        shown = np.sort(track.pts)[: track.whole] / track.timescale
        _check_pictures(ds, where, start, length, shown, track)
        decoded += _decode_span(ds, name, start, length)
    return decoded


def _decode_span(ds: Dataset, name: str, start: float, length: int) -> int:
    """Decode the `length` pictures of an mp4 that are shown from `start` (s) on."""
    import av

    count, half = 0, 0.5 / ds.fps
    try:
        with av.open(str(ds.root / name)) as container:
            stream = container.streams.video[0]
            if start > 0 and stream.time_base:
                container.seek(round((start - half) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                shown = frame.time or 0.0
                if shown > start + (length - 1) / ds.fps + half:
                    break
                count += shown > start - half
    except (av.FFmpegError, OSError, IndexError) as broken:
        ds.found.add("video.decode", name, f"after {count} pictures: {broken}")
        return count
    if count != length:
        ds.found.add("video.decode", name, f"{count} of {length} pictures decode")
    return count


def _named(ds: Dataset, key: str, row: dict[str, Any]) -> str:
    template = ds.info.get("video_path") or VIDEO_TEMPLATE
    chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
    return str(template.format(video_key=key, chunk_index=chunk or 0, file_index=file or 0))


def _track(ds: Dataset, key: str, name: str) -> VideoTrack | None:
    path = ds.root / name
    if not path.exists():
        ds.found.add("video.present", name, "is not there")
        return None
    try:
        track = read_track(path)
    except (BrokenVideoError, OSError) as broken:
        ds.found.add("video.readable", name, str(broken))
        return None
    if not track.complete:
        ds.found.add("video.readable", name, f"cut off after {track.whole} pictures")
    height, width = ds.features[key]["shape"][:2]
    if (track.height, track.width) != (height, width):
        found = f"{track.width}x{track.height}, declared {width}x{height}"
        ds.found.add("video.size", name, found)
    return track


def check_spans(
    ds: Dataset, key: str, name: str, rows: list[dict[str, Any]], track: VideoTrack
) -> None:
    """Where each episode of one mp4 lies in it, and whether its rows find their pictures."""
    found, fps = ds.found, ds.fps
    shown = np.sort(track.pts) / track.timescale
    whole = shown[: track.whole]
    expected = 0
    by_start = sorted(rows, key=lambda row: row[f"videos/{key}/from_timestamp"])
    for row in by_start:
        where = f"{key}, episode {row['episode_index']}"
        start, end = row[f"videos/{key}/from_timestamp"], row[f"videos/{key}/to_timestamp"]
        if round(end * fps) - round(start * fps) != row["length"]:
            found.add("video.span", where, f"{start}..{end} s for {row['length']} rows")
        if round(start * fps) != expected:
            found.add("video.order", where, f"begins at {start} s, expected {expected / fps:.4f}")
        expected = round(start * fps) + row["length"]
        _check_pictures(ds, where, start, row["length"], whole, track)
    if by_start != rows:
        found.add("video.order", name, "its episodes are not in their order")
    if len(shown) > expected:
        found.add("video.extra", name, f"{len(shown) - expected} pictures behind the last episode")


def _check_pictures(
    ds: Dataset, where: str, start: float, length: int, shown: NDArray[Any], track: VideoTrack
) -> None:
    """The look-up of both decoders, in float32 as lerobot does it."""
    times = start + (np.arange(length) / ds.fps).astype(np.float32).astype(np.float64)
    asked = times.astype(np.float32)
    if not len(shown):
        ds.found.add("video.pictures", where, "no picture")
        return
    have = shown.astype(np.float32)
    nearest = np.clip(np.searchsorted(shown, times), 1, max(len(shown) - 1, 1))
    before, after = have[nearest - 1], have[np.minimum(nearest, len(have) - 1)]
    by_time = np.minimum(np.abs(asked - before), np.abs(asked - after))
    numbers = np.array([round(time * track.average_rate) for time in times])
    inside = np.clip(numbers, 0, len(have) - 1)
    by_number = np.where(numbers == inside, np.abs(asked - have[inside]), np.inf)
    for what, distance in (("nearest in time", by_time), ("by number", by_number)):
        missed = distance >= TIME_TOLERANCE_S
        if missed.any():
            first = int(missed.argmax())
            text = (
                f"{int(missed.sum())} of {length} rows miss their picture ({what}), first {first}"
            )
            rule = "video.precision" if times[first] > FLOAT32_SAFE_S else "video.pictures"
            ds.found.add(rule, where, text)
            return


def _check_join(ds: Dataset, key: str, tracks: dict[str, VideoTrack]) -> None:
    """Merging joins the files of a camera in order; some pairs cannot be."""
    facts: list[tuple[str, Callable[[VideoTrack], Any]]] = [
        ("codec", lambda track: track.codec),
        ("timescale", lambda track: track.timescale),
        ("size", lambda track: (track.width, track.height)),
    ]
    first = next(iter(tracks.items()), None)
    if first is None:
        return
    least = min(tracks.items(), key=lambda item: item[1].delay)
    for name, track in tracks.items():
        for what, fact in facts:
            if fact(track) != fact(first[1]):
                text = f"{what} {fact(track)}, {first[0]} has {fact(first[1])}"
                ds.found.add("video.join", name, text)
        if track.delay - least[1].delay >= round(track.timescale / ds.fps):
            text = f"its decoding delay (B-frames) is larger than that of {least[0]}"
            ds.found.add("video.join", name, text)


def _check_decoding(ds: Dataset, name: str, track: VideoTrack) -> int:
    import av

    count = 0
    try:
        with av.open(str(ds.root / name)) as container:
            for _ in container.decode(video=0):
                count += 1
    except (av.FFmpegError, OSError, IndexError) as broken:
        ds.found.add("video.decode", name, f"after {count} pictures: {broken}")
        return count
    if count != len(track.pts):
        ds.found.add("video.decode", name, f"{count} of {len(track.pts)} pictures decode")
    return count
