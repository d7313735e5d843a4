"""Protection of one follower: telemetry into findings, findings to the operator and the grip.

Relaxing is done here, by a short leash on the gripper's goal; parking and faults are the caller's.
"""

from collections.abc import MutableSequence

from recd.daemon.arms.goalpath import RELAXED_UNITS, GoalPath
from recd.daemon.arms.passes import LOAD, RULE_WORDS, STATUS, TEMPERATURE, VOLTAGE, integers
from recd.daemon.arms.protection import Action, Finding, Quantity, Watch
from recd.daemon.arms.registers import error_words
from recd.daemon.arms.samples import Telemetry
from recd.daemon.arms.side import ArmSide, protection_guards
from recd.daemon.arms.tickcode import Code
from recd.daemon.worker import WorkerContext

OVERLOAD_MASK = 0x20

_UNITS: dict[Quantity, str] = {
    Quantity.TEMPERATURE: "degrees Celsius",
    Quantity.LOAD: "0.1 % of stall torque",
    Quantity.VOLTAGE: "0.1 V",
    Quantity.OVERLOAD_BIT: "overload bit",
}


_COLUMNS: dict[Quantity, int] = {
    Quantity.TEMPERATURE: TEMPERATURE,
    Quantity.LOAD: LOAD,
    Quantity.VOLTAGE: VOLTAGE,
    Quantity.OVERLOAD_BIT: STATUS,
}


def rules_of(watch: Watch) -> MutableSequence[int]:
    """The rows of the table as passes.anything_exceeded takes them."""
    words: list[int] = []
    for row in watch.rows:
        about = sum(1 << joint for joint in range(len(watch.gripper)) if watch.concerns(row, joint))
        bits = OVERLOAD_MASK if row.quantity is Quantity.OVERLOAD_BIT else 0
        words += (about, _COLUMNS[row.quantity], row.threshold, int(row.below), bits)
    return integers(words)


class Guardian:
    """Walks the protection table with each telemetry sample. relaxing: some grip is on a leash."""

    def __init__(self, ctx: WorkerContext, side: ArmSide, path: GoalPath, code: Code) -> None:
        """code: the passes, as Python or as machine code."""
        self._ctx = ctx
        self._side = side
        self._path = path
        gripper = tuple(joint.gripper for joint in side.joints)
        self._watch = Watch(protection_guards(ctx.config), gripper)
        self._rules = rules_of(self._watch)
        self._anything_exceeded = code["anything_exceeded"]
        self._errors = [0] * len(gripper)
        self.relaxing = False

    def assess(self, telemetry: Telemetry, valid: int, at_ns: int) -> list[Action]:
        """Report and act on what is new; returns PARK or FAULT when one of them is called for."""
        findings: list[Finding] = []
        if self._watch.busy or self._exceeds(telemetry):
            findings = self._walk(telemetry, valid, at_ns)
        if list(telemetry.status) != self._errors:
            self._tell_errors(telemetry)
        begun = {finding.guard.action for finding in findings if finding.began}
        return [action for action in (Action.FAULT, Action.PARK) if action in begun]

    def _exceeds(self, telemetry: Telemetry) -> bool:
        """Whether there is something to walk for [walking the table in every reading was a quarter
        of the follower's longest tick, and with it of what p99 is]."""
        rules = self._rules
        return bool(
            self._anything_exceeded(
                telemetry.table, len(self._errors), rules, len(rules) // RULE_WORDS
            )
        )

    def _walk(self, telemetry: Telemetry, valid: int, at_ns: int) -> list[Finding]:
        readings = {
            Quantity.TEMPERATURE: telemetry.temperature,
            Quantity.LOAD: [abs(load) for load in telemetry.load],
            Quantity.VOLTAGE: telemetry.voltage,
            Quantity.OVERLOAD_BIT: [int(s & OVERLOAD_MASK != 0) for s in telemetry.status],
        }
        findings = self._watch.assess(readings, valid, at_ns)
        if findings:
            self._leash()
        for finding in findings:
            self._tell(finding)
        return findings

    def _leash(self) -> None:
        path = self._path
        self.relaxing = False
        for joint in range(len(self._side.joints)):
            held = self._watch.acts(Action.RELAX, joint)
            self.relaxing |= held
            path.relative[joint] = path.limits[joint].relative
            if held:
                path.relative[joint] = min(path.relative[joint], RELAXED_UNITS)

    def _tell(self, finding: Finding) -> None:
        guard = finding.guard
        self._ctx.event(
            "protection" if finding.began else "protection ended",
            level="warning" if finding.began else "info",
            bus=self._side.bus,
            joint=self._side.names[finding.joint],
            quantity=guard.quantity.name.lower(),
            value=finding.value,
            threshold=guard.threshold,
            unit=_UNITS[guard.quantity],
            action=guard.action.name.lower(),
        )

    def _tell_errors(self, telemetry: Telemetry) -> None:
        for joint, name in enumerate(self._side.names):
            status = telemetry.status[joint]
            if status != self._errors[joint]:
                self._errors[joint] = status
                self._ctx.event(
                    "servo error", level="warning" if status else "info", bus=self._side.bus,
                    joint=name, errors=error_words(status) or "none",
                )  # fmt: skip
