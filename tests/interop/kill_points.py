"""What the real lerobot sees of a dataset whose commit, undo or pack was killed, before recovery.

    python kill_points.py --lerobot-python PATH

Run by recd's interpreter: kills a process at every fault point, then lets lerobot load the folder
and read every row and picture. It must see N or N+1 (undo: N-1 or N, pack: N) whole episodes.
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

from crash_child import CrashServer  # noqa: E402
from studio import Studio  # noqa: E402

from recd.daemon.dataset import commit, new_uid, pack, trash  # noqa: E402

LENGTHS = (5, 4)
NEXT = 6
CASES = (
    ("commit", commit.FAULT_POINTS, (2, 3)),
    ("undo", trash.FAULT_POINTS, (1, 2)),
    ("pack", pack.FAULT_POINTS, (2,)),
)


def record(folder: Path) -> tuple[Path, list[str]]:
    """Two episodes published, a third whole in staging."""
    studio = Studio(folder)
    store = studio.open()
    uids = [studio.record(store, length, tasks=(f"task {length}",)).uid for length in LENGTHS]
    staged = new_uid()
    studio.stage(store, NEXT, len(LENGTHS), staged)
    studio.close()
    return studio.root, [*uids, staged]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lerobot-python", type=Path, required=True)
    chosen = parser.parse_args()
    killed: dict[str, tuple[str, tuple[int, ...]]] = {}
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, uids = record(folder)
        server = CrashServer()
        for action, points, allowed in CASES:
            uid = uids[1] if action == "undo" else uids[-1]
            for point in points:
                copy = folder / "killed" / point
                shutil.copytree(root, copy)
                code = server(copy, action, uid, NEXT, fault=f"{point}:kill")
                bad += code != -9
                killed[str(copy)] = (point, allowed)
        server.close()
        script = str(HERE / "check_lerobot.py")
        command = [str(chosen.lerobot_python), script, "--counted", "--json", *killed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = json.loads(next(x for x in done.stdout.splitlines() if x.startswith("{")))
    for path, (point, allowed) in killed.items():
        seen = said[path]
        good = seen["good"] and seen["episodes"] in allowed
        bad += not good
        mark = "good" if good else "BAD "
        print(f"{mark} {point:28} lerobot sees {seen['episodes']} episodes {seen['error']}")
    print(f"{len(killed)} kill points, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
