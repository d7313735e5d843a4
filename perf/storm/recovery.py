"""How long recovery takes: of a torn episode, and at start-up on a dataset with many episodes.

The torn episode is a real one, killed with everything; the many are commits of one recorded
episode. Times are of this computer, with whatever else it does.
"""

import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from recd.daemon.dataset import DatasetStore, new_uid
from recd.daemon.dataset.copy_episode import copy_episode
from recd.daemon.dataset.handle import open_handle
from recd.daemon.dataset.snapshot import look
from recd.perf.storm.processes import kill_everything
from recd.perf.storm.settings import PLAIN
from recd.perf.storm.subject import StormSubject, await_true
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns


def measure_recovery(folder: Path, *, seconds: float, episodes: int, runs: int) -> Iterator[str]:
    """Lines of the result as they come."""
    torn, small = folder / "torn", folder / "small"
    _record(folder, small, seconds=2.0, kill=False)
    _record(folder, torn, seconds=seconds, kill=True)
    yield f"torn episode of {seconds:g} s, 2 cameras: {_spread(_recoveries(torn, folder, runs))}"
    yield f"start to READY, 1 episode: {_spread(_starts(folder, small, runs))}"
    grow(small, episodes)
    opened = _recoveries(small, folder, runs, copied=False)
    yield f"dataset of {episodes} episodes, opened and recovered: {_spread(opened)}"
    yield f"start to READY, {episodes} episodes: {_spread(_starts(folder, small, runs))}"


def grow(root: Path, episodes: int) -> None:
    """Commit the first episode again until there are so many."""
    with tempfile.TemporaryDirectory(dir=root.parent) as name:
        source = Path(name) / "source"
        shutil.copytree(root, source)
        snapshot = look(source)
        original = snapshot.originals[0]
        _, table = next(iter(snapshot.tables()))
        handle = open_handle(root, None)
        try:
            while handle.state.episodes < episodes:
                copy_episode(handle, snapshot, replace(original, uid=new_uid(), entry=None), table)
        finally:
            handle.close()


@contextmanager
def _subject(folder: Path, root: Path) -> Iterator[StormSubject]:
    with tempfile.TemporaryDirectory(prefix="recd-storm-") as base:
        subject = StormSubject(folder, Path(base), root, PLAIN)
        try:
            yield subject
        finally:
            subject.destroy()


def _record(folder: Path, root: Path, *, seconds: float, kill: bool) -> None:
    """One episode, saved or torn."""
    with _subject(folder, root) as subject:
        subject.start()
        subject.client.arm()
        subject.client.start(task="measured")
        await_true(lambda: subject.rows() >= seconds * 30, f"{seconds:g} s", seconds * 3 + 60)
        if kill:
            kill_everything(subject, Random(0))
            return
        subject.client.stop()
        subject.end()


def _recoveries(root: Path, folder: Path, runs: int, *, copied: bool = True) -> list[float]:
    """Seconds of opening and recovering, each of a fresh copy if `copied`."""
    took = []
    for run in range(runs):
        target = folder / f"copy-{run}" if copied else root
        if copied:
            shutil.copytree(root, target)
        began_ns = now_ns()
        with DatasetStore.open(target) as store:
            store.recover()
        took.append((now_ns() - began_ns) / NS_PER_S)
        if copied:
            shutil.rmtree(target)
    return took


def _starts(folder: Path, root: Path, runs: int) -> list[float]:
    took = []
    for _ in range(runs):
        with _subject(folder, root) as subject:
            took.append(subject.start())
            subject.end()
        sleep_until_ns(now_ns() + NS_PER_S)
    return took


def _spread(values: Sequence[float]) -> str:
    return (
        f"median {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f}, "
        f"{len(values)} runs)"
    )
