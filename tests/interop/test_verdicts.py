"""recd's format checker against the real library, on good datasets and on broken ones."""

import pytest
from compare_verdicts import ask_lerobot, build, judge
from mutations import MUTATIONS

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

LEAST = 30


def test_the_checker_and_lerobot_give_every_dataset_the_same_verdict(side, tally, tmp_path):
    wanted = list(MUTATIONS)
    roots = build(tmp_path, wanted)
    judged = judge(roots, ask_lerobot(side.python, roots, side.variables), wanted)
    different = [str(one) for one in judged if not one.same]
    good = [one for one in judged if one.ours_good]
    tally.add("verdicts_compared", len(judged))
    tally.add("verdicts_differ", len(different))
    tally.notes.append(f"Of the {len(judged)} judged datasets {len(good)} are good, as both say.")
    assert not different, "\n".join(different)
    assert len(judged) >= LEAST
    assert 0 < len(good) < len(judged)
