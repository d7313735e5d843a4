"""What was installed: one list per unit, path -> SHA-256 of its content. Uninstall goes by it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from recd.config.errors import RecdError


def digest(path: Path) -> str:
    """SHA-256 of a file, "" when it is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def read_ledger(path: Path) -> Mapping[str, str]:
    """The list in `path`; empty when there is none. RecdError when it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in content["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecdError(
            f"{path}: the list of what was installed cannot be read: {error}",
            mend="Remove the files of docs/service.md by hand.", code="service",
        ) from error  # fmt: skip


def installed_files(folder: Path) -> frozenset[str]:
    """Every file of every unit in `folder`."""
    return frozenset(name for path in ledgers(folder) for name in read_ledger(path))


def ledgers(folder: Path) -> list[Path]:
    """The lists in `folder`, by unit."""
    return sorted(folder.glob("*.json"))


def text_of(files: list[Path], *, source: str) -> str:
    """Content of a list. source: the configuration the service was made from."""
    listed = {str(path): digest(path) for path in files}
    return json.dumps({"source": source, "files": listed}, indent=1) + "\n"


def source_of(path: Path) -> str:
    """The configuration that the service of this list was made from."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # a damaged list is reported by whoever needs what is in it
