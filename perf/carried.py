"""Does this machine have the encoder that a scenario names? Asked before anything is started.

Only of hardware encoders: those of software come with the libraries.
"""

from recd.config.errors import RecdError
from recd.daemon.encode.probe import NO_CODEC, probe
from recd.perf.scenario import Scenario


def require_encoder(scenario: Scenario) -> None:
    """RecdError with what the probe said when the machine does not have it, or cannot encode so
    many cameras with it. Takes about a second; nothing for an encoder in software."""
    if not scenario.encoder.row.hardware:
        return
    sizes = [(scenario.width, scenario.height)] * scenario.cameras
    try:
        probe(sizes, fps=scenario.fps, wanted=scenario.encoder)
    except RecdError as error:
        raise RecdError(
            f"codec {scenario.vcodec}: expected a machine that has it, the probe found: "
            f"{error.message.removeprefix(NO_CODEC)}",
            mend="Leave it out, or measure on a machine with that hardware.", code="codec",
        ) from error  # fmt: skip
