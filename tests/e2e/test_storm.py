"""A few faults of the storm in every test run; the long storm is `make storm`."""

import pytest

from recd.perf.storm.disks import DISK_FAULTS, may_mount
from recd.perf.storm.faults import BY_NAME, FAULTS
from recd.perf.storm.runner import draw_faults, run_storm
from recd.perf.storm.shims import SHIM_FAULTS, may_preload

SAMPLE = ("writer killed", "killed at a named point while saving", "everything killed")
LONG_SEED, LONG = 7, 120


def test_a_seed_draws_the_same_faults_and_every_fault_as_often_as_the_others():
    drawn = draw_faults(FAULTS, seed=3, count=2 * len(FAULTS))
    assert drawn == draw_faults(FAULTS, seed=3, count=2 * len(FAULTS))
    assert all(drawn.count(fault) == 2 for fault in FAULTS)
    assert drawn != draw_faults(FAULTS, seed=4, count=2 * len(FAULTS))


def storm(numbered, seed, folder, *, disk):
    bouts = run_storm(
        numbered, seed=seed, folder=folder, disk=disk, say=print, done=lambda bout: None
    )
    return {f"{bout.number} {bout.fault}": bout.findings for bout in bouts if not bout.good}


@pytest.mark.timeout(170)
def test_a_fixed_sample_of_faults_costs_no_more_than_is_allowed(tmp_path):
    sample = list(enumerate(BY_NAME[name] for name in SAMPLE))
    assert storm(sample, 1, tmp_path, disk=False) == {}


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_a_long_storm_of_all_faults_costs_no_more_than_is_allowed(tmp_path):
    disk = not may_mount()
    table = [*FAULTS, *(DISK_FAULTS if disk else ()), *(() if may_preload() else SHIM_FAULTS)]
    drawn = list(enumerate(draw_faults(table, seed=LONG_SEED, count=LONG)))
    assert storm(drawn, LONG_SEED, tmp_path, disk=disk) == {}
