"""When a process that ended may start again. Pure arithmetic: back-off, cap, window, give up."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from recd.shm.clock import NS_PER_S


class When(StrEnum):
    """After which kind of end a process is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"  # any exit code but 0, any signal
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """when; at most `most` restarts within `window_ns`; delay doubles from `first_ns` to `cap_ns`.

    The delay begins at `first_ns` again once the process has lived longer than the window.
    """

    when: When = When.ON_FAILURE
    most: int = 5
    window_ns: int = 60 * NS_PER_S
    first_ns: int = NS_PER_S // 4
    cap_ns: int = 8 * NS_PER_S


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """Times of the restarts that still count, oldest first."""

    restarts_ns: tuple[int, ...] = ()


NO_RESTARTS: Final = RestartHistory()


@dataclass(frozen=True, slots=True)
class Decision:
    """at_ns: when to start again; None not at all. given_up: because the window is used up."""

    at_ns: int | None
    given_up: bool
    history: RestartHistory


def after_exit(
    policy: RestartPolicy, history: RestartHistory, *, failed: bool, now_ns: int
) -> Decision:
    """What follows the end of a process at `now_ns`."""
    if policy.when is When.NEVER or (policy.when is When.ON_FAILURE and not failed):
        return Decision(None, given_up=False, history=history)
    recent = tuple(at for at in history.restarts_ns if at > now_ns - policy.window_ns)
    if len(recent) >= policy.most:
        return Decision(None, given_up=True, history=replace(history, restarts_ns=recent))
    at_ns = now_ns + delay_ns(policy, len(recent))
    return Decision(at_ns, given_up=False, history=RestartHistory((*recent, at_ns)))


def delay_ns(policy: RestartPolicy, recent: int) -> int:
    """Back-off before the next restart when `recent` of them lie within the window."""
    return min(policy.cap_ns, policy.first_ns << min(recent, 32))
