"""Structured logs: JSON lines for journald, readable lines on a terminal. One per process."""

import logging
import os
import sys
from typing import Any, TextIO

import structlog


def configure(*, process: str, stream: TextIO | None = None, as_json: bool | None = None) -> None:
    """Send every log line of this process to `stream` (default stderr), bound with its name.

    as_json: True for JSON lines; default is JSON unless the stream is a terminal or
    RECD_LOG=text asks for plain text. RECD_LOG_LEVEL (default info) sets the level.
    """
    out = stream or sys.stderr
    if as_json is None:
        wanted = os.environ.get("RECD_LOG", "")
        as_json = wanted == "json" if wanted in ("json", "text") else not out.isatty()
    renderer: Any = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=28)
    )
    level = logging.getLevelNamesMapping().get(
        os.environ.get("RECD_LOG_LEVEL", "info").upper(), logging.INFO
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


def get_logger(**bound: Any) -> Any:
    """A logger with `bound` on every line (stream=..., episode=...). Events are constant words."""
    return structlog.get_logger().bind(**bound)
