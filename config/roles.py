"""Who may do what: one table of roles for every socket of recd.

A role is a word on a key. It grants itself and everything that it includes, and nothing else;
each command (`messages.COMMANDS`) and each later socket names the least role that it asks for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Role:
    """One row. includes: roles whose rights it has, too."""

    name: str
    includes: tuple[str, ...]
    doc: str


ROLES: Final[Mapping[str, Role]] = {
    role.name: role
    for role in (
        Role("observe", (), "see everything; stop the arms in an emergency"),
        Role("label", ("observe",), "say what an episode is: marks, task, operator"),
        Role("teleop", ("observe",), "move the arms: arm, follow, hold, resume, disarm"),
        Role("policy", ("observe",), "move the arms by action chunks, under a lease that it got"),
        Role("operate", ("label", "teleop"), "run a session: episodes and plans, leave FAULT"),
        Role("admin", ("operate", "policy"), "end the daemon"),
    )
}
"""name -> role. `policy` cannot record and `operate` cannot act as a policy."""


def granted(role: str) -> frozenset[str]:
    """Every role that a key of `role` stands for; empty for a word that is no role."""
    row = ROLES.get(role)
    if row is None:
        return frozenset()
    return frozenset({role}).union(*(granted(below) for below in row.includes))


def allows(role: str, least: str) -> bool:
    """True when a key of `role` may do what asks for `least`."""
    return least in granted(role)


def least_roles_for(least: str) -> tuple[str, ...]:
    """The roles that may do what asks for `least`, in the order of the table."""
    return tuple(name for name in ROLES if allows(name, least))
