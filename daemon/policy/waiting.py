"""A request for an observation: which cameras, newer than what, how long it may wait. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recd.config.messages import MessageError
from recd.config.policy_wishes import Source, Wishes, read_wishes
from recd.shm.clock import NS_PER_MS

LONGEST_WAIT_MS = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request. after: number of the observation that the client has; newer_than_ns: least time
    of the next one; until_ns: when it is answered either way; wishes: of its pictures and past.
    """

    ident: str
    after: int
    newer_than_ns: int
    until_ns: int
    cameras: tuple[str, ...]
    wishes: Wishes


def read_wanted(
    header: Mapping[str, Any], cameras: Sequence[str], now: int, *,
    sources: Mapping[str, Source], row_ns: int,
) -> Wanted:  # fmt: skip
    """The request in a message `get`; all `cameras` when it names none. MessageError if unsound.

    sources: stream -> what the robot has of it; row_ns: between two rows of the dataset.
    """
    if header.get("ty") != "get":
        raise MessageError(f"ty: expected get, found {str(header.get('ty'))[:40]!r}")
    ident = header.get("id", "")
    if not isinstance(ident, str) or len(ident) > 64:
        raise MessageError("id: expected up to 64 letters")
    wanted = header.get("cameras")
    if wanted is None:
        wanted = list(cameras)
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise MessageError("cameras: expected a list of names")
    unknown = [name for name in wanted if name not in cameras]
    if unknown or len(set(wanted)) != len(wanted):
        raise MessageError(
            f"cameras: expected each once of {', '.join(cameras) or 'none'}, found "
            f"{', '.join(name[:40] for name in wanted[:8])}"
        )
    wait_ms = _number(header, "max_wait_ms", LONGEST_WAIT_MS, most=LONGEST_WAIT_MS)
    return Wanted(
        ident=ident,
        after=_number(header, "after", 0),
        newer_than_ns=_number(header, "newer_than", 0),
        until_ns=now + wait_ms * NS_PER_MS,
        cameras=tuple(wanted),
        wishes=read_wishes(header, wanted, sources, row_ns=row_ns),
    )


def _number(header: Mapping[str, Any], name: str, default: int, *, most: int = 2**62) -> int:
    value = header.get(name, default)
    if type(value) is not int or not 0 <= value <= most:
        raise MessageError(f"{name}: expected a whole number of 0..{most}")
    return value
