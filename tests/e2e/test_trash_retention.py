"""The trash of a dataset that is recorded into: kept, or emptied where the configuration asks."""

import json
import threading

from .conftest import SMALL, running, until

DAY_NS = 86_400 * 10**9


def discarded(robot) -> str:
    """A take of some rows, thrown away; its uid."""
    assert robot.client is not None
    before = trash_of(robot)
    robot.client.start()
    until(lambda: robot.rows() >= 10, "10 rows")
    robot.client.discard()
    return until(lambda: next(iter(trash_of(robot) - before), ""), "the take in the trash")


def trash_of(robot) -> set[str]:
    return {note.parent.name for note in (robot.root / ".recd/trash").glob("*/trash.json")}


def aged(robot, uid: str) -> None:
    note = robot.root / ".recd/trash" / uid / "trash.json"
    content = json.loads(note.read_text())
    content["real_ns"] -= 3 * DAY_NS
    note.write_text(json.dumps(content))


def hear(client, heard: list[dict]) -> None:
    """Every event up to the one that tells of the trash."""
    for news in client.events(timeout_s=30):
        heard.append(news)
        if news.get("event") == "trash emptied":
            return


def test_the_daemon_empties_the_trash_only_where_the_configuration_asks_and_says_so(tmp_path):
    with running(tmp_path, *SMALL) as robot:
        robot.record(5)
        old = [discarded(robot), discarded(robot)]
        aged(robot, old[0])
        robot.end()
    with running(tmp_path, *SMALL) as robot:
        assert trash_of(robot) == set(old)
        robot.end()
    with running(tmp_path, *SMALL, "dataset.trash_keep_days=2") as robot:
        assert trash_of(robot) == {old[1]}
        aged(robot, old[1])
        heard: list[dict] = []
        listening = threading.Thread(target=hear, args=(robot.client, heard))
        listening.start()
        until(lambda: heard, "the first event")
        new = discarded(robot)
        listening.join(60)
        assert heard[-1]["event"] == "trash emptied"
        assert heard[-1]["fields"]["uids"] == [old[1]]
        assert trash_of(robot) == {new}
        robot.end()
