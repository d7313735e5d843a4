"""Answers to motion commands: each by its number, whatever an arm tells by itself meanwhile."""

from collections.abc import Mapping
from typing import Any

import pytest

from recd.config.errors import RecdError
from recd.daemon.supervisor.motion import Motion

ARMS = ("arm:left.follower", "arm:left.leader", "arm:right.follower")


class Links:
    """Keeps what was sent to the arms, and what requests were answered with."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.answers: dict[str, Mapping[str, Any] | RecdError] = {}

    def send(self, process: str, ty: str, **fields: Any) -> bool:
        del ty
        self.sent.append((process, fields["number"]))
        return True

    def of_kind(self, *kinds: str) -> list[str]:
        del kinds
        return list(ARMS)


@pytest.fixture
def links() -> Links:
    return Links()


@pytest.fixture
def motion(links: Links) -> Motion:
    return Motion(ARMS, links, lambda process, now: None, links.answers.__setitem__)


def test_what_an_arm_tells_by_itself_does_not_hide_that_it_then_refuses(motion, links) -> None:
    key = motion.command("policy attach", 0, pair="left")
    (process, number) = links.sent[0]
    motion.hear(process, "motion", {"state": "CORRECTING"})
    assert key not in links.answers
    motion.hear(process, "refused_op", {"number": number, "reason": "no policy holds the lease"})
    assert "no policy holds the lease" in str(links.answers[key])


def test_a_command_for_all_arms_is_answered_when_each_has_obeyed_with_where_they_are(
    motion, links
) -> None:
    key = motion.command("hold", 0)
    for process, number in links.sent:
        assert key not in links.answers
        motion.hear(process, "motion", {"state": "HOLD"})
        motion.hear(process, "obeyed", {"number": number})
    states = {pair: said["state"] for pair, said in links.answers[key]["motion"].items()}
    assert states == {"left": "HOLD", "right": "HOLD"}


def test_two_commands_under_way_get_the_answer_to_each(motion, links) -> None:
    first = motion.command("policy attach", 0, pair="left")
    second = motion.command("hold", 0, pair="left")
    (process, one), (_, other) = links.sent
    motion.hear(process, "refused_op", {"number": one, "reason": "not ready"})
    motion.hear(process, "obeyed", {"number": other})
    assert isinstance(links.answers[first], RecdError)
    assert not isinstance(links.answers[second], RecdError)


def test_an_arm_that_does_not_answer_in_time_is_told_as_it_was_last_known(motion, links) -> None:
    key = motion.command("hold", 0, pair="left")
    motion.hear("arm:left.follower", "motion", {"state": "FAULT"})
    motion.watch(10**9)
    assert links.answers[key]["motion"]["left"] == {"state": "FAULT"}
