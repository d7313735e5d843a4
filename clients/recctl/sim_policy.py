"""recctl sim policy: a scripted policy server at the terminal, with faults at its prompt."""

import select
import sys
from collections.abc import Callable

import click

from recd.clients.adapters.gr00t_codec import Form
from recd.clients.adapters.profile import load_profile
from recd.clients.policybench.faults import FAULTS, parse_fault
from recd.clients.policybench.script import Script
from recd.clients.policybench.server import Server
from recd.clients.recctl.output import Output
from recd.config.errors import RecdError
from recd.shm.clock import NS_PER_S, now_ns

DEFAULT_PORTS = {"openpi": 8000, "gr00t": 5555, "lerobot": 8080}
WIRES = ("openpi", "gr00t", "lerobot", "zmq")
FORMS: dict[str, Form] = {"B": "B", "C": "C", "D": "D"}
TURN_S = 0.2
TOLD_NS = 5 * NS_PER_S


def new_server(
    wire: str, script: Script, *, profile: str = "", host: str = "127.0.0.1", port: int = 0,
    form: str = "C", instance: str | None = None,
) -> Server:  # fmt: skip
    """A running server of a protocol. RecdError for a profile or port that cannot be used."""
    try:
        match wire:
            case "zmq":
                from recd.clients.policybench.zmq_policy import ZmqPolicy

                return ZmqPolicy(script, instance=instance)
            case "openpi":
                from recd.clients.policybench.openpi_server import OpenpiServer

                known = load_profile(profile, wire=wire)
                return OpenpiServer(known, script, host=host, port=port)
            case "lerobot":
                from recd.clients.policybench.lerobot_server import LerobotServer

                known = load_profile(profile, wire=wire)
                return LerobotServer(known, script, host=host, port=port)
            case _:
                from recd.clients.policybench.gr00t_server import Gr00tServer

                known = load_profile(profile, wire=wire)
                return Gr00tServer(known, script, form=FORMS[form], host=host, port=port)
    except OSError as error:
        raise RecdError(f"port {port}: {error.strerror or error}",
                        mend="Take another one: --port N") from error  # fmt: skip


def watch(server: Server, *, say: Callable[[str], None], for_s: float | None = None) -> None:
    """Carry out what stands on standard input, and tell what is served, until it ends."""
    until_ns = None if for_s is None else now_ns() + int(for_s * NS_PER_S)
    told_at_ns, served, reading = now_ns() + TOLD_NS, 0, True
    while until_ns is None or now_ns() < until_ns:
        ready = select.select([sys.stdin] if reading else [], [], [], TURN_S)[0]
        if ready:
            line = sys.stdin.readline()
            reading = bool(line)
            _obey(server, line.strip(), say)
        if now_ns() >= told_at_ns:
            told_at_ns += TOLD_NS
            if server.served != served or server.trouble:
                say(f"{server.served} chunks" + (f"; {server.trouble}" if server.trouble else ""))
            served = server.served


def _obey(server: Server, line: str, say: Callable[[str], None]) -> None:
    if not line:
        return
    if line == "clear":
        server.faults.clear()
        say("no fault")
        return
    try:
        fault = parse_fault(line)
    except RecdError as error:
        say(error.message)
        return
    server.faults.set(fault)
    say(f"{fault.kind}: {FAULTS[fault.kind]}; {fault.count} times")


@click.command(name="policy", epilog="\b\nFaults:\n" + "\n".join(
    f"  {kind:10} {what}" for kind, what in FAULTS.items()
))  # fmt: skip
@click.option("--wire", type=click.Choice(WIRES), default="openpi",
              show_default=True, help="Which protocol.")  # fmt: skip
@click.option("--profile", default="", help="Name or file; else the protocol's own.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), help="Else the protocol's own.")
@click.option("--form", type=click.Choice(["B", "C", "D"]), default="C", show_default=True,
              help="GR00T: which form of its wire.")  # fmt: skip
@click.option("--horizon", type=click.IntRange(1, 256), default=30, show_default=True,
              help="Steps of a chunk.")  # fmt: skip
@click.option("--step", "step_s", type=click.FloatRange(0.001, 1.0), metavar="S",
              help="Time between steps; else the profile's, or 1/30.")  # fmt: skip
@click.option("--latency", "latency_ms", type=click.FloatRange(0, 60_000), default=50.0,
              show_default=True, metavar="MS", help="Time of an inference.")  # fmt: skip
@click.option("--jitter", "jitter_ms", type=click.FloatRange(0, 10_000), default=0.0,
              show_default=True, metavar="MS", help="Its standard deviation.")  # fmt: skip
@click.option("--amplitude", type=click.FloatRange(0, 90), default=5.0, show_default=True,
              help="How far the first joint swings, in dataset units.")  # fmt: skip
@click.option("--fault", metavar="FAULT", help="The first fault; more on standard input.")
@click.option("--for", "for_s", type=click.FloatRange(min=0.1), metavar="S",
              help="End by itself.")  # fmt: skip
@click.pass_obj
def policy(
    output: Output, wire: str, profile: str, host: str, port: int | None, form: str, horizon: int,
    step_s: float | None, latency_ms: float, jitter_ms: float, amplitude: float,
    fault: str | None, for_s: float | None,
) -> None:  # fmt: skip
    """A scripted policy server: the first joint swings, the others stand.

    \b
    While it runs, a line on standard input is a fault, or `clear`:
        stall s=3
        nan count=5
    """
    own = load_profile(profile, wire=wire).step_s if wire != "zmq" else None
    script = Script(horizon, step_s or own or 1 / 30, latency_ms, jitter_ms, amplitude)
    given = parse_fault(fault) if fault else None
    port = DEFAULT_PORTS.get(wire, 0) if port is None else port
    server = new_server(wire, script, profile=profile, host=host, port=port, form=form,
                        instance=output.instance)  # fmt: skip
    try:
        if given is not None:
            server.faults.set(given)
        click.echo(f"{wire} at {server.address}: {horizon} steps of {script.step_s:.3g} s")
        watch(server, say=click.echo, for_s=for_s)
    finally:
        server.close()
    output.show({"served": server.served, "faults": server.faults.happened},
                lambda told: f"{told['served']} chunks")  # fmt: skip
