import subprocess
import sys

HEAVY = ("cv2", "av", "pyarrow", "numba", "llvmlite", "pydantic", "zmq")


def test_an_arm_process_loads_nothing_heavy() -> None:
    code = (
        "import sys; import recd.daemon.worker, recd.daemon.arms.worker; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
