"""What a crash left in staging becomes an episode, or is put aside with the reason.

Idempotent: killed anywhere and run again, the result is the same. Nothing is deleted that was not
published. Finishing an interrupted commit is the opening of the dataset itself.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recd.config.errors import DatasetError, RecdError
from recd.daemon.dataset.check_rows import PNG_HEAD
from recd.daemon.dataset.commit import commit
from recd.daemon.dataset.damage import DAMAGE
from recd.daemon.dataset.draft import OWN_FOLDER
from recd.daemon.dataset.durable import make_folders, remove_tree, sync_all, write_json
from recd.daemon.dataset.edit import EDITING
from recd.daemon.dataset.edit import clean as clean_edit
from recd.daemon.dataset.handle import Handle
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.ledger import QUARANTINE
from recd.daemon.dataset.pack import PACKING, clean
from recd.daemon.dataset.parquet import EpisodeRows, Pictures
from recd.daemon.dataset.schema import DatasetSchema, Feature
from recd.daemon.dataset.sides import NEWER, ROWS_FILE, cut_rows, read_rows
from recd.daemon.dataset.stats import CameraHistogram, picture_stride
from recd.daemon.dataset.transaction import Rolled
from recd.daemon.dataset.trash import PURGING, finish_discard
from recd.daemon.dataset.videos import CodecPins, VideoFile, pins_of_feature
from recd.daemon.digest import head_last_of
from recd.daemon.faultpoints import fault_point

if TYPE_CHECKING:
    from recd.daemon.encode.parts import Part

REASON_FILE = "reason.json"
REPAIRING = "repairing"
"""Work folder of `repair`, below `.recd`."""
SAMPLED_PICTURES = 100
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class ExitCode(IntEnum):
    """Of `recctl recover`: all is there; something was lost; nothing could be recovered."""

    NOTHING_LOST = 0
    NOTHING_RECOVERABLE = 1
    LOST = 3


@dataclass(frozen=True, slots=True)
class Recovered:
    """An episode published by recovery. rows: kept; had: whole entries per stream before the cut
    to their common prefix."""

    uid: str
    episode_index: int
    rows: int
    had: Mapping[str, int]

    @property
    def lost(self) -> int:
        """Entries of the longest stream that had to go."""
        return max(self.had.values()) - self.rows


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An episode put aside, whole, below `.recd/quarantine/<uid>`."""

    uid: str
    reason: str


@dataclass(slots=True)
class RecoveryReport:
    """rolled: what opening did with an interrupted commit; waiting: uids that a full disk or a
    newer format keeps in staging; cleaned: leftovers of finished work that were removed."""

    rolled: Rolled | None = None
    recovered: list[Recovered] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    waiting: list[Quarantined] = field(default_factory=list)
    cleaned: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> ExitCode:
        failed = bool(self.quarantined or self.waiting)
        if failed and not self.recovered and not self.rolled:
            return ExitCode.NOTHING_RECOVERABLE
        if failed or any(episode.lost for episode in self.recovered):
            return ExitCode.LOST
        return ExitCode.NOTHING_LOST


def recover(
    handle: Handle, *, min_rows: int = 1, spare: frozenset[str] = frozenset()
) -> RecoveryReport:
    """Deal with everything in staging but the uids in `spare`, which somebody still records.
    Episodes shorter than `min_rows` are put aside."""
    report = RecoveryReport(rolled=handle.rolled)
    layout = handle.layout
    staging = layout.own / "staging"
    for folder in sorted(path for path in staging.iterdir() if path.is_dir()):
        uid = folder.name
        fault_point("recover.begin")
        if uid in handle.ledger.published:
            remove_tree(folder)
            report.cleaned.append(uid)
        elif uid in handle.ledger.trashed:
            _finish_trash(layout, uid, report)
        elif uid not in spare:
            _salvage_or_put_aside(handle, uid, report, min_rows=min_rows)
        fault_point("recover.end")
    _clean_trash(handle, report)
    if (layout.own / PACKING).exists():
        clean(handle)
        report.cleaned.append(PACKING)
    if (layout.own / EDITING).exists():
        clean_edit(handle)
        report.cleaned.append(EDITING)
    for name in (REPAIRING, PURGING):
        if (layout.own / name).exists():
            remove_tree(layout.own / name)
            report.cleaned.append(name)
    return report


def _finish_trash(layout: Layout, uid: str, report: RecoveryReport) -> None:
    """A discard that was journaled but not moved, or copies for an undelete that did not happen."""
    if layout.trash(uid).exists():
        remove_tree(layout.staging(uid))
        report.cleaned.append(uid)
    else:
        finish_discard(layout, uid)


def _clean_trash(handle: Handle, report: RecoveryReport) -> None:
    """Remove trash that an undelete has published again."""
    folder = handle.layout.own / "trash"
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name in handle.ledger.published:
                remove_tree(path)
                report.cleaned.append(path.name)


def _salvage_or_put_aside(
    handle: Handle, uid: str, report: RecoveryReport, *, min_rows: int
) -> None:
    try:
        report.recovered.append(salvage_episode(handle, uid, min_rows=min_rows))
    except RecdError as broken:
        if broken.code == NEWER:
            report.waiting.append(Quarantined(uid, broken.message))
            return
        quarantine(handle, uid, broken.message)
        report.quarantined.append(Quarantined(uid, broken.message))
    except DAMAGE as broken:
        reason = f"a file of it is damaged: {type(broken).__name__}: {str(broken)[:200]}"
        quarantine(handle, uid, reason)
        report.quarantined.append(Quarantined(uid, reason))
    except OSError as broken:
        if broken.errno in FULL_DISK:
            report.waiting.append(Quarantined(uid, f"the disk is full: {broken}"))
            return
        raise


@dataclass(frozen=True, slots=True)
class _Source:
    """One camera's staged files, of which it has several if its encoder died and came back.

    whole: usable pictures; cut: writes the first n to a path; finished: `path` is all of them.
    """

    path: Path
    whole: int
    cut: Callable[[Path, int], None]
    finished: bool


def salvage_episode(handle: Handle, uid: str, *, min_rows: int = 1) -> Recovered:
    """Publish what all streams of a staged episode have in common, marked `recovered`.

    DatasetError when they have less than `min_rows` rows in common or a stream is unusable.
    """
    folder, schema = handle.layout.staging(uid), handle.schema
    logged = read_rows(folder / OWN_FOLDER / ROWS_FILE, schema)
    sources = {key: _video_source(folder, key) for key in schema.video_keys}
    pictures = {key: _image_source(folder, key) for key in schema.image_keys}
    had = {"rows": len(logged.rows)}
    had |= {key: source.whole for key, source in sources.items()}
    had |= {key: count for key, (_, count) in pictures.items()}
    count = min(had.values())
    if count < max(min_rows, 1):
        shortest = min(had, key=lambda key: had[key])
        raise DatasetError(f"{shortest} holds {count} whole rows, {max(min_rows, 1)} are needed")
    fault_point("recover.measured")
    begun = handle.ledger.begun.get(uid, {})
    videos = {
        key: _salvaged_video(folder, schema, key, source, count, begun)
        for key, source in sources.items()
    }
    fault_point("recover.cut")
    images = {key: _images(paths, count) for key, (paths, _) in pictures.items()}
    rows = cut_rows(logged.rows, count)
    rows = EpisodeRows(rows.state, rows.action, rows.task, rows.extra, images)
    facts = {
        **begun.get("manifest", {}),
        "recovered": True,
        "recovered_from": had,
        "end_reason": "interrupted",
    }
    result = commit(handle, uid, rows=rows, videos=videos, facts=facts)
    return Recovered(uid, result.episode_index, count, had)


def _video_source(folder: Path, key: str) -> _Source:
    from recd.daemon.encode.parts import staged_parts
    from recd.daemon.encode.salvage import SalvageError, join, salvage

    path = folder / f"{key}.mp4"
    if not path.exists():
        raise DatasetError(f"{path.name} is not there")
    found = {}

    def rows_in(part: Path) -> int:
        found[part] = salvage(part)
        return found[part].frames

    parts = staged_parts(path, rows_in)

    def cut(target: Path, pictures: int) -> None:
        remove_tree(target)
        wanted = [(p.path, max(0, min(p.rows, pictures - p.first))) for p in parts]
        try:
            join(wanted, target)
        except SalvageError as broken:
            raise DatasetError(f"{key}: {broken}") from broken

    return _Source(path, parts[-1].end, cut, len(parts) == 1 and found[path].whole)


def _image_source(folder: Path, key: str) -> "tuple[tuple[Part, ...], int]":
    from recd.daemon.encode.images import read_pictures
    from recd.daemon.encode.parts import staged_parts

    path = folder / f"{key}.pictures"
    if not path.exists():
        raise DatasetError(f"{path.name} is not there")
    parts = staged_parts(path, lambda part: sum(1 for _ in read_pictures(part)))
    return parts, parts[-1].end


def _salvaged_video(
    folder: Path,
    schema: DatasetSchema,
    key: str,
    source: _Source,
    count: int,
    begun: Mapping[str, Any],
) -> VideoFile:
    path = source.path
    if not source.finished or source.whole > count:
        make_folders(folder / "cut")
        path = folder / "cut" / f"{key}.mp4"
        source.cut(path, count)
    pins = schema.pins.get(key) or _told_pins(schema.features[key], key, begun) or probe_pins(path)
    return VideoFile(path, count, pins, histogram_of_video(path, count), head_last_of(path))


def _told_pins(feature: Feature, key: str, begun: Mapping[str, Any]) -> CodecPins | None:
    told = begun.get("codec", {}).get(key)
    return pins_of_feature({**feature, "info": told}) if told else None


def probe_pins(path: Path) -> CodecPins:
    """Codec facts of an mp4 itself, for when nobody noted how it was encoded."""
    import av

    from recd.daemon.encode.pass_through import options_in

    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        name = context.codec.canonical_name
        return CodecPins(
            name, context.pix_fmt or "yuv420p", context.width, context.height,
            extra_options=options_in(bytes(context.extradata or b"")) if name == "h264" else {},
        )  # fmt: skip


def _sampled(count: int) -> set[int]:
    wanted = min(count, SAMPLED_PICTURES)
    return {int(k) for k in np.round(np.linspace(0, count - 1, wanted))}


def histogram_of_video(path: Path, pictures: int) -> CameraHistogram:
    """Pixel values of evenly spread pictures, decoded, thinned as LeRobot does."""
    return span_histogram(path, 0, pictures)


def span_histogram(path: Path, first: int, pictures: int) -> CameraHistogram:
    """The same of the `pictures` pictures from number `first` of an mp4 on."""
    import av

    wanted = _sampled(pictures)
    hist = np.zeros((3, 256), np.uint64)
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0), -first):
            if number in wanted:
                _count(frame.to_ndarray(format="rgb24"), hist)
            if number >= pictures:
                break
    return CameraHistogram(len(wanted), hist)


def _images(parts: "Sequence[Part]", count: int) -> Pictures:
    from recd.daemon.encode.images import read_pictures

    def first() -> Iterator[bytes]:
        whole = chain.from_iterable(islice(read_pictures(p.path), p.rows) for p in parts)
        return islice(whole, count)

    return Pictures(first(), histogram_of_pictures(first(), count))


def histogram_of_pictures(encoded: Iterable[bytes], count: int) -> CameraHistogram:
    """Pixel values of evenly spread PNGs or JPEGs out of `count`, decoded, thinned as LeRobot."""
    import av

    wanted = _sampled(count)
    hist = np.zeros((3, 256), np.uint64)
    for number, picture in enumerate(encoded):
        if number in wanted:
            kind = "png" if picture.startswith(PNG_HEAD) else "mjpeg"
            for frame in av.CodecContext.create(kind, "r").decode(av.Packet(picture)):
                _count(frame.to_ndarray(format="rgb24"), hist)
    return CameraHistogram(len(wanted), hist)


def _count(pixels: np.ndarray[Any, Any], hist: np.ndarray[Any, Any]) -> None:
    step = picture_stride(pixels.shape[0], pixels.shape[1])
    thinned = pixels[::step, ::step]
    for channel in range(3):
        counted = np.bincount(thinned[..., channel].ravel(), minlength=256)
        hist[channel] += counted.astype(np.uint64)


def quarantine(handle: Handle, uid: str, reason: str) -> None:
    """Move a staged episode aside, whole, with the reason; durable and idempotent."""
    layout = handle.layout
    source, target = layout.staging(uid), layout.quarantine(uid)
    write_json(source / REASON_FILE, {"uid": uid, "reason": reason})
    changed = make_folders(target.parent)
    remove_tree(target)
    sync_all([source / REASON_FILE, source, *changed])
    fault_point("recover.quarantine")
    source.replace(target)
    sync_all([source.parent, target.parent])
    if uid in handle.ledger.begun:
        record = {"ty": QUARANTINE, "uid": uid}
        handle.journal.append(record)
        handle.ledger.apply(record)
