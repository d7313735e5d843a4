"""Shows that recd's format checker and the real lerobot agree, dataset by dataset.

    python compare_verdicts.py --lerobot-python PATH [NAME...]

Run by recd's interpreter. Exit code 0 when every verdict is the same and as the table expects.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
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


def ask_lerobot(python: Path, roots: dict[str, Path]) -> dict[str, dict]:
    """The real library's verdicts by name."""
    script = HERE / "check_lerobot.py"
    command = [str(python), str(script), "--content", "--edit", "--json", *map(str, roots.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"lerobot's check did not run:\n{done.stderr[-2000:]}")
    said = json.loads(lines[-1])
    return {name: said[str(root)] for name, root in roots.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--lerobot-python", type=Path, required=True)
    chosen = parser.parse_args()
    wanted = [m for m in MUTATIONS if not chosen.names or m.name in chosen.names]
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        roots = build(Path(folder), wanted)
        theirs = ask_lerobot(chosen.lerobot_python, roots)
        for mutation in wanted:
            report = check_format(roots[mutation.name], decode=True)
            real = theirs[mutation.name]
            rules = {finding.rule.name for finding in report.findings if finding.bad}
            same = report.good == real["good"]
            named = mutation.expected in rules if mutation.expected else not rules
            different += not (same and named)
            mark = "same" if same and named else "DIFFERENT"
            ours = "good" if report.good else "bad"
            print(
                f"{mark:9} {mutation.name:30} recd {ours:4} {','.join(sorted(rules))[:44]:44} "
                f"lerobot {'good' if real['good'] else 'bad'} {real['error'][:90]}"
            )
    print(f"{len(wanted)} datasets, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
