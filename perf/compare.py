"""Two results of the same scenario against each other, with a band of noise. Pure but for loading.

The band comes from A/A results (same commit, same machine, measured again), else from the spread of
the runs inside A and B; a change inside the band is no change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.console import Console

from recd.config.errors import RecdError
from recd.perf.figures import at_path
from recd.perf.report import table

HIGHER_IS_BETTER = ("percent_kept", "rows.stored", ".hz")
"""Ends of figures of which more is better; of all others less is."""

LEAST_BAND = 0.02
"""Differences of 2 % are never told as changes, however calm the A/A runs were."""

_SAME_SCENARIO = ("cameras", "width", "height", "fps", "camera_fps", "rate_hz", "vcodec", "preset",
                  "crf", "g", "threads", "source", "load", "seconds", "arm_pairs",
                  "latencies_ms", "horizon")  # fmt: skip

_DEFAULTS = {"load": "none", "arm_pairs": 1}


class Verdict(StrEnum):
    """What a change is worth."""

    SAME = "same"
    BETTER = "better"
    WORSE = "WORSE"


@dataclass(frozen=True, slots=True)
class Change:
    """One figure. a, b: medians; band: relative; change: of b against a, relative, signed."""

    figure: str
    unit: str
    a: float
    b: float
    change: float
    band: float
    verdict: Verdict


def require_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """RecdError when two results are of different kind or scenario; notes on what else differs."""
    if a["kind"] != b["kind"]:
        raise RecdError(f"kind: expected the same in both results, found {a['kind']!r} and "
                        f"{b['kind']!r}", mend="Compare results of the same command.")  # fmt: skip
    for key in _SAME_SCENARIO:
        one, other = (r["scenario"].get(key, _DEFAULTS.get(key)) for r in (a, b))
        if one != other:
            raise RecdError(
                f"scenario.{key}: expected the same in both results, found {one!r} and {other!r}",
                mend="Compare results of the same scenario.",
            )
    notes = []
    for key in ("cpu", "cores", "kernel", "python", "libraries", "filesystem"):
        one, other = (at_path(r, f"machine.{key}") for r in (a, b))
        if one != other:
            notes.append(f"machine.{key} differs: {_short(one)} and {_short(other)}")
    for name, result in (("A", a), ("B", b)):
        if not result["silence"]["quiet"]:
            notes.append(f"{name} was measured on a machine that was not quiet")
    return notes


def changes(
    a: Mapping[str, Any], b: Mapping[str, Any], noise: Sequence[Mapping[str, Any]] = ()
) -> list[Change]:
    """Every figure that both summaries have. noise: A/A results, at least two; or none."""
    found = []
    for figure, one in a["summary"].items():
        other = b["summary"].get(figure)
        if other is None:
            continue
        band = max(LEAST_BAND, band_of(figure, a, b, noise))
        found.append(_change(figure, one, other["median"], band))
    return found


def band_of(
    figure: str, a: Mapping[str, Any], b: Mapping[str, Any], noise: Sequence[Mapping[str, Any]]
) -> float:
    """Relative width of what nothing but chance did to `figure`."""
    if len(noise) >= 2:
        medians = [r["summary"][figure]["median"] for r in noise if figure in r["summary"]]
        return relative(max(medians) - min(medians), sum(medians) / len(medians)) if medians else 0
    spreads = (r["summary"][figure] for r in (a, b))
    return max(relative(one["most"] - one["least"], one["median"]) for one in spreads)


def relative(difference: float, of: float) -> float:
    """|difference / of|; infinite where there is something against nothing."""
    if difference == 0:
        return 0.0
    return abs(difference / of) if of else float("inf")


def _change(figure: str, one: Mapping[str, Any], median: float, band: float) -> Change:
    before = float(one["median"])
    size = relative(median - before, before)
    rising = median > before
    verdict = Verdict.SAME
    if size > band:
        good = rising == figure.endswith(HIGHER_IS_BETTER)
        verdict = Verdict.BETTER if good else Verdict.WORSE
    signed = size if rising else -size
    return Change(figure, str(one["unit"]), before, float(median), signed, band, verdict)


def worse(found: Iterable[Change]) -> list[Change]:
    """Those that got worse beyond the band."""
    return [change for change in found if change.verdict is Verdict.WORSE]


def show(
    found: Sequence[Change], notes: Iterable[str], console: Console, *, everything: bool,
    banded: bool,
) -> None:  # fmt: skip
    """Print what changed, or all; banded: the band is of A/A results."""
    for note in notes:
        console.print(f"[bold red]! {note}[/]")
    shown = [one for one in found if everything or one.verdict is not Verdict.SAME]
    how = "A/A results" if banded else "the spread of the runs (no A/A results given)"
    made = table(f"B against A; band of noise from {how}", "figure", "A", "B", "change", "band",
                 "")  # fmt: skip
    for one in shown:
        colour = {Verdict.WORSE: "red", Verdict.BETTER: "green"}.get(one.verdict, "default")
        made.add_row(
            one.figure, f"{one.a:.4g} {one.unit}", f"{one.b:.4g} {one.unit}",
            f"{100 * one.change:+.1f} %", f"{100 * one.band:.1f} %",
            f"[{colour}]{one.verdict}[/]",
        )  # fmt: skip
    console.print(made)
    same = sum(one.verdict is Verdict.SAME for one in found)
    console.print(f"{len(found)} figures: {same} the same, {len(worse(found))} worse")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
