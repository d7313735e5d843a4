"""One injected fault and what came of it: a line of the result file, and the draft of one."""

from dataclasses import dataclass, field
from typing import Any

from recd.perf.storm.fault import Fault


@dataclass(frozen=True, slots=True)
class Injection:
    """seed, bout: replay it; place: in its bout. loss_ms: of the running episode; None: nothing was
    running. allowed_ms None: its own outage is what is lost. recover_s: until everything required
    was back. rows: of its episode. behind_ms: how far the encoders of a busy computer were behind
    when it struck, which is not counted as its loss."""

    seed: int
    bout: int
    place: int
    fault: str
    setting: str
    made: dict[str, Any]
    uid: str
    rows: int
    loss_ms: float | None
    allowed_ms: float | None
    recover_s: float
    ended: str
    verdict: str
    read: tuple[str, ...]
    findings: tuple[str, ...]
    took_s: float = 0.0
    behind_ms: float = 0.0

    @property
    def good(self) -> bool:
        return not self.findings


@dataclass(slots=True)
class Draft:
    """An injection in the making. losses: ring -> records lost before it; at_ns: when it struck;
    finished: its episode ended with it."""

    fault: Fault
    place: int
    uid: str = ""
    made: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    at_ns: int = 0
    ended_ns: int = 0
    healed_ns: int = 0
    back_s: float | None = None
    recover_s: float = -1.0
    loss_ms: float | None = None
    rows: int = 0
    ended: str = ""
    verdict: str = ""
    took_s: float = 0.0
    behind_ms: float = 0.0
    finished: bool = False
    read: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def done(self, *, seed: int, bout: int, setting: str) -> Injection:
        """The finished line."""
        return Injection(
            seed=seed, bout=bout, place=self.place, fault=self.fault.name, setting=setting,
            made=self.made, uid=self.uid, rows=self.rows, loss_ms=self.loss_ms,
            allowed_ms=self.fault.loss_ms, recover_s=round(self.recover_s, 2), ended=self.ended,
            verdict=self.verdict, read=tuple(dict.fromkeys(self.read)),
            findings=tuple(dict.fromkeys(self.findings)), took_s=round(self.took_s, 1),
            behind_ms=round(self.behind_ms),
        )  # fmt: skip


@dataclass(slots=True)
class Running:
    """The episode that runs, and the faults that met it so far. reply: of its stop."""

    uid: str
    t0_ns: int
    drafts: list[Draft] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
