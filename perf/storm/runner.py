"""Storms in chapters: a dataset, a disk and a daemon of their own for every so many bouts.

However a storm ends, its daemon ends with it.
"""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from recd.perf.storm.disks import small_disk
from recd.perf.storm.injection import Injection
from recd.perf.storm.invariants import inspect_all, left_behind
from recd.perf.storm.matrix import Bout
from recd.perf.storm.settings import Setting
from recd.perf.storm.shims import may_preload, preloaded
from recd.perf.storm.storm import Storm
from recd.perf.storm.subject import StormSubject

Say = Callable[[str], None]

CHAPTER = 20
"""Bouts on one dataset at most; then a new one is begun, so that checking stays cheap."""


@contextmanager
def storm_subject(folder: Path, setting: Setting, *, disk: bool) -> Iterator[StormSubject]:
    """A daemon in folders below `folder`; its dataset on a small disk of its own when `disk`, its
    clock, syncs and writes open to faults where there is a compiler."""
    with ExitStack() as stack:
        # A socket's path has at most 107 bytes.
        base = stack.enter_context(tempfile.TemporaryDirectory(prefix="recd-storm-"))
        home = stack.enter_context(small_disk(folder / "disk")) if disk else folder
        variables = {} if may_preload() else preloaded(folder)
        subject = StormSubject(folder, Path(base), home / "dataset", setting, variables)
        stack.callback(subject.destroy)
        yield subject


def run_storm(
    bouts: Sequence[Bout], *, seed: int, folder: Path, disk: bool, say: Say,
    done: Callable[[Injection], None],
) -> list[Injection]:  # fmt: skip
    """Run bouts one after the other; `done` is given every injection as soon as its bout is over.

    The whole dataset is looked at at the end of every chapter; what is found then is a finding of
    the chapter's last injection.
    """
    told: list[Injection] = []
    with _ending_in_order():
        for chapter in _chapters(bouts):
            place = folder / f"bout-{chapter[0].number}"
            place.mkdir(parents=True, exist_ok=True)
            findings = 0
            with storm_subject(place, chapter[0].setting, disk=disk) as subject:
                storm = Storm(subject, seed=seed)
                for bout in chapter:
                    injections = storm.run(bout)
                    if bout is chapter[-1]:
                        injections[-1] = _with(injections[-1], _close(subject))
                    findings += sum(not injection.good for injection in injections)
                    told += injections
                    for injection in injections:
                        done(injection)
                        say(line(injection))
            if not findings:
                shutil.rmtree(place, ignore_errors=True)
    return told


def _chapters(bouts: Sequence[Bout]) -> Iterator[list[Bout]]:
    """Neighbours of one setting, at most `CHAPTER` of them."""
    chapter: list[Bout] = []
    for bout in bouts:
        if chapter and (chapter[0].setting is not bout.setting or len(chapter) == CHAPTER):
            yield chapter
            chapter = []
        chapter.append(bout)
    if chapter:
        yield chapter


def _close(subject: StormSubject) -> list[str]:
    """End the daemon in order and look at everything that it leaves."""
    findings = []
    if not subject.dead:
        tree = subject.tree()
        subject.end()
        findings = left_behind(tree, subject.directory)
    if not subject.dataset.exists():
        return [*findings, "the dataset is not there"]
    return findings + inspect_all(subject.dataset)


def _with(injection: Injection, findings: list[str]) -> Injection:
    return replace(injection, findings=(*injection.findings, *findings))


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM unwinds, so that daemon and disk are put away. A SIGKILL leaves that to the kernel,
    which tells the daemon (PDEATHSIG)."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def line(injection: Injection) -> str:
    """One injection for the terminal."""
    lost = "" if injection.loss_ms is None else f", lost {injection.loss_ms:.0f} ms"
    text = (
        f"{injection.bout:4d}.{injection.place} {'ok  ' if injection.good else 'FAIL'} "
        f"{injection.fault}: {injection.rows} rows{lost}, back in {injection.recover_s:.1f} s, "
        f"took {injection.took_s:.1f} s"
    )
    return "\n".join([text, *(f"       {found}" for found in injection.findings)])
