"""Results of storms: bouts as JSON lines, and the table of docs/reliability.md made of them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.perf.storm.disks import DISK_FAULTS
from recd.perf.storm.faults import FAULTS, Fault
from recd.perf.storm.runner import Bout
from recd.perf.storm.shims import SHIM_FAULTS

READ_LIMIT = 110

BEGIN, END = "<!-- storm table -->", "<!-- end of storm table -->"
"""The table stands between these lines of a document."""


def append(path: Path, bout: Bout) -> None:
    """Add one bout to a result file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(bout), ensure_ascii=False) + "\n")


def load(paths: Iterable[Path]) -> list[Bout]:
    """Bouts of several files, in order."""
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [Bout(**_tuples(json.loads(line))) for line in lines if line]


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {name: tuple(fields[name]) for name in ("read", "findings")}


def table(bouts: Sequence[Bout]) -> str:
    """Markdown: one row per fault that was injected, and a line with the seeds."""
    seeds = sorted({bout.seed for bout in bouts})
    lines = [
        f"{len(bouts)} faults; seeds {', '.join(map(str, seeds))}; "
        f"{sum(not bout.good for bout in bouts)} with findings.",
        "",
        "| fault | injected | saved episodes lost | allowed ms | worst loss ms | back within s | "
        "what the operator read |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for fault in (*FAULTS, *DISK_FAULTS, *SHIM_FAULTS):
        if mine := [bout for bout in bouts if bout.fault == fault.name]:
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


def _row(fault: Fault, bouts: Sequence[Bout]) -> str:
    gone = sum(f"{finding}".startswith("saved episode") for b in bouts for finding in b.findings)
    losses = [bout.loss_ms for bout in bouts if bout.loss_ms is not None]
    worst = f"{max(losses):.0f}" if losses else "-"
    allowed = "its outage" if fault.loss_ms is None else f"{fault.loss_ms:.0f}"
    back = max(bout.recover_s for bout in bouts)
    return (
        f"| {fault.name} | {len(bouts)} | {gone} | {allowed} | {worst} | {back:.1f} | "
        f"{_commonest(fault, bouts)} |"
    )


def _commonest(fault: Fault, bouts: Sequence[Bout]) -> str:
    """The line that most of these operators read, of those that name the matter."""
    lines = [
        line for bout in bouts for line in bout.read
        if not fault.reads or any(word in line for word in fault.reads)
    ]  # fmt: skip
    if not lines:
        return "nothing"
    return Counter(lines).most_common(1)[0][0][:READ_LIMIT].replace("|", "/")
