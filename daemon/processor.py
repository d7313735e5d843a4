"""Which processor this computer has, as the kernel tells it."""

import platform
from contextlib import suppress
from pathlib import Path

_MODEL_KEYS = ("model name", "Hardware", "Model", "CPU part")
"""What names the processor, by architecture; the first that is there."""


def facts() -> dict[str, str]:
    """/proc/cpuinfo of the first core, key -> value; empty where there is none."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, separator, value = line.partition(":")
            if separator:
                found.setdefault(key.strip(), value.strip())
    return found


def model() -> str:
    """Name of the processor; `unknown` where nothing tells it."""
    told = facts()
    named = (told[key] for key in _MODEL_KEYS if told.get(key))
    return next(named, platform.processor()) or "unknown"
