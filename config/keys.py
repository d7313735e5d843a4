"""Keys of the control plane: the daemon's own pair, clients' pairs, and the list of who may enter.

CURVE keys in small JSON files, secrets with mode 0600; a file that others could read or write is
refused, never repaired in silence. Nothing here talks to a socket.
"""

import hashlib
import json
import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import zmq
from zmq.utils import z85

from recd.config.errors import RecdError
from recd.config.roles import ROLES

KEYS_VERSION: Final = 1
SERVER_FILE: Final = "server.key"
LIST_FILE: Final = "allowed.json"
CLIENTS_FOLDER: Final = "clients"
FILE_BYTES_MAX: Final = 1024 * 1024
CLIENTS_MAX: Final = 1024
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.@-]{0,62}")


class KeyFileError(RecdError):
    """A key or list that is missing, open to others, or not what it should be."""

    code = "key"


def keys_folder(configured: str = "") -> Path:
    """Where the keys are: `configured` (control.keys_dir), else RECD_KEYS_DIR, else systemd's
    CONFIGURATION_DIRECTORY/keys, else $XDG_CONFIG_HOME/recd/keys, else ~/.config/recd/keys."""
    if named := configured or os.environ.get("RECD_KEYS_DIR", ""):
        return Path(named).expanduser().absolute()
    if service := os.environ.get("CONFIGURATION_DIRECTORY"):
        return Path(service.split(":")[0]) / "keys"
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "recd" / "keys"


def fingerprint(public: str) -> str:
    """16 hex digits that stand for a public key in lists, logs and manifests."""
    return hashlib.sha256(z85.decode(public)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair as a file holds it, Z85. server: public key of the daemon that a client expects;
    empty in the daemon's own file."""

    name: str
    public: str
    secret: str
    role: str = ""
    created: str = ""
    server: str = ""

    def __repr__(self) -> str:
        return f"Pair({self.name!r}, {fingerprint(self.public)})"  # never the secret


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry of the list. created, revoked: wall time, ISO; revoked is empty while it holds."""

    name: str
    role: str
    public: str
    created: str
    revoked: str = ""

    @property
    def fingerprint(self) -> str:
        """Of the public key."""
        return fingerprint(self.public)


def new_pair(name: str, *, role: str = "", created: str = "", server: str = "") -> Pair:
    """A fresh pair from the system's randomness."""
    public, secret = zmq.curve_keypair()
    return Pair(name, public.decode(), secret.decode(), role, created, server)


# --- files ---------------------------------------------------------------------------------


def read_pair(path: Path) -> Pair:
    """The pair in a key file. KeyFileError when it is missing, open to others, or no pair."""
    told = _read(path, secret=True)
    fields = {name: told.get(name, "") for name in Pair.__dataclass_fields__}
    if not all(isinstance(value, str) for value in fields.values()):
        raise _not_ours(path, "a recd key file", "fields that are no text")
    pair = Pair(**fields)
    for key in (pair.public, pair.secret, *((pair.server,) if pair.server else ())):
        if not is_key(key):
            raise _not_ours(path, "keys of 40 characters (Z85)", "something else")
    if zmq.curve_public(pair.secret.encode()).decode() != pair.public:
        raise _not_ours(path, "a public key that belongs to the secret one", "two that do not fit")
    return pair


def write_pair(path: Path, pair: Pair) -> None:
    """Write a key file with mode 0600, durably. FileExistsError is told as KeyFileError."""
    if path.exists():
        raise KeyFileError(f"{path}: is there already", mend="Move it away, or name another file.")
    _write(path, asdict(pair))


def read_list(folder: Path) -> tuple[Allowed, ...]:
    """The list of clients in `folder`, empty when there is none yet.

    KeyFileError when others could change it or when any entry is not right: a list that is only
    half understood lets nobody in.
    """
    path = folder / LIST_FILE
    if not path.exists():
        return ()
    entries = _read(path, secret=False).get("clients")
    if not isinstance(entries, list) or len(entries) > CLIENTS_MAX:
        raise _not_ours(path, f"`clients`, a list of at most {CLIENTS_MAX}", "something else")
    clients = tuple(_entry(path, entry) for entry in entries)
    seen: set[str] = set()
    for client in clients:
        if client.public in seen:
            raise _not_ours(path, "every key once", f"the key of {client.name!r} twice")
        seen.add(client.public)
    return clients


def check_keys(folder: Path) -> list[KeyFileError]:
    """Everything that is wrong with a daemon's own pair, its list, and those of its clients' key
    files that were not carried away yet. [] when it can start with them."""
    problems = []
    try:
        read_pair(folder / SERVER_FILE)
    except KeyFileError as error:
        problems.append(error)
    try:
        if not any(not client.revoked for client in read_list(folder)):
            raise KeyFileError(
                f"{folder / LIST_FILE}: expected a client that may enter, found none",
                mend="recctl keys make NAME --role operate",
            )
    except KeyFileError as error:
        problems.append(error)
    kept = folder / CLIENTS_FOLDER
    for path in sorted(kept.glob("*.key")) if kept.is_dir() else []:
        try:
            read_pair(path)
        except KeyFileError as error:
            problems.append(error)
    return problems


def write_list(folder: Path, clients: tuple[Allowed, ...]) -> None:
    """Replace the list at once; a reader sees the old one or the new one, whole."""
    _write(folder / LIST_FILE, {"clients": [asdict(client) for client in clients]})


def make_folder(folder: Path) -> Path:
    """Create the folder with mode 0700, or check that nobody else can write there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_mode(folder, forbidden=0o022, mend=f"chmod 700 {folder}")
    return folder


def _entry(path: Path, entry: object) -> Allowed:
    known = Allowed.__dataclass_fields__
    if not isinstance(entry, dict):
        raise _not_ours(path, "a map for each client", type(entry).__name__)
    fields = {name: entry.get(name, "") for name in known}
    if not all(isinstance(value, str) for value in fields.values()):
        raise _not_ours(path, "text in every field", f"an entry that is not: {fields['name']!r}")
    client = Allowed(**fields)
    if not _NAME.fullmatch(client.name):
        raise _not_ours(path, "names of letters, digits and _.@-", repr(client.name))
    if client.role not in ROLES:
        raise _not_ours(path, f"a role ({', '.join(ROLES)}) for {client.name}", repr(client.role))
    if not is_key(client.public):
        raise _not_ours(path, f"a key of 40 characters for {client.name}", repr(client.public[:8]))
    return client


def is_key(text: str) -> bool:
    """True for 32 bytes in Z85, written the one way they are written."""
    try:
        raw = z85.decode(text)
    except (ValueError, KeyError, struct.error):
        return False
    return len(raw) == 32 and bool(z85.encode(raw).decode() == text)


def _read(path: Path, *, secret: bool) -> dict[str, Any]:
    who = "read or change" if secret else "change"
    try:
        _check_mode(path, forbidden=0o077 if secret else 0o022, mend=f"chmod 600 {path}", who=who)
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        told = json.loads(data) if len(data) <= FILE_BYTES_MAX else None
    except FileNotFoundError:
        raise KeyFileError(f"{path}: there is no such file", mend="recctl keys list") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}", mend="Check its owner and mode.") from None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise _not_ours(path, "JSON that recctl keys wrote", "something else")
    if told.get("format") != KEYS_VERSION:
        raise _not_ours(path, f"format {KEYS_VERSION}", repr(told.get("format"))[:40])
    return told


def _check_mode(path: Path, *, forbidden: int, mend: str, who: str = "change") -> None:
    facts = path.stat()
    if facts.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(
            f"{path}: expected a file of user {os.geteuid()}, found one of user {facts.st_uid}",
            mend="Make keys of your own: recctl keys make NAME --role ROLE",
        )
    mode = stat.S_IMODE(facts.st_mode)
    if mode & forbidden:
        raise KeyFileError(
            f"{path}: expected that only its owner can {who} it, found mode {mode:04o}", mend=mend
        )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Atomic and durable: a neighbour with mode 0600, then a rename."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"format": KEYS_VERSION, **content}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _not_ours(path: Path, expected: str, found: str) -> KeyFileError:
    return KeyFileError(
        f"{path}: expected {expected}, found {found}",
        mend="Put it right by hand, or move it away and make it again: recctl keys make",
    )


# --- what recctl keys does -----------------------------------------------------------------


def make_server(folder: Path, *, created: str) -> tuple[Pair, bool]:
    """The daemon's pair, made when there is none. True when it is new."""
    path = make_folder(folder) / SERVER_FILE
    if path.exists():
        return read_pair(path), False
    pair = new_pair("server", created=created)
    write_pair(path, pair)
    return pair, True


def make_client(
    folder: Path, name: str, role: str, *, created: str, file: Path | None = None
) -> tuple[Pair, Path]:
    """A client's pair in a file of its own, and its entry in the list.

    The file carries the daemon's public key, so that the client talks to no other. KeyFileError
    when the name is in use. Killed between the two writes, a key file is left that opens nothing.
    """
    if not _NAME.fullmatch(name) or name == "server":
        raise KeyFileError(
            f"name: expected letters, digits and _.@-, at most 63, found {name!r}", mend=""
        )
    if role not in ROLES:
        raise KeyFileError(f"role: expected one of {', '.join(ROLES)}, found {role!r}", mend="")
    server, _ = make_server(folder, created=created)
    clients = read_list(folder)
    if any(client.name == name and not client.revoked for client in clients):
        raise KeyFileError(
            f"{name}: has a key already",
            mend=f"Another name, or first: recctl keys revoke {name}",
        )
    if len(clients) >= CLIENTS_MAX:
        raise KeyFileError(f"expected at most {CLIENTS_MAX} keys, found {len(clients)}", mend="")
    if file is None:
        (folder / CLIENTS_FOLDER).mkdir(mode=0o700, exist_ok=True)
    path = file or folder / CLIENTS_FOLDER / f"{name}.key"
    pair = new_pair(name, role=role, created=created, server=server.public)
    write_pair(path, pair)
    write_list(folder, (*clients, Allowed(name, role, pair.public, created)))
    return pair, path


def revoke(folder: Path, name: str, *, at: str) -> Allowed:
    """Take a client's key out of use; its entry stays, with the time. KeyFileError if unknown."""
    clients = read_list(folder)
    for number, client in enumerate(clients):
        if client.name == name and not client.revoked:
            gone = replace(client, revoked=at)
            write_list(folder, (*clients[:number], gone, *clients[number + 1 :]))
            (folder / CLIENTS_FOLDER / f"{name}.key").unlink(missing_ok=True)
            return gone
    known = ", ".join(client.name for client in clients if not client.revoked) or "none"
    raise KeyFileError(f"no key {name!r} in use; there are: {known}", mend="recctl keys list")
