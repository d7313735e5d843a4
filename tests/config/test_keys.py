"""Keys are files that only their owner can read, and a list that is understood whole or not."""

import json
import stat
from pathlib import Path

import pytest

from recd.config import keys
from recd.config.endpoints import parse_endpoint
from recd.config.errors import RecdError

NOW = "2026-01-01T00:00:00+00:00"


def test_secrets_are_written_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    pair, path = keys.make_client(folder, "anna", "operate", created=NOW)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (path, folder / keys.SERVER_FILE, folder / keys.LIST_FILE):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keys.read_pair(path) == pair
    assert pair.server == keys.read_pair(folder / keys.SERVER_FILE).public
    assert pair.secret not in (folder / keys.LIST_FILE).read_text()
    assert pair.secret not in repr(pair)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_secret_that_others_can_read_is_refused_with_the_mend(tmp_path: Path, mode: int) -> None:
    _, path = keys.make_client(tmp_path / "keys", "anna", "operate", created=NOW)
    path.chmod(mode)
    with pytest.raises(keys.KeyFileError) as told:
        keys.read_pair(path)
    assert told.value.mend == f"chmod 600 {path}"


HOSTILE = [
    b"",
    b"{",
    b"[" * 100_000,
    b"[]",
    b"{}",
    b'{"format": 2}',
    b'{"format": 1}',
    b'{"format": 1, "clients": {}}',
    b'{"format": 1, "clients": [1]}',
    b'{"format": 1, "clients": [{"name": ["x"], "role": "admin"}]}',
    b'{"format": 1, "clients": [{"name": "../x", "role": "admin", "public": "x"}]}',
    b'{"format": 1, "clients": [{"name": "x", "role": "root", "public": "x"}]}',
    b'{"format": 1, "clients": [{"name": "x", "role": "admin", "public": "x"}]}',
    b"\xff\xfe\x00",
    b" " * (keys.FILE_BYTES_MAX + 1),
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_list_that_is_not_understood_whole_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / keys.LIST_FILE).write_bytes(content)
    (tmp_path / keys.LIST_FILE).chmod(0o600)
    with pytest.raises(keys.KeyFileError) as told:
        keys.read_list(tmp_path)
    assert str(tmp_path) in str(told.value)
    with pytest.raises(keys.KeyFileError):
        keys.read_pair(tmp_path / keys.LIST_FILE)


def test_a_key_twice_in_the_list_is_refused(tmp_path: Path) -> None:
    keys.make_client(tmp_path, "anna", "observe", created=NOW)
    path = tmp_path / keys.LIST_FILE
    told = json.loads(path.read_text())
    told["clients"].append({**told["clients"][0], "role": "admin"})
    path.write_text(json.dumps(told))
    with pytest.raises(keys.KeyFileError, match="twice"):
        keys.read_list(tmp_path)


def test_a_name_is_used_once_until_it_is_revoked_and_its_history_stays(tmp_path: Path) -> None:
    keys.make_client(tmp_path, "anna", "observe", created=NOW)
    with pytest.raises(keys.KeyFileError, match="already"):
        keys.make_client(tmp_path, "anna", "admin", created=NOW)
    keys.revoke(tmp_path, "anna", at=NOW)
    keys.make_client(tmp_path, "anna", "admin", created=NOW)
    assert [(c.role, bool(c.revoked)) for c in keys.read_list(tmp_path)] == [
        ("observe", True),
        ("admin", False),
    ]


LOCAL = ["ipc:///run/x/ctl.sock", "tcp://127.0.0.1:5591", "tcp://localhost:5591", "tcp://[::1]:80",
         "tcp://127.8.8.8:5591"]  # fmt: skip
REACHABLE = ["tcp://0.0.0.0:5591", "tcp://*:5591", "tcp://[::]:5591", "tcp://10.0.0.7:5591",
             "tcp://eth0:5591", "tcp://robot.local:5591", "tcp://127.0.0.1.x.org:5591"]  # fmt: skip
WRONG = ["", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65535",
         "tcp://a b:5591", "udp://127.0.0.1:5591", "inproc://x", "ipc://@x", "ipc://x",
         "tcp://127.0.0.1:5591;tcp://0.0.0.0:5591", "pgm://eth0;1.2.3.4:5"]  # fmt: skip


@pytest.mark.parametrize("text", LOCAL)
def test_what_only_this_computer_reaches(text: str) -> None:
    assert parse_endpoint(text).local


@pytest.mark.parametrize("text", REACHABLE)
def test_whatever_is_not_plainly_local_counts_as_reachable(text: str) -> None:
    assert not parse_endpoint(text).local


@pytest.mark.parametrize("text", WRONG)
def test_addresses_of_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(RecdError) as told:
        parse_endpoint(text)
    assert told.value.code == "endpoint"
