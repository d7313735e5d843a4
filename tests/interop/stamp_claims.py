"""What the side files claim of every picture, and whether the picture's own stamp agrees."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.ipc as ipc

from recd.config.streams import TICK_DTYPE
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.sim.stamp import Stamp
from recd.perf.truth import Wrong, compare
from recd.shm.clock import NS_PER_MS, NS_PER_S

FPS = 30
PREFIX = "observation.images."


@dataclass(frozen=True)
class Compared:
    """One camera of one episode. compared: pictures with a stamp; admitted: pictures without one,
    whose rows say so; late_ms: claimed less burned-in capture time, per row."""

    compared: int
    admitted: int
    wrong: list[str]
    late_ms: list[float]


def episode_claims(root: Path) -> dict[int, dict[str, np.ndarray]]:
    """TICK records by episode number and camera key."""
    attached = verify_dataset(root, decode=False).attached
    claims: dict[int, dict[str, np.ndarray]] = {}
    for uid, episode in attached.items():
        folder = root / ".recd" / "episodes" / uid
        claims[episode] = {
            PREFIX + path.name.split(".")[1]: _ticks(path)
            for path in sorted(folder.glob("ticks.*.arrows"))
        }
    return claims


def _ticks(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        table = ipc.open_stream(file).read_all()
    ticks = np.zeros(table.num_rows, TICK_DTYPE)
    for name in TICK_DTYPE.names or ():
        ticks[name] = table[name].to_numpy()
    return ticks


def compare_episode(
    stamps: Sequence[list[int] | None], ticks: np.ndarray, *, camera: int
) -> Compared:
    """Every picture against its row's claim: camera, frame number, capture time, repeats, gaps.

    A camera's clock is learned in its first seconds, and the claim is the arrival until then: such
    a claim is right when the stamp is not later than it.
    """
    shown = [stamp and Stamp(*stamp) for stamp in stamps]
    truth = compare(shown, ticks, camera=camera, period_ns=NS_PER_S // FPS)
    by_arrival = ticks["capture_ns"] == ticks["arrival_ns"]
    late_ns = ticks["capture_ns"] - truth.captured_ns
    wrong = []
    for finding in truth.findings:
        row = finding.row
        learning = row < len(ticks) and by_arrival[row] and late_ns[row] >= 0
        if not (finding.wrong is Wrong.TIME and learning):
            wrong.append(f"row {row}: {finding.wrong} ({finding.shown})")
    known = truth.readable & ~by_arrival
    readable = int(truth.readable.sum())
    late_ms = (late_ns[known] / NS_PER_MS).tolist()
    return Compared(readable, len(ticks) - readable, wrong, late_ms)
