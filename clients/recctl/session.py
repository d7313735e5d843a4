"""recctl start, stop, rerecord, ...: one episode at a time, and what the daemon is doing."""

from collections.abc import Iterator
from typing import Any

import click

from recd.clients.client import NotRunningError, RecdClient
from recd.clients.recctl import show
from recd.clients.recctl.output import Output
from recd.config.errors import RecdError

UID_DIGITS, EPISODES_MAX = 32, 1000


@click.command()
@click.option("--task", help="Task of this episode.")
@click.option("--operator", help="Who records this episode.")
@click.pass_obj
def start(output: Output, task: str | None, operator: str | None) -> None:
    """Begin an episode."""
    result = output.call("start", task=task, operator=operator)
    output.show(result, lambda told: f"recording {told['uid'][:8]}: {told.get('task', '')}")


@click.command()
@click.option("--no-wait", is_flag=True, help="Return at once instead of when it is durable.")
@click.pass_obj
def stop(output: Output, no_wait: bool) -> None:
    """End the episode and keep it; returns when it is durable."""
    result = output.call("stop", wait=not no_wait, timeout_s=output.durable_s)
    output.show(result, show.episode)


@click.command()
@click.option("--uid", help="The episode meant; refused when it is no longer the latest.")
@click.pass_obj
def rerecord(output: Output, uid: str | None) -> None:
    """Throw the running episode away and start again; while idle, undo the last one saved."""
    result = output.call("rerecord", uid=uid, timeout_s=output.durable_s)
    output.show(result, show.undone)


@click.command()
@click.pass_obj
def discard(output: Output) -> None:
    """End the running episode and put it in the trash (recctl undelete brings it back)."""
    output.show(output.call("discard", timeout_s=output.durable_s), show.undone)


@click.command()
@click.argument("uid")
@click.pass_obj
def undelete(output: Output, uid: str) -> None:
    """Bring a discarded or undone episode back as the newest one.

    UID: of this session its first digits are enough (recctl episodes).
    """
    with output.client() as client:
        whole = _whole_uid(client, uid)
        result = client.call("undelete", uid=whole, timeout_s=output.durable_s)
    output.show(result, lambda told: f"episode {told.get('episode_index', '?')} is back: {whole}")


def _whole_uid(client: RecdClient, uid: str) -> str:
    """The one episode of this session whose uid begins with `uid`; a whole uid as it is."""
    if len(uid) == UID_DIGITS:
        return uid
    takes = client.call("episodes", limit=EPISODES_MAX)["episodes"]
    found = [take["uid"] for take in takes if take["uid"].startswith(uid)]
    if len(found) == 1 and uid:
        return str(found[0])
    how_many = f"several: {', '.join(found)}" if found else "none"
    raise RecdError(
        f"undelete: expected the first digits of one episode of this session, found {uid!r}, "
        f"which fits {how_many}",
        mend="recctl episodes lists them; one of an earlier session needs all 32 digits "
        "(recctl dataset trash ROOT).",
        code="argument",
    )


@click.command()
@click.argument("label", nargs=-1, required=True)
@click.pass_obj
def mark(output: Output, label: tuple[str, ...]) -> None:
    """Mark the running episode: success, fail or any text."""
    output.show(output.call("mark", label=" ".join(label)), lambda _: f"marked: {' '.join(label)}")


@click.command()
@click.argument("text", nargs=-1)
@click.pass_obj
def task(output: Output, text: tuple[str, ...]) -> None:
    """Show or set the task of the next episodes."""
    output.show(output.call("task", text=" ".join(text) or None), lambda told: told["task"])


@click.command()
@click.argument("name", nargs=-1)
@click.pass_obj
def operator(output: Output, name: tuple[str, ...]) -> None:
    """Show or set who records."""
    result = output.call("operator", name=" ".join(name) or None)
    output.show(result, lambda told: told["operator"] or "(nobody named)")


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Keep showing until Ctrl-C.")
@click.pass_obj
def status(output: Output, watch: bool) -> None:
    """What the daemon is doing."""
    if not watch:
        output.show(output.call("status"), show.status)
        return
    with output.client() as client:
        for told in _statuses(client):
            if not output.as_json:
                click.clear()
            output.show(told, show.status)


def _statuses(client: RecdClient) -> Iterator[dict[str, Any]]:
    """A fresh status after every event, and at least once a second."""
    while True:
        yield client.status()
        client.pause(1.0, "state")


@click.command()
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True,
              help="At most so many.")  # fmt: skip
@click.pass_obj
def episodes(output: Output, limit: int) -> None:
    """Episodes of this session, newest last."""
    output.show(output.call("episodes", limit=limit), show.episodes)


@click.command()
@click.pass_obj
def reset(output: Output) -> None:
    """Leave FAULT and start again what was given up."""
    output.show(output.call("reset"), lambda told: f"state: {told.get('state', 'IDLE')}")


@click.command()
@click.pass_obj
def shutdown(output: Output) -> None:
    """Finish the running episode and end the daemon."""
    with output.client() as client:
        try:
            told = client.call("shutdown", timeout_s=output.durable_s)
        except NotRunningError:
            told = {}  # it ended faster than its reply travelled
    output.show(told, lambda _: "recd has ended")
