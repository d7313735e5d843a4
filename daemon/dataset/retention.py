"""How long and how large the trash may be. Pure: which entries go, oldest first; removes nothing.

Nothing goes by itself: a person asks (`recctl dataset trash empty`), or the configuration does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recd.daemon.dataset.trash import TrashEntry


@dataclass(frozen=True, slots=True)
class Retention:
    """older_than_ns: what lies there for longer goes; keep_bytes: so much may stay. None: any."""

    older_than_ns: int | None = None
    keep_bytes: int | None = None


def outdated(
    entries: Sequence[TrashEntry], retention: Retention, *, real_ns: int
) -> list[TrashEntry]:
    """Entries that `retention` gives up at the wall time `real_ns`, oldest first.

    An entry from the future (a clock was set back) is never too old.
    """
    oldest_first = sorted(entries, key=lambda entry: entry.real_ns)
    age_ns, keep = retention.older_than_ns, retention.keep_bytes
    left = sum(entry.nbytes for entry in oldest_first)
    gone = []
    for entry in oldest_first:
        too_old = age_ns is not None and entry.real_ns <= real_ns - age_ns
        if too_old or (keep is not None and left > keep):
            gone.append(entry)
            left -= entry.nbytes
    return gone
