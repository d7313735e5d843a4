"""What the daemon under the storm is configured to: a table.

Rings are shorter than the longest stall. Pictures are small and the arms slow, so that a storm
tells of faults and not of how busy the computer is; and the follower glides to its leader from
anywhere (`align_error`), so that no storm waits for a simulated hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

RESERVE_MB: Final = 20
COMMON: Final = (
    "cameras.front.width=320",
    "cameras.front.height=240",
    "cameras.wrist.width=320",
    "cameras.wrist.height=240",
    "cameras.front.ring_seconds=3",
    "cameras.wrist.ring_seconds=3",
    "arms.main.rate_hz=100",
    "arms.main.limits.align_error=400",
    f"dataset.reserve_mb={RESERVE_MB}",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One configuration. cameras: name -> required; overrides: besides those of all settings;
    plain: without those."""

    name: str
    cameras: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    plain: bool = False

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """Every `--set` of the daemon."""
        cameras = (f"cameras.{name}.required={policy}" for name, policy in self.cameras.items())
        common = () if self.plain else COMMON
        return (*common, *cameras, *self.overrides)


STRICT: Final = Setting("strict", {"front": "mark", "wrist": "abort"})
POLICY: Final = Setting(
    "policy", {"front": "optional", "wrist": "mark"}, ("policy={}", "policy.observation_s=10")
)
PLAIN: Final = Setting("plain", plain=True)
"""The preset as it is, for measurements."""

SETTINGS: Final = (STRICT, POLICY)
