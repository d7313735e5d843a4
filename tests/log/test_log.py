"""Log lines in each of their forms, written by a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

SPEAK = """
import sys
from recd.daemon import log
log.configure(process="camera:front")
say = log.get_logger()
say.info("camera opened", device="/dev/video0", fps=30)
say.warning("camera is gone", reason="no frame for 2 s")
try:
    1 / 0
except ZeroDivisionError:
    say.exception("worker failed")
say.debug("not shown")
"""


def speak(path: Path, **environment: str) -> list[str]:
    """The lines that the process left in `path`, which is its standard error."""
    clean = {k: v for k, v in os.environ.items() if k not in ("RECD_LOG", "JOURNAL_STREAM")}
    with path.open("wb") as out:
        facts = os.fstat(out.fileno())
        told = {
            name: value.format(facts=f"{facts.st_dev}:{facts.st_ino}")
            for name, value in environment.items()
        }
        subprocess.run([sys.executable, "-c", SPEAK], stderr=out, check=True, env={**clean, **told})
    return path.read_text().splitlines()


def test_the_journal_gets_a_priority_on_every_line_and_no_second_stamp(tmp_path: Path) -> None:
    lines = speak(tmp_path / "log", JOURNAL_STREAM="{facts}")
    assert lines[0] == "<6>camera:front: camera opened device=/dev/video0 fps=30"
    assert lines[1] == "<4>camera:front: camera is gone reason='no frame for 2 s'"
    trace = lines[2:]
    assert trace[0] == "<3>camera:front: worker failed"
    assert trace[-1] == "<3>ZeroDivisionError: division by zero"
    assert all(line.startswith("<3>") for line in trace)


def test_somebody_elses_journal_stream_is_not_ours(tmp_path: Path) -> None:
    lines = speak(tmp_path / "log", JOURNAL_STREAM="1:1")
    first = json.loads(lines[0])
    assert (first["event"], first["fps"], first["process"]) == ("camera opened", 30, "camera:front")
    assert "timestamp" in first


def test_a_form_asked_for_wins_over_where_the_lines_go(tmp_path: Path) -> None:
    lines = speak(tmp_path / "log", JOURNAL_STREAM="{facts}", RECD_LOG="json")
    assert [json.loads(line)["level"] for line in lines] == ["info", "warning", "error"]
    text = speak(tmp_path / "log", RECD_LOG="text")
    assert "camera opened" in text[0]
    assert not text[0].startswith(("<", "{"))
