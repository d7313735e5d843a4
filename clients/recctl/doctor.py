"""recctl doctor: is this computer fit for a session? Every check, what was found, and the mend."""

from typing import Any

import click

from recd.clients.recctl.output import EXIT_REFUSED, EXIT_WARNINGS, Output
from recd.clients.recctl.setup import OVERRIDE
from recd.daemon.doctor.findings import Finding, Level, worst

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
EXITS = {Level.OK: 0, Level.WARN: EXIT_WARNINGS, Level.FAIL: EXIT_REFUSED}


@click.command()
@click.argument("config", required=False)
@click.option("--quiet", "-q", is_flag=True, help="Only what is not well.")
@OVERRIDE
@click.pass_obj
def doctor(output: Output, config: str | None, overrides: tuple[str, ...], *, quiet: bool) -> int:
    """Check this computer before a session, with the cameras and arms of CONFIG.

    Takes some seconds: disk and codecs are measured. Best while no daemon records. Exit code 0: all
    is well; 5: only warnings; 1: something fails.
    """
    from recd.daemon.doctor.checks import examine
    from recd.daemon.doctor.visit import visit

    findings = examine(visit(config or "", overrides=overrides))
    level = worst(findings)
    told = {"level": level.word, "findings": [finding.plain() for finding in findings]}
    output.show(told, lambda _: _lines(findings, quiet=quiet))
    return EXITS[level]


def _lines(findings: list[Finding], *, quiet: bool) -> list[str]:
    lines = []
    for finding in findings:
        if quiet and finding.level is Level.OK:
            continue
        word = click.style(f"{finding.level.word:<5}", fg=COLOURS[finding.level.word])
        lines.append(f"{word} {finding.check:<9} {finding.subject}: {finding.found}")
        if finding.expected:
            lines.append(f"{'':<15} expected {finding.expected}")
        if finding.mend:
            lines.append(f"{'':<15} {finding.mend}")
    return [*lines, _sum(findings)]


def _sum(findings: list[Finding]) -> str:
    counts: dict[str, Any] = {level.word: 0 for level in Level}
    for finding in findings:
        counts[finding.level.word] += 1
    return f"{counts['ok']} well, {counts['warn']} warnings, {counts['fail']} failures"
