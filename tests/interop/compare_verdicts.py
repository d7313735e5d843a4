"""Shows that recd's format checker and the real lerobot agree, dataset by dataset.

    python compare_verdicts.py --lerobot-python PATH [NAME...]

Run by recd's interpreter. Exit code 0 when every verdict is the same and as the table expects.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "dataset")]

from mutations import BASES, MUTATIONS, Mutation, record_base  # noqa: E402

from recd.daemon.dataset.verify import check_format  # noqa: E402


def build(folder: Path, chosen: list[Mutation]) -> dict[str, Path]:
    """One dataset folder per mutation."""
    bases = {}
    for base in BASES:
        if any(mutation.base == base for mutation in chosen):
            (folder / base).mkdir()
            bases[base] = record_base(folder / base, base)
    roots = {}
    for mutation in chosen:
        root = folder / "made" / mutation.name
        shutil.copytree(bases[mutation.base], root)
        mutation.change(root)
        roots[mutation.name] = root
    return roots


def ask_lerobot(
    python: Path, roots: dict[str, Path], variables: Mapping[str, str] | None = None
) -> dict[str, dict]:
    """The real library's verdicts by name, half of them from each of two processes."""
    folders = [str(root) for root in roots.values()]
    plain = {**(variables or os.environ), "OMP_NUM_THREADS": "1"}
    with ThreadPoolExecutor(2) as both:
        halves = both.map(partial(_said, python, plain), (folders[::2], folders[1::2]))
        said = {folder: verdict for half in halves for folder, verdict in half.items()}
    return {name: said[str(root)] for name, root in roots.items()}


def _said(python: Path, variables: Mapping[str, str], folders: list[str]) -> dict[str, dict]:
    if not folders:
        return {}
    command = [str(python), str(HERE / "check_lerobot.py"), "--content", "--edit", "--json"]
    done = subprocess.run(
        [*command, *folders], capture_output=True, text=True, check=False, env=variables
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"lerobot's check did not run:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


@dataclass(frozen=True)
class Judged:
    """One dataset and both verdicts. rules: what recd's checker found broken; real: lerobot's."""

    mutation: Mutation
    ours_good: bool
    rules: frozenset[str]
    real: dict

    @property
    def same(self) -> bool:
        """Both say the same, and recd names the rule that was broken."""
        expected = self.mutation.expected
        named = expected in self.rules if expected else not self.rules
        return named and self.ours_good == self.real["good"]

    def __str__(self) -> str:
        mark = "same" if self.same else "DIFFERENT"
        ours, theirs = ("good" if good else "bad" for good in (self.ours_good, self.real["good"]))
        rules = ",".join(sorted(self.rules))[:44]
        return (
            f"{mark:9} {self.mutation.name:30} recd {ours:4} {rules:44} "
            f"lerobot {theirs} {self.real['error'][:90]}"
        )


def judge(roots: dict[str, Path], theirs: dict[str, dict], wanted: list[Mutation]) -> list[Judged]:
    """Both verdicts on every dataset."""
    judged = []
    for mutation in wanted:
        report = check_format(roots[mutation.name], decode=True)
        rules = frozenset(finding.rule.name for finding in report.findings if finding.bad)
        judged.append(Judged(mutation, report.good, rules, theirs[mutation.name]))
    return judged


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--lerobot-python", type=Path, required=True)
    chosen = parser.parse_args()
    wanted = [m for m in MUTATIONS if not chosen.names or m.name in chosen.names]
    with tempfile.TemporaryDirectory() as folder:
        roots = build(Path(folder), wanted)
        judged = judge(roots, ask_lerobot(chosen.lerobot_python, roots), wanted)
    different = sum(not one.same for one in judged)
    print(*judged, f"{len(wanted)} datasets, {different} different", sep="\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
