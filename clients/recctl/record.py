"""recctl record, attach: a remote control of the plan that lives in the daemon.

The plan goes on without this process; what then happens the daemon was told at the start. Keys are
LeRobot's (right or n, left or r, Esc or q), space holds the arms, d leaves the plan running.
"""

import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from recd.clients.client import RecdClient
from recd.clients.recctl import show
from recd.clients.recctl.keys import Pedal, Terminal, wait_for_action
from recd.clients.recctl.output import EXIT_INTERRUPTED, EXIT_LOST, Output
from recd.config.errors import DeviceError, RecdError, StateError
from recd.shm.clock import NS_PER_S, now_ns

REFRESH_S = 0.2
ENDED = ("saved", "failed", "discarded", "undone")
PLAN_KEYS = ("next", "rerecord", "stop", "hold")
READY_TIMEOUT_S = 60.0

KEY_HELP = (
    "keys: →/n next  ←/r redo  Esc/q stop  space hold\n"
    "      s/f success/fail  a arm  e estop  d detach\n"
    "      policy: p pause  t take over  g give back"
)


@click.command()
@click.option("-n", "--episodes", type=click.IntRange(1), default=50, show_default=True,
              help="How many.")  # fmt: skip
@click.option("--episode-time", "episode_s", type=click.FloatRange(0, min_open=True), default=60.0,
              show_default=True, metavar="S", help="Length of an episode in seconds.")  # fmt: skip
@click.option("--reset-time", "reset_s", type=click.FloatRange(0), default=60.0, show_default=True,
              metavar="S", help="Time between episodes; the leader still drives.")  # fmt: skip
@click.option("--task", help="Task of these episodes.")
@click.option("--resume", is_flag=True, help="Go on with a dataset that holds episodes already.")
@click.option("--arm", "arm_first", is_flag=True, help="Arm the followers first.")
@click.option("--client-lost", type=click.Choice(["finish", "stop", "continue"]), default=None,
              help="What the plan does when this terminal vanishes.")  # fmt: skip
@click.option("--pedal", metavar="DEVICE", help="USB pedal or keypad (/dev/input/by-id/...).")
@click.option("--no-bell", is_flag=True, help="No terminal bell at the change of a phase.")
@click.pass_obj
def record(
    output: Output, episodes: int, episode_s: float, reset_s: float, task: str | None,
    resume: bool, arm_first: bool, client_lost: str | None, pedal: str | None, no_bell: bool,
) -> int:  # fmt: skip
    """Record EPISODES episodes, with time in between to reset the scene.

    The daemon runs the plan; this command shows it and passes your keys on. Closing the terminal
    does not lose anything (see --client-lost); recctl attach comes back to it.
    """
    with output.client() as client, _pedal(pedal) as pedals:
        now = _wait_until_ready(client)
        if arm_first:
            client.arm()
            client.wait_for_motion("TELEOP")
        else:
            _warn_of_disarmed(now)
        name = _client_name()
        client.call(
            "plan.start", episodes=episodes, episode_s=episode_s, reset_s=reset_s, task=task,
            on_client_lost=client_lost, resume=resume, client=name,
        )  # fmt: skip
        return follow(client, name, output=output, pedals=pedals, bell=not no_bell)


def _wait_until_ready(client: RecdClient) -> dict[str, Any]:
    """The status once an episode can start; tells what is waited for.

    StateError where waiting is in vain.
    """
    now = client.status()
    legal = ", ".join(now["legal"])
    if now["state"] == "FAULT":
        raise StateError(
            f"record is not possible in FAULT: {now['fault']}; legal now: {legal}",
            state="FAULT", legal=tuple(now["legal"]), mend="recctl reset, once it is mended",
        )  # fmt: skip
    if now["state"] == "RECORDING":
        raise StateError(
            f"record is not possible in RECORDING; legal now: {legal}",
            state="RECORDING", legal=tuple(now["legal"]),
            mend="recctl attach joins the plan that runs; recctl stop ends a single episode",
        )  # fmt: skip
    if now["state"] != "READY":
        what = "; ".join(now["waiting_why"]) or "the episode before to be closed"
        click.echo(f"{now['state']}, waiting for: {what}", err=True)
        return client.wait_until("READY", timeout_s=READY_TIMEOUT_S)
    return now


def _warn_of_disarmed(now: dict[str, Any]) -> None:
    for pair, arm in now["arms"].items():
        if arm["motion"].get("state") == "DISARMED":
            click.echo(f"{pair} is DISARMED: recctl arm, or key a, lets it follow", err=True)


@contextmanager
def _pedal(path: str | None) -> Iterator[list[Pedal]]:
    """The pedal at `path`, opened before anything starts; none without a path."""
    if path is None:
        yield []
        return
    pedal = Pedal(path)
    try:
        yield [pedal]
    finally:
        pedal.close()


@click.command()
@click.option("--pedal", metavar="DEVICE", help="USB pedal or keypad (/dev/input/by-id/...).")
@click.option("--no-bell", is_flag=True, help="No terminal bell at the change of a phase.")
@click.pass_obj
def attach(output: Output, pedal: str | None, no_bell: bool) -> int:
    """Join a plan that is running, or come back to it."""
    with output.client() as client, _pedal(pedal) as pedals:
        name = _client_name()
        client.call("plan.attach", client=name)
        return follow(client, name, output=output, pedals=pedals, bell=not no_bell)


def _client_name() -> str:
    return f"recctl_{secrets.token_hex(4)}"


def follow(
    client: RecdClient, name: str, *, output: Output, pedals: Iterable[Pedal] = (),
    bell: bool = True,
) -> int:  # fmt: skip
    """Show the plan until it is done; pass keys on. Returns the exit code."""
    line = LiveLine(live=sys.stdout.isatty() and not output.as_json, bell=bell)
    with Terminal() as terminal:
        if terminal.available and not output.as_json:
            line.say(KEY_HELP)
        try:
            return _follow(client, name, output, [terminal, *pedals], line)
        except KeyboardInterrupt:
            line.say("left: the plan does what --client-lost says; recctl attach comes back to it")
            return EXIT_INTERRUPTED
        finally:
            line.clear()


def _follow(
    client: RecdClient, name: str, output: Output, sources: list[Terminal | Pedal], line: "LiveLine"
) -> int:
    told = Told(client)
    while True:
        plan, now = told.look(name)
        for episode in told.finished(plan):
            line.clear()
            output.show(episode, show.episode)
        for broken in told.broken(now):
            line.say(show.undecodable(broken))
        line.update(plan, now)
        if plan["phase"] == "done":
            line.clear()
            output.show(plan, show.plan_end)
            return EXIT_LOST if told.failed else 0
        try:
            action = wait_for_action(sources, REFRESH_S)
        except DeviceError as error:
            line.say(str(error))
            continue
        if action == "detach":
            client.call("plan.detach", client=name)
            line.say("the plan goes on; recctl attach comes back to it")
            return 0
        if action is not None:
            do_key(client, action, line.say)


class Told:
    """What the daemon says of a plan, asked often, and of rates and losses, asked once a second."""

    def __init__(self, client: RecdClient) -> None:
        self._client = client
        self._now: dict[str, Any] = {}
        self._asked_ns = 0
        self._shown: set[str] = set()
        self._broken: set[str] = set()
        self._lost_before: int | None = None
        self.failed = False

    def look(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the plan, the session now); shows the daemon that client `name` is still there."""
        reply = self._client.call("plan.status", client=name)
        if now_ns() - self._asked_ns > NS_PER_S:
            self._asked_ns = now_ns()
            status = self._client.status()
            lost = show.frames_lost(status)
            if self._lost_before is None:
                self._lost_before = lost
            # A camera process that was started again counts from zero.
            self._lost_before = min(lost, self._lost_before)
            told = {key: status[key] for key in ("cameras", "arms", "disk", "undecodable")}
            self._now = {**told, "frames_lost": lost - self._lost_before}
        plan = reply["plan"]
        if plan is None:
            raise RecdError("no plan is running", mend="recctl record starts one", code="state")
        return plan, {**reply, **self._now}

    def broken(self, now: dict[str, Any]) -> list[dict[str, Any]]:
        """Saved episodes of which the decoding afterwards turned out badly since the last call."""
        found = [e for e in now.get("undecodable", ()) if e["uid"] not in self._broken]
        self._broken |= {e["uid"] for e in found}
        return found

    def finished(self, plan: dict[str, Any]) -> list[dict[str, Any]]:
        """Episodes of the plan that were saved since the last call."""
        open_uids = [uid for uid in plan["uids"] if uid not in self._shown]
        if not open_uids:
            return []
        takes = self._client.call("episodes", limit=20)["episodes"]
        ended = [take for take in takes if take["uid"] in open_uids and take["state"] in ENDED]
        self._shown |= {take["uid"] for take in ended}
        self.failed |= any(take["state"] == "failed" for take in ended)
        return [take for take in ended if take["state"] != "discarded"]


def do_key(client: RecdClient, action: str, say: Callable[[str], None]) -> None:
    """What a key does in the daemon. A refusal is told and changes nothing."""
    try:
        match action:
            case "success" | "fail":
                client.mark(action)
                say(f"marked: {action}")
            case "arm":
                client.arm(timeout_s=0)  # the keys, estop among them, do not wait for an arm
            case "estop":
                client.estop()
            case "arms.hold":
                client.hold()
            case "highlight":
                client.call("highlight", wait=False)
                say("saved: the last seconds")
            case "policy.pause" | "policy.takeover" | "policy.resume":
                client.call(action)
            case _ if action in PLAN_KEYS:
                client.call("plan.key", key=action)
    except RecdError as error:
        say(str(error))


class LiveLine:
    """One line that is rewritten in place; without a terminal, one line per change of phase."""

    def __init__(self, *, live: bool, bell: bool) -> None:
        self._live = live
        self._bell = bell
        self._phase: tuple[str, object] = ("", None)
        self._open = False

    def update(self, plan: dict[str, Any], now: dict[str, Any]) -> None:
        """Show `plan` as it is now; `now`: the session's status."""
        changed = (plan["phase"], plan.get("episode")) != self._phase
        self._phase = (plan["phase"], plan.get("episode"))
        if changed and self._bell and self._live and plan["phase"] in ("recording", "reset"):
            click.echo("\a", nl=False)
        if self._live:
            self.show(show.plan_parts(plan, now))
        elif changed:
            click.echo(show.plan_line(plan, now), err=True)

    def show(self, parts: list[str]) -> None:
        """As many of `parts` as the terminal is wide; nothing without one."""
        if self._live:
            text = fitting(parts, shutil.get_terminal_size().columns - 1)
            click.echo(f"\r\x1b[2K{text}", nl=False)
            self._open = True

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        self.clear()
        click.echo(text, err=True)

    def clear(self) -> None:
        """Take the live line away: something that stays is printed in its place."""
        if self._open:
            click.echo("\r\x1b[2K", nl=False)
            self._open = False


def fitting(parts: list[str], columns: int) -> str:
    """As many whole parts, from the first one on, as fit in `columns`.

    A line that wraps cannot be rewritten in place, and half a number is a wrong one.
    """
    text = click.unstyle(parts[0])[:columns]
    text = parts[0] if text == click.unstyle(parts[0]) else text
    for part in parts[1:]:
        longer = f"{text}  {part}"
        if len(click.unstyle(longer)) > columns:
            break
        text = longer
    return text
