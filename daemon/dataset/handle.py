"""An opened dataset folder: locked, its journal replayed, its state in memory.

Opening refuses, with the mend, everything that recording into it would spoil; a refusal leaves the
folder as it was.
"""

import errno
import fcntl
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import recd
from recd.config.errors import DatasetError
from recd.daemon.dataset.damage import telling
from recd.daemon.dataset.durable import make_folders, replace_json, sync_all
from recd.daemon.dataset.journal import Journal, read_journal
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.ledger import COMPACT_ABOVE_BYTES, Ledger, replay
from recd.daemon.dataset.schema import DatasetSchema, lerobot_type, without_info
from recd.daemon.dataset.state import DatasetState, files_in_use, load_state, read_info
from recd.daemon.dataset.transaction import Rolled, roll, withdraw
from recd.daemon.dataset.videos import CodecPins, pins_of_feature

FORMAT_VERSION = 1
OWN_PREFIX = "recd."
NEW_FOLDER_MEND = "Record into a new folder (dataset.root), or change the configuration to match."
MENDS = {
    errno.EACCES: "Give this user the right to write there, or choose another dataset.root.",
    errno.EPERM: "Give this user the right to write there, or choose another dataset.root.",
    errno.EROFS: "The file system is mounted read-only: choose another dataset.root.",
    errno.ENOSPC: "The disk is full: make room, or choose another dataset.root.",
}
"""Why a folder cannot be made -> what to do."""


@dataclass(slots=True)
class Handle:
    """rolled: what opening did with a pending transaction; stale: the state in memory no longer
    matches the disk (an operation failed half way), reload before the next one."""

    layout: Layout
    schema: DatasetSchema
    journal: Journal
    ledger: Ledger
    state: DatasetState
    lock_fd: int
    rolled: Rolled | None = None
    stale: bool = False

    @property
    def root(self) -> Path:
        return self.layout.root

    def close(self) -> None:
        """Release journal and lock."""
        self.journal.close()
        os.close(self.lock_fd)


def lock(layout: Layout) -> int:
    """Take the dataset's lock for this process. DatasetError names who holds it."""
    fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise DatasetError(
            f"{layout.root}: in use by another recd process (pid {owner})",
            mend="Stop that one first, or let it do what you want (`recctl`).",
            code="dataset_busy",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode("ascii"), 0)
    return fd


def check_folder(layout: Layout) -> None:
    """Refuse what is no dataset and cannot become one."""
    root = layout.root
    if root.exists() and not root.is_dir():
        raise DatasetError(f"{root}: is a file, expected a folder", mend=NEW_FOLDER_MEND)
    existing = root
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DatasetError(
            f"{existing}: not writable for user {os.getuid()}",
            mend=f"Give access (sudo chown -R $USER {existing}) or choose another dataset.root.",
        )
    if not root.exists() or layout.info.exists() or layout.own.is_dir():
        return
    if any(root.iterdir()):
        raise DatasetError(
            f"{root}: not empty and not a LeRobot dataset (no meta/info.json)",
            mend="Choose an empty or new folder as dataset.root.",
        )


def read_identity(layout: Layout) -> dict[str, Any] | None:
    """What the folder is to recd; None when recd never wrote here. Newer formats are refused."""
    if not layout.identity.exists():
        return None
    try:
        identity = json.loads(layout.identity.read_text(encoding="utf-8"))
        version = int(identity["format"])
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise DatasetError(f"{layout.identity}: not readable: {broken}") from broken
    if version > FORMAT_VERSION:
        raise DatasetError(
            f"{layout.root}: recd dataset format {version}, this recd knows up to {FORMAT_VERSION}",
            mend="Update recd; nothing was touched.",
        )
    return dict(identity)


def effective_schema(wanted: DatasetSchema, info: dict[str, Any] | None) -> DatasetSchema:
    """The schema to record with: the wanted one checked against an existing dataset.

    An existing dataset decides over its columns and codec; anything else that differs is an error
    naming what was expected and found. Before the first episode, the wanted schema stands.
    """
    if info is None:
        return wanted
    features = info["features"]
    recorded = int(info.get("total_episodes", 0)) > 0
    pins = {
        k: p for k, f in features.items() if f["dtype"] == "video" and (p := pins_of_feature(f))
    }
    own = any(name.startswith(OWN_PREFIX) for name in features)
    effective = replace(
        wanted, features=features, columns="full" if own else "plain", pins=pins or wanted.pins
    )
    problems = differences(wanted, info)
    if not problems:
        return effective
    noun = "was recorded" if recorded else "was created"
    raise DatasetError(
        f"the dataset {noun} for another set-up:\n    " + "\n    ".join(problems),
        mend=NEW_FOLDER_MEND,
        code="dataset_mismatch",
    )


def differences(wanted: DatasetSchema, info: dict[str, Any]) -> list[str]:
    """In words, what of a dataset does not fit a schema; own columns are not compared."""
    problems = []
    if info.get("fps") != wanted.fps:
        problems.append(f"fps: expected {wanted.fps}, the dataset has {info.get('fps')}")
    found_robot = info.get("robot_type")
    if lerobot_type(found_robot or "") != lerobot_type(wanted.robot_type or ""):
        problems.append(f"robot: expected {wanted.robot_type}, the dataset has {found_robot}")
    ours, theirs = without_info(wanted.features), without_info(info["features"])
    for key in dict.fromkeys([*ours, *theirs]):
        if key.startswith(OWN_PREFIX) or ours.get(key) == theirs.get(key):
            continue
        if key not in theirs or key not in ours:
            where = "the configuration" if key in ours else "the dataset"
            problems.append(f"feature {key}: only in {where}")
            continue
        for part, value in ours[key].items():
            if theirs[key][part] != value:
                problems.append(
                    f"feature {key}: {part} expected {value}, the dataset has {theirs[key][part]}"
                )
    for key, pin in wanted.pins.items():
        problems += _pin_problems(key, pin, info["features"].get(key))
    return problems


def _pin_problems(key: str, wanted: CodecPins, feature: dict[str, Any] | None) -> list[str]:
    found = pins_of_feature(feature) if feature else None
    if found is None:
        return []
    return [
        f"{key}: {name} expected {getattr(wanted, name)}, the dataset has {getattr(found, name)}"
        for name in wanted.differs_from(found)
    ]


def open_handle(
    root: Path, schema: DatasetSchema | None, *, repo_id: str = "", set_aside: bool = False
) -> Handle:
    """Open a dataset folder; with `schema` create it where there is none, without only existing.

    Finishes what a crash left pending before anything is read. set_aside: where others have written
    since that crash, take ours back instead of refusing. DatasetError as in the parts above.
    """
    with telling(root):
        return _open(root, schema, repo_id=repo_id, set_aside=set_aside)


def _open(root: Path, schema: DatasetSchema | None, *, repo_id: str, set_aside: bool) -> Handle:
    layout = Layout(root.absolute())
    check_folder(layout)
    identity = read_identity(layout)
    if schema is None and not layout.info.exists() and identity is None:
        raise DatasetError(f"{layout.root}: no dataset here", mend="Check the path.")
    info = read_info(layout.info) if layout.info.exists() else None
    if schema is not None:
        effective_schema(schema, info)
    try:
        changed = [*make_folders(layout.own / "staging"), *make_folders(layout.own / "episodes")]
        sync_all(changed)
    except OSError as error:
        raise DatasetError(
            f"{layout.root}: the folder cannot be made or written: {error.strerror} "
            f"({error.filename or layout.own})",
            mend=MENDS.get(error.errno or 0, "Choose another folder (dataset.root)."),
        ) from error
    lock_fd = lock(layout)
    try:
        return _opened(layout, schema, identity, lock_fd, repo_id=repo_id, set_aside=set_aside)
    except BaseException:
        os.close(lock_fd)
        raise


def _opened(
    layout: Layout,
    schema: DatasetSchema | None,
    identity: dict[str, Any] | None,
    lock_fd: int,
    *,
    repo_id: str,
    set_aside: bool,
) -> Handle:
    content = read_journal(layout.journal) if layout.journal.exists() else None
    ledger = replay(content.records if content else [])
    journal = Journal(layout.journal)
    try:
        rolled = roll(layout.root, journal=journal, ledger=ledger)
        if rolled is not None and rolled.outcome == "foreign" and set_aside:
            used = files_in_use(layout)
            withdraw(layout.root, journal=journal, ledger=ledger, in_use=used.__contains__)
            rolled = replace(rolled, outcome="aside")
        refuse_foreign(layout, rolled)
        if content and content.good_bytes > COMPACT_ABOVE_BYTES:
            journal.rewrite(ledger.checkpoint())
        info = read_info(layout.info) if layout.info.exists() else None
        effective = effective_schema(schema or stored_schema(identity, info), info)
        if schema is not None and (identity is None or info is None):
            write_identity(layout, effective, repo_id)
        state = load_state(layout, effective.features, ledger.after)
    except BaseException:
        journal.close()
        raise
    return Handle(layout, effective, journal, ledger, state, lock_fd, rolled)


def refuse_foreign(layout: Layout, rolled: Rolled | None) -> None:
    """An unfinished transaction whose targets somebody else changed is never rolled over."""
    if rolled is None or rolled.outcome != "foreign":
        return
    raise DatasetError(
        f"{layout.root}: a crash interrupted the {rolled.kind} of episode {rolled.uid}, and since "
        f"then another program has written {rolled.detail}; nothing was touched",
        mend=f"`recctl recover --set-aside {layout.root}` takes the unfinished episode out of the "
        "way, whole, and saves it behind theirs.",
        code="dataset_foreign",
    )


def write_identity(layout: Layout, schema: DatasetSchema, repo_id: str) -> None:
    """Remember what the folder is for, durably."""
    replace_json(
        layout.identity,
        {
            "format": FORMAT_VERSION,
            "recd": recd.__version__,
            "repo_id": repo_id,
            "fps": schema.fps,
            "robot_type": schema.robot_type,
            "columns": schema.columns,
            "features": schema.features,
        },
    )


def stored_schema(identity: dict[str, Any] | None, info: dict[str, Any] | None) -> DatasetSchema:
    """The schema a folder itself tells of: its info.json, else recd's note of its creation."""
    source = info or identity
    if source is None:
        raise DatasetError("no dataset here", mend="Check the path.")
    own = any(name.startswith(OWN_PREFIX) for name in source["features"])
    return DatasetSchema(
        fps=int(source["fps"]),
        robot_type=str(source.get("robot_type") or ""),
        features=source["features"],
        columns="full" if own else "plain",
    )


def refresh(handle: Handle) -> list[str]:
    """Bring the state in memory up to the disk; returns metadata files others have changed.

    Finishes a transaction that failed half way in this process. DatasetError when what others
    left is not a whole dataset (a recording of lerobot under way, say).
    """
    layout = handle.layout
    if handle.ledger.pending:
        refuse_foreign(layout, roll(layout.root, journal=handle.journal, ledger=handle.ledger))
        handle.stale = True
    changed = handle.state.changed_outside(layout.root)
    if not changed and not handle.stale:
        return []
    info = read_info(layout.info) if layout.info.exists() else None
    handle.schema = effective_schema(handle.schema, info)
    handle.state = load_state(layout, handle.schema.features, handle.ledger.after)
    handle.stale = False
    return changed
