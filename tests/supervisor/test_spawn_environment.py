import os
import subprocess
import sys

from recd.daemon.supervisor.forks import ONE_THREAD

COUNT = "import os, numpy; print(len(os.listdir('/proc/self/task')))"


def test_numpy_starts_no_thread_in_a_worker():
    threads = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=True,
    )
    assert threads.stdout.strip() == "1"
