"""Fixtures of the dataset tests."""

import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent / "interop"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from crash_child import CrashServer  # noqa: E402
from studio import Studio  # noqa: E402

from recd.daemon.dataset import DatasetStore, RowBlock, RowLog, new_uid  # noqa: E402
from tests.said import recctl_of  # noqa: E402

LENGTHS = (5, 4)
NEXT = 6
"""Rows of the two episodes of the fixture `dataset`, and of the one in its staging."""


@pytest.fixture
def studio(tmp_path: Path):
    made = Studio(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def crash():
    """Runs one dataset operation in a process of its own: crash(root, action, uid, fault=...)."""
    server = CrashServer()
    yield server
    server.close()


@pytest.fixture
def recctl(monkeypatch, capsys):
    """Calls recctl's entry point in this process."""
    return recctl_of(monkeypatch, capsys)


def log_rows(studio: Studio, store: DatasetStore, uid: str, count: int, *, batch: int = 2) -> None:
    """The row stream as the writer keeps it, ended."""
    rows = studio.rows(store.totals.episodes, count, ("a new task",))
    log = RowLog(store.root / ".recd/staging" / uid / "own", store.schema, uid=uid)
    for first in range(0, count, batch):
        last = min(first + batch, count)
        log.append(
            RowBlock(
                first=first,
                tick_ns=[k * 33_333_333 for k in range(first, last)],
                state=rows.state[first:last],
                action=rows.action[first:last],
                task=rows.task[first:last],
                extra={},
            )
        )
    log.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two episodes published and a third whole in staging, each of a new task; with the uids."""
    studio = Studio(tmp_path_factory.mktemp("recorded"))
    store = studio.open()
    uids = [studio.record(store, length, tasks=(f"task {length}",)).uid for length in LENGTHS]
    staged = new_uid()
    studio.stage(store, NEXT, len(LENGTHS), staged)
    log_rows(studio, store, staged, NEXT)
    studio.close()
    return studio.root, [*uids, staged]


@pytest.fixture
def dataset(recorded, tmp_path):
    root = tmp_path / "dataset"
    shutil.copytree(recorded[0], root)
    return root, recorded[1]


@pytest.fixture
def copy_of(recorded, tmp_path):
    """copy(shape): (root, uids) of a fresh copy; for files whose own `recorded` maps shapes."""

    def copy(shape: str):
        root = tmp_path / "dataset"
        shutil.copytree(recorded[shape][0], root)
        return root, recorded[shape][1]

    return copy
