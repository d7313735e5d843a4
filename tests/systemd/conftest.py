import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import journal
from tests.systemd.booted import Machine, booted, missing

REPORT = "RECD_SYSTEMD_REPORT"
"""Where to write the log of this run, in the environment."""

OUTCOMES: list[journal.Outcome] = []
SAID: list[str] = []


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    with booted() as running:
        yield running
        running.run("journalctl", "--sync")
        entries = running.run("journalctl", "--no-pager", "-o", "json").splitlines()
        SAID.extend(journal.told_of_recd(map(json.loads, entries)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.rpartition("::")[2]
        OUTCOMES.append(journal.Outcome(name, report.outcome, report.duration))


def pytest_sessionfinish() -> None:
    if (wanted := os.environ.get(REPORT)) and OUTCOMES:
        Path(wanted).write_text(journal.report(OUTCOMES, SAID))
