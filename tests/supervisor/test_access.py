"""Who may command the daemon, and from where: the real supervisor with stand-in workers."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import zmq

from recd.clients.client import RecdClient
from recd.config import keys
from recd.config.errors import RecdError
from recd.config.messages import COMMANDS
from recd.config.roles import ROLES, allows
from recd.daemon.supervisor.patience import STRIKES
from recd.perf.ports import free_ports
from tests.supervisor.conftest import Daemon, until

Start = Callable[..., Daemon]
NOW = "2026-01-01T00:00:00+00:00"


class Guarded:
    """A daemon that all computers can reach, and its folder of keys."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.folder = folder
        self.key: dict[str, Path] = {}
        for role in ("observe", "label", "teleop", "operate", "admin"):
            self.key[role] = keys.make_client(folder, role, role, created=NOW)[1]
        port = free_ports(2)
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.daemon = start(
            set=[f"control.endpoint=tcp://0.0.0.0:{port}", f"control.keys_dir={folder}"]
        )
        self.daemon.wait_state("READY")

    def client(self, key: Path | None) -> RecdClient:
        return RecdClient(endpoint=self.endpoint, key=key, timeout_s=30)

    def refusal(self, key: Path | None, cmd: str = "status", **args: Any) -> RecdError:
        with self.client(key) as client, pytest.raises(RecdError) as told:
            client.call(cmd, **args)
        return told.value


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    started: list[Daemon] = []

    def start(**script: Any) -> Daemon:
        started.append(Daemon(tmp_path_factory.mktemp("guarded"), script))
        return started[-1]

    yield Guarded(tmp_path_factory.mktemp("keys"), start)
    for daemon in started:
        daemon.close()


def test_a_key_on_the_list_records_an_episode_and_is_noted_with_it(guarded: Guarded) -> None:
    with guarded.client(guarded.key["operate"]) as client:
        assert client.hello()["you"]["role"] == "operate"
        assert client.start()["state"] == "RECORDING"
        client.mark("success")
        episode = client.stop()
    assert [note["cmd"] for note in episode["commanded"]] == ["start", "mark", "stop"]
    public = keys.read_pair(guarded.key["operate"]).public
    assert {note["key"] for note in episode["commanded"]} == {keys.fingerprint(public)}
    assert keys.fingerprint(public) in guarded.daemon.said
    assert keys.read_pair(guarded.key["operate"]).secret not in guarded.daemon.said


def test_every_episode_of_a_plan_names_the_key_that_started_the_plan(guarded: Guarded) -> None:
    with guarded.client(guarded.key["operate"]) as client:
        before = len(client.call("episodes")["episodes"])
        client.call("plan.start", episodes=2, episode_s=0.3, reset_s=0.1, resume=True)
        until(lambda: client.call("plan.status")["plan"]["phase"] == "done", "the plan's end")
        takes = client.call("episodes")["episodes"][before:]
    key = keys.fingerprint(keys.read_pair(guarded.key["operate"]).public)
    told = [[(note["cmd"], note["key"]) for note in take["commanded"]] for take in takes]
    assert told == [[("plan.start", key)]] * 2
    assert takes[1]["commanded"][0]["at_s"] < 0


def test_no_key_is_refused(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECD_KEY", raising=False)
    assert guarded.refusal(None).code == "key"


def test_a_key_that_is_on_no_list_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    server = keys.read_pair(guarded.folder / keys.SERVER_FILE).public
    keys.write_pair(tmp_path / "own.key", keys.new_pair("own", role="admin", server=server))
    refused = guarded.refusal(tmp_path / "own.key")
    assert refused.code == "key"
    assert "refuses this key" in refused.message
    until(lambda: "key refused" in guarded.daemon.said, "the refusal in the log")


def test_a_client_talks_to_no_other_daemon_than_its_key_names(
    guarded: Guarded, tmp_path: Path
) -> None:
    keys.make_client(tmp_path / "other", "anna", "admin", created=NOW)
    assert guarded.refusal(tmp_path / "other" / "clients" / "anna.key").code == "key"


REACH = [
    ("observe", "mark", False),
    ("observe", "arm", False),
    ("label", "task", True),
    ("label", "start", False),
    ("teleop", "hold", True),
    ("teleop", "mark", False),
    ("operate", "shutdown", False),
]


@pytest.mark.parametrize(("role", "cmd", "may"), REACH)
def test_a_role_reaches_as_far_as_the_table_says(
    guarded: Guarded, role: str, cmd: str, may: bool
) -> None:
    args = {"label": "x"} if cmd == "mark" else {}
    if may:
        with guarded.client(guarded.key[role]) as client:
            client.call(cmd, **args)
        return
    refused = guarded.refusal(guarded.key[role], cmd, **args)
    assert refused.code == "role"
    assert COMMANDS[cmd].role in refused.message
    assert role in refused.message
    assert guarded.daemon.status()["state"] == "READY"


@pytest.mark.parametrize("role", ["observe", "label", "teleop", "operate", "admin"])
def test_everybody_who_may_look_may_stop_the_arms(guarded: Guarded, role: str) -> None:
    with guarded.client(guarded.key[role]) as client:
        client.estop()


def test_a_revoked_key_is_refused_at_once_on_an_open_connection(guarded: Guarded) -> None:
    _, key = keys.make_client(guarded.folder, "leaver", "operate", created=NOW)
    with guarded.client(key) as client:
        client.status()
        keys.revoke(guarded.folder, "leaver", at=NOW)
        with pytest.raises(RecdError) as told:
            client.status()
    assert told.value.code == "key"
    assert not key.exists()


def test_a_revoked_key_hears_no_more_events_and_the_others_go_on(
    guarded: Guarded, tmp_path: Path
) -> None:
    kept = tmp_path / "leaver.key"
    keys.make_client(guarded.folder, "listener", "observe", created=NOW, file=kept)

    def listener(key: Path) -> "zmq.Socket[bytes]":
        pair = keys.read_pair(key)
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.CURVE_SERVERKEY, pair.server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
        socket.subscribe(b"state")
        host, _, port = guarded.endpoint.rpartition(":")
        socket.connect(f"{host}:{int(port) + 1}")
        return socket

    with listener(kept) as leaving, listener(guarded.key["observe"]) as staying:
        assert leaving.poll(30_000), "an allowed listener hears the state"
        assert staying.poll(30_000)
        keys.revoke(guarded.folder, "listener", at=NOW)
        until(lambda: "listener" in guarded.daemon.said.rpartition("list of keys read")[2], "cut")
        for silent in (False, True):  # what was on its way when it was cut may still come
            for socket in (leaving, staying):
                assert not (silent and socket is leaving and leaving.poll(0))
                while socket.poll(0):
                    socket.recv_multipart()
            for _ in range(2):
                assert staying.poll(30_000), "who may still listen came back by itself"
                staying.recv_multipart()
        assert not leaving.poll(0)


def test_a_list_that_others_could_change_lets_nobody_in_and_the_ipc_socket_stays(
    guarded: Guarded,
) -> None:
    path = guarded.folder / keys.LIST_FILE
    path.chmod(0o666)
    try:
        assert guarded.refusal(guarded.key["admin"]).code == "key"
        assert "chmod" in guarded.daemon.status()["control"]["keys_problem"]
    finally:
        path.chmod(0o600)
    with guarded.client(guarded.key["observe"]) as client:
        assert client.status()["control"]["keys_problem"] == ""


def test_loopback_without_keys_is_allowed_and_the_ipc_socket_stays(start_daemon: Start) -> None:
    port = free_ports(2)
    daemon = start_daemon(set=[f"control.endpoint=tcp://127.0.0.1:{port}"])
    daemon.wait_state("READY")
    with RecdClient(endpoint=f"tcp://127.0.0.1:{port}") as client:
        assert client.status()["control"]["guarded"] == []
        assert next(client.events("state", timeout_s=30))["state"] == "READY"
    assert daemon.status()["state"] == "READY"


def test_loopback_can_be_guarded_too(start_daemon: Start, tmp_path: Path) -> None:
    _, key = keys.make_client(tmp_path / "keys", "anna", "observe", created=NOW)
    port = free_ports(2)
    daemon = start_daemon(
        set=[
            f"control.endpoint=tcp://127.0.0.1:{port}",
            "control.curve=always",
            f"control.keys_dir={tmp_path / 'keys'}",
        ]
    )
    daemon.wait_state("READY")
    with RecdClient(endpoint=f"tcp://127.0.0.1:{port}", key=key) as client:
        assert client.hello()["you"]["name"] == "anna"


def all_revoked(folder: Path) -> None:
    keys.make_client(folder, "anna", "admin", created=NOW)
    keys.revoke(folder, "anna", at=NOW)


def readable_secret(folder: Path) -> None:
    keys.make_client(folder, "anna", "admin", created=NOW)
    (folder / keys.SERVER_FILE).chmod(0o644)


def foreign_list(folder: Path) -> None:
    keys.make_client(folder, "anna", "admin", created=NOW)
    (folder / keys.LIST_FILE).write_text(json.dumps({"format": 1, "clients": [{"name": "x"}]}))


OPEN_DOORS = [
    (lambda folder: None, "recctl keys make"),
    (all_revoked, "nobody has a key"),
    (readable_secret, "chmod 600"),
    (foreign_list, "a role"),
]


@pytest.mark.parametrize(("prepare", "named"), OPEN_DOORS)
def test_an_endpoint_that_others_can_reach_does_not_start_without_keys(
    start_daemon: Start, tmp_path: Path, prepare: Callable[[Path], None], named: str
) -> None:
    prepare(tmp_path / "keys")
    daemon = start_daemon(
        set=["control.endpoint=tcp://0.0.0.0:5999", f"control.keys_dir={tmp_path / 'keys'}"]
    )
    assert daemon.process.wait(timeout=60) == 2
    assert "tcp://0.0.0.0:5999" in daemon.said
    assert named in daemon.said
    assert "Traceback" not in daemon.said


def test_only_the_owner_may_open_the_ipc_sockets(shared: Daemon) -> None:
    assert stat.S_IMODE(shared.runtime.stat().st_mode) == 0o700
    for name in ("ctl.sock", "evt.sock"):
        assert stat.S_IMODE((shared.runtime / name).stat().st_mode) == 0o600


def test_a_group_may_open_the_ipc_sockets_when_configured(start_daemon: Start) -> None:
    import grp

    group = grp.getgrgid(os.getegid()).gr_name
    daemon = start_daemon(set=[f"control.group={group}"])
    daemon.wait_state("READY")
    assert stat.S_IMODE(daemon.runtime.stat().st_mode) == 0o2750
    for name in ("ctl.sock", "evt.sock"):
        facts = (daemon.runtime / name).stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_gid) == (0o660, os.getegid())


def test_an_unknown_group_ends_the_start_with_its_mend(start_daemon: Start) -> None:
    daemon = start_daemon(set=["control.group=nobody_has_this"])
    assert daemon.process.wait(timeout=60) == 2
    assert "groupadd nobody_has_this" in daemon.said


def test_a_peer_of_rubbish_is_told_once_and_then_not_heard(shared: Daemon) -> None:
    import msgpack

    peer = shared.connect()

    def code() -> str:
        return str(msgpack.unpackb(peer.recv())["error"]["code"])

    codes = []
    for _ in range(STRIKES):
        peer.send(b"\xc1")
        assert peer.poll(30_000)
        codes.append(code())
    assert codes == ["malformed"] * (STRIKES - 1) + ["ignored"]
    until(lambda: shared.said.count("peer not heard for a while") == 1, "it in the log")
    for _ in range(200):
        peer.send(b"\xc1")
    told = until(lambda: shared.status()["control"]["messages_ignored"] and shared.status(), "deaf")
    assert told["state"] == "READY"
    while peer.poll(500):
        assert code() == "ignored", "after a while it is heard, and told once, again"
    peer.close()


def test_a_flood_of_requests_is_slowed_and_an_emergency_stop_gets_through(shared: Daemon) -> None:
    import msgpack

    peer = shared.connect()
    peer.setsockopt(zmq.RCVHWM, 10)
    hello = {"v": 1, "ty": "req", "cmd": "hello", "args": {}}
    codes, numbers = set(), count()

    def told_busy() -> bool:
        for number in islice(numbers, 500):
            peer.send(msgpack.packb({**hello, "id": f"flood{number}"}))
        while peer.poll(0):
            reply = msgpack.unpackb(peer.recv())
            codes.add(reply["ok"] or reply["error"]["code"])
        return "busy" in codes

    until(told_busy, "the peer told that it asks too often")
    assert codes == {True, "busy"}

    # Seen from elsewhere: who does not read its replies may lose that of the stop as well.
    def state() -> str | None:
        return shared.status()["arms"]["main"]["motion"].get("state")

    assert state() != "HOLD"
    peer.send(msgpack.packb({**hello, "id": "stop-it", "cmd": "estop"}))
    until(lambda: state() == "HOLD", "the emergency stop")
    peer.close()


def test_every_command_and_every_inclusion_names_a_role_of_the_table() -> None:
    assert {command.role for command in COMMANDS.values()} <= set(ROLES)
    assert all(below in ROLES for role in ROLES.values() for below in role.includes)
    assert all(allows("admin", role) for role in ROLES)
    assert all(allows(role, "observe") for role in ROLES)
    assert not allows("", "observe")
    assert not allows("operate", "policy")
