"""What a storm counts as loss, and the table that is made of it. Pure: no daemon runs here."""

import gzip
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.perf.storm.injection import Draft, Running
from recd.perf.storm.invariants import PERIOD_NS
from recd.perf.storm.judge import outage_ms, ring_loss_ms, tail_ms, too_much
from recd.perf.storm.matrix import BY_NAME
from recd.perf.storm.readings import silence
from recd.perf.storm.report import BEGIN, END, append, load, placeless, put_into, table
from recd.shm.clock import NS_PER_MS, NS_PER_S

ROWS = 60
LAST_NS = ROWS * PERIOD_NS


def test_results_do_not_tell_where_the_storm_was():
    told = "error /srv/storm/bout-24/disk/dataset: gone; /tmp/recd-storm-63te/sim/by-id/usb, /dev/x"
    assert placeless(told) == "error .../disk/dataset: gone; .../sim/by-id/usb, /dev/x"


def draft(name: str, **fields) -> Draft:
    made = Draft(BY_NAME[name], 0)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def tail_of(made: Draft) -> float:
    return tail_ms(made, Running("uid", 0), SimpleNamespace(length=ROWS))


@pytest.mark.parametrize(
    ("made", "lost_ms"),
    [
        (draft("everything killed", at_ns=LAST_NS + 400 * NS_PER_MS), 400),
        (draft("everything killed", at_ns=LAST_NS + 400 * NS_PER_MS, behind_ms=300.0), 100),
        (draft("everything killed", at_ns=LAST_NS - NS_PER_S), 0),
        (draft("writer killed", at_ns=0, ended_ns=LAST_NS + 50 * NS_PER_MS), 50),
        (draft("bad checksums", at_ns=LAST_NS, ended_ns=LAST_NS + NS_PER_S, ended="bus"), 0),
        (draft("bad checksums", at_ns=0, ended_ns=LAST_NS + NS_PER_S, ended="stop"), 1000),
    ],
)
def test_the_end_of_an_episode_counts_up_to_the_fault_that_ended_it_or_else_to_its_stop(
    made, lost_ms
):
    assert tail_of(made) == pytest.approx(lost_ms, abs=0.001)


def test_rows_without_picture_count_for_the_fault_after_which_they_came():
    first = draft("camera gone and back, required: mark", at_ns=10 * PERIOD_NS)
    second = draft("corrupt JPEGs, required: mark", at_ns=30 * PERIOD_NS)
    running = Running("uid", 0, [first, second])
    front, wrist = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    front[5:16] = wrist[40:43] = True
    without = {"front": front, "wrist": wrist}
    assert outage_ms(first, running, without) == pytest.approx(200, abs=0.001)
    assert outage_ms(second, running, without) == pytest.approx(100, abs=0.001)


def test_only_frames_that_a_ring_lost_since_the_fault_count():
    before = {"cam.front": 3, "cam.wrist": 0, "arm.main.leader": 0}
    now = {"cam.front": 6, "cam.wrist": 1, "arm.main.leader": 40}
    assert ring_loss_ms(before, now) == pytest.approx(100, abs=0.001)


def test_more_than_is_allowed_is_a_finding_and_an_outage_of_its_own_is_none():
    assert too_much(draft("everything killed", loss_ms=1002.0))
    assert not too_much(draft("everything killed", loss_ms=1000.0))
    assert not too_much(draft("camera gone and back, required: mark", loss_ms=5000.0))


def test_an_operator_who_reads_nothing_of_the_matter_is_a_finding():
    assert silence(draft("writer killed", read=["encoder:front has ended"]))
    assert not silence(draft("writer killed", read=["writer has ended"]))
    assert not silence(draft("all cores busy"))


def test_the_table_counts_every_fault_and_tells_its_worst_loss(tmp_path):
    lost = ("saved episode ab is gone",)
    one = draft("everything killed", loss_ms=120.0, recover_s=7.0).done(
        seed=4, bout=0, setting="strict"
    )
    for found in (one, replace(one, bout=1, loss_ms=310.0), replace(one, bout=2, findings=lost)):
        append(tmp_path / "bouts.jsonl", found)
    packed = tmp_path / "bouts.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "bouts.jsonl").read_bytes()))
    assert load([packed]) == load([tmp_path / "bouts.jsonl"])
    told = table(load([packed]))
    assert told.startswith("3 faults in 3 bouts; seed 4; 1 with findings.")
    assert "| everything killed | 3 | 1 | 1000 | 310 | 7.0 | nothing |" in told
    page = tmp_path / "page.md"
    page.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    put_into(page, told)
    assert page.read_text() == f"a\n{BEGIN}\n{told}\n{END}\nb\n"
    page.write_text("no marks\n")
    with pytest.raises(RecdError, match="expected the lines"):
        put_into(page, told)
