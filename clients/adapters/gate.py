"""The start gate: whether server, profile and robot fit, before anything may move. Pure.

Every difference is told at once, as expected and found. The numbers come from the server's own
description, from warm-up inferences and from a chunk that is played nowhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.clients.adapters.looking import PRESENT, told_seconds
from recd.clients.adapters.profile import ALL, Binding
from recd.clients.adapters.wire import Described, Floats, MismatchError, WireError
from recd.config.models import PolicyServerConfig
from recd.config.policy_wishes import STATE
from recd.shm.clock import NS_PER_S

BEYOND = 0.1
"""Share of a joint's range by which a chunk may overshoot it: the arm clips that."""

LEAD_S = 0.02
"""Kept free of a chunk's length for what comes after the inference."""

OLDEST_S = 1.0
"""The gateway refuses a chunk whose observation is older."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a chunk has to be. steps: None as long as the first one says."""

    steps: int | None
    step_s: float


def expected_of(
    described: Described, binding: Binding, server: PolicyServerConfig, *, row_s: float,
    reach_ns: Mapping[str, int],
) -> Expected:  # fmt: skip
    """Compare what the server says with profile, configuration and robot. row_s: a row of the
    dataset; reach_ns: stream -> how far back the robot's ring holds it.

    MismatchError with every difference.
    """
    profile, wrong = binding.profile, []
    step_s = server.step_s or profile.step_s or row_s
    wrong += _keys("images", profile.images, described.images)
    wrong += _keys("state", profile.state, described.state)
    wrong += _keys("actions", profile.actions, described.actions, all_of_them=False)
    for key, names in described.columns.items():
        own = _names(binding, key)
        if own is not None and own != names:
            wrong.append(f"actions.{key}: expected the columns {', '.join(own)}, found "
                         f"{', '.join(names)}")  # fmt: skip
    if described.step_s is not None and abs(described.step_s - step_s) > 0.02 * step_s:
        wrong.append(f"step_s: expected {step_s:g}, found {described.step_s:g}")
    if None not in (server.horizon, described.horizon) and server.horizon != described.horizon:
        wrong.append(f"horizon: expected {server.horizon}, found {described.horizon}")
    wrong += _history(described, binding, step_s, reach_ns)
    if wrong:
        raise _mismatch(wrong)
    return Expected(server.horizon or described.horizon, step_s)


def _history(
    described: Described, binding: Binding, step_s: float, reach_ns: Mapping[str, int]
) -> list[str]:
    """What is wrong with the steps that a server wants to see."""
    wrong = []
    streams = {"images": sorted(set(binding.cameras.values())), "state": [STATE]}
    for part, back_s in told_seconds(described, step_s).items():
        steps = described.history[part] or ()
        if not steps or max(steps) > max(PRESENT) or len(set(steps)) != len(steps):
            wrong.append(f"{part}: expected steps of 0 (the present) or before, each once, found "
                         f"{', '.join(map(str, steps)) or 'none'}")  # fmt: skip
            continue
        for stream in streams[part]:
            most_s = reach_ns[stream] / NS_PER_S
            if back_s > most_s:
                mend = f" (cameras.{stream}.ring_seconds)" if stream != STATE else ""
                wrong.append(
                    f"{part}: expected a server that looks at most {most_s:.2f} s back, which the "
                    f"ring of {stream} holds{mend}, found {back_s:.2f} s"
                )
    return wrong


def _keys(
    part: str, own: Iterable[str], theirs: Sequence[str] | None, *, all_of_them: bool = True
) -> list[str]:
    if theirs is None:
        return []
    missing = [key for key in own if key not in theirs]
    unmet = [key for key in theirs if key not in set(own)] if all_of_them else []
    if not missing and not unmet:
        return []
    return [f"{part}: the profile has {', '.join(own)}, the server {', '.join(theirs) or 'none'}"]


def _names(binding: Binding, key: str) -> tuple[str, ...] | None:
    given = binding.profile.actions.get(key)
    if given is None:
        return None
    if given.columns == ALL:
        return binding.joints
    return tuple(
        "-" if c is None else c if isinstance(c, str) else c.joint for c in given.columns
    )  # fmt: skip


def check_reply(reply: Mapping[str, Floats], binding: Binding, expected: Expected) -> int:
    """Steps of a sound reply. MismatchError for its form, WireError for numbers that are not
    finite.
    """
    wrong, steps = [], set()
    for key, bound in binding.actions.items():
        values = reply[key]
        steps.add(len(values))
        if values.shape[1] != bound.columns.width:
            wrong.append(f"actions.{key}: expected {bound.columns.width} columns, found "
                         f"{values.shape[1]}")  # fmt: skip
    if len(steps) != 1:
        wrong.append(f"horizon: expected the same in all actions, found {sorted(steps)}")
    elif expected.steps is not None and steps != {expected.steps}:
        wrong.append(f"horizon: expected {expected.steps}, found {max(steps)}")
    elif not 1 <= max(steps) <= 256:
        wrong.append(f"horizon: expected 1..256, found {max(steps)}")
    if wrong:
        raise _mismatch(wrong)
    for key, values in reply.items():
        if not np.isfinite(values).all():
            row, column = (int(at) for at in np.argwhere(~np.isfinite(values))[0])
            raise WireError(
                f"{key}: expected finite numbers, found {values[row, column]} at step {row}, "
                f"column {column}", mend="See the server's log; its state may be normalised wrong.",
            )  # fmt: skip
    return steps.pop()


def check_dry_run(
    chunk: Floats, binding: Binding, *, names: Sequence[str], low: npt.NDArray[Any],
    high: npt.NDArray[Any],
) -> None:  # fmt: skip
    """A chunk in dataset units against the arm's limits. MismatchError with every joint."""
    slack = BEYOND * (high - low)
    wrong = []
    for at in np.flatnonzero(binding.mask).tolist():
        least, most = chunk[:, at].min(), chunk[:, at].max()
        if least < low[at] - slack[at] or most > high[at] + slack[at]:
            found = most if most > high[at] else least
            wrong.append(f"{names[at]}: expected {low[at]:g}..{high[at]:g}, found {found:g}")
    if wrong:
        raise _mismatch(
            [f"dry run: {line}" for line in wrong],
            "Scale and offset of the profile's columns: docs/policy_adapters.md.",
        )


def check_latency(seconds: Sequence[float], steps: int, step_s: float) -> None:
    """Inference has to be shorter than what it gives. seconds: of warm-up, the first left out
    where there are more. MismatchError."""
    measured = sorted(seconds[1:] or seconds)
    slow = measured[min(len(measured) - 1, len(measured) * 95 // 100)]
    most = min(steps * step_s, OLDEST_S) - LEAD_S
    if slow >= most:
        raise _mismatch(
            [f"latency: expected less than {most:.2f} s for chunks of {steps} steps of "
             f"{step_s:.3g} s, found {slow:.2f} s"],
            "A faster server, smaller pictures (policy.server.image_size), or longer chunks.",
        )  # fmt: skip


def _mismatch(
    wrong: Sequence[str], mend: str = "Change policy.server or its profile, or start the server "
    "that belongs to this robot.",
) -> MismatchError:  # fmt: skip
    return MismatchError("; ".join(wrong), mend=mend)
