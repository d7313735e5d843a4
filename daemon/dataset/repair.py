"""A dataset that a killed lerobot left unloadable loads again, with all its files can prove.

Rows without footer, missing episode metadata: written anew from what is there; mp4s stay as they
are. What was there before lies whole in quarantine, with the reason and what is lost, by name.
"""

import json
import os
import secrets
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd.config.errors import DatasetError
from recd.daemon.dataset.damage import telling
from recd.daemon.dataset.durable import make_folders, remove_tree, sha256_of, sync_all, write_json
from recd.daemon.dataset.edit_rows import renumbered
from recd.daemon.dataset.exchange import keep_other_meta, swaps
from recd.daemon.dataset.found import Findings, FoundEpisode, find, looks_broken
from recd.daemon.dataset.handle import check_folder, lock, read_identity, refuse_foreign
from recd.daemon.dataset.journal import Journal, read_journal
from recd.daemon.dataset.layout import (
    FIRST,
    INFO,
    OWN,
    STATS,
    TASKS,
    FileIndex,
    Layout,
    data_name,
    episodes_name,
    video_name,
)
from recd.daemon.dataset.ledger import Ledger, Move, Transaction, replay
from recd.daemon.dataset.parquet import episode_row, episodes_schema, tasks_table, write_table
from recd.daemon.dataset.recover import (
    REASON_FILE,
    REPAIRING,
    ExitCode,
    histogram_of_pictures,
    span_histogram,
)
from recd.daemon.dataset.rules import Effect
from recd.daemon.dataset.state import read_info, stats_of_episodes
from recd.daemon.dataset.stats import camera_stats, stats_to_json, vector_stats
from recd.daemon.dataset.transaction import FOLDER, digest_of, roll, run
from recd.daemon.dataset.verify import check_format
from recd.daemon.faultpoints import fault_point

HARMFUL = (Effect.LOAD, Effect.READ, Effect.SILENT)
UNTOLD = "repair_untold.json"
"""Names a repair until its report was read: one that is killed before that is told by the next."""

FAULT_POINTS = (
    "repair.begin",
    "repair.found",
    "repair.rows_written",
    "repair.meta_written",
    "repair.verified",
    "repair.synced",
    "repair.prepared",
    "repair.linked.data",
    "repair.linked.meta",
    "repair.exchanged",
    "repair.settled.data",
    "repair.settled.meta",
    "repair.moved.dataset",
    "repair.moved.before",
    "repair.moved.reason",
    "repair.folders_synced",
    "repair.done",
    "repair.cleaned",
)
"""Every place where a test may kill a repair, in order."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """episodes, rows: of the dataset now; rebuilt: numbers of episodes whose metadata was made
    anew; torn: files that had no footer; lost: in words; kept: where the earlier files lie."""

    episodes: int
    rows: int
    rebuilt: tuple[int, ...]
    torn: tuple[str, ...]
    lost: tuple[str, ...]
    kept: str

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.LOST if self.lost else ExitCode.NOTHING_LOST


def repair(root: Path) -> RepairReport | None:
    """Repair what lerobot left broken; None, nothing touched, where nothing is.

    DatasetError, nothing touched, when nothing can be proven, or another process writes there.
    """
    with telling(root):
        return _mended(Layout(root.absolute()))


def _mended(layout: Layout) -> RepairReport | None:
    if not layout.info.exists():
        return None
    check_folder(layout)
    read_identity(layout)
    begun = _begun(layout) or _untold(layout)
    if not (begun or looks_broken(layout, read_info(layout.info))):
        return None
    _refuse_writers(layout)
    sync_all(make_folders(layout.own))  # before anything of the dataset points into it
    fd = lock(layout)
    try:
        ledger = _ledger(layout)
        begun = _begun(layout) or _untold(layout)
        journal = Journal(layout.journal)
        try:
            refuse_foreign(layout, roll(layout.root, journal=journal, ledger=ledger))
            info = read_info(layout.info)
            if looks_broken(layout, info):
                return _repair(layout, info, journal, ledger)
            return _told(layout, begun) if begun else None
        finally:
            journal.close()
    finally:
        os.close(fd)


def _ledger(layout: Layout) -> Ledger:
    content = read_journal(layout.journal) if layout.journal.exists() else None
    return replay(content.records if content else [])


def _begun(layout: Layout) -> str:
    """uid of a repair that a kill interrupted, "" for none."""
    pending = _ledger(layout).pending
    return pending.uid if pending and pending.kind == "repair" else ""


def _untold(layout: Layout) -> str:
    """uid of a repair that was killed when all was done but telling of it, "" for none."""
    note = layout.own / UNTOLD
    text = note.read_text(encoding="utf-8") if note.exists() else ""
    # Empty: the power failed before it was synced, and so before anything was repaired.
    return str(json.loads(text)["uid"]) if text.strip("\0") else ""


def was_told(root: Path) -> None:
    """The operator has read the report: the next run has nothing to tell of this repair."""
    remove_tree(Layout(root.absolute()).own / UNTOLD)


def _told(layout: Layout, uid: str) -> RepairReport | None:
    """The report of a repair that an earlier run began and this one has finished."""
    path = layout.quarantine(uid) / REASON_FILE
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    names = [each.name for each in fields(RepairReport)]
    plain: dict[str, Any] = {
        name: tuple(told[name]) if isinstance(told[name], list) else told[name] for name in names
    }
    return RepairReport(**plain)


def _refuse_writers(layout: Layout) -> None:
    """A lerobot that still records looks broken too: its files have no footer yet."""
    for kind in ("data", "meta"):
        for path in (layout.root / kind).rglob("*.parquet"):
            for pid in _pids_writing(path):
                raise DatasetError(
                    f"{path}: process {pid} has it open; nothing was touched",
                    mend="Let that process end (lerobot finishes its files then), or end it.",
                    code="dataset_busy",
                )


def _pids_writing(path: Path) -> list[int]:
    """Other processes that have a file open for writing, as far as this user may see.

    A reader (a viewer, a training run, an indexer) does no harm: a repair exchanges whole files.
    """
    named = str(path.resolve())
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == named and int(link.parts[2]) != os.getpid():
                facts = (link.parent.parent / "fdinfo" / link.name).read_text(encoding="ascii")
                flags = int(facts.split("flags:", 1)[1].split()[0], 8)  # proc_pid_fdinfo(5)
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    found.append(int(link.parts[2]))
        except OSError:  # it has gone meanwhile, or belongs to somebody else
            continue
    return found


def _repair(
    layout: Layout, info: dict[str, Any], journal: Journal, ledger: Ledger
) -> RepairReport | None:
    fault_point("repair.begin")
    work = layout.own / REPAIRING
    remove_tree(work)
    for folder in (layout.own / "quarantine").glob("*"):  # of a repair that was killed early
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    new = work / "new"
    make_folders(new)
    found = find(layout, info)
    fault_point("repair.found")
    if not found.episodes:
        remove_tree(work)
        raise DatasetError(
            f"{layout.root}: nothing can be recovered; nothing was touched:\n    "
            + "\n    ".join(found.lost or ["no rows at all"]),
            mend="The mp4s still hold the pictures; without rows they are no episodes.",
        )
    found.lost += [
        f"{path.name}: an episode that was still being recorded" for path in _unfinished(layout)
    ]
    rebuilt = tuple(n for n, episode in enumerate(found.episodes) if episode.row is None)
    _write(layout, found, new)
    _verify(layout, work)
    report = RepairReport(
        episodes=len(found.episodes),
        rows=sum(episode.length for episode in found.episodes),
        rebuilt=rebuilt,
        torn=tuple(found.torn),
        lost=tuple(found.lost),
        kept="",
    )
    return _publish(layout, found, report, journal=journal, ledger=ledger)


def _unfinished(layout: Layout) -> list[Path]:
    """Folders in which lerobot's encoders had a running episode."""
    return [path for path in sorted(layout.root.glob("tmp*")) if any(path.glob("*.mp4"))]


def _write(layout: Layout, found: Findings, new: Path) -> None:
    """The whole new `data` and `meta`, below `new`."""
    firsts = np.cumsum([0, *(episode.length for episode in found.episodes)]).tolist()
    by_file: dict[FileIndex, list[pa.Table]] = {}
    for number, episode in enumerate(found.episodes):
        table = renumbered(episode.table, number, firsts[number])
        by_file.setdefault(episode.file, []).append(table)
    for index, tables in by_file.items():
        path = new / data_name(index)
        make_folders(path.parent)
        with pq.ParquetWriter(path, found.schema, compression="snappy") as writer:
            for table in tables:
                writer.write_table(table)
    fault_point("repair.rows_written")
    keep_other_meta(layout.root, new)
    schema = found.episodes_schema or episodes_schema(found.info["features"])
    rows = [
        _row(layout, found, episode, number, firsts[number])
        for number, episode in enumerate(found.episodes)
    ]
    path = new / episodes_name(FIRST)
    make_folders(path.parent)
    write_table(path, pa.concat_tables([episode_row(row, schema) for row in rows]))
    _write_totals(found, new)
    fault_point("repair.meta_written")


def _write_totals(found: Findings, new: Path) -> None:
    remove_tree(new / TASKS)
    write_table(new / TASKS, tasks_table(found.tasks))
    if (stats := stats_of_episodes(Layout(new))) is not None:
        remove_tree(new / STATS)
        write_json(new / STATS, stats_to_json(stats))
    info = deepcopy(found.info)
    info["total_episodes"] = len(found.episodes)
    info["total_frames"] = sum(episode.length for episode in found.episodes)
    info["total_tasks"] = len(found.tasks)
    info["splits"] = {"train": f"0:{len(found.episodes)}"}
    remove_tree(new / INFO)
    write_json(new / INFO, info)


def _row(
    layout: Layout, found: Findings, episode: FoundEpisode, number: int, first: int
) -> dict[str, Any]:
    """The episode's row: what is known of it, its numbers, and what was missing worked out."""
    fps, table = int(found.info["fps"]), renumbered(episode.table, number, first)
    row = dict(episode.row or {})
    row |= {
        "episode_index": number,
        "length": episode.length,
        "tasks": list(dict.fromkeys(found.tasks[n] for n in table["task_index"].to_pylist())),
        "data/chunk_index": episode.file.chunk,
        "data/file_index": episode.file.file,
        "dataset_from_index": first,
        "dataset_to_index": first + episode.length,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for key, (index, picture) in episode.places.items():
        row[f"videos/{key}/chunk_index"] = index.chunk
        row[f"videos/{key}/file_index"] = index.file
        row[f"videos/{key}/from_timestamp"] = picture / fps
        row[f"videos/{key}/to_timestamp"] = (picture + episode.length) / fps
    numbers = ("episode_index", "index")
    for key, feature in found.info["features"].items():
        if episode.row is not None and key not in numbers:
            continue
        if feature["dtype"] in ("string", "language"):
            continue
        if feature["dtype"] == "video":
            index, picture = episode.places[key]
            path = layout.root / video_name(key, index)
            stats = camera_stats(span_histogram(path, picture, episode.length))
        elif feature["dtype"] == "image":
            cells = (cell["bytes"].as_py() for cell in table[key])
            stats = camera_stats(histogram_of_pictures(cells, episode.length))
        else:
            stats = vector_stats(np.array(table[key].to_pylist(), np.float64))
        row |= {f"stats/{key}/{name}": value.tolist() for name, value in stats.items()}
    return row


def _verify(layout: Layout, work: Path) -> None:
    """What the new files and the present mp4s are together, before anybody sees it."""
    seen = work / "seen"
    make_folders(seen)
    for name, target in (
        ("data", work / "new/data"), ("meta", work / "new/meta"),
        ("videos", layout.root / "videos"),
    ):  # fmt: skip
        os.symlink(target, seen / name)
    bad = [f for f in check_format(seen).findings if f.rule.effect in HARMFUL]
    remove_tree(seen)
    if bad:
        raise DatasetError(
            f"{layout.root}: cannot be repaired: {bad[0]}; nothing was touched",
            mend="Please report it, with what `recctl verify` says.",
        )
    fault_point("repair.verified")


def _publish(
    layout: Layout, found: Findings, report: RepairReport, *, journal: Journal, ledger: Ledger
) -> RepairReport:
    """Show the new files in one instant; the earlier ones go to quarantine. Durable on return."""
    uid, work = secrets.token_hex(16), layout.own / REPAIRING
    kept = layout.relative(layout.quarantine(uid))
    report = replace(report, kept=kept)
    reason = work / REASON_FILE
    told = {"uid": uid, "reason": "left broken by lerobot, repaired", **asdict(report)}
    write_json(reason, told)
    write_json(layout.own / UNTOLD, {"uid": uid})
    moves = swaps(layout, work / "new")
    moves.append(Move(f"{OWN}/{REPAIRING}/new", f"{kept}/before", FOLDER, label="before"))
    for path in _unfinished(layout):
        name = layout.relative(path)
        moves.append(Move(name, f"{kept}/{name}", FOLDER, label="unfinished"))
    moves.append(
        Move(layout.relative(reason), f"{kept}/{REASON_FILE}", sha256_of(reason), label="reason")
    )
    names = (INFO, STATS, TASKS, episodes_name(FIRST))
    after = {name: digest_of(work / "new" / name) for name in names}
    entry = {"published": _published(found, ledger), "trashed": []}
    transaction = Transaction("repair", uid, tuple(moves), after, entry)
    written = [path for path in sorted(work.rglob("*")) if not path.is_symlink()]
    staged = [*written, work, layout.own / UNTOLD, layout.own]
    run(layout.root, transaction, journal=journal, ledger=ledger, staged=staged)
    remove_tree(work)
    fault_point("repair.cleaned")
    return report


def _published(found: Findings, ledger: Ledger) -> list[dict[str, Any]]:
    """recd's own episodes that are still there, with their numbers afterwards."""
    numbers = {episode.number: number for number, episode in enumerate(found.episodes)}
    firsts = np.cumsum([0, *(episode.length for episode in found.episodes)]).tolist()
    return [
        asdict(replace(entry, episode_index=number, first_row=firsts[number]))
        for entry in ledger.published.values()
        if (number := numbers.get(entry.episode_index)) is not None
    ]
