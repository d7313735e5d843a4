"""Writes the reference of the control API (docs/control_api.md) from the tables that rule it."""

from collections.abc import Iterable, Sequence

from recd.config.messages import (
    COMMANDS,
    MAX_MESSAGE_BYTES,
    MAX_REQUEST_DEPTH,
    PROTOCOL_VERSION,
    REQUEST_LIMITS,
    Command,
    Request,
)
from recd.config.versions import ENDURING
from recd.daemon.session.machine import COMMANDS as SESSION_COMMANDS
from recd.daemon.session.machine import SAID_AS, TRANSITIONS, Event, State
from recd.daemon.session.verdict import RULES
from recd.daemon.supervisor.failures import FAILURES
from recd.daemon.supervisor.planner import LEASE_NS
from recd.daemon.supervisor.processes import MANNERS
from recd.shm.clock import NS_PER_S

ENDURING_SAID = ", ".join(f"`{name}`" for name in ENDURING)
_KIB = (REQUEST_LIMITS.nbytes // 1024, MAX_MESSAGE_BYTES // 1024)

HEAD = f"""# Control API

Written by `make docs` from the tables in the code; do not edit by hand.

The daemon binds two ZeroMQ sockets in its runtime folder (`recd run` prints it; mode 0700):
`ctl.sock` (ROUTER) for requests and `evt.sock` (PUB) for events. `control.endpoint` adds a tcp
address (events at the next port); keys and roles are in [security.md](security.md). The Python
client `recd.clients.client.RecdClient` and `recctl` use nothing else.

## Requests and replies

One frame, one msgpack map, a request {MAX_REQUEST_DEPTH} levels deep and at most {_KIB[0]} KiB,
{REQUEST_LIMITS.items} values and keys of {REQUEST_LIMITS.key_bytes} bytes, a reply at most
{_KIB[1]} KiB; text keys, none twice, no extension types. Unknown fields are ignored, unknown
commands refused.

```
request  {{"v": 1, "ty": "req", "id": 16 bytes or up to 64 letters and digits, "cmd": name,
          "args": map, "deadline_ms": 1..3600000, "recd"?: version of the client}}
reply    {{"v": 1, "ty": "rep", "recd": version, "re": id, "ok": true, "result": map}}
         {{"v": 1, "ty": "rep", "recd": version, "re": id, "ok": false, "error":
          {{"code", "message", "mend", "state", "legal": [commands]}}}}
```

- **Retries are safe.** A request id is carried out once; the same id gets the same reply again,
  from any connection, also while the first one still waits. Clients retry with the same id.
  Commands that only ask are answered anew.
- **Deadlines.** A command that waits (`stop`, `discard`, `rerecord`, `undelete`, motion commands,
  `shutdown`) and is not done within `deadline_ms` is answered with code `deadline`; it goes on.
- **Error codes**: `state` (not legal now: `state` and `legal` say more), `argument`, `unknown`,
  `malformed`, `oversized`, `version`, `deadline`, `dataset`, `device`, `not_saved`, `reply`, `role`
  (the key's role does not reach), `key` (revoked), `busy` (too many requests), `ignored`.
- A client uses DEALER (or REQ). A message larger than {_KIB[1]} KiB closes its connection;
  malformed ones are answered, and after some of them the connection is not heard for a while.
- **Versions.** `v` is {PROTOCOL_VERSION}. {ENDURING_SAID}
  are understood from every `v` and answered in a form that stays; other commands of another `v` are
  refused with code `version`. `recctl` says on standard error that the daemon is of another one;
  the daemon's log says it of a client. A status that lacks what is shown is printed as it is.
- An id counts among the requests of one key; `re` is empty where the id could not be read.
"""

EVENTS = """## Events

Two frames: topic and a msgpack map with `event`, `seq` (no gaps per daemon session: a gap is a
loss, ask `status` again), `t_ns` (CLOCK_MONOTONIC) and `sid`.

| topic | events |
|---|---|
| `state` | `state`: the live part of `status`, at every change and twice a second |
| `episode` | `started`, `marked`, `ending`, `closed`, `saved`, `discarded`, `undone`, `undeleted` |
| `plan` | `changed`, `reset`, `finished`, `client_lost`, `not_undone` |
| `event` | what workers report: `worker_ready`, `recovered`, `motion`, and their own words |
| `fault` | `degraded`, `worker_lost`, `worker_refused`, `worker_crashed`, `fault`, `failed`, \
`encoder failed`, `disk_low`, `longest_episode`, `plan_ended`, `hold_failed`, \
and errors of workers |
"""

STATUS = """## Status

`status` is one map. Its live part (also `plan.status` and the topic `state`):

- `state`, `legal`, `flags` {degraded, paused, low_disk, committing}, `waiting_for` and `degraded`
  (process names), `waiting_why` (the same with reasons), `fault` (reason), `stage` (running,
  finishing, stopping), `committing` (uids), `plan`;
- `episode`: null, or uid, t0_ns, elapsed_s, rows, task, operator, marks, closes_in_s (null until
  the last minute of the longest episode);
- `disk` {free_bytes, reserve_bytes, bytes_per_s, seconds_left, low};
- `cameras` {name: state, fps, nominal_fps, age_ms, counters, encoder};
- `arms` {pair: motion, leader, follower}.

Only in `status`: version, instance, robot, station, session_id, pid, t_ns, uptime_s, task,
operator, `last_episode`, `dataset` {root, repo_id, fps, episodes, rows, tasks}, `processes` {name:
kind, phase, state, pid, uptime_s, restarts, beat_age_ms, cpu_s, rss_bytes, lateness, work, lag
(percentiles since its start), `recent` {lateness, work: the last one to two seconds}, error},
shm_bytes, rejected_messages, `undecodable` [{uid, episode_index, findings}]: saved episodes
whose pictures turned out broken.

An episode (reply of `stop`, entries of `episodes`, topic `episode`): uid, state (recording,
closing, committing, saved, discarding, discarded, undone, failed), task, operator, marks
[{label, at_ns, at_s}], end_reason, rows, duration_s, durable_s (from stop to durable), restarts
{process: how often}, once saved episode_index, summary and verdict, and once decoded in the
background `decode` {good, pictures, findings}.
"""

PLAN = f"""## Plans

A plan lives in the daemon. Keys as in lerobot-record: `next` ends the phase, `rerecord` throws the
episode away and records it again (in the reset phase: the one just recorded), `stop` saves what
there is and ends; `hold` stops the plan's clock and the arms, and lets them go on. The reset phase
is left out after the last episode. An episode that a fault ended counts, and the plan holds until
`next` (or `rerecord`). A client that attached under a name has to call `plan.status` with it at
least every {LEASE_NS // NS_PER_S} s; when the last one vanishes, `on_client_lost` decides.
"""

LINKS = """## Messages between supervisor and workers

Over an inherited socket pair, one msgpack map per packet. `daemon/supervisor/recording.py` drives
an episode: `begin` → (`opened`) → `end` → `closed` of every encoder → `seal` → `durable`. A take
that is thrown away takes the same way with `keep: false` and ends as `discarded`, whole, in the
trash. An encoder or writer that was restarted gets `begin`, `end` and `seal` of all open takes
again, with `resume: true`. A writer is told of them when it is started (`open_takes`), so that its
recovery leaves them alone: it takes up what the writer before it logged and what the rings hold. A
take that has cost four writers is ended and left to recovery.

Row 0 lies one period after the request. `end` names the number of rows: up to and including the
first tick after the request, since an encoder may have decided every earlier one already.
"""


def render() -> str:
    """The whole page, Markdown."""
    parts = [HEAD, _wire_example(), _commands(), _states(), STATUS, EVENTS, PLAN, _processes(),
             _failures(), _verdict(), LINKS]  # fmt: skip
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _wire_example() -> str:
    packed = Request("0f", "mark", {"label": "success"}, 1000, recd="").pack()
    octets = packed.hex(" ")
    rows = "\n".join(octets[i : i + 96].rstrip() for i in range(0, len(octets), 96))
    return (
        f"`mark success` with id `0f` and a deadline of one second, as bytes:\n\n```\n{rows}\n```\n"
    )


def _commands() -> str:
    rows = [
        (f"`{command.name}`", command.role, _arguments(command), command.doc)
        for command in COMMANDS.values()
    ]
    return "## Commands\n\n" + _table(("command", "role", "arguments", "what it does"), rows) + "\n"


def _arguments(command: Command) -> str:
    told = []
    for name, arg in command.args.items():
        what = " / ".join(arg.choices) if arg.choices else arg.kind
        told.append(f"`{name}`{'' if arg.required else '?'} {what}: {arg.doc}")
    return "; ".join(told) or "none"


def _states() -> str:
    commands = [event for event in Event if event in SESSION_COMMANDS - set(SAID_AS)]
    rows = [
        (f"**{state.value}**", *(_target(state, event) for event in commands)) for state in State
    ]
    head = ("state", *(f"`{event.value}`" for event in commands))
    return (
        "## What is legal when\n\nThe state after each command; an empty field is a refusal with "
        "code `state`.\n\n" + _table(head, rows) + "\n\nFINALIZING ends by itself once all "
        "streams are closed: in READY, or in IDLE or FAULT when something required was lost. The "
        "commit goes on in the background (flag `committing`), and the next episode may start.\n"
    )


def _target(state: State, event: Event) -> str:
    same = [event, *(other for other, name in SAID_AS.items() if name == event.value)]
    targets = [TRANSITIONS[state, one].value for one in same if (state, one) in TRANSITIONS]
    return " / ".join(targets)


def _processes() -> str:
    rows = [
        (f"`{kind}`", ", ".join(m.after), str(m.stop), _seconds(m.ready_after_ns),
         _seconds(m.stale_after_ns), _seconds(m.stop_after_ns),
         f"{m.restart.when.value}, {m.restart.most} in {_seconds(m.restart.window_ns)}")
        for kind, m in MANNERS.items()
    ]  # fmt: skip
    head = ("kind", "started after", "stop order", "ready within", "stuck after", "killed after",
            "restart")  # fmt: skip
    return "## Processes\n\n" + _table(head, rows) + "\n"


def _failures() -> str:
    rows = [
        (row.kind or "any", row.required.value if row.required else "any", row.loss.value,
         row.idle.value, row.recording.value)
        for row in FAILURES
    ]  # fmt: skip
    head = ("kind", "required for", "loss", "while idle", "while recording")
    return (
        "## What a loss does\n\nFirst row that fits. `degrade`: flag and mark; `end_episode`: the "
        "episode is ended and kept; `fault`: nothing records before `reset`.\n\n"
        + _table(head, rows)
        + "\n"
    )


def _verdict() -> str:
    rows = [
        (f"`{r.name}`", r.unit, f"{'<' if r.below else '>='} {r.check:g}",
         f"{'<' if r.below else '>='} {r.bad:g}")
        for r in RULES.values()
    ]  # fmt: skip
    return "## Verdict\n\n" + _table(("rule", "unit", "check", "bad"), rows) + "\n"


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / NS_PER_S:g} s"


if __name__ == "__main__":
    print(render(), end="")
