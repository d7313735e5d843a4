"""The control plane on the wire: requests, replies, events, and the one table of commands.

msgpack maps with a version; closed set of types; sizes, depth and counts are limited before
anything looks at a value. Unknown fields are ignored, unknown commands refused by name.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from recd.config.errors import RecdError

PROTOCOL_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 32
"""Levels of a reply or event: what a device tells of itself nests deeper than a request may."""
MAX_REQUEST_DEPTH: Final = 8
MAX_ITEMS: Final = 65_536
"""Values in one message, all levels together."""
MAX_REQUEST_ITEMS: Final = 4096
MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_REQUEST_KEY_BYTES: Final = 64
"""The same for a request, which no daemon needs to be long; and the longest key in its maps."""
MAX_TEXT_BYTES: Final = 4096
"""Longest text argument (task, mark, operator), UTF-8."""
MAX_DEADLINE_MS: Final = 3_600_000

TOPICS: Final = ("state", "event", "episode", "plan", "fault")
"""Topics of the PUB socket; each message is [topic, msgpack map with `seq` and `t_ns`]."""

_SCALARS = (type(None), bool, int, float, str, bytes)
_ID = re.compile(r"[0-9a-zA-Z_-]{1,64}")
_UID = re.compile(r"[0-9a-f]{32}")


class MessageError(RecdError):
    """A message that is not of this protocol. `code` is `malformed` unless it says better."""

    code = "malformed"


class CommandError(RecdError):
    """A well-formed request that asks for something that does not exist or is mistyped."""

    code = "argument"


def encode(message: Mapping[str, Any]) -> bytes:
    """msgpack bytes of `message`; MessageError when it is larger than a message may be."""
    data = bytes(msgpack.packb(dict(message), use_bin_type=True))
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message of {len(data)} bytes, at most {MAX_MESSAGE_BYTES}")
    return data


@dataclass(frozen=True, slots=True)
class Limits:
    """What a message may be: bytes on the wire, values in all, bytes of a map's key, levels."""

    nbytes: int
    items: int
    key_bytes: int
    depth: int


REPLY_LIMITS: Final = Limits(MAX_MESSAGE_BYTES, MAX_ITEMS, MAX_TEXT_BYTES, MAX_DEPTH)
REQUEST_LIMITS: Final = Limits(
    MAX_REQUEST_BYTES, MAX_REQUEST_ITEMS, MAX_REQUEST_KEY_BYTES, MAX_REQUEST_DEPTH
)


def decode(data: bytes, limits: Limits = REPLY_LIMITS) -> dict[str, Any]:
    """The map in `data`. MessageError for anything that is not one small, plain msgpack map."""
    if len(data) > limits.nbytes:
        raise MessageError(
            f"message of {len(data)} bytes, at most {limits.nbytes}", code="oversized"
        )
    try:
        message = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_pairs,
            max_array_len=limits.items,
            max_map_len=limits.items,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise MessageError(f"not a msgpack message: {type(error).__name__}") from error
    if not isinstance(message, dict):
        raise MessageError(f"expected a map, found {type(message).__name__}")
    _check_plain(message, limits)
    return message


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map; two values under one key would let two readers see two different messages."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MessageError("a key stands twice in one map")
    return found


def _check_plain(message: object, limits: Limits) -> None:
    """Only maps with short text keys, lists and scalars; not too deep, not too many."""
    level, items = [message], 0
    for _ in range(limits.depth):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                for key in value:
                    _check_key(key, limits.key_bytes)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif not isinstance(value, _SCALARS):
                raise MessageError(f"type {type(value).__name__} is not part of this protocol")
        items += len(below)
        if items > limits.items:
            raise MessageError(f"more than {limits.items} values", code="oversized")
        if not below:
            return
        level = below
    raise MessageError(f"nested deeper than {limits.depth} levels", code="oversized")


def _check_key(key: object, most: int) -> None:
    if not isinstance(key, str):
        raise MessageError("map keys must be text")
    if len(key) > most or len(key.encode("utf-8", "surrogatepass")) > most:
        raise MessageError(f"a key of more than {most} bytes", code="oversized")


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument of a command. kind: text, number, count, flag, uid or name; choices close it."""

    kind: str
    doc: str
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the control API. role: the least role that may use it (config/roles.py)."""

    name: str
    role: str
    doc: str
    args: Mapping[str, Arg] = field(default_factory=dict)


_TASK = Arg("text", "task text of the episode; the dataset's default when left out")
_RECORDING = Arg("name", "which recording of the daemon; `main` when left out")
_PAIR = Arg("name", "one pair of arms; all when left out")
_UID_ARG = Arg("uid", "episode uid, 32 hex digits")

COMMANDS: Final[dict[str, Command]] = {
    command.name: command
    for command in (
        Command("hello", "observe", "Who answers: versions, instance, session id, robot.", {
            "version": Arg("text", "version of the client, for the log"),
        }),
        Command("status", "observe", "Everything about the daemon now, as one map."),
        Command("start", "operate", "Begin an episode. Replies before anything is synced.", {
            "task": _TASK,
            "operator": Arg("text", "operator of this episode"),
            "recording": _RECORDING,
        }),
        Command("stop", "operate", "End the episode and keep it; replies when it is durable.", {
            "wait": Arg("flag", "false: reply at once"),
            "recording": _RECORDING,
        }),
        Command("discard", "operate", "End the running episode and put it in the trash.", {
            "recording": _RECORDING,
        }),
        Command("rerecord", "operate", "Running: discard and start again. Otherwise: undo the "
                "last episode that this session saved.", {
            "uid": Arg("uid", "the episode meant; refused when it is not the latest"),
            "recording": _RECORDING,
        }),
        Command("undelete", "operate", "Bring a discarded or undone episode back.", {
            "uid": Arg("uid", _UID_ARG.doc, required=True),
            "recording": _RECORDING,
        }),
        Command("mark", "label", "Put a word on the running episode.", {
            "label": Arg("text", "success, fail or any text", required=True),
            "recording": _RECORDING,
        }),
        Command("episodes", "observe", "Episodes of this session, newest last.", {
            "limit": Arg("count", "at most so many; 20 when left out"),
        }),
        Command("task", "label", "Default task of the next episodes; without text: tell it.", {
            "text": Arg("text", "the task"),
        }),
        Command("operator", "label", "Operator of the next episodes; without name: tell it.", {
            "name": Arg("text", "the operator"),
        }),
        Command("arm", "teleop", "Torque on and follow, after the pose check.", {"pair": _PAIR}),
        Command("disarm", "teleop", "Stop following; torque by policy.", {
            "policy": Arg("text", "what the torque does", choices=("hold", "park", "release")),
            "pair": _PAIR,
        }),
        Command("teleop", "teleop", "Follow the leader.", {"pair": _PAIR}),
        Command("hold", "teleop", "Stand still, torque on.", {"pair": _PAIR}),
        Command("resume", "teleop", "Go on after hold.", {"pair": _PAIR}),
        Command("estop", "observe", "Stand still within one control period; twice: torque policy.",
                {"pair": _PAIR}),
        Command("policy.attach", "teleop", "Let the policy that holds the lease drive.", {
            "pair": _PAIR,
        }),
        Command("policy.pause", "teleop", "Interrupt the policy; the arm slows down and holds.", {
            "pair": _PAIR,
        }),
        Command("policy.resume", "teleop", "Let the policy go on, with a fresh observation.", {
            "pair": _PAIR,
        }),
        Command("policy.takeover", "teleop", "Interrupt the policy and follow the leader, as a "
                "correction.", {"pair": _PAIR}),
        Command("policy.detach", "teleop", "Hold, and take the lease from the policy.", {
            "pair": _PAIR,
        }),
        Command("policy.stats", "observe", "Leases, chunks by what became of them, latencies."),
        Command("rollout.start", "operate", "Record by itself while a policy drives.", {
            "strategy": Arg("text", "what is recorded; as configured when left out",
                            choices=("base", "sentry", "highlight", "dagger", "episodic")),
            "episode_s": Arg("number", "length of an episode in seconds"),
            "corrections": Arg("text", "dagger: an episode of its own, or marked inside",
                               choices=("own", "inside")),
        }),
        Command("rollout.stop", "operate", "End the rollout; its running episode is kept."),
        Command("highlight", "operate", "Save the last seconds as an episode; replies when it is "
                "durable.", {
            "go_on": Arg("flag", "record on from there, until `stop`; replies at once"),
            "wait": Arg("flag", "false: reply at once"),
        }),
        Command("plan.start", "operate", "Record a number of episodes by a plan.", {
            "episodes": Arg("count", "how many", required=True),
            "episode_s": Arg("number", "length of an episode in seconds", required=True),
            "reset_s": Arg("number", "time between episodes in seconds", required=True),
            "task": _TASK,
            "on_client_lost": Arg("text", "when the last client vanishes",
                                  choices=("finish", "stop", "continue")),
            "resume": Arg("flag", "the dataset may already hold episodes"),
            "client": Arg("text", "name under which the caller attaches"),
            "recording": _RECORDING,
        }),
        Command("plan.key", "operate", "What lerobot-record's keys do, and hold.", {
            "key": Arg("text", "the key", required=True,
                       choices=("next", "rerecord", "stop", "hold")),
        }),
        Command("plan.status", "observe", "The plan now; keeps an attached client alive.", {
            "client": Arg("text", "name of an attached client"),
        }),
        Command("plan.attach", "operate", "Join the plan: it counts on this client's presence.", {
            "client": Arg("text", "name of the client", required=True),
        }),
        Command("plan.detach", "operate", "Leave the plan on purpose; it goes on.", {
            "client": Arg("text", "name of the client", required=True),
        }),
        Command("reset", "operate", "Start again what was given up, and leave FAULT."),
        Command("shm", "observe", "Rings and cells: fill, readers, losses."),
        Command("snapshot", "observe", "The newest picture of a camera, as a file.", {
            "camera": Arg("name", "one camera; all when left out"),
        }),
        Command("devices", "observe", "Devices that this daemon uses."),
        Command("config", "observe", "The configuration in use, with every default."),
        Command("shutdown", "admin", "Finish the running episode and end the daemon."),
    )
}  # fmt: skip
"""name -> command: the API. docs/control_api.md is written from this table."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. id: makes retries idempotent; deadline_ms: how long the caller will wait."""

    id: str
    cmd: str
    args: dict[str, Any] = field(default_factory=dict)
    deadline_ms: int = 10_000

    def pack(self) -> bytes:
        """The bytes on the wire."""
        return encode(
            {
                "v": PROTOCOL_VERSION,
                "ty": "req",
                "id": self.id,
                "cmd": self.cmd,
                "args": self.args,
                "deadline_ms": self.deadline_ms,
            }
        )


def new_request_id() -> str:
    """128 random bits as 32 hex digits."""
    return secrets.token_hex(16)


def request_id_of(message: Mapping[str, Any]) -> str:
    """The id to answer to, or "" when the message has none that can be used."""
    found = message.get("id")
    if isinstance(found, bytes) and len(found) == 16:
        return found.hex()
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def parse_request(
    message: Mapping[str, Any], commands: Mapping[str, Command] = COMMANDS
) -> Request:
    """The request in a decoded message, arguments checked against `commands`.

    Raises MessageError for a message that is no request of this version, CommandError for an
    unknown command or an argument that does not fit.
    """
    if message.get("v") != PROTOCOL_VERSION:
        raise MessageError(
            f"protocol version: expected {PROTOCOL_VERSION}, found {message.get('v')!r}",
            code="version",
            mend="use the recctl that belongs to this daemon",
        )
    if message.get("ty") != "req":
        raise MessageError(f"ty: expected 'req', found {_shown(message.get('ty'))}")
    request_id = request_id_of(message)
    if not request_id:
        raise MessageError("id: expected 16 bytes or up to 64 letters and digits")
    deadline_ms = message.get("deadline_ms", 10_000)
    if not _is_int(deadline_ms) or not 0 < deadline_ms <= MAX_DEADLINE_MS:
        raise MessageError(
            f"deadline_ms: expected 1..{MAX_DEADLINE_MS}, found {_shown(deadline_ms)}"
        )
    name, args = message.get("cmd"), message.get("args", {})
    command = commands.get(name) if isinstance(name, str) else None
    if command is None:
        raise CommandError(
            f"unknown command {_shown(name)}", mend=f"known: {', '.join(commands)}", code="unknown"
        )
    if not isinstance(args, dict):
        raise MessageError(f"args: expected a map, found {_shown(args)}")
    return Request(request_id, command.name, check_args(command, args), deadline_ms)


def check_args(command: Command, args: Mapping[str, Any]) -> dict[str, Any]:
    """The known arguments of `command`, checked; None counts as left out. CommandError if wrong."""
    checked = {}
    for name, arg in command.args.items():
        value = args.get(name)
        if value is None:
            if arg.required:
                raise CommandError(f"{command.name}: {name} is missing: {arg.doc}")
            continue
        if (expected := _mismatch(arg, value)) is not None:
            raise CommandError(f"{command.name}.{name}: expected {expected}, found {_shown(value)}")
        checked[name] = value
    return checked


def _mismatch(arg: Arg, value: object) -> str | None:
    """What was expected instead of `value`, or None when it fits."""
    if arg.choices:
        return None if value in arg.choices else f"one of {', '.join(arg.choices)}"
    test, expected = _KINDS[arg.kind]
    return None if test(value) else expected


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    """A real, finite, sane number; NaN fails both comparisons."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e6


def _is_text(value: object) -> bool:
    """One line: what goes into a file and onto a terminal must not carry control characters."""
    if not isinstance(value, str) or not value.isprintable():
        return False
    return len(value.encode("utf-8", "surrogatepass")) <= MAX_TEXT_BYTES


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,30}", value) is not None


def _is_uid(value: object) -> bool:
    return isinstance(value, str) and _UID.fullmatch(value) is not None


_KINDS: Final[dict[str, tuple[Callable[[object], bool], str]]] = {
    "text": (_is_text, f"one line of text, at most {MAX_TEXT_BYTES} bytes"),
    "name": (_is_name, "a name of small letters, digits and _"),
    "uid": (_is_uid, "32 hex digits"),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
    "count": (lambda value: _is_int(value) and 0 < value <= 1_000_000, "a number from 1"),  # type: ignore[operator]
    "number": (_is_number, "a number from 0 to 1000000"),
}
"""kind of argument -> (test, what an error says was expected)."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def reply_ok(request_id: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """A reply that carries a result."""
    return {
        "v": PROTOCOL_VERSION,
        "ty": "rep",
        "re": request_id,
        "ok": True,
        "result": dict(result),
    }


def reply_error(
    request_id: str,
    error: RecdError,
    *,
    state: str = "",
) -> dict[str, Any]:
    """A typed refusal: {code, message, mend, state, legal}."""
    return {
        "v": PROTOCOL_VERSION,
        "ty": "rep",
        "re": request_id,
        "ok": False,
        "error": {
            "code": error.code,
            "message": error.message,
            "mend": error.mend,
            "state": getattr(error, "state", state),
            "legal": list(getattr(error, "legal", ())),
        },
    }
