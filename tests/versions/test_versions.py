"""What every released version left: recordings, datasets, keys, configurations, messages. Its own
code made the files (make.py); today's has to recover, continue, verify and understand them."""

import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from recd.config import keys
from recd.config.load import load_robot
from recd.config.messages import decode, encode
from recd.config.versions import UNNAMED, own_version
from recd.daemon.service.idle import reasons_to_wait
from tests.rig import Robot, running, until
from tests.said import recctl_of

FIXTURES = sorted(Path(__file__).parent.glob("*.tar.xz"))
SAME_SETUP = ("cameras.wrist=null", "cameras.front.width=160", "cameras.front.height=160",
              "dataset.reserve_mb=0")  # fmt: skip
OF_KIND = {"video": (), "images": ("dataset.video=false", "dataset.fps=5", "cameras.front.fps=5")}
TORN = {"video": 15, "images": 3}
"""Rows that are there at least: 45 at 30 a second, 8 at 5, of which a second may be lost."""


@pytest.fixture
def recctl(monkeypatch, capsys):
    return recctl_of(monkeypatch, capsys)


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def made(request, tmp_path) -> Path:
    """The files of one version, in a folder of the test's own."""
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path / "made", filter="data")
    return tmp_path / "made"


def has_keys(path: Path) -> bool:
    with tarfile.open(path) as tar:
        return "keys" in tar.getnames()


def episodes(recctl, root: Path) -> list[dict[str, Any]]:
    return recctl("dataset", "info", root, "--json").json["episodes"]


def everything(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*")) if path.is_file() and path.name != "lock"
    }  # fmt: skip


def test_there_is_a_fixture_of_every_version_with_what_it_knew():
    assert len(FIXTURES) >= 3
    for path in FIXTURES:
        with tarfile.open(path) as tar:
            names = {name.partition("/")[0] for name in tar.getnames()}
        assert {"video", "images", "half", "wire.json", "made.json"} <= names


@pytest.mark.parametrize("kind", OF_KIND)
def test_a_recording_torn_in_that_version_is_recovered_verifies_and_is_not_touched_again(
    made, recctl, kind
):
    root = made / kind
    before = len(episodes(recctl, root))
    said = recctl("recover", root, "--json")
    assert said.code in (0, 3), said.out
    assert not said.json["quarantined"]
    after = episodes(recctl, root)
    assert len(after) == before + 1
    assert after[-1]["length"] >= TORN[kind]
    assert recctl("verify", root).code == 0
    whole = everything(root)
    assert recctl("recover", root).code == 0
    assert everything(root) == whole


def test_a_commit_torn_in_that_version_is_finished_and_then_the_torn_recording(made, recctl):
    root = made / "half"
    before = len(episodes(recctl, root))
    said = recctl("recover", root)
    assert said.code in (0, 3)
    finished, torn = episodes(recctl, root)[before:]
    assert f"the interrupted commit was finished ({finished['uid'][:8]})" in said.out
    assert f"({torn['uid'][:8]}): {torn['length']} rows recovered" in said.out
    assert recctl("verify", root).code == 0


def test_trash_edits_pack_and_copy_work_on_a_dataset_of_that_version(made, recctl):
    root, copy = made / "video", made / "copy"
    recctl("recover", root)
    before = episodes(recctl, root)
    for entry in recctl("dataset", "trash", root, "--json").json["trash"]:
        assert recctl("dataset", "undelete", root, entry["uid"]).code == 0
    back = episodes(recctl, root)
    assert len(back) == len(before) + 2, "one was discarded, one undone"
    first = back[0]["uid"]
    assert recctl("dataset", "relabel", root, first, "--task", "Another one").code == 0
    assert recctl("dataset", "delete", root, back[1]["uid"]).code == 0
    assert recctl("dataset", "pack", root).code == 0
    assert recctl("dataset", "copy", root, copy).code == 0
    for folder in (root, copy):
        assert recctl("verify", folder).code == 0
        assert [e["uid"] for e in episodes(recctl, folder)] == [
            e["uid"] for e in back if e["uid"] != back[1]["uid"]
        ]


@pytest.mark.parametrize("kind", OF_KIND)
def test_recording_resumes_in_a_dataset_of_that_version(made, recctl, tmp_path, kind):
    shutil.move(made / kind, tmp_path / "robot" / "dataset")
    with running(tmp_path / "robot", *SAME_SETUP, *OF_KIND[kind]) as robot:
        recovered = episodes(recctl, robot.root)
        saved = robot.record(5)
        assert saved["episode_index"] == len(recovered)
        assert robot.end() == 0
        assert recctl("verify", robot.root).code == 0


def test_configurations_of_that_version_are_loaded_and_migrate_to_the_same(made, recctl):
    for file in sorted(made.glob("*.yaml")):
        as_it_was = load_robot(file, check_machine=False)
        said = recctl("config", "migrate", file, "--write", "--json")
        assert said.code == 0
        assert load_robot(file, check_machine=False) == as_it_was


KEYED = [path for path in FIXTURES if has_keys(path)]


@pytest.mark.parametrize("made", KEYED, indirect=True, ids=lambda path: path.name)
def test_keys_of_that_version_open_the_same_doors(made):
    folder = made / "keys"
    assert keys.check_keys(folder) == []
    assert [(c.name, c.role, bool(c.revoked)) for c in keys.read_list(folder)] == [
        ("anna", "operate", False), ("ben", "observe", True),
    ]  # fmt: skip
    anna = keys.read_pair(folder / "clients" / "anna.key")
    assert anna.server == keys.read_pair(folder / "server.key").public


# --- the wire --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Iterator[Robot]:
    with running(tmp_path_factory.mktemp("robot"), *SAME_SETUP) as started:
        yield started


def test_todays_daemon_answers_the_requests_of_that_version(made, robot):
    said = json.loads((made / "wire.json").read_text())["said"]
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(f"ipc://{robot.runtime / 'demo' / 'ctl.sock'}")
    before = robot.client.call("episodes")["episodes"]
    try:
        for letter in said:
            socket.send(bytes.fromhex(letter["request"]))
            assert socket.poll(60_000), letter["cmd"]
            reply = decode(socket.recv())
            assert reply["ok"], (letter["cmd"], reply)
            then = decode(bytes.fromhex(letter["reply"]))
            assert reply["re"] == then["re"]
            missing = then["result"].keys() - reply["result"].keys()
            assert not missing, "what an older client may look for stays"
            if letter["cmd"] == "start":
                until(lambda: robot.rows() > 2, "rows")
    finally:
        context.destroy(linger=0)
    states = [take["state"] for take in robot.client.call("episodes")["episodes"][len(before) :]]
    assert states[:4] == ["saved", "saved", "discarded", "undone"]
    robot.client.discard()


class Replayed:
    """What a daemon of that version answered, byte for byte but for the ids, at its own address."""

    def __init__(self, made: Path, instance: Path) -> None:
        said = json.loads((made / "wire.json").read_text())["said"]
        self.replies = {s["cmd"]: decode(bytes.fromhex(s["reply"])) for s in said}
        instance.mkdir(parents=True)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(f"ipc://{instance / 'ctl.sock'}")

    def serve(self, cmd: str) -> None:
        """Answer one request, which must be `cmd`."""
        peer, *_, body = self._socket.recv_multipart()
        asked = decode(body)
        assert asked["cmd"] == cmd
        reply = self.replies.get(cmd, {"v": 1, "ty": "rep", "ok": True, "result": {}})
        self._socket.send_multipart([peer, encode({**reply, "re": asked["id"]})])

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextmanager
def serving(daemon: Replayed, cmd: str) -> Iterator[None]:
    answering = threading.Thread(target=daemon.serve, args=(cmd,), daemon=True)
    answering.start()
    yield
    answering.join(10)


@pytest.mark.parametrize(
    ("words", "seen"),
    [(("status",), "demo: "), (("stop",), "rows"), (("episodes",), "saved"),
     (("shutdown",), "recd has ended")],
)  # fmt: skip
def test_todays_recctl_understands_the_replies_of_that_version_and_says_that_it_is_another(
    made, recctl, tmp_path_factory, monkeypatch, words, seen
):
    runtime = Path(tmp_path_factory.mktemp("r"))
    monkeypatch.setenv("RECD_RUNTIME_DIR", str(runtime))
    daemon = Replayed(made, runtime / "demo")
    try:
        with serving(daemon, words[0]):
            said = recctl("-i", "demo", *words)
    finally:
        daemon.close()
    assert said.code == 0, said.err
    assert seen in said.out
    theirs = daemon.replies["status"].get("recd", "")
    if theirs != own_version():
        assert f"the daemon is of {f'recd {theirs}' if theirs else UNNAMED}" in said.err
        assert "status, stop and shutdown work" in said.err
        assert len(said.err.splitlines()) == 1


def test_a_service_of_that_version_is_asked_whether_it_may_be_restarted(made):
    said = json.loads((made / "wire.json").read_text())["said"]
    told = [decode(bytes.fromhex(s["reply"]))["result"] for s in said if s["cmd"] == "status"]
    assert any("is being recorded" in why for status in told for why in reasons_to_wait(status))


def test_events_of_that_version_are_read(made):
    events = json.loads((made / "wire.json").read_text())["events"]
    told = [(topic, decode(bytes.fromhex(body))) for topic, body in events]
    assert {"state", "event", "episode"} <= {topic for topic, _ in told}
    assert all({"event", "seq", "t_ns"} <= body.keys() for _, body in told)
