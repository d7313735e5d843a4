"""Units of joints, by both programs, to the last bit."""

import re

import pytest
from lerobot_side import SOURCES

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

ARMS = 5000


def test_joints_are_normalised_as_lerobot_does_it_bit_by_bit(side, tally):
    said = side.run(
        ["normalize_against_lerobot.py", f"--cases={ARMS}"],
        variables={"PYTHONPATH": str(SOURCES)},
        name="normalisation",
    )
    counted = re.search(r"(\d+) arms compared with lerobot, (\d+) differ", said)
    assert counted, said
    tally.add("arms_normalised", int(counted[1]))
    tally.add("arms_differ", int(counted[2]))
    assert (int(counted[1]), int(counted[2])) == (ARMS, 0)
