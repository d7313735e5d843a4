"""Structured logs of one process: for the journal, for a terminal, or as JSON lines.

The journal gets a priority in front of every line and no stamp, since it keeps its own.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

FORMS = ("journal", "json", "text")

PRIORITIES: Mapping[str, int] = {
    "critical": 2,
    "error": 3,
    "exception": 3,
    "warning": 4,
    "info": 6,
    "debug": 7,
}
"""Level of a line -> syslog priority: what `journalctl -p warning` shows."""

_FIRST_KEYS = ("level", "process", "event")


def configure(*, process: str, stream: TextIO | None = None, form: str | None = None) -> None:
    """Send every log line of this process to `stream` (default stderr), bound with its name.

    form: one of FORMS; default is RECD_LOG, else `journal` where the stream leads there, `text`
    on a terminal, `json` anywhere else. RECD_LOG_LEVEL (default info) sets the level.
    """
    out = stream or sys.stderr
    level = logging.getLevelNamesMapping().get(
        os.environ.get("RECD_LOG_LEVEL", "info").upper(), logging.INFO
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            *_endings(form or _form_for(out), out),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


def _form_for(out: TextIO) -> str:
    wanted = os.environ.get("RECD_LOG", "")
    if wanted in FORMS:
        return wanted
    if leads_to_journal(out):
        return "journal"
    return "text" if out.isatty() else "json"


def leads_to_journal(out: TextIO) -> bool:
    """Whether systemd has connected `out` to the journal: JOURNAL_STREAM names its inode."""
    try:
        facts = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False  # no file behind it: a test's buffer
    return os.environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"


def _endings(form: str, out: TextIO) -> list[Any]:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    match form:
        case "journal":
            return [_journal_lines]
        case "json":
            return [stamp, structlog.processors.JSONRenderer(sort_keys=False)]
        case _:
            return [stamp, structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=28)]


def _journal_lines(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """`<4>camera:front: camera is gone reason='...'`; every line of a traceback has the prefix."""
    prefix = f"<{PRIORITIES.get(str(event.get('level')), 6)}>"
    trace = str(event.pop("exception", ""))
    rest = " ".join(
        f"{key}={value if _is_plain(value) else repr(value)}"
        for key, value in event.items()
        if key not in _FIRST_KEYS
    )
    first = f"{event.get('process', 'recd')}: {event.get('event', '')} {rest}".rstrip()
    lines = [*first.splitlines(), *trace.splitlines()]
    return "\n".join(prefix + line for line in lines)


def _is_plain(value: object) -> bool:
    """Needs no quotes to be read as one word."""
    return isinstance(value, int | float) or (
        isinstance(value, str) and value.isprintable() and bool(value) and " " not in value
    )


def get_logger(**bound: Any) -> Any:
    """A logger with `bound` on every line (stream=..., episode=...). Events are constant words."""
    return structlog.get_logger().bind(**bound)
