"""A configuration file brought up to date: the difference, and a write that keeps the old file.

Killed anywhere, the file is the old one or the new one, whole; the copy is made first.
"""

import difflib
import os
import shutil
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.config.load import parse, validate
from recd.config.migrate import CONFIG_VERSION, migrated, version_in


def bring_up(file: Path, *, write: bool) -> dict[str, Any]:
    """{from, to, changed, diff, written, backup} of one file.

    ConfigError for a file of a newer recd, and, before anything is written, for one that would not
    work afterwards. RecdError when a copy of the old file is there already. OSError.
    """
    before = _read(file)
    version = version_in(before, str(file))
    after = migrated(before, version)
    diff = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True),
        f"{file} (version {version})", f"{file} (version {CONFIG_VERSION})",
    )  # fmt: skip
    told = {"from": version, "to": CONFIG_VERSION, "changed": after != before,
            "diff": "".join(diff), "written": False, "backup": ""}  # fmt: skip
    validate(parse(after, name=str(file)), check_machine=False)
    if not write or after == before:
        return told
    backup = _keep(file, version)
    _replace(file, after)
    return told | {"written": True, "backup": str(backup)}


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise RecdError(f"{file}: expected UTF-8 text, found other bytes") from None


def _keep(file: Path, version: int) -> Path:
    """Copy the old file beside it, with its mode and times."""
    backup = file.with_name(f"{file.name}.version{version}")
    if backup.exists():
        raise RecdError(
            f"{backup}: is there already; the old file would be kept there",
            mend=f"Move it away: mv {backup} {backup}.old",
        )
    shutil.copy2(file, backup)
    return backup


def _replace(file: Path, text: str) -> None:
    """Exchange the content at once; a link stays a link, owner and mode stay."""
    real = Path(os.path.realpath(file))
    beside = real.with_name(f".{real.name}.{os.getpid()}")
    facts = real.stat()
    try:
        with beside.open("wb") as out:
            out.write(text.encode("utf-8"))
            out.flush()
            os.fchmod(out.fileno(), facts.st_mode & 0o7777)
            if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(out.fileno(), facts.st_uid, facts.st_gid)
            os.fsync(out.fileno())
        beside.replace(real)
    finally:
        beside.unlink(missing_ok=True)
