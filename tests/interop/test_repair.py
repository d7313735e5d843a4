"""What the real lerobot left unloadable when it died, and loads again after `recctl recover`."""

import pytest
from lerobot_side import LerobotError
from recorders import recctl

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("how", "episodes", "saved"),
    [("kill", 3, 3), ("kill", 12, 12), ("resume", 2, 4)],
)
def test_lerobot_loads_again_what_it_lost_when_it_died(
    how, episodes, saved, side, whole, tally, tmp_path
):
    root = tmp_path / "dataset"
    with pytest.raises(LerobotError, match="ended with -9"):
        side.run(["lerobot_dies.py", str(root), str(episodes), how], name=f"dies-{how}-{episodes}")
    assert not side.ask("check", root=root)["good"]
    told = recctl("recover", root)
    assert (told["exit_code"], told["repaired"]["lost"]) == (0, [])
    whole(root, episodes=saved)
    recctl("recover", root)
    tally.add("edits")


def test_lerobot_loads_a_copy_and_a_merge_of_what_recd_recorded(fresh, whole, tally, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    uid = recctl("dataset", "info", fresh)["episodes"][0]["uid"]
    recctl("dataset", "copy", fresh, one, "--packed")
    whole(one, episodes=3)
    recctl("dataset", "copy", fresh, two, "--since", uid)
    recctl("dataset", "merge", two, one, tmp_path / "all")
    whole(tmp_path / "all", episodes=3)
    tally.add("edits", 3)
