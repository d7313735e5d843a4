"""What recctl prints for people: results of commands as lines of text. Nothing is asked here."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from recd.clients.recctl.output import duration, long_time, size, table

Told = Mapping[str, Any]

LEVEL_COLOURS = {"good": "green", "check": "yellow", "bad": "red"}
ARM_LOSSES = ("overruns", "no_reply", "late_reply", "reconnects")
CAMERA_LOSSES = ("device_lost", "corrupt", "frozen", "late", "reconnects", "wrong_size")
STATE_COLOURS = {"RECORDING": "red", "READY": "green", "FAULT": "red", "FINALIZING": "yellow"}


def episode(told: Told) -> list[str]:
    """One episode that ended: what was kept, what was not, and the verdict in words."""
    if told.get("verdict") is None:
        return [f"episode {told.get('uid', '')[:8]}: {told.get('state', 'ended')}"]
    level = told["verdict"]["level"]
    head = (
        f"episode {told['episode_index']} ({told['uid'][:8]}): "
        f"{told['rows']} rows, {duration(told['duration_s'])}, "
        f"{click.style(level, fg=LEVEL_COLOURS.get(level), bold=True)}"
    )
    if told.get("durable_s") is not None:
        head += f", durable {told['durable_s'] * 1000:.0f} ms after stop"
    lines = [head]
    lines += [f"  {reason['words']}" for reason in told["verdict"].get("reasons", [])]
    return lines + streams(told.get("summary") or {})


def streams(summary: Told) -> list[str]:
    """Cameras and arms of an episode's summary as two tables."""
    cameras = [
        (name, c["fresh"], c["repeated"], c["expected"], c["missing"], c["late"], c["lost"],
         _fixed(c["error_p99_periods"], 2), _fixed(c["measured_fps"], 2))
        for name, c in summary.get("cameras", {}).items()
    ]  # fmt: skip
    buses = [
        (name, b["ticks"], b["overruns"], b["invalid_rows"], b["late_replies"], b["clipped_rows"],
         _fixed(b["tracking_p95"], 1), _fixed(b["measured_hz"], 1))
        for name, b in summary.get("buses", {}).items()
    ]  # fmt: skip
    lines = []
    if cameras:
        head = ("camera", "kept", "repeated", "expected", "missing", "late", "lost",
                "p99 off", "fps")  # fmt: skip
        lines += table(head, cameras)
    if buses:
        arm_head = ("arm", "ticks", "overruns", "invalid rows", "late replies", "clipped rows",
                "leader error p95", "Hz")  # fmt: skip
        lines += table(arm_head, buses)
    return [f"  {line}" for line in lines]


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def undone(told: Told) -> list[str]:
    """A take that was thrown away, and how to get it back."""
    if "discarded" in told:
        gone = told["discarded"]
        return [f"discarded {gone[:8]}, recording {told['uid'][:8]}", _way_back(gone)]
    what = f"episode {told['episode_index']}" if "episode_index" in told else "take"
    return [f"{what} {told['uid'][:8]} is in the trash", _way_back(told["uid"])]


def _way_back(uid: str) -> str:
    return f"  recctl undelete {uid} brings it back"


def episodes(told: Told) -> list[str]:
    """Takes of this session, one line each."""
    rows = [
        (e.get("episode_index"), e["uid"][:8], e["state"], _verdict(e), decoded(e.get("decode")),
         e.get("rows") or "",
         duration(e["duration_s"]) if e.get("duration_s") else "",
         " ".join(m["label"] for m in e.get("marks", [])), _short(e.get("task", "")))
        for e in told["episodes"]
    ]  # fmt: skip
    if not rows:
        return ["no episodes in this session yet"]
    head = ("episode", "uid", "state", "verdict", "pictures", "rows", "length", "marks", "task")
    return table(head, rows)


def decoded(told: Told | None) -> str:
    """What the decoding after an episode's save found, in one word; "" before it has ended."""
    good = (told or {}).get("good")
    return "" if good is None else "whole" if good else "BROKEN"


def undecodable(told: Told) -> str:
    """One saved episode whose pictures turned out broken, with what to do."""
    where = told["findings"][0] if told.get("findings") else ""
    who = f"episode {told['episode_index']} ({told['uid'][:8]})"
    return f"{who} is saved, but does not decode: {where}: record it again, then recctl verify"


TASK_SHOWN = 48


def _short(text: str) -> str:
    return text if len(text) <= TASK_SHOWN else f"{text[: TASK_SHOWN - 1]}…"


def _verdict(told: Told) -> str:
    return told["verdict"]["level"] if told.get("verdict") else ""


def motion(told: Told) -> list[str]:
    """State of each pair of arms after a command."""
    return [_motion_line(pair, said) for pair, said in told.get("motion", {}).items()]


def _motion_line(pair: str, said: Told) -> str:
    line = f"{pair}: {said.get('state', 'unknown')}"
    if cause := said.get("cause"):
        line += f" ({cause})"
    if joints := said.get("waiting_joints"):
        line += f", waiting: bring {', '.join(joints)} of the leader closer to the follower"
    return line


def status(told: Told) -> list[str]:
    """Everything an operator asks for at a glance."""
    state = told["state"]
    flags = "".join(f", {flag}" for flag, on in told.get("flags", {}).items() if on)
    lines = [
        f"{told['robot']}: {click.style(state, fg=STATE_COLOURS.get(state), bold=True)}{flags}"
    ]
    if told.get("fault"):
        lines.append(f"  fault: {told['fault']} (recctl reset, once it is mended)")
    lines += [f"  waiting for {reason}" for reason in told.get("waiting_why", ())]
    if take := told.get("episode"):
        lines.append(f"  recording {take['uid'][:8]}: {take['rows']} rows, task: {take['task']}")
        if take.get("closes_in_s") is not None:
            lines.append(
                f"  it closes in {duration(take['closes_in_s'])}: no episode may be longer"
            )
    if (plan := told.get("plan")) and plan.get("active"):
        lines.append(f"  plan: {plan_line(plan)}")
    lines += [f"  {line}" for line in _dataset(told)]
    lines += [f"  {click.style(undecodable(e), fg='red')}" for e in told.get("undecodable", ())]
    lines += [f"  {line}" for line in _arms(told.get("arms", {}))]
    lines += [f"  {line}" for line in _policies(told.get("policy"))]
    lines += [f"  {line}" for line in _cameras(told.get("cameras", {}))]
    lines += [f"  {line}" for line in _troubles(told.get("processes", {}))]
    lines += [f"  {line}" for line in _refused(told.get("processes", {}))]
    if (answer := told.get("serial_delivery", "")) not in ("", "granted"):
        lines.append(f"  real-time, delivery of serial input: {answer}")
    return lines


def _dataset(told: Told) -> Iterable[str]:
    dataset, disk = told.get("dataset", {}), told.get("disk", {})
    if dataset:
        totals = [f"{dataset[part]} {part}" for part in ("episodes", "rows") if part in dataset]
        yield f"dataset {dataset['root']}: {', '.join(totals) or 'not read yet'}"
    if disk:
        left = disk.get("seconds_left")
        room = f", room for {long_time(left)} of recording" if left is not None else ""
        yield f"disk: {size(disk['free_bytes'])} free{room}"


def _arms(arms: Told) -> list[str]:
    return [
        f"arms {_motion_line(pair, arm.get('motion', {}))}, "
        + ", ".join(
            f"{side} {arm[side]['hz'] or 0:.0f} Hz{_losses(arm[side], ARM_LOSSES)}"
            for side in ("leader", "follower")
            if side in arm
        )
        for pair, arm in arms.items()
    ]


def _policies(told: Told | None) -> Iterable[str]:
    """Who holds which pair of arms, and what an adapter is at; nothing without policies."""
    if told is None:
        return
    held = [f"{lease['holder']} ({lease['kind']}) holds {pair}"
            for pair, lease in told["leases"].items() if lease["kind"] != "nobody"]  # fmt: skip
    yield f"policy: {', '.join(held) or 'nobody holds a lease'}"
    if adapter := told.get("adapter"):
        reason = f": {adapter['reason']}" if adapter.get("reason") else ""
        yield f"adapter {adapter['type']}: {adapter['state'].replace('_', ' ')}{reason}"


def _cameras(cameras: Told) -> list[str]:
    return [
        f"camera {name}: {camera['state']}, {camera['fps'] or 0:.1f} fps"
        f"{_losses(camera, CAMERA_LOSSES)}"
        for name, camera in cameras.items()
    ]


def _losses(counters: Told, names: Iterable[str]) -> str:
    told = [f"{counters[name]} {name.replace('_', ' ')}" for name in names if counters.get(name)]
    return f" ({', '.join(told)})" if told else ""


def _refused(processes: Told) -> Iterable[str]:
    """Real-time settings that this user may not have, each once, with what would grant them."""
    refused: dict[str, list[str]] = {}
    for name, process in processes.items():
        for setting, answer in process.get("realtime", {}).items():
            if answer != "granted":
                refused.setdefault(f"{setting}: {answer}", []).append(name)
    for told, names in refused.items():
        yield f"real-time, {', '.join(names)}: {told}"


def _troubles(processes: Told) -> Iterable[str]:
    for name, process in processes.items():
        error, restarts = process.get("error") or {}, process.get("restarts")
        if not restarts and not error:
            continue
        again = f", {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
        yield f"{name}: {process['phase']}{again}: {error.get('message') or 'ended'}"
        if error.get("mend"):
            yield f"  {error['mend']}"


def plan_line(plan: Told, now: Told | None = None) -> str:
    """One line: where the plan is, time left, losses, slowest rates, room on the disk, rows.

    now: the daemon's status (or its brief part); without it only the plan itself is told.
    """
    return "  ".join(plan_parts(plan, now))


def plan_parts(plan: Told, now: Told | None = None) -> list[str]:
    """The parts of `plan_line`, what must be seen first: a narrow terminal drops the last ones."""
    parts = [f"{plan['phase']} {plan['episode']}/{plan['episodes']}"]
    if plan.get("held"):
        parts.append(click.style("HELD", fg="yellow"))
    if plan.get("phase_s"):
        parts.append(f"{duration(plan['left_s'])} left")
    now = now or {}
    if (lost := now.get("frames_lost")) is not None:
        parts.append(click.style(f"{lost} lost", fg="red" if lost else None))
    parts += _slowest(now)
    if disk := now.get("disk"):
        left = disk.get("seconds_left")
        parts.append(f"disk {long_time(left) if left is not None else size(disk['free_bytes'])}")
    if take := now.get("episode"):
        parts.append(f"{take['rows']} rows")
    if plan.get("rerecorded"):
        parts.append(f"{plan['rerecorded']} re-recorded")
    return parts


def fault(told: Told) -> str:
    """One event of the topic `fault` as a line: what happened, to whom, why, and the mend."""
    what = str(told["event"]).replace("_", " ").replace(".", " ")
    whom = told.get("process") or told.get("uid", "")[:8]
    why = told.get("reason") or told.get("message") or told.get("error")
    line = f"{what}: {whom}" if whom else what
    line += f": {why}" if why else ""
    return f"{line} ({mend})" if (mend := told.get("mend")) else line


SLOW = 0.95
"""Share of its nominal rate below which a device is named."""


def _slowest(now: Told) -> list[str]:
    """The rate of the slowest camera and of the slowest bus; named when it is too slow."""
    cameras = [(name, c["fps"], c["nominal_fps"]) for name, c in now.get("cameras", {}).items()]
    buses = [
        (f"{pair}.{side}", arm[side]["hz"], arm[side]["nominal_hz"])
        for pair, arm in now.get("arms", {}).items()
        for side in ("leader", "follower") if side in arm
    ]  # fmt: skip
    told = []
    for unit, digits, devices in (("fps", 1, cameras), ("Hz", 0, buses)):
        shares = [((rate or 0) / nominal, name, rate or 0) for name, rate, nominal in devices]
        if shares:
            share, name, rate = min(shares)
            text = f"{rate:.{digits}f} {unit}"
            told.append(text if share >= SLOW else click.style(f"{name} {text}", fg="red"))
    return told


def frames_lost(now: Told) -> int:
    """Frames lost or damaged on the way from all cameras into the videos, since the start."""
    return sum(
        camera.get("device_lost", 0) + camera.get("corrupt", 0)
        + camera.get("encoder", {}).get("ring_lost", 0)
        for camera in now["cameras"].values()
    )  # fmt: skip


def plan_end(plan: Told) -> list[str]:
    """The plan is over: how it ended."""
    again = f", {plan['rerecorded']} re-recorded" if plan.get("rerecorded") else ""
    return [f"{plan['done']} of {plan['episodes']} episodes{again}: {plan['outcome']}"]


def rings(told: Told) -> list[str]:
    """Rings and their readers."""
    ring_rows, reader_rows = [], []
    for ring in told["rings"]:
        ring_rows.append((ring["name"], ring["slots"], size(ring["nbytes"]), ring["produced"],
                          ring["dropped"], ring["epoch"],
                          _fixed(ring.get("age_ms"), 0)))  # fmt: skip
        for reader in ring.get("readers", []):
            reader_rows.append(
                (ring["name"], reader.get("process") or f"pid {reader['pid']}", reader["policy"],
                 reader["lag"], _fill(reader["fill"]), reader["kept"], reader["lost"],
                 reader["torn"])
            )  # fmt: skip
    head = ("ring", "slots", "size", "produced", "device lost", "epoch", "newest ms")
    lines = table(head, ring_rows)
    if not reader_rows:
        return lines
    reader_head = ("ring", "reader", "policy", "lag", "fill", "kept", "lost", "torn")
    return [*lines, "", *table(reader_head, reader_rows)]


def _fill(share: float) -> str:
    """Part of a ring that a reader has yet to read; one that looks in at times is far behind."""
    return ">100%" if share > 1 else f"{100 * share:.0f}%"


def _formats(camera: Told) -> list[str]:
    """What a camera offers: `  /dev/video0  mjpeg  640x480 at 15 30`."""
    return [
        f"  {camera['path']}  {offer['fourcc'] or offer['pixelformat'] + ' (not taken)'}  "
        + ", ".join(f"{size['size']} at {size['fps']}" for size in offer["sizes"])
        for offer in camera["formats"]
    ]


def devices(told: Told) -> list[str]:
    """Cameras and serial ports of this computer."""
    lines = []
    if told["cameras"]:
        rows = [
            (c["path"], c["card"] or c["problem"], c["device"],
             ", ".join(f"{user['name']} (pid {user['pid']})" for user in c["users"]))
            for c in told["cameras"]
        ]  # fmt: skip
        lines += table(("camera", "name", "stable name", "used by"), rows)
        lines += [line for camera in told["cameras"] for line in _formats(camera)]
    else:
        lines.append("no cameras found (/dev/video*)")
    lines.append("")
    ports = [
        (port["device"], port["product"], port["stable"] or "", port["usb_serial"],
         ", ".join(f"{user['command']} ({user['pid']})" for user in port["users"]))
        for port in told["serial_ports"]
    ]  # fmt: skip
    if ports:
        head = ("serial port", "adapter", "stable name", "serial number", "used by")
        lines += table(head, ports)
    else:
        lines.append("no serial ports found (/dev/ttyACM*, /dev/ttyUSB*)")
    return [*lines, *(line for scan in told["scans"] for line in _servos(scan))]


def _servos(scan: Told) -> list[str]:
    rows = [
        (str(s["servo_id"]), s["model_name"], s["firmware"], str(s["baud"])) for s in scan["servos"]
    ]
    lines = ["", f"servos on {scan['path']}", *table(("id", "model", "firmware", "baud"), rows)]
    if scan["garbled"]:
        lines.append("some answers collided: at least two servos share an id")
    return lines
