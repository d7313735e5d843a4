"""recctl verify, recover, dataset ...: offline work on a dataset folder. No daemon is needed.

A dataset that a daemon records into is locked: these commands then say so and touch nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from recd.clients.recctl.copies import copy, merge
from recd.clients.recctl.output import EXIT_LOST, Group, Output, size, table
from recd.clients.recctl.show_dataset import dataset_episode, dataset_info
from recd.config.errors import DatasetError
from recd.shm.clock import NS_PER_S, clock_pair

DAY_NS = 86_400 * NS_PER_S

ROOT = click.argument("root", type=click.Path(path_type=Path, file_okay=False))


@click.command()
@ROOT
@click.option("--no-decode", is_flag=True, help="Do not decode the videos (much faster).")
@click.pass_obj
def verify(output: Output, root: Path, no_decode: bool) -> int:
    """Check the dataset at ROOT: everything a loader relies on, and every picture decoded.

    Exit code 0: whole; 1: something is broken.
    """
    from recd.daemon.dataset.verify import verify_dataset

    report = verify_dataset(root, decode=not no_decode)
    output.show(verified(root, report), show_verified)
    return report.exit_code


def verified(root: Path, report: Any) -> dict[str, Any]:
    """A verify report as plain data."""
    return {
        "root": str(root),
        "good": report.good,
        "episodes": report.episodes,
        "rows": report.rows,
        "cameras": report.cameras,
        "pictures_decoded": report.decoded,
        "findings": [str(finding) for finding in report.findings],
        "counts": dict(report.counts),
    }


def show_verified(told: dict[str, Any]) -> list[str]:
    """A verify report in lines."""
    word = click.style("whole", fg="green") if told["good"] else click.style("BROKEN", fg="red")
    decoded = f", {told['pictures_decoded']} pictures decoded" if told["pictures_decoded"] else ""
    head = (
        f"{told['root']}: {word}: {told['episodes']} episodes, {told['rows']} rows, "
        f"{told['cameras']} cameras{decoded}"
    )
    return [head, *(f"  {finding}" for finding in told["findings"])]


@click.command()
@ROOT
@click.option("--set-aside", is_flag=True,
              help="Where another program has written since the crash: take the unfinished episode "
              "out of its way and save it behind theirs.")  # fmt: skip
@click.pass_obj
def recover(output: Output, root: Path, set_aside: bool) -> int:
    """Save what can be saved of episodes that a crash left behind, of recd or of lerobot.

    A dataset that a killed lerobot left unloadable is repaired first; its files as they were stay
    in .recd/quarantine.

    Exit code 0: nothing was lost; 3: something was lost; 1: nothing could be recovered.
    """
    from recd.daemon.dataset import DatasetStore
    from recd.daemon.dataset.repair import repair, was_told

    repaired = repair(root)
    with DatasetStore.open(root, set_aside=set_aside) as store:
        report = store.recover()
    code = int(report.exit_code)
    if repaired is not None:
        lost = EXIT_LOST if code else 0
        code = max(int(repaired.exit_code), lost)
    told = {
        "repaired": asdict(repaired) if repaired else None,
        "rolled": asdict(report.rolled) if report.rolled else None,
        "recovered": [asdict(episode) for episode in report.recovered],
        "quarantined": [asdict(episode) for episode in report.quarantined],
        "waiting": [asdict(episode) for episode in report.waiting],
        "exit_code": code,
    }
    output.show(told, _recovered)
    if repaired is not None:
        was_told(root)
    return code


ROLLED = {
    "forward": "the interrupted {kind} was finished",
    "back": "the interrupted {kind} was taken back ({detail})",
    "aside": "the interrupted {kind} was taken out of the way of what another program wrote",
}
"""Outcome of `recd.daemon.dataset.transaction.Rolled` -> what an operator reads."""


def _recovered(told: dict[str, Any]) -> list[str]:
    lines = _repaired(told["repaired"]) if told["repaired"] else []
    if rolled := told["rolled"]:
        where = f" ({rolled['uid'][:8]})" if rolled["uid"] else ""
        lines.append(ROLLED[rolled["outcome"]].format_map(rolled) + where)
    lines += [
        f"episode {e['episode_index']} ({e['uid'][:8]}): {e['rows']} rows recovered"
        for e in told["recovered"]
    ]
    lines += [f"put aside {e['uid']}: {e['reason']}" for e in told["quarantined"]]
    lines += [f"left in staging {e['uid']}: {e['reason']}" for e in told["waiting"]]
    return lines or ["nothing to recover"]


def _repaired(told: dict[str, Any]) -> list[str]:
    lines = [f"repaired: {told['episodes']} episodes, {told['rows']} rows load again"]
    if told["torn"]:
        lines.append(f"files without an end: {', '.join(told['torn'])}")
    if told["rebuilt"]:
        numbers = ", ".join(str(number) for number in told["rebuilt"])
        lines.append(f"metadata made anew of the episodes {numbers}")
    lines += [f"lost: {text}" for text in told["lost"]]
    return [*lines, f"the files as they were: {told['kept']}"]


@click.group(cls=Group)
def dataset() -> None:
    """Offline work on a dataset folder: look at it, edit it, pack it.

    UID: the first digits of an episode's uid are enough (recctl dataset info).
    """


dataset.add_command(verify)
dataset.add_command(copy)
dataset.add_command(merge)


@dataset.command()
@ROOT
@click.pass_obj
def info(output: Output, root: Path) -> None:
    """What the dataset at ROOT is, and its episodes with their verdicts and marks."""
    from recd.daemon.dataset.survey import survey, survey_dataset

    told = {"dataset": asdict(survey_dataset(root)), "episodes": [asdict(e) for e in survey(root)]}
    output.show(told, dataset_info)


@dataset.command("show")
@ROOT
@click.argument("uid")
@click.pass_obj
def show_one(output: Output, root: Path, uid: str) -> None:
    """Everything known of episode UID: who, with what, verdict, streams, files."""
    from recd.daemon.dataset.survey import files_of_episode, survey

    episode = _one(uid, {e.uid: e for e in survey(root)})
    told = {**asdict(episode), "files": files_of_episode(root, episode.uid)}
    output.show(told, dataset_episode)


def _one(uid: str, known: Mapping[str, Any]) -> Any:
    """The entry whose uid begins with `uid`; DatasetError for none or several."""
    found = [whole for whole in known if whole and whole.startswith(uid.lower())]
    if uid and len(found) == 1:
        return known[found[0]]
    what = f"several episodes begin with {uid}: {', '.join(found)}" if found and uid else (
        f"no episode {uid!r}"
    )  # fmt: skip
    raise DatasetError(
        what, mend="recctl dataset info (or trash) lists them; lerobot's own have no uid."
    )


@dataset.command()
@ROOT
@click.argument("uids", metavar="UID...", nargs=-1, required=True)
@click.pass_obj
def delete(output: Output, root: Path, uids: tuple[str, ...]) -> None:
    """Take episodes out, whole, into the trash; the others are numbered anew.

    `recctl dataset undelete` brings them back, as the newest.
    """
    from recd.daemon.dataset import DatasetStore

    with DatasetStore.open(root) as store:
        known = {e.uid: e for e in store.episodes()}
        gone = store.delete([_one(uid, known).uid for uid in uids])
        left = store.totals
    told = {
        "deleted": [asdict(entry) for entry in gone], "episodes": left.episodes, "rows": left.rows
    }  # fmt: skip
    output.show(told, _deleted)


def _deleted(told: dict[str, Any]) -> list[str]:
    lines = [f"{e['uid']}: in the trash ({e['rows']} rows, {size(e['nbytes'])})"
             for e in told["deleted"]]  # fmt: skip
    return [*lines, f"{told['episodes']} episodes, {told['rows']} rows are left"]


@dataset.command()
@ROOT
@click.argument("uid")
@click.option("--task", required=True, help="The task in words.")
@click.pass_obj
def relabel(output: Output, root: Path, uid: str, task: str) -> None:
    """Give all rows of episode UID another task; its manifest keeps the earlier one."""
    from recd.daemon.dataset import DatasetStore

    with DatasetStore.open(root) as store:
        episode = _one(uid, {e.uid: e for e in store.episodes()})
        number = store.relabel(episode.uid, task)
    told = {"uid": episode.uid, "episode_index": number, "from": episode.tasks, "task": task}
    output.show(told, lambda t: f"episode {number} ({episode.uid[:8]}): {', '.join(t['from'])} -> "
                f"{task}")  # fmt: skip


@dataset.command()
@ROOT
@click.pass_obj
def pack(output: Output, root: Path) -> None:
    """Join the files of single episodes to LeRobot's sizes, by stream copy, atomically."""
    from recd.daemon.dataset import DatasetStore

    with DatasetStore.open(root) as store:
        told = asdict(store.pack())
    output.show(told, _packed)


def _packed(told: dict[str, Any]) -> str:
    if not told["changed"]:
        return "nothing to pack"
    return (
        f"data files {told['data_before']} -> {told['data_after']}, "
        f"videos {told['videos_before']} -> {told['videos_after']}"
    )


class _WithDefault(Group):
    """`trash ROOT` is `trash list ROOT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [word for word in args if not word.startswith("-")]
        if words and words[0] not in self.commands:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@dataset.group(cls=_WithDefault)
def trash() -> None:
    """What was discarded, undone or deleted: `trash ROOT` lists it, `trash empty` removes it."""


@trash.command("list")
@ROOT
@click.pass_obj
def list_trash(output: Output, root: Path) -> None:
    """What lies in the trash and can be brought back."""
    from recd.daemon.dataset.survey import survey_trash

    output.show({"trash": [asdict(entry) for entry in survey_trash(root)]}, _trash)


UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """500MB, 2G, 1500000"""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no size; expected 500MB, 2G or a number of bytes")
    return int(float(found[1]) * UNITS[found[2]])


@trash.command("empty")
@ROOT
@click.option("--older-than", "days", type=click.FloatRange(min=0), metavar="DAYS",
              help="Everything that has been there for longer.")  # fmt: skip
@click.option("--keep-bytes", callback=_bytes, metavar="SIZE",
              help="The oldest, until so much is left (2GB, 500MB); 0: everything.")  # fmt: skip
@click.pass_obj
def empty_trash(output: Output, root: Path, days: float | None, keep_bytes: int | None) -> None:
    """Remove episodes from the trash for good, by age or space."""
    from recd.daemon.dataset import DatasetStore, Retention

    if days is None and keep_bytes is None:
        raise click.UsageError("say what goes: --older-than DAYS, --keep-bytes SIZE, or both")
    older_than_ns = None if days is None else int(days * DAY_NS)
    with DatasetStore.open(root) as store:
        freed = store.empty_trash(Retention(older_than_ns, keep_bytes))
    told = {"purged": list(freed), "freed_bytes": sum(freed.values())}
    output.show(told, _purged)


def _purged(told: dict[str, Any]) -> str:
    return f"{len(told['purged'])} episodes removed, {size(told['freed_bytes'])} freed"


def _trash(told: dict[str, Any]) -> list[str]:
    rows = [(e["uid"], e["kind"], e["at"], e["rows"], size(e["nbytes"])) for e in told["trash"]]
    return table(("uid", "kind", "at", "rows", "size"), rows) if rows else ["the trash is empty"]


@dataset.command()
@ROOT
@click.argument("uid")
@click.pass_obj
def undelete(output: Output, root: Path, uid: str) -> None:
    """Bring episode UID back from the trash."""
    from recd.daemon.dataset import DatasetStore

    with DatasetStore.open(root) as store:
        whole = _one(uid, {entry.uid: entry for entry in store.trash()}).uid
        result = store.undelete(whole)
    told = {"uid": whole, "episode_index": result.episode_index, "rows": result.rows}
    output.show(told, lambda t: f"episode {t['episode_index']} is back: {t['rows']} rows")


@dataset.command()
@ROOT
@click.argument("uids", metavar="[UID]...", nargs=-1)
@click.option("--older-than", "days", type=click.FloatRange(min=0), metavar="DAYS",
              help="Everything that has been in the trash for longer.")  # fmt: skip
@click.pass_obj
def purge(output: Output, root: Path, uids: tuple[str, ...], days: float | None) -> None:
    """Remove episodes from the trash for good."""
    from recd.daemon.dataset import DatasetStore

    if bool(uids) == (days is not None):
        raise click.UsageError("give the uids of episodes in the trash, or --older-than DAYS")
    with DatasetStore.open(root) as store:
        entries = {entry.uid: entry for entry in store.trash()}
        wanted = [_one(uid, entries) for uid in uids]
        if days is not None:
            before_ns = clock_pair().real_ns - int(days * DAY_NS)
            wanted = [entry for entry in entries.values() if entry.real_ns <= before_ns]
        freed = {entry.uid: store.purge(entry.uid) for entry in wanted}
    told = {"purged": list(freed), "freed_bytes": sum(freed.values())}
    output.show(told, _purged)
