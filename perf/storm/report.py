"""Results of storms: injections as JSON lines, and the table of docs/reliability.md."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.perf.storm.fault import Fault
from recd.perf.storm.injection import Injection
from recd.perf.storm.matrix import EVERY_FAULT

READ_LIMIT = 110
_FOLDERS = re.compile(r"(?:/[^\s/\"':]+)*/(?:bout-\d+|recd-storm-\w+)(?=[/:\s\"'])")

BEGIN, END = "<!-- storm table -->", "<!-- end of storm table -->"
"""The table stands between these lines of a document."""


def append(path: Path, injection: Injection) -> None:
    """Add one injection to a result file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(placeless(json.dumps(asdict(injection), ensure_ascii=False)) + "\n")


def placeless(text: str) -> str:
    """Without where the storm's folders were: results are compared and published."""
    return _FOLDERS.sub("...", text)


def load(paths: Iterable[Path]) -> list[Injection]:
    """Injections of several files (.jsonl or .jsonl.gz), in order."""
    lines = [line for path in paths for line in _text(path).splitlines()]
    return [Injection(**_tuples(json.loads(line))) for line in lines if line]


def _text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {name: tuple(fields[name]) for name in ("read", "findings")}


def table(injections: Sequence[Injection]) -> str:
    """Markdown: one row per fault that was injected, and a line with the seeds."""
    seeds = sorted({injection.seed for injection in injections})
    bouts = len({(injection.seed, injection.bout) for injection in injections})
    lines = [
        f"{len(injections)} faults in {bouts} bouts; "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; "
        f"{sum(not injection.good for injection in injections)} with findings.",
        "",
        "| fault | injected | saved episodes lost | allowed ms | worst loss ms | back within s | "
        "what the operator read |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for fault in EVERY_FAULT:
        if mine := [one for one in injections if one.fault == fault.name]:
            lines.append(_row(fault, mine))
    return "\n".join(lines)


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the marks. RecdError when the document has none."""
    before, begun, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise RecdError(f"{document}: expected the lines {BEGIN} and {END}")
    whole = f"{before}{BEGIN}\n{text}\n{END}{after}"
    document.write_text(whole, encoding="utf-8")


def _row(fault: Fault, injections: Sequence[Injection]) -> str:
    gone = sum(found.startswith("saved episode") for one in injections for found in one.findings)
    losses = [one.loss_ms for one in injections if one.loss_ms is not None]
    worst = f"{max(losses):.0f}" if losses else "-"
    allowed = "its outage" if fault.loss_ms is None else f"{fault.loss_ms:.0f}"
    if not losses and fault.loss_ms is None:
        allowed = "-"
    back = max(one.recover_s for one in injections)
    return (
        f"| {fault.name} | {len(injections)} | {gone} | {allowed} | {worst} | {back:.1f} | "
        f"{_commonest(fault, injections)} |"
    )


def _commonest(fault: Fault, injections: Sequence[Injection]) -> str:
    """The line that most of these operators read, of those that name the matter."""
    told = Counter(
        line for one in injections for line in dict.fromkeys(one.read) if _names(line, fault, one)
    )
    if not told:
        return "nothing"
    return told.most_common(1)[0][0][:READ_LIMIT].replace("|", "/")


def _names(text: str, fault: Fault, injection: Injection) -> bool:
    """Whether a line is about this fault: its own words, or the thing that it struck."""
    struck = [injection.made.get(key, "") for key in ("camera", "killed", "stopped", "process")]
    bus = "main." if "wire" in injection.made else ""
    words = fault.reads or [word for word in (*struck, bus) if isinstance(word, str) and word]
    return not words or any(word in text for word in words)
